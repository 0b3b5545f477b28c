"""Two data sets in one code location: neither takes the other's names, runs or home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from ecom_assets.core.settings import SettingsError
from ecom_assets.definitions import build_defs, defs
from ecom_assets.defs import sensors
from ecom_assets.defs.names import GROUPS, Names
from ecom_assets_tests.tables import SHOP, TABLES

LIBRARY = """
dataset: library
tables:
  book:
    primary_key: [isbn]
    hbase: {row_key: [isbn], families: {d: "*"}}
    indexes:
      books_by_title: {row_key: [title, isbn]}
"""
BOOK = {
    "type": "record",
    "name": "Book",
    "fields": [{"name": "isbn", "type": "string"}, {"name": "title", "type": "string"}],
}
QUERY = """-- title: Books by title.
-- tables: book
SELECT title, count(*) AS books FROM book GROUP BY 1
"""
PREFIX = "library"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A declaration, and next to it the file."""
    folder = tmp_path / "library"
    (folder / "queries").mkdir(parents=True)
    (folder / "dataset.yaml").write_text(LIBRARY, encoding="utf-8")
    (folder / "book.avsc").write_text(json.dumps(BOOK), encoding="utf-8")
    (folder / "queries" / "by_title.sql").write_text(QUERY, encoding="utf-8")
    (folder / "files").mkdir()
    (folder / "files" / "book.csv").write_text("isbn,title\n1,One\n2,Two\n", encoding="utf-8")
    return folder


@pytest.fixture
def both(library: Path, tmp_path: Path) -> dg.Definitions:
    """The shop and the library, each in a home of its own."""
    return dg.Definitions.merge(
        build_defs(dataset="shop", source="synthetic", home=tmp_path / "shop", settings={"scale": 0.0001}),
        build_defs(dataset=library, source=library / "files", home=tmp_path / "loans", prefix=PREFIX),
    )


def test_two_data_sets_share_a_code_location(both: dg.Definitions) -> None:
    """If this fails, a second data set cannot be added to a location, or its jobs build the other's tables."""
    dg.Definitions.validate_loadable(both)
    graph, repository = both.resolve_asset_graph(), both.get_repository_def()
    shop = defs().resolve_asset_graph().get_all_asset_keys()
    of_library = graph.get_all_asset_keys() - shop
    assert {key.path[0] for key in of_library} == {PREFIX}
    assert {graph.get(key).group_name for key in of_library} == {f"{PREFIX}_{group}" for group in GROUPS}
    assert {graph.get(key).group_name for key in shop} == set(GROUPS)
    assert not any(graph.get(key).parent_keys & shop for key in of_library)
    pools = [{pool for key in keys for pool in graph.get(key).pools or ()} for keys in (shop, of_library)]
    assert pools[1] == {f"{PREFIX}_{pool}" for pool in pools[0]}

    alone = {job.name for job in defs().get_repository_def().get_all_jobs()} - {sensors.CHOSEN}
    assert set(repository.job_names) - {sensors.CHOSEN} == alone | {f"{PREFIX}_{name}" for name in alone}
    for name in alone:
        for job, own in ((name, shop), (f"{PREFIX}_{name}", of_library)):
            layer = both.resolve_job_def(job).asset_layer
            assert set(layer.executable_asset_keys) <= own
            assert {check.asset_key for check in layer.asset_graph.asset_check_keys} <= own
    for sensor in repository.sensor_defs:
        if sensor.name.startswith(PREFIX):
            assert {target.job_name for target in sensor.targets} <= {f"{PREFIX}_{name}" for name in alone}
            assert sensor.required_resource_keys == {f"{PREFIX}_home"}
    assert len(repository.sensor_defs) == 2 * len(defs().get_repository_def().sensor_defs)
    assert len(repository.schedule_defs) == 4


def test_each_data_set_is_loaded_into_its_own_home(both: dg.Definitions, tmp_path: Path) -> None:
    """If this fails, one data set is written into the home, or under the namespace, of the other."""
    job = both.resolve_implicit_global_asset_job_def()
    chosen = [dg.AssetKey(["raw", name]) for name in TABLES] + [dg.AssetKey([PREFIX, "raw", "book"])]
    with dg.DagsterInstance.ephemeral() as instance:
        assert job.execute_in_process(asset_selection=chosen, instance=instance).success
    for home, data_set, namespace, files in (
        ("shop", "shop", "ecom", {table.csv for table in TABLES.values()}),
        ("loans", str(tmp_path / "library"), PREFIX, {"book.csv"}),
    ):
        known = json.loads((tmp_path / home / "home.json").read_text(encoding="utf-8"))
        assert (known["dataset"], known["namespace"]) == (data_set, namespace)
        assert {file.name for file in (tmp_path / home / "raw").glob("*.csv")} == files


def test_sensors_wait_for_runs_of_their_own_data_set(both: dg.Definitions) -> None:
    """If this fails, the endless stream of one data set keeps the other from being loaded."""
    shop, library = Names(), Names(PREFIX)

    def started(job: str, *chosen: dg.AssetKey) -> dg.DagsterRun:
        run = instance.create_run_for_job(both.resolve_job_def(job), asset_selection=frozenset(chosen) or None)
        instance.report_dagster_event(
            dg.DagsterEvent(event_type_value="PIPELINE_START", job_name=job, message=""), run.run_id
        )
        return run

    def busy(names: Names) -> bool:
        try:
            sensors.idle(instance, names)
        except sensors.NotNowError:
            return True
        return False

    for job, chosen, expected in (
        ("pipeline", (), (True, False)),
        ("library_stream", (), (False, True)),
        ("library_follow", (), (False, False)),
        ("library_nightly", (), (False, False)),
        (sensors.CHOSEN, (library.key("raw", "book"),), (False, True)),
        (sensors.CHOSEN, (shop.key("raw", "product"),), (True, False)),
        (sensors.CHOSEN, (), (True, True)),
    ):
        with dg.DagsterInstance.ephemeral() as instance:
            started(job, *chosen)
            assert (busy(shop), busy(library)) == expected, (job, chosen)


@pytest.mark.parametrize("prefix", ["raw", "Library", "a-b", "dashboard"])
def test_a_prefix_that_cannot_be_one_is_refused(prefix: str) -> None:
    """If this fails, two data sets get the same keys, or Dagster refuses a name without saying whose it is."""
    with pytest.raises(SettingsError, match=f"prefix: expected .*, got '{prefix}'"):
        build_defs(dataset=SHOP, prefix=prefix)


def test_an_unknown_setting_is_refused() -> None:
    """If this fails, a misspelled setting is ignored, and data of the default size are loaded."""
    with pytest.raises(SettingsError, match="expected names of settings, got scael"):
        build_defs(dataset=SHOP, settings={"scael": 1})


def test_definitions_load_without_a_home_or_an_address(tmp_path: Path) -> None:
    """If this fails, importing the code location reads a home or waits for a server."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "home.json").write_text("no JSON", encoding="utf-8")
    loaded = build_defs(dataset=SHOP, home=home)
    assert loaded.resolve_asset_graph().get_all_asset_keys() == defs().resolve_asset_graph().get_all_asset_keys()
    code = "import os, sys; from pathlib import Path; from ecom_assets.definitions import defs; defs()"
    new = tmp_path / "new"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"ECOM_HOME": str(new)})
    assert not new.exists()
