"""The stack with real servers: found, healed, kept, and apart from another home's."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import happybase
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from ecom_assets.core.addresses import Addresses
from ecom_assets.core.errors import ServiceError
from ecom_assets.core.settings import load
from ecom_assets.hbase.admin import HBaseAdmin
from ecom_assets.servers.process import Record
from ecom_assets.servers.stack import Stack, Step


def pids(stack: Stack) -> dict[str, int | None]:
    return {s.service: s.pid for s in stack.status()}


def put(addresses: Addresses, table: str, rows: dict[bytes, bytes]) -> None:
    connection = happybase.Connection(*addresses.hbase_thrift)
    if table.encode() not in connection.tables():
        connection.create_table(table, {"f": {}})
    for key, value in rows.items():
        connection.table(table).put(key, {b"f:v": value})
    connection.close()


def scan(addresses: Addresses, table: str) -> dict[bytes, bytes]:
    connection = happybase.Connection(*addresses.hbase_thrift)
    rows = {key: cells[b"f:v"] for key, cells in connection.table(table).scan()}
    connection.close()
    return rows


def produce(kafka: str, topic: str, value: bytes) -> None:
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result()
    producer = Producer({"bootstrap.servers": kafka})
    producer.produce(topic, value)
    assert producer.flush(30) == 0


def consume(kafka: str, topic: str) -> bytes | None:
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "t", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    end = time.monotonic() + 30
    message = None
    while message is None and time.monotonic() < end:
        message = consumer.poll(1)
    consumer.close()
    return message.value() if message else None


def test_all_run_and_a_second_up_finds_them(stack: Stack) -> None:
    """Without this, every command would start a second set of servers."""
    before = pids(stack)
    steps: list[Step] = []
    Stack(stack.settings).up(steps.append)
    assert {s.service: s.state for s in steps} == {
        name: "found" for name, server in stack.servers.items() if not server.on_demand
    }
    assert pids(stack) == before
    assert all(s.state == "running" and s.answers and s.memory for s in stack.status())
    assert not [f for f in stack.doctor() if f.level == "fail"]


def test_admin_splits_and_compacts(addresses: Addresses) -> None:
    """Split keys must be exactly the bytes that were requested, or bulk loads cross them."""
    splits = [b"\x00\x01", b"abc", b"\x7f\x80", b"\xff\xfe\x00", bytes(range(256))]
    with HBaseAdmin(addresses.hbase_zookeeper) as admin:
        assert admin.create_table("split", ["f"], splits)
        assert not admin.create_table("split", ["f"])
        assert admin.table_exists("split")
        regions = admin.regions("split")
        assert [start for start, _ in regions] == [b"", *sorted(splits)]
        assert [end for _, end in regions] == [*sorted(splits), b""]
        rows = {bytes([i, 255 - i]): b"v" for i in range(0, 256, 15)}
        put(addresses, "split", rows)
        admin.flush("split")
        admin.major_compact("split")
        assert scan(addresses, "split") == rows
        admin.delete_table("split")
        assert not admin.table_exists("split")


def test_a_killed_server_is_started_again_with_its_rows(stack: Stack, addresses: Addresses) -> None:
    """A crash may cost no row that was acknowledged to a client, and one `up` repairs it."""
    rows = {b"%05d" % i: b"x" for i in range(300)}
    put(addresses, "killed", rows)
    pid = pids(stack)["hbase"]
    assert pid
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)
    assert {s.service: s.state for s in stack.status()}["hbase"] == "crashed"
    assert any("hbase" in f.what and f.level == "warn" for f in stack.doctor())
    steps: list[Step] = []
    after = stack.up(steps.append)
    assert any(s.service == "hbase" and "without being stopped" in s.note for s in steps)
    assert scan(after, "killed") == rows


def test_data_and_addresses_outlive_down_and_up(stack: Stack, addresses: Addresses) -> None:
    """A stop is not a loss, and a home keeps its ports."""
    put(addresses, "kept", {b"\x00\xff": b"1"})
    produce(addresses.kafka, "kept", b"hello")
    stack.down()
    assert {s.state for s in stack.status()} == {"stopped"}
    assert stack.up() == addresses
    assert scan(addresses, "kept") == {b"\x00\xff": b"1"}
    assert consume(addresses.kafka, "kept") == b"hello"


@pytest.fixture
def second(tmp_path: Path, addresses: Addresses) -> Iterator[Stack]:
    """Another home, with a Kafka of its own and the first home's other servers."""
    host, port = addresses.hbase_thrift
    stack = Stack(
        load(
            home=tmp_path / "second",
            class_archives=False,
            hbase_thrift=f"{host}:{port}",
            hbase_zookeeper=addresses.hbase_zookeeper,
            spark=addresses.spark,
            postgres=addresses.postgres,
            redis=addresses.redis,
        )
    )
    yield stack
    stack.down()


