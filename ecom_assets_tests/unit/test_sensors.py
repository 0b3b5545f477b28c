"""When sensors start a run, and when they say why not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from ecom_assets.core.books import Build
from ecom_assets.core.layer import Offsets
from ecom_assets.core.settings import load
from ecom_assets.definitions import defs
from ecom_assets.defs import sensors, state
from ecom_assets.defs.names import Names
from ecom_assets.defs.state import Progress
from ecom_assets.paths import engine, open_home
from ecom_assets_tests.tables import PRODUCT, TABLES

NAMES = Names()
KEYS = [dg.AssetKey(["streamed", "product"])]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, attempt: int = 1) -> None:
    """A run for the goal that has come to an end, or not yet."""
    tags = {sensors.GOAL: sensors.digest("g"), "ecom/attempt": str(attempt)}
    created = instance.create_run_for_job(_job("stream"), tags=tags)
    instance.report_run_failed(created) if status == dg.DagsterRunStatus.FAILURE else None
    if status == dg.DagsterRunStatus.SUCCESS:
        instance.report_dagster_event(
            dg.DagsterEvent(event_type_value="PIPELINE_SUCCESS", job_name="stream", message=""), created.run_id
        )


def _job(name: str) -> dg.JobDefinition:
    @dg.op
    def nothing() -> None: ...

    @dg.job(name=name)
    def job() -> None:
        nothing()

    return job


def gate(instance: dg.DagsterInstance) -> dg.RunRequest:
    return sensors.gate(instance, "stream", "g", KEYS, {"ecom/offsets": "{}"})


def test_a_new_goal_starts_a_run_that_says_what_for(instance: dg.DagsterInstance) -> None:
    """If this fails, records wait for somebody to click."""
    requested = gate(instance)
    assert requested.run_key == "g, attempt 1"
    assert requested.asset_selection == KEYS
    assert requested.tags["ecom/attempt"] == "1"


def test_a_goal_is_reached_only_by_a_run_that_succeeded(instance: dg.DagsterInstance) -> None:
    """If this fails, a failed run is taken for done, and rows never arrive."""
    run(instance, dg.DagsterRunStatus.SUCCESS)
    with pytest.raises(sensors.NotNowError, match="has succeeded"):
        gate(instance)


def test_a_run_under_way_is_waited_for(instance: dg.DagsterInstance) -> None:
    """If this fails, two runs do the same work at once."""
    run(instance, dg.DagsterRunStatus.STARTED)
    with pytest.raises(sensors.NotNowError, match="under way"):
        gate(instance)
    with pytest.raises(sensors.NotNowError, match="under way"):
        sensors.idle(instance, NAMES)


def test_failed_runs_are_tried_again_later_and_later_and_never_given_up(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, a broken server is asked without a pause, or a failure that was fixed waits for a click."""
    now = time.time()
    for attempt in range(1, 8):
        run(instance, dg.DagsterRunStatus.FAILURE, attempt)
        with pytest.raises(sensors.NotNowError, match="the next attempt is in"):
            gate(instance)
        pause = min(sensors.BACKOFF * 2 ** (attempt - 1), sensors.LONGEST_BACKOFF)
        monkeypatch.setattr(time, "time", lambda at=now + pause - 5: at)
        with pytest.raises(sensors.NotNowError, match="the next attempt is in"):
            gate(instance)
        monkeypatch.setattr(time, "time", lambda at=now + pause + 5: at)
        requested = gate(instance)
        assert requested.run_key == f"g, attempt {attempt + 1}"
        monkeypatch.undo()


