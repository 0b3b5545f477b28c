"""What must be true of a home after anything that ran by itself."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Self

from deltalake import DeltaTable

from ecom_assets.core.context import Context
from ecom_assets.core.location import exists
from ecom_assets.core.settings import ROOT
from ecom_assets.defs import state
from ecom_assets.lake import merge, streamed
from ecom_assets.paths import TOPIC, engine, open_home
from ecom_assets.reconcile import report
from ecom_assets.serving import publication
from ecom_assets_tests.automation.dagster import Dagster
from ecom_assets_tests.runs import settings_of

JOBS = ("ingest", "stream", "publish", "maintain", "nightly")


class Home:
    """A home under test.

    Args:
        env: Its environment.
        dagster: Its Dagster.
    """

    def __init__(self, env: Mapping[str, str], dagster: Dagster) -> None:
        self.env, self.dagster = dict(env), dagster
        self.at: Context = open_home(settings_of(self.env))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.at.close()

    def ingest(self) -> None:
        """Load the source into Kafka, as the README does."""
        assert self.dagster.wait_for(self.dagster.launch("ingest")) == "SUCCESS"

    def topics(self) -> list[str]:
        """The keys of the topics' assets."""
        return [f"topic/{name}" for name in self.at.dataset.tables]

    def is_published(self) -> bool:
        """Whether everything that is in the topics is streamed and published."""
        if not all(not p.streaming and not p.unread for p in state.progress(self.at).values()):
            return False
        return publication.is_current(self.at.settings, self.at.dataset, self.at.books)

    def published_since(self, moment: datetime) -> bool:
        """Whether something was published after a moment."""
        last = publication.last(self.at.books)
        return last is not None and datetime.fromisoformat(last.at) > moment

    def settle(self) -> None:
        """Wait until all is published and nothing runs, and see that it stays so without a further run."""
        self.dagster.settle(self.is_published)
        runs = len(self.dagster.runs())
        time.sleep(12)
        assert len(self.dagster.runs()) == runs, "a run was started though there was nothing to do"
        assert self.is_published()

    def identity(self) -> dict[str, Any]:
        """What changes when a layer is deleted and built again."""
        found: dict[str, Any] = {}
        for name, table in self.at.dataset.tables.items():
            paths = {"streamed": streamed.folder, "merged": merge.folder}
            for layer, folder in paths.items():
                path = folder(table, self.at.settings)
                found[f"{layer}/{name}"] = str(DeltaTable(str(path)).metadata().id) if exists(path) else None
            offsets = TOPIC.offsets(self.at, [table]).get(name)
            found[f"topic/{name}"] = offsets.topic_id if offsets else None
        return found

    def check(self, before: Mapping[str, Any]) -> None:
        """All layers reconcile, none was deleted, and pages show the latest versions."""
        verdicts = dict(report.reconcile(engine(self.at, "stream"), self.at.dataset.tables.values()))
        wrong = {name: verdict.mismatches for name, verdict in verdicts.items() if not verdict.ok}
        assert not wrong, wrong
        now = self.identity()
        assert {k: v for k, v in before.items() if v is not None and now[k] != v} == {}

    def counts(self) -> Counter[tuple[str, str]]:
        """Runs by job and status."""
        return Counter((run.job, run.status) for run in self.dagster.runs())


def now() -> datetime:
    """The time to the second, as publications have it."""
    return datetime.now(UTC).replace(microsecond=0)


def simulate(home: Home, rows: int, *options: str) -> None:
    """Send about so many rows, as `ecom simulate` does."""
    command = [sys.executable, "-m", "ecom_assets.cli", "simulate", "--rows", str(rows), "--rate", "5000", *options]
    subprocess.run(command, env=home.env | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
