"""When sensors start a run, and when they say why not."""

from __future__ import annotations

import time
from collections.abc import Iterator

import dagster as dg
import pytest

from ecom_assets.defs import sensors
from ecom_assets.flow import Standing
from ecom_assets.kafka.topic import Position

KEYS = [dg.AssetKey(["streamed", "product"])]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, goal: str = "g", job: str = "stream") -> None:
    """A run that has come to an end, or not yet."""
    made = instance.create_run_for_job(_job(job), tags={sensors.GOAL: sensors._name(goal)})
    instance.report_run_failed(made) if status == dg.DagsterRunStatus.FAILURE else None
    if status == dg.DagsterRunStatus.SUCCESS:
        instance.report_dagster_event(
            dg.DagsterEvent(event_type_value="PIPELINE_SUCCESS", job_name=job, message=""), made.run_id
        )


def _job(name: str) -> dg.JobDefinition:
    @dg.op
    def nothing() -> None: ...

    @dg.job(name=name)
    def job() -> None:
        nothing()

    return job


def gate(instance: dg.DagsterInstance) -> dg.RunRequest | dg.SkipReason | None:
    return sensors._gate(instance, "stream", "g", KEYS, {"ecom/offsets": "{}"})


def test_a_new_goal_starts_a_run_that_says_what_for(instance: dg.DagsterInstance) -> None:
    """If this fails, records wait for somebody to click."""
    asked = gate(instance)
    assert isinstance(asked, dg.RunRequest)
    assert asked.run_key == "g, attempt 1"
    assert asked.asset_selection == KEYS
    assert asked.tags["ecom/attempt"] == "1"


def test_a_goal_is_reached_only_by_a_run_that_succeeded(instance: dg.DagsterInstance) -> None:
    """If this fails, a failed run is taken for done, and rows never arrive."""
    run(instance, dg.DagsterRunStatus.SUCCESS)
    assert gate(instance) is None


def test_a_run_under_way_is_waited_for(instance: dg.DagsterInstance) -> None:
    """If this fails, two runs do the same work at once."""
    run(instance, dg.DagsterRunStatus.STARTED)
    said = gate(instance)
    assert isinstance(said, dg.SkipReason)
    assert "under way" in str(said.skip_message)


def test_failed_runs_are_tried_again_a_little_later_and_not_for_ever(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, a broken server is hammered for ever, or a short fault stops the flow for good."""
    run(instance, dg.DagsterRunStatus.FAILURE)
    said = gate(instance)
    assert isinstance(said, dg.SkipReason)
    assert "next try is in" in str(said.skip_message)
    later = time.time() + sensors.BACKOFF + 1
    monkeypatch.setattr(time, "time", lambda: later)
    asked = gate(instance)
    assert isinstance(asked, dg.RunRequest)
    assert asked.run_key == "g, attempt 2"
    run(instance, dg.DagsterRunStatus.FAILURE)
    run(instance, dg.DagsterRunStatus.FAILURE)
    said = gate(instance)
    assert isinstance(said, dg.SkipReason)
    assert "gave up after 3 failed runs" in str(said.skip_message)


@pytest.mark.parametrize(
    ("standing", "said"),
    [
        (Standing("t", None, None, 0, 0), "nothing has been ingested yet"),
        (Standing("t", Position({0: 9}, 5, 0, 1.0), 8, 5, 0), "5 of 8 rows are in the topic"),
        (Standing("t", Position({0: 9}, 8, 0, 1.0), 8, 5, 4), "4 offsets of the topic are not streamed yet"),
        (Standing("t", Position({0: 9}, 8, 2, 1.0), 8, 8, 0), "2 rows of the ledger are not in the streamed table"),
        (Standing("t", Position({0: 9}, 8, 2, 1.0), 8, 10, 0), ""),
    ],
)
def test_it_is_said_what_is_waited_for(standing: Standing, said: str) -> None:
    """If this fails, a table is published half, or people do not know why it is not."""
    assert said in standing.waits_for
    assert bool(said) == bool(standing.waits_for)
