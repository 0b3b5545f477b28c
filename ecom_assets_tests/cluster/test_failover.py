"""A cluster loses a server in the middle of a run: the run ends well by itself, and no row is lost or doubled."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient

from ecom_assets.services import probes
from ecom_assets.services.hbase_admin import HBaseAdmin
from ecom_assets.services.process import Record
from ecom_assets.services.stack import Stack
from ecom_assets.tables import TABLES
from ecom_assets_tests.runs import beginning, ecom, environment, settings_of, start, wait_for

SCALE = "0.005"
RUN_SECONDS = 900


def kill(cluster: Stack, name: str) -> None:
    """End a server as a power cut does."""
    record = Record.read(cluster.servers[name].record)
    assert record
    assert record.pid
    os.kill(record.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def whole(cluster: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a home that has gone the whole way while all servers ran."""
    env = environment(tmp_path_factory.mktemp("whole"), cluster.addresses(), "whole")
    run = start(env, "run", "--scale", SCALE)
    _, err = run.communicate(timeout=RUN_SECONDS)
    assert run.returncode == 0, err[-4000:]
    return env


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
    record = Record.read(cluster.servers["namenode"].record)
    assert record
    told = probes._bean(record.host, record.ports["http"], "Hadoop:service=NameNode,name=FSNamesystem")
    assert told["BlocksTotal"] > 0
    assert told["UnderReplicatedBlocks"] == told["MissingBlocks"] == 0


@pytest.mark.parametrize(
    ("name", "layer"),
    [("kafka-2", "topic"), ("spark-worker-1", "streamed"), ("datanode-1", "hbase"), ("regionserver-1", "hbase")],
    ids=["broker", "worker", "datanode", "region server"],
)
def test_a_run_outlives_a_server(cluster: Stack, whole: dict[str, str], name: str, layer: str, tmp_path: Path) -> None:
    """If this fails, one lost machine stops the flow, or costs or doubles rows."""
    env = environment(tmp_path, cluster.addresses(), name.replace("-", "_"))
    settings = settings_of(env)
    try:
        run = start(env, "run", "--scale", SCALE)
        wait_for(beginning(layer, settings), run, RUN_SECONDS)
        kill(cluster, name)
        began = time.monotonic()
        _, err = run.communicate(timeout=RUN_SECONDS)
        assert run.returncode == 0, err[-4000:]
        print(f"{name} killed as {layer} began: the run ended {time.monotonic() - began:.0f} s later")
        code, told, err = ecom(env, "reconcile", "--json")
        assert code == 0, err
        assert told["ok"] is True
    finally:
        cluster.up()  # it comes back, and the next one may go
