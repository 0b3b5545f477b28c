"""What a cluster is seen to do from outside: who serves what, since when after a death, and who did how much."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import happybase
import psutil
from confluent_kafka.admin import AdminClient
from thriftpy2.thrift import TException

from ecom_assets.core.addresses import split
from ecom_assets.hbase.admin import HBaseAdmin
from ecom_assets.java import jars
from ecom_assets.java.clients import hbase_client
from ecom_assets.java.program import run_java
from ecom_assets.servers import probes
from ecom_assets.servers.process import Record
from ecom_assets.servers.stack import Stack

PROBE = "failover_probe"
"""A table with a region for each of ``KEYS``, spread over all region servers."""

KEYS = [b"a", b"b", b"c", b"d"]

PATIENCE = 180.0
"""Seconds within which what a dead server did must be done by others."""


@dataclass(frozen=True)
class Failover:
    """What the death of one server came to.

    Attributes:
        node: Who was killed.
        layer: What was being made.
        moved: Seconds until its work was done by others: all its partitions led, every region written to and read, the
            first task done.
        ended: Seconds until the run had ended.
        back: Seconds that it took to serve again, once started.
        lost: Rows that are missing.
        doubled: Rows that are there once more.
    """

    node: str
    layer: str
    moved: float
    ended: float
    back: float
    lost: int
    doubled: int

    def __str__(self) -> str:
        return (
            f"| {self.node} | {self.layer} | {self.moved:.1f} | {self.ended:.0f} | {self.back:.0f}"
            f" | {self.lost} | {self.doubled} |"
        )


def record_of(cluster: Stack, name: str) -> Record:
    """The record of a server that was started."""
    record = Record.read(cluster.servers[name].record)
    assert record
    return record


def kill(cluster: Stack, name: str) -> None:
    """End a server as a power cut does, with all that it has started."""
    process = record_of(cluster, name).process()
    assert process
    family = [process, *process.children(recursive=True)]
    for each in family:
        each.kill()
    psutil.wait_procs(family, 10)


def make_probe(cluster: Stack) -> None:
    """Make the table by which a dead region server or datanode is noticed."""
    with HBaseAdmin(cluster.addresses().hbase_zookeeper) as hbase:
        hbase.create_table(PROBE, ["f"], KEYS[1:])


def moved(cluster: Stack, name: str) -> Callable[[], bool]:
    """A question whether others do by now what a server did before it was killed."""
    addresses, record = cluster.addresses(), record_of(cluster, name)
    kind, _, number = name.partition("-")
    if kind == "kafka":
        admin = AdminClient({"bootstrap.servers": addresses.kafka})
        return lambda: _leaders(admin).isdisjoint({int(number), -1})
    if kind == "spark":
        master = record_of(cluster, "spark-master")
        return lambda: _alive_workers(master).isdisjoint({record.ports["http"]})
    return lambda: _every_region_serves(*addresses.hbase_thrift)


def seconds_until(asked: Callable[[], bool], since: float) -> float:
    """Ask until the answer is yes."""
    while not asked():
        assert time.monotonic() - since < PATIENCE, f"nobody took the work over within {PATIENCE:.0f} s"
        time.sleep(0.1)
    return time.monotonic() - since


def _leaders(admin: AdminClient) -> set[int]:
    return {p.leader for topic in admin.list_topics(timeout=10).topics.values() for p in topic.partitions.values()}


def _alive_workers(master: Record) -> set[int]:
    reported = probes._json(master.host, master.ports["http"], "/json/")
    return {split(w["webuiaddress"])[1] for w in reported["workers"] if w["state"] == "ALIVE"}


def _every_region_serves(host: str, port: int) -> bool:
    """Whether a row can be written to and read from each region."""
    now = str(time.monotonic_ns()).encode()
    try:
        with closing(happybase.Connection(host, port, timeout=60_000)) as connection:
            table = connection.table(PROBE)
            for key in KEYS:
                table.put(key, {b"f:v": now})
            return all(table.row(key)[b"f:v"] == now for key in KEYS)
    except (TException, OSError):
        return False


def counted_by_hbase(cluster: Stack, table: str, log: Path) -> int:
    """The rows of a table by HBase's own RowCounter."""
    client = hbase_client(cluster.addresses().hbase_zookeeper)
    reported = run_java(
        jars.classpath("hbase"), "org.apache.hadoop.hbase.mapreduce.RowCounter",
        *(f"-D{name}={value}" for name, value in client.items()), "-Dmapreduce.framework.name=local", table,
        log=log, heap="256m", expected=f"expected RowCounter to count {table}", remedy="see its log",
    )  # fmt: skip
    # Each task reports its own, and the job at the end all of them.
    return int([line for line in reported.splitlines() if line.strip().startswith("ROWS=")][-1].partition("=")[2])


