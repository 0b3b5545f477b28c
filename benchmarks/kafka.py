"""Rows into Kafka and back: the project's producer and measure, Kafka's own performance tests, and a plain loop.

All send to and read from the same broker, records of the same size, with ``acks=all``, idempotence and lz4. Ours
reads CSV chunks, verifies them, encodes Avro and commits transactions with a ledger; Kafka's test sends random bytes.
Ours decodes and hashes every record that it reads back; Kafka's test throws them away.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import fastavro
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.harness import OURS, Goal, Sample, Step, timed, versus, within
from benchmarks.stage import NAMESPACE, Stage
from ecom_assets.core import avro
from ecom_assets.core.layer import Chunk, ChunkSource, Cut
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.kafka import producer
from ecom_assets.paths import CHUNKED, TOPIC
from ecom_assets_tests.tables import CLICK_STREAM as TABLE

PRODUCER_TEST, CONSUMER_TEST = "kafka-producer-perf-test", "kafka-consumer-perf-test"
TEST_FACTOR = 3
"""Kafka's producer test gets so many times the rows: Java compiles it while it runs, and that shall weigh little."""
LOOP = "fastavro loop"
LIMIT, LIMIT_ROWS = "librdkafka alone", 500_000
"""What bounds ours: the same records from memory, ready, and no transactions; so many that a start weighs little."""
ROW_BY_ROW = "row by row"

TUNING = {
    "acks": "all",
    "enable.idempotence": "true",
    "compression.type": "lz4",
    "linger.ms": "50",
    "batch.size": "1048576",
}
"""Settings of every producer but the one that sends row by row; Java and librdkafka spell them alike."""

SCHEMA = fastavro.parse_schema(json.loads(TABLE.avro))


class _NoChunks:
    """A chunked layer without rows."""

    def chunks(self, settings: Settings, table: Table) -> list[Chunk]:  # noqa: ARG002
        return []


NO_CHUNKS = cast("ChunkSource", _NoChunks())


@contextmanager
def produce(stage: Stage) -> Generator[Step]:
    """CSV chunks into a topic."""
    kafka = stage.addresses.kafka
    settings = stage.home("produce", home=stage.settings.home)  # the same chunks, another topic
    stage.chunks  # noqa: B018  makes them
    first = producer.produce(CHUNKED, TABLE, settings, kafka)
    rows, size = first.rows, round(first.bytes / first.rows)

    def ours() -> Sample:
        producer.delete(TABLE, settings, kafka)
        producer.produce(NO_CHUNKS, TABLE, settings, kafka)  # the others' topic is there beforehand, too
        return timed(lambda: producer.produce(CHUNKED, TABLE, settings, kafka).rows)

    def kafkas_own() -> Sample:
        with stage.new_topic() as name:
            reported = stage.java(
                "kafka", "org.apache.kafka.tools.ProducerPerformance", "--topic", name,
                "--num-records", str(TEST_FACTOR * rows), "--record-size", str(size), "--throughput", "-1",
                "--producer-props", f"bootstrap.servers={kafka}", *(f"{key}={value}" for key, value in TUNING.items()),
            )  # fmt: skip
        # The start of Java does not count, as ours does not.
        rate = re.findall(r"^(\d+) records sent, ([\d.]+) records/sec", reported, re.MULTILINE)[-1]
        return Sample(float(rate[0]), float(rate[0]) / float(rate[1]))

    def loop() -> Sample:
        with stage.new_topic() as name:
            return timed(lambda: _send(stage, name, _messages(stage, min(rows, stage.fewer), _avro), TUNING))

    def limit() -> Sample:
        parts = stage.batches(min(rows, LIMIT_ROWS))
        ready = [
            (value, key)
            for part in parts
            for value, key in zip(avro.encode(part, TABLE), part.column(TABLE.topic_key[0]).to_pylist(), strict=True)
        ]
        with stage.new_topic() as name:
            return timed(lambda: _send(stage, name, ready, TUNING, after=None))

    def row_by_row() -> Sample:
        with stage.new_topic() as name:
            return timed(lambda: _send(stage, name, _messages(stage, min(rows, 2000), _text), {}, Producer.flush))

    yield Step(
        "produce",
        "rows",
        {OURS: ours, PRODUCER_TEST: kafkas_own, LIMIT: limit, LOOP: loop, ROW_BY_ROW: row_by_row},
        (
            versus("produce_vs_perf_test", PRODUCER_TEST, Goal(1.0)),
            within("produce_vs_limit", LIMIT),
            versus("produce_vs_loop", LOOP),
            versus("produce_vs_row_by_row", ROW_BY_ROW),
        ),
    )
    producer.delete(TABLE, settings, kafka)


