"""A cluster loses a server in the middle of a run: the run succeeds by itself, and no row is lost or doubled."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient

from ecom_assets.hbase.admin import HBaseAdmin
from ecom_assets.servers import probes
from ecom_assets.servers.stack import Stack
from ecom_assets_tests.cluster import watch
from ecom_assets_tests.runs import beginning, ecom, environment, settings_of, start, wait_for
from ecom_assets_tests.tables import TABLES

SCALE = "0.005"
RUN_SECONDS = 900
HELD = ("topic", "streamed", "merged", "hbase")
"""Layers that servers hold."""


@pytest.fixture(scope="module")
def whole(cluster: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a home that was loaded end to end while all servers ran."""
    watch.make_probe(cluster)
    env = environment(tmp_path_factory.mktemp("whole"), cluster.addresses(), "whole")
    run = start(env, "run", "--scale", SCALE)
    _, err = run.communicate(timeout=RUN_SECONDS)
    assert run.returncode == 0, err[-4000:]
    return env


@pytest.fixture(scope="module")
def undisturbed(whole: dict[str, str]) -> dict[str, Any]:
    """What its layers were read back to hold."""
    code, reported, err = ecom(whole, "reconcile", "--json")
    assert code == 0, err
    return reported["tables"]


def test_rows_are_kept_on_several_servers(cluster: Stack, whole: dict[str, str]) -> None:
    """If this fails, the cluster holds one copy of everything, and a lost disk is a lost table."""
    addresses, settings = cluster.addresses(), settings_of(whole)
    admin = AdminClient({"bootstrap.servers": addresses.kafka})
    topics = [table.topic(settings.namespace) for table in TABLES.values()]
    leaders = set()
    for future in admin.describe_topics(TopicCollection(topics)).values():
        for partition in future.result().partitions:
            assert len(partition.replicas) == 3
            assert len(partition.isr) >= 2
            leaders.add(partition.leader.id)
    assert len(leaders) > 1, "one broker leads all partitions"
    with HBaseAdmin(addresses.hbase_zookeeper) as hbase:
        spread = hbase.locations(TABLES["click_stream"].hbase_table(settings.namespace))
    assert len(set(spread)) == 2, f"regions lie on {spread}"
    record = watch.record_of(cluster, "namenode")
    reported = probes._bean(record.host, record.ports["http"], "Hadoop:service=NameNode,name=FSNamesystem")
    assert reported["BlocksTotal"] > 0
    assert reported["UnderReplicatedBlocks"] == reported["MissingBlocks"] == 0


def test_hbase_counts_what_the_report_says(
    cluster: Stack, whole: dict[str, str], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """If this fails, the verification sees rows in HBase that HBase's own tools do not, or the other way round."""
    for name, table in TABLES.items():
        counted = watch.counted_by_hbase(cluster, table.hbase_table(settings_of(whole).namespace), tmp_path / name)
        assert counted == undisturbed[name]["hbase"]["rows"], name


@pytest.mark.parametrize(
    ("name", "layer"),
    [("kafka-2", "topic"), ("spark-worker-1", "streamed"), ("datanode-1", "hbase"), ("regionserver-1", "hbase")],
    ids=["broker", "worker", "datanode", "region server"],
)
def test_a_run_outlives_a_server(
    cluster: Stack,
    event_log: Path,
    undisturbed: dict[str, Any],
    name: str,
    layer: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    """If this fails, one lost machine stops the pipeline, or costs or doubles rows."""
    env = environment(tmp_path, cluster.addresses(), name.replace("-", "_"))
    settings = settings_of(env)
    asked = watch.moved(cluster, name)
    run = start(env, "run", "--scale", SCALE)
    try:
        wait_for(beginning(layer, settings), settings, run, RUN_SECONDS)
        watch.kill(cluster, name)
        began, at = time.monotonic(), time.time()
        moved = watch.seconds_until(asked, began)
        _, err = run.communicate(timeout=RUN_SECONDS)
        ended = time.monotonic() - began
        assert run.returncode == 0, err[-4000:]
        if name.startswith("spark"):
            moved = max(moved, watch.first_task_done(event_log, at))
        code, reported, err = ecom(env, "reconcile", "--json")
        assert code == 0, err
        assert reported["ok"] is True
    finally:
        run.kill()
        returned = time.monotonic()
        cluster.up()  # it comes back, and the next one may go
        back = time.monotonic() - returned
    rows = {held: sum(t[held]["rows"] for t in reported["tables"].values()) for held in HELD}
    due = {held: sum(t[held]["rows"] for t in undisturbed.values()) for held in HELD}
    lost = sum(max(0, due[held] - rows[held]) for held in HELD)
    doubled = sum(max(0, rows[held] - due[held]) for held in HELD)
    with capsys.disabled():
        print(f"\n{watch.Failover(name, layer, moved, ended, back, lost, doubled)}")
    for table, layers in undisturbed.items():
        for held in HELD:
            assert reported["tables"][table][held]["rows"] == layers[held]["rows"], f"{table} in {held}"
            assert reported["tables"][table][held]["checksum"] == layers[held]["checksum"], f"{table} in {held}"
    clicks = TABLES["click_stream"].hbase_table(settings.namespace)
    counted = watch.counted_by_hbase(cluster, clicks, tmp_path / "counter")
    assert counted == undisturbed["click_stream"]["hbase"]["rows"]
