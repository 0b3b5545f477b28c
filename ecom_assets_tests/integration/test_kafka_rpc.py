"""Kafka's own protocol against a real broker: what librdkafka reads, record by record."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

from ecom_assets.core.addresses import Addresses, split
from ecom_assets.kafka import reader, rpc, topics
from ecom_assets.kafka.clients import Clients
from ecom_assets.kafka.reader import Span

Found = list[tuple[int, bytes | None]]


@pytest.fixture
def kafka(addresses: Addresses) -> str:
    return addresses.kafka


@pytest.fixture
def name(kafka: str) -> Iterator[str]:
    """A topic of one partition."""
    admin = AdminClient({"bootstrap.servers": kafka})
    name = f"rpc-{uuid.uuid4().hex[:10]}"
    admin.create_topics([NewTopic(name, 1, 1, config={"max.message.bytes": "4000000"})])[name].result()
    yield name
    admin.delete_topics([name])[name].result()


def producer(kafka: str, **config: str) -> Producer:
    return Producer({"bootstrap.servers": kafka, "message.max.bytes": 4_000_000} | config)


def end(name: str, kafka: str) -> int:
    return topics.ends(Clients(kafka).admin(), name)[0]


def read(name: str, kafka: str, start: int = 0) -> Found:
    found: Found = []
    with rpc.Connection(split(kafka)) as connection:
        for records, behind in connection.read(name, 0, start, end(name, kafka)):
            assert len(records) == 0 or start <= records.offsets[0] <= records.offsets[-1] < behind
            found += zip(records.offsets.tolist(), records.values.to_pylist(), strict=True)
    return found


def librdkafkas(name: str, kafka: str) -> Found:
    """What librdkafka reads."""
    found: Found = []
    for messages in reader.messages(Clients(kafka), name, Span(0, 0, end(name, kafka))):
        found += [(m.offset() or 0, m.value()) for m in messages]
    return found


def columns(name: str, kafka: str, leader: tuple[str, int] | None, start: int = 0) -> list[dict[str, Any]]:
    """Whole records, by Kafka's own protocol or by librdkafka."""
    with closing(reader.records(Clients(kafka), name, Span(0, start, end(name, kafka)), leader)) as parts:
        return [record for part in parts for record in part.in_columns(0).to_pylist()]


@pytest.mark.parametrize("codec", ["none", "gzip", "lz4", "zstd"])
def test_all_records_are_read(codec: str, name: str, kafka: str) -> None:
    rng = random.Random(codec)
    out = producer(kafka, **{"compression.type": codec, "linger.ms": "5"})
    sent: list[bytes | None] = [None, b"", b"\0" * 11, b"x" * 12, b"y" * 13, rng.randbytes(3_000_000)]
    sent += [rng.randbytes(rng.choice((0, 1, 12, 60, 130, 9000))) for _ in range(3000)]
    rng.shuffle(sent)
    for at, value in enumerate(sent):
        key = None if at % 7 == 0 else rng.randbytes(rng.choice((0, 5, 70, 200)))
        out.produce(name, value, key, headers={"h": b"1", "none": None} if at % 5 == 0 else None, timestamp=at * 999)
        out.poll(0)
        if at % 500 == 0:
            out.flush()
    out.flush()

    found = read(name, kafka)
    assert found == list(enumerate(sent))
    assert found == librdkafkas(name, kafka)
    for start in (0, 1234):
        whole = columns(name, kafka, split(kafka), start)
        assert whole == columns(name, kafka, None, start)
        assert [record["offset"] for record in whole] == list(range(start, len(sent)))


def test_times_of_the_broker(name: str, kafka: str) -> None:
    """Where the broker tells the time, records would have the time at which they were sent."""
    setting = ConfigEntry("message.timestamp.type", "LogAppendTime", incremental_operation=AlterConfigOpType.SET)
    admin = AdminClient({"bootstrap.servers": kafka})
    (done,) = admin.incremental_alter_configs([ConfigResource("topic", name, incremental_configs=[setting])]).values()
    done.result()
    out = producer(kafka)
    for n in range(30):
        out.produce(name, b"x", timestamp=n * 1000)
        out.flush()
    found = columns(name, kafka, split(kafka))
    assert found == columns(name, kafka, None)
    assert min(record["timestamp"] for record in found) > datetime(2020, 1, 1, tzinfo=UTC)


def test_only_what_is_committed_is_read(name: str, kafka: str) -> None:
    rng = random.Random(8)
    outs = [producer(kafka, **{"transactional.id": f"{name}-{n}"}) for n in range(3)]
    for out in outs:
        out.init_transactions(10)
    running = [False] * 3
    expected = set()
    values: dict[int, list[bytes]] = {}
    for step in range(120):
        n = rng.randrange(3)
        if not running[n]:
            outs[n].begin_transaction()
            running[n], values[n] = True, []
        for _ in range(rng.randrange(1, 20)):
            values[n].append(b"%d-%d-%d" % (n, step, len(values[n])))
            outs[n].produce(name, values[n][-1])
        outs[n].flush()
        if rng.random() < 0.5:
            running[n] = False
            if rng.random() < 0.5:
                outs[n].commit_transaction(10)
                expected |= set(values[n])
            else:
                outs[n].abort_transaction(10)
    for n in range(3):
        if running[n]:
            outs[n].abort_transaction(10)

    found = read(name, kafka)
    assert {value for _, value in found} == expected
    assert len(found) == len(expected) > 100
    assert found == librdkafkas(name, kafka)


def test_reading_stops_at_an_open_transaction(name: str, kafka: str) -> None:
    out, late = producer(kafka), producer(kafka, **{"transactional.id": name})
    late.init_transactions(10)
    out.produce(name, b"before")
    out.flush()
    late.begin_transaction()
    late.produce(name, b"within")
    late.flush()
    out.produce(name, b"behind")
    out.flush()
    assert read(name, kafka) == [(0, b"before")]
    late.commit_transaction(10)
    deadline = time.monotonic() + 10
    while len(found := read(name, kafka)) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found == [(0, b"before"), (1, b"within"), (2, b"behind")]
    assert read(name, kafka, start=1) == found[1:]


def test_records_that_came_after_the_end_are_left_out(name: str, kafka: str) -> None:
    out = producer(kafka, **{"linger.ms": "50"})
    for n in range(100):  # one batch
        out.produce(name, b"%d" % n)
    out.flush()
    with rpc.Connection(split(kafka)) as connection:
        found = [v for records, _ in connection.read(name, 0, 0, 42) for v in records.values.to_pylist()]
    assert found == [b"%d" % n for n in range(42)]


def test_what_is_not_known_is_refused(name: str, kafka: str) -> None:
    out = producer(kafka, **{"compression.type": "snappy"})
    for n in range(1000):
        out.produce(name, b"text %d" % (n % 3) * 50)
    out.flush()
    with pytest.raises(rpc.FetchError, match="codecs"):
        read(name, kafka)
    # A topic read as the project does it goes on with librdkafka.
    with closing(reader.records(Clients(kafka), name, Span(0, 0, end(name, kafka)), split(kafka))) as parts:
        found = [value for part in parts for value in part.values.to_pylist()]
    assert found == [value for _, value in librdkafkas(name, kafka)]
    assert len(found) == 1000


def test_a_broker_that_refuses_is_told(kafka: str) -> None:
    with (
        rpc.Connection(split(kafka)) as connection,
        pytest.raises(rpc.FetchError, match="Kafka's error 3"),
    ):
        next(connection.read("no-such-topic", 0, 0, 1))