@contextmanager
def consume(stage: Stage) -> Generator[Step]:
    """A topic read to its end."""
    kafka = stage.addresses.kafka
    name = TOPIC.stored_as(stage.topic, TABLE)

    def measured() -> int:
        return TOPIC.measure(stage.at, TABLE, TOPIC.extend(stage.at, TABLE, Cut())).measure.rows

    def ours() -> Sample:
        return timed(measured)

    def kafkas_own() -> Sample:
        reported = stage.java(
            "kafka", "org.apache.kafka.tools.ConsumerPerformance", "--topic", name, "--messages", str(rows),
            "--bootstrap-server", kafka, "--group", f"{NAMESPACE}-{next(groups)}",
        )  # fmt: skip
        heads, values = (line.split(", ") for line in reported.splitlines()[:2])
        found = dict(zip(heads, values, strict=True))
        # What it takes to join its group is left out.
        return Sample(float(found["data.consumed.in.nMsg"]), float(found["fetch.time.ms"]) / 1000)

    rows = measured()
    groups = itertools.count()
    yield Step(
        "consume",
        "rows",
        {
            OURS: ours,
            CONSUMER_TEST: kafkas_own,
            LOOP: lambda: timed(lambda: _receive(stage, name, min(rows, stage.fewer))),
        },
        (versus("consume_vs_perf_test", CONSUMER_TEST), versus("consume_vs_loop", LOOP)),
    )


def _rows(stage: Stage) -> Iterator[dict[str, str]]:
    for path in stage.chunks:
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)


def _avro(row: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    nulls = TABLE.null_values
    values = {c.name: None if c.nullable and row[c.name] in nulls else row[c.name] for c in TABLE.columns}
    fastavro.schemaless_writer(out, SCHEMA, values)
    return out.getvalue()


def _text(row: dict[str, str]) -> bytes:
    return json.dumps(row).encode()


def _messages(stage: Stage, rows: int, encode: Callable[[dict[str, str]], bytes]) -> Iterator[tuple[bytes, str]]:
    """Value and key of the first rows, made one by one as a script would."""
    for row in itertools.islice(_rows(stage), rows):
        yield encode(row), row[TABLE.topic_key[0]]


def _poll(producer: Producer) -> object:
    return producer.poll(0)


def _send(
    stage: Stage,
    name: str,
    messages: Iterable[tuple[bytes, str]],
    config: dict[str, str],
    after: Callable[[Producer], object] | None = _poll,
) -> int:
    """Send messages as a script would, and do something after each; returns how many when the broker has them all."""
    producer = Producer({**stage.settings.kafka_config, **config, "bootstrap.servers": stage.addresses.kafka})
    sent = 0
    for value, key in messages:
        while True:
            try:
                producer.produce(name, value, key)
                break
            except BufferError:
                producer.poll(0.05)
        sent += 1
        if after:
            after(producer)
    producer.flush()
    return sent


def _receive(stage: Stage, name: str, rows: int) -> int:
    """Read and decode rows as a script would."""
    config = {"group.id": NAMESPACE, "enable.auto.commit": False, "isolation.level": "read_committed"}
    consumer = Consumer({**stage.settings.kafka_config, **config, "bootstrap.servers": stage.addresses.kafka})
    # Assigned, for to join a group takes seconds; Kafka's test leaves these out too.
    consumer.assign([TopicPartition(name, partition, 0) for partition in range(stage.settings.partitions)])
    left = rows
    while left:
        message = consumer.poll(10)
        if message is None or message.error():
            raise RuntimeError(
                f"topic {name}: expected {rows} records, got {message and message.error()} with {left} left"
            )
        fastavro.schemaless_reader(io.BytesIO(message.value() or b""), SCHEMA, None)
        left -= 1
    consumer.close()
    return rows