def test_two_homes_do_not_meet(stack: Stack, addresses: Addresses, second: Stack) -> None:
    """Two homes on a machine have their own ports and topics, even when a port is taken in between."""
    there = second.up()
    assert there.kafka != addresses.kafka
    assert {s.service: s.state for s in second.status()} == {
        "kafka": "running", "hbase": "external", "thrift": "external", "spark": "external",
        "postgres": "external", "redis": "external",
    }  # fmt: skip
    produce(there.kafka, "mine", b"2")
    assert "mine" not in AdminClient({"bootstrap.servers": addresses.kafka}).list_topics(timeout=10).topics

    second.down()
    assert {s.service: s.state for s in stack.status()}["kafka"] == "running"
    host, port = there.kafka.split(":")
    with socket.create_server((host, int(port))):
        moved = second.up()
    assert moved.kafka != there.kafka
    assert consume(moved.kafka, "mine") == b"2"


@pytest.fixture
def twins(tmp_path: Path, addresses: Addresses) -> Iterator[list[Stack]]:
    """Two homes with an HBase each, and the first home's other servers."""
    others = {name: getattr(addresses, name) for name in ("kafka", "spark", "postgres", "redis")}
    stacks = [Stack(load(home=tmp_path / name, class_archives=False, **others)) for name in ("one", "other")]
    yield stacks
    for each in stacks:
        each.down()


def test_a_home_whose_ports_another_has_taken_does_not_read_its_tables(twins: list[Stack]) -> None:
    """If this fails, a home that comes back on other ports reads and writes the tables of the home on its old ones."""
    one, other = twins
    put(one.up(), "same_name", {b"k": b"one"})
    one.down()
    record = Record.read(one.servers["hbase"].record)
    assert record
    other.servers["hbase"].folder.mkdir(parents=True)
    record.write(other.servers["hbase"].record)  # as if it had chosen them by itself
    put(other.up(), "same_name", {b"k": b"other", b"more": b"other"})
    with pytest.raises(ServiceError, match=rf"expected port {record.ports['master']} to be free"):
        one.up()
    other.down()
    assert scan(one.up(), "same_name") == {b"k": b"one"}


@pytest.fixture
def umlaut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A home whose path has a blank and a letter beyond ASCII, in a process that knows ASCII alone."""
    monkeypatch.setenv("LC_ALL", "C")
    stack = Stack(load(home=tmp_path / "Käufe 1", class_archives=False))
    yield stack
    stack.down(grace=5)


def test_a_home_may_have_any_name(umlaut: Stack, tmp_path: Path) -> None:
    """If this fails, Kafka does not start, or its data are in a folder next to the home."""
    there = umlaut.up(needed=("kafka",))
    produce(there.kafka, "mine", b"1")
    assert consume(there.kafka, "mine") == b"1"
    assert [each.name for each in tmp_path.iterdir()] == ["Käufe 1"]
    assert (tmp_path / "Käufe 1" / "stack" / "kafka" / "data" / "mine-0").is_dir()
    assert (tmp_path / "Käufe 1" / "stack" / "kafka" / "log" / "kafka.log").exists()
    assert {s.service: s.state for s in umlaut.status()} == {"kafka": "running"} | dict.fromkeys(
        ("hbase", "thrift", "spark", "postgres", "redis"), "stopped"
    )
    assert (tmp_path / "Käufe 1").stat().st_mode & 0o777 == 0o700
