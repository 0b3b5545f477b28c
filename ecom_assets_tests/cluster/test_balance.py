"""Data and work are spread over the servers of a kind: counted on a larger run (``SCALE=0.1`` and the like)."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from ecom_assets.servers.stack import Stack
from ecom_assets_tests.cluster import watch
from ecom_assets_tests.runs import ecom, environment, settings_of, start
from ecom_assets_tests.tables import TABLES

SCALE = os.environ.get("SCALE", "0.05")
RUN_SECONDS = 1800
NAMESPACE = "spread"


def test_every_server_has_its_share(
    cluster: Stack, event_log: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """If this fails, more servers of a kind make nothing faster, and one of them fills up before the others."""
    env = environment(tmp_path, cluster.addresses(), NAMESPACE) | {"ECOM_PARTITIONS": "6", "ECOM_REGIONS": "8"}
    began = time.time()
    run = start(env, "run", "--scale", SCALE)
    _, err = run.communicate(timeout=RUN_SECONDS)
    took = time.time() - began
    assert run.returncode == 0, err[-4000:]
    code, reported, err = ecom(env, "reconcile", "--json")
    assert code == 0, err
    topics = [table.topic(settings_of(env).namespace) for table in TABLES.values()]
    known = AdminClient({"bootstrap.servers": cluster.addresses().kafka}).list_topics(timeout=30).topics
    led = Counter(f"kafka-{p.leader}" for topic in topics for p in known[topic].partitions.values())
    stored = watch.bytes_by_broker(cluster, topics)
    regions = watch.held_by_regionserver(cluster, NAMESPACE)
    work = watch.done_by_worker(cluster, event_log, began)
    rows = sum(t["hbase"]["rows"] for t in reported["tables"].values())
    with capsys.disabled():
        print(f"\n{rows:,} rows in {took:.0f} s ({len(topics) * 6} partitions)")
        for name in sorted(stored):
            print(f"| {name} | {led[name]} partitions led | {stored[name]:,} bytes |")
        for name, held in sorted(regions.items()):
            print(f"| {name} | {held['regions']} regions | {held['bytes']:,} bytes |")
        for name, done in sorted(work.items()):
            print(f"| {name} | {done['tasks']:,} tasks | {done['rows_read']:,} rows read |"
                  f" {done['rows_written']:,} rows written | {done['milliseconds'] / 1000:.0f} s |")  # fmt: skip
    assert len(led) == 3
    assert max(led.values()) - min(led.values()) <= len(topics), led
    assert max(stored.values()) <= 1.05 * min(stored.values()), "each of three brokers has one of three copies"
    assert max(r["regions"] for r in regions.values()) - min(r["regions"] for r in regions.values()) <= len(TABLES)
    assert max(r["bytes"] for r in regions.values()) <= 2 * min(r["bytes"] for r in regions.values())
    assert len(work) == 2
    assert max(w["tasks"] for w in work.values()) <= 2 * min(w["tasks"] for w in work.values())