def test_nothing_is_built_on_what_a_check_has_rejected(instance: dg.DagsterInstance) -> None:
    """If this fails, a sensor publishes rows seconds after a blocking check of another run has rejected them."""
    graph, key = defs().resolve_asset_graph(), NAMES.asset_key("streamed", PRODUCT)

    def evaluated(*, passed: bool, severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR) -> str:
        result = dg.AssetCheckEvaluation(key, "parity", passed, {}, severity=severity)
        instance.report_runless_asset_event(result)
        return sensors.forbidden(instance, graph, NAMES, ["topic", "streamed"], [PRODUCT])

    assert sensors.forbidden(instance, graph, NAMES, ["topic", "streamed"], [PRODUCT]) == ""
    assert evaluated(passed=True) == ""
    assert "parity of streamed/product failed" in evaluated(passed=False)
    assert sensors.forbidden(instance, graph, NAMES, ["topic"], [PRODUCT]) == ""
    assert evaluated(passed=False, severity=dg.AssetCheckSeverity.WARN) == ""
    assert evaluated(passed=True) == ""


@pytest.mark.parametrize(
    ("sensor", "layer", "progress"),
    [
        (sensors._ingestion, "raw", ()),
        (sensors._stream, "topic", ({0: 9}, 8, 8, 0, 0, {}, 0, "", "")),
        (sensors._publication, "topic", ({0: 9}, 8, 8, 0, 0, {0: 20}, 8, "v", "")),
        (sensors._publication, "streamed", ({0: 9}, 8, 8, 0, 0, {0: 20}, 8, "v", "")),
    ],
    ids=["ingest", "stream", "publish after topic", "publish after streamed"],
)
def test_each_sensor_asks_for_the_last_checks(
    sensor: Callable[..., dg.RunRequest],
    layer: str,
    progress: tuple[Any, ...],
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If this fails, a sensor builds on what a blocking check of another run has rejected."""
    monkeypatch.setattr(state, "progress", lambda _: {"product": Progress("product", OFFSETS, *progress)})
    monkeypatch.setattr(state, "is_live", lambda *_: False)
    with open_home(load(home=tmp_path)) as at:
        stream = engine(at, "stream")
        monkeypatch.setattr(stream, "due", lambda name, _: "it has not been built" if name == "expanded" else "")
        for each in ("fingerprint", "exists"):
            monkeypatch.setattr(type(stream.layer("expanded")), each, lambda *_: "state")
        for name in TABLES:
            at.books.record_build(Build("raw", name, "f"))
        home = SimpleNamespace(at=at, engine=lambda _: stream)
        context = dg.build_sensor_context(instance, definitions=defs())
        key = NAMES.asset_key(layer, PRODUCT)
        instance.report_runless_asset_event(dg.AssetCheckEvaluation(key, "parity", True, {}))
        assert sensor(context, home, NAMES).asset_selection
        instance.report_runless_asset_event(dg.AssetCheckEvaluation(key, "parity", False, {}))
        with pytest.raises(sensors.NotNowError, match=f"parity of {layer}/product failed: nothing is built on it"):
            sensor(context, home, NAMES)


OFFSETS = Offsets("id", {0: 0}, {0: 20}, 1.0)


@pytest.mark.parametrize(
    ("progress", "ingesting", "streaming"),
    [
        (Progress("t", None, None, None, 0, 0, 0, {}, 0, "", ""), "nothing has been ingested yet", "nothing has been"),
        (Progress("t", OFFSETS, {0: 9}, 8, 5, 0, 0, {}, 0, "", ""), "5 of 8 rows are in the topic", "5 of 8 rows"),
        (Progress("t", OFFSETS, {0: 9}, 8, 8, 0, 0, {0: 5}, 5, "v", ""), "", "4 ingested offsets are not streamed yet"),
        (Progress("t", OFFSETS, {0: 9}, 8, 8, 1, 1, {0: 12}, 10, "v", ""), "", ""),
    ],
)
def test_the_reason_for_waiting_is_named(progress: Progress, ingesting: str, streaming: str) -> None:
    """If this fails, a table is published half, or one that gets live records never is."""
    assert ingesting in progress.ingesting
    assert bool(ingesting) == bool(progress.ingesting)
    assert streaming in progress.streaming
    assert bool(streaming) == bool(progress.streaming)
