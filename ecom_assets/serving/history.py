"""What Dagster recorded of a home: what each asset check found last."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Iterable

STATES = ("failed", "warns", "passed")
"""How a check can have ended, the worst first."""


def describe(evaluation: dg.AssetCheckEvaluation) -> dict[str, str]:
    """A check's evaluation in plain words: ``asset, check, state, found``."""
    state = "passed" if evaluation.passed else "warns" if evaluation.severity.value == "WARN" else "failed"
    found = "; ".join(f"{name}: {value.value}" for name, value in evaluation.metadata.items() if name != "samples")
    return {
        "asset": evaluation.asset_key.to_user_string(),
        "check": evaluation.check_name,
        "state": state,
        "found": found,
    }


def checks(instance: dg.DagsterInstance, runs: Iterable[str]) -> list[dict[str, str]]:
    """What each check found last in some runs.

    Args:
        instance: Which Dagster.
        runs: Ids of runs, the latest first.

    Returns:
        As ``describe``, and ``at`` in ISO 8601, UTC; the worst first, then by asset.
    """
    last: dict[tuple[str, str], dict[str, str]] = {}
    for run in runs:
        of_run = {}
        for event in instance.all_logs(run, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
            if event.dagster_event:
                check = describe(event.dagster_event.asset_check_evaluation_data)
                at = datetime.fromtimestamp(event.timestamp, UTC).isoformat(timespec="seconds")
                of_run[check["asset"], check["check"]] = check | {"at": at}
        last = of_run | last
    return sorted(last.values(), key=lambda c: (STATES.index(c["state"]), c["asset"], c["check"]))
