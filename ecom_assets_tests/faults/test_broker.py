"""A broker that stands still for longer than a request may take: nothing is doubled, nothing lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from ecom_assets.kafka import producer
from ecom_assets.paths import CHUNKED, engine, open_home
from ecom_assets.servers.stack import Stack
from ecom_assets_tests.shop import settings_for
from ecom_assets_tests.tables import CLICK_STREAM

REQUEST_MS = 2000
STILL = 3 * REQUEST_MS / 1000
"""Seconds the broker stands still: by then the client has given a request up, and sent it again."""


@contextmanager
def standstill(stack: Stack, begun: Callable[[], bool]) -> Generator[None]:
    """The block runs while, from the moment when it has begun its work, the broker stands still for a while."""
    (pid,) = [s.pid for s in stack.status() if s.service == "kafka"]
    assert pid

    def stop() -> None:
        while not begun():
            time.sleep(0.001)
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(STILL)
        finally:
            os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_a_broker_that_stands_still_doubles_nothing(stack: Stack, tmp_path: Path) -> None:
    """If this fails, a request that was answered too late, and sent again, puts rows in twice."""
    settings = settings_for(tmp_path, stack.up(), "standstill")
    settings = settings.model_copy(update={"kafka_config": {"socket.timeout.ms": str(REQUEST_MS)}, "scale": 0.05})
    rows = 0

    def tell(count: int) -> None:
        nonlocal rows
        rows += count

    with open_home(settings) as at:
        stream = engine(at, "stream")
        for layer in ("raw", "expanded", "chunked"):
            stream.build(layer, CLICK_STREAM)
        began = time.monotonic()
        with standstill(stack, lambda: rows > 0):
            producer.produce(CHUNKED, CLICK_STREAM, settings, at.addresses.kafka, tell)
        assert time.monotonic() - began > STILL, "the broker stood still in the middle"
        cut = stream.cut(CLICK_STREAM, "topic")
        chunked, found = (stream.measure(layer, CLICK_STREAM, cut) for layer in ("chunked", "topic"))
    assert rows == found.measure.rows == 641_680
    assert (found.measure.rows, found.measure.checksum) == (chunked.measure.rows, chunked.measure.checksum)


@pytest.mark.parametrize("idempotent", [False, True], ids=["control", "idempotent"])
def test_the_control_doubles(stack: Stack, idempotent: bool) -> None:
    """If this fails, the test above would pass with a producer that doubles rows as well."""
    kafka, name, count = stack.up().kafka, f"standstill.control.{idempotent}", 300_000
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result()
    delivered = 0

    def on_delivery(error: object, _: object) -> None:
        nonlocal delivered
        assert error is None
        delivered += 1

    producer = Producer(
        {
            "bootstrap.servers": kafka,
            "enable.idempotence": idempotent,
            "acks": "all",
            "request.timeout.ms": REQUEST_MS,
            "socket.timeout.ms": REQUEST_MS,
            "queue.buffering.max.messages": 2 * count,
            "on_delivery": on_delivery,
        }
    )
    with standstill(stack, lambda: delivered > 0):
        for n in range(count):
            producer.produce(name, b"%d" % n)
            producer.poll(0)
        assert producer.flush(60) == 0
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": name})
    held = consumer.get_watermark_offsets(TopicPartition(name, 0), timeout=20)
    consumer.close()
    assert held[1] == count if idempotent else held[1] > count
