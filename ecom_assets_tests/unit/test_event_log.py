"""The event log with connections that stay open holds what Dagster's own holds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log import SqliteEventLogStorage

from ecom_assets.cli.options import ROOT
from ecom_assets.defs import event_log
from ecom_assets.defs.event_log import EventLog


@dg.asset(check_specs=[dg.AssetCheckSpec("counted", asset="numbers")])
def numbers() -> Iterator[dg.Output[int] | dg.AssetCheckResult]:
    """An asset with a check."""
    yield dg.Output(3, metadata={"rows": 3})
    yield dg.AssetCheckResult(check_name="counted", passed=True)


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance as a home has it."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    shutil.copy(ROOT / "ecom_assets" / "dagster.yaml", tmp_path / "dagster.yaml")
    with dg.DagsterInstance.get() as found:
        yield found


def log(instance: dg.DagsterInstance) -> EventLog:
    """Its event log."""
    found = instance.event_log_storage
    assert isinstance(found, EventLog)
    return found


def test_dagsters_own_log_reads_the_same(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """If this fails, the UI, or a home whose dagster.yaml names no class, shows other events than were stored."""
    for _ in range(3):
        assert dg.materialize([numbers], instance=instance).success
    own = SqliteEventLogStorage(str(tmp_path / "history" / "runs"))
    runs = [run.run_id for run in instance.get_runs()]
    assert len(runs) == 3
    instance.report_runless_asset_event(dg.AssetMaterialization("elsewhere"))
    assert own.get_asset_records([dg.AssetKey("elsewhere")])[0].asset_entry.last_materialization
    for run in runs:
        events = instance.all_logs(run)
        assert len(events) > 10
        assert events == [record.event_log_entry for record in own.get_records_for_run(run).records]
    key = dg.AssetKey("numbers")
    assert (
        own.get_asset_records([key])[0].asset_entry.last_run_id
        == instance.get_asset_records([key])[0].asset_entry.last_run_id
    )
    check = dg.AssetCheckKey(key, "counted")
    assert len(own.get_asset_check_execution_history(check, limit=9)) == 3


def test_files_that_were_deleted_or_replaced(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """If this fails, what a process stores after `dagster run wipe` goes into a file that nobody finds."""
    assert dg.materialize([numbers], instance=instance).success
    SqliteEventLogStorage(str(tmp_path / "history" / "runs")).wipe()
    assert dg.materialize([numbers], instance=instance).success
    own = SqliteEventLogStorage(str(tmp_path / "history" / "runs"))
    assert len(own.get_asset_check_execution_history(dg.AssetCheckKey(dg.AssetKey("numbers"), "counted"), 9)) == 1


def test_threads_and_many_runs(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, steps that run at once lose events, or a webserver keeps open each run there ever was."""
    monkeypatch.setattr(event_log, "KEPT", 2)

    runs = [dg.materialize([numbers], instance=instance).run_id for _ in range(6)]
    entries = [entry for run in runs for entry in instance.all_logs(run)]
    stored_once = {"ASSET_CHECK_EVALUATION", "ASSET_CHECK_EVALUATION_PLANNED"}
    again = [e for e in entries if e.dagster_event and e.dagster_event.event_type_value not in stored_once] * 3
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(log(instance).store_event, again))
    assert len(log(instance)._kept) <= 2
    assert sum(len(instance.all_logs(run)) for run in runs) == len(entries) + len(again)
    log(instance).dispose()
    assert not log(instance)._kept