def bytes_by_broker(cluster: Stack, topics: list[str]) -> dict[str, int]:
    """What each broker has on its disk of some topics."""
    return {
        name: sum(
            file.stat().st_size
            for topic in topics
            for file in (server.folder / "data").glob(f"{topic}-*/*.log")
        )
        for name, server in cluster.servers.items()
        if name.startswith("kafka-")
    }  # fmt: skip


def held_by_regionserver(cluster: Stack, namespace: str) -> dict[str, dict[str, int]]:
    """What each region server serves of a namespace's tables: regions and bytes of files."""
    found: dict[str, dict[str, int]] = {}
    for name in (n for n in cluster.servers if n.startswith("regionserver-")):
        record = record_of(cluster, name)
        bean = probes._bean(record.host, record.ports["http"], "Hadoop:service=HBase,name=RegionServer,sub=Regions")
        sizes = [
            int(value)
            for key, value in bean.items()
            if f"_table_{namespace}_" in key and key.endswith("_metric_storeFileSize")
        ]
        found[name] = {"regions": len(sizes), "bytes": sum(sizes)}
    return found


def events(folder: Path) -> Iterator[dict[str, Any]]:
    """What Spark has written of its work; its last line may be half there."""
    for file in folder.iterdir():
        for line in file.read_text("utf-8", "replace").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue


def first_task_done(folder: Path, since: float) -> float:
    """Seconds from a time (of the epoch) to the end of the first task that was launched after it and did not fail."""
    ends = (
        task["Finish Time"] / 1000 - since
        for event in events(folder)
        if event["Event"] == "SparkListenerTaskEnd"
        and (task := event["Task Info"])["Launch Time"] >= since * 1000
        and not task["Failed"]
    )
    return min(ends)


def done_by_worker(cluster: Stack, folder: Path, since: float = 0) -> dict[str, Counter[str]]:
    """Tasks, rows read and written, and seconds of each Spark worker, from Spark's event log.

    Args:
        cluster: The cluster.
        folder: The event log.
        since: Tasks that began earlier (seconds of the epoch) do not count.
    """
    pages = {
        record_of(cluster, name).ports["http"]: name for name in cluster.servers if name.startswith("spark-worker-")
    }
    executors: dict[str, str] = {}
    done: dict[str, Counter[str]] = defaultdict(Counter)
    for event in events(folder):
        if event["Event"] == "SparkListenerExecutorAdded":
            page = next(iter(event["Executor Info"]["Log Urls"].values()))
            executors[event["Executor ID"]] = pages[split(page)[1]]
        elif event["Event"] == "SparkListenerTaskEnd" and event["Task Info"]["Launch Time"] >= since * 1000:
            metrics = event.get("Task Metrics") or {}
            done[executors[event["Task Info"]["Executor ID"]]] += Counter(
                tasks=1,
                rows_read=metrics.get("Input Metrics", {}).get("Records Read", 0),
                rows_written=metrics.get("Output Metrics", {}).get("Records Written", 0),
                milliseconds=metrics.get("Executor Run Time", 0),
            )
    return done
