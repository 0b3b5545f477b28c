"""The lake, and the files on their way into HBase, in the HDFS that HBase uses too: nothing but names is shared."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from ecom_assets.core.location import HdfsPath
from ecom_assets.hbase.admin import HBaseAdmin
from ecom_assets.lake import delta, merge
from ecom_assets.paths import LAYERS
from ecom_assets.servers.process import Record
from ecom_assets.servers.stack import Stack
from ecom_assets_tests.runs import beginning, ecom, environment, finish, settings_of, start, wait_for
from ecom_assets_tests.tables import TABLES

SCALE = "0.005"
RUN_SECONDS = 900


@pytest.fixture(scope="module")
def hdfs(cluster: Stack) -> str:
    """The cluster's own HDFS."""
    record = Record.read(cluster.servers["namenode"].record)
    assert record
    return f"hdfs://{record.host}:{record.ports['rpc']}"


def test_a_run_leaves_its_lake_in_hdfs(cluster: Stack, hdfs: str, tmp_path: Path) -> None:
    """If this fails, workers must share a folder, or a table's file crosses a region, is moved twice or left behind."""
    env = environment(tmp_path, cluster.addresses(), "in_hdfs") | {"ECOM_LAKE_URI": f"{hdfs}/lakes"}
    code, reported, err = ecom(env, "run", "--scale", SCALE, "--json")
    assert code == 0, err
    assert reported["ok"] is True
    settings = settings_of(env)
    assert not (tmp_path / "lake").exists()
    assert not (tmp_path / "staging").exists()
    with HBaseAdmin(cluster.addresses().hbase_zookeeper) as admin:
        for name, table in TABLES.items():
            rows = reported["tables"][name]["merged"]["rows"]
            assert delta.records(merge.folder(table, settings)) == rows
            hbase = table.hbase_table(settings.namespace)
            root = HdfsPath(f"{hdfs}/hbase/data/default/{hbase}")
            regions = [region.getEncodedName() for region in admin._admin.getRegions(admin._name(hbase))]
            for family in table.hbase.families:
                files = {r: len(list((root / r / family).iterdir())) for r in regions}
                assert set(files.values()) == {1}, f"{hbase}, {family}: files by region {files}"
    assert list(settings.staging.glob("*")) == []


@pytest.mark.parametrize("layer", ["streamed", "merged", "hbase"])
def test_a_run_killed_in_a_layer(cluster: Stack, hdfs: str, tmp_path: Path, layer: str) -> None:
    """If this fails, a run that is cut off leaves in HDFS what the next one stumbles over, loses or doubles."""
    env = environment(tmp_path, cluster.addresses(), f"killed_in_{layer}") | {"ECOM_LAKE_URI": f"{hdfs}/lakes"}
    settings = settings_of(env)
    process = start(env, "run", "--scale", SCALE, "--json")
    wait_for(beginning(layer, settings), settings, process, RUN_SECONDS)
    time.sleep(2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    events = finish(env)["click_stream"]
    assert len({(events[each]["rows"], events[each]["checksum"]) for each in LAYERS}) == 1
    assert list(settings.staging.glob("*")) == []
