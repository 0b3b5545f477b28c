"""Reading topics: committed records of a range of offsets, decoded, hashed and summed.

What belongs here: records of ranges, and the measure of a table's records in them. What does not: where a range comes
from (``cut``), and what the ledger makes of it (``layer``).
"""

# ruff: noqa: SLF001 (librdkafka's own error codes begin with an underscore)
from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import KafkaError, Message, TopicPartition

from ecom_assets.core import row_hash, topic_rows
from ecom_assets.core.errors import TopicError
from ecom_assets.core.measure import Measure
from ecom_assets.core.quarantine import topic_record_hash
from ecom_assets.dataset.model import Table
from ecom_assets.kafka import clients, rpc, topics
from ecom_assets.kafka.clients import Clients

READ_MESSAGES = 10_000
READERS = 2
"""Ranges read at a time."""
NAMED = 5
"""How many bad records are named one by one; all are counted."""
NONE = Measure()

_log = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class Span:
    """A range of offsets of a partition.

    Attributes:
        partition: The partition.
        start: First offset.
        end: Offset to stop before.
    """

    partition: int
    start: int
    end: int


@dataclass(frozen=True)
class Found:
    """What ranges of a topic were read to hold.

    Attributes:
        good: The rows of the table.
        live: Those of them that no delivery brought: other producers sent them, or a simulation made them.
        bad: Records that are not rows of the table; their checksum is the sum of ``topic_record_hash`` modulo 2^64.
        named: The first ``NAMED`` of them, a sentence each.
    """

    good: Measure = NONE
    live: Measure = NONE
    bad: Measure = NONE
    named: tuple[str, ...] = ()

    def __add__(self, other: Found) -> Found:
        """Add a further range."""
        return Found(
            self.good + other.good, self.live + other.live, self.bad + other.bad, (self.named + other.named)[:NAMED]
        )


def measure(
    access: Clients,
    topic: str,
    table: Table,
    spans: Iterable[Span],
    progress: Callable[[int], None] | None = None,
) -> dict[Span, Found]:
    """Read, decode and hash every committed record of some ranges of a topic.

    Args:
        access: The clients.
        topic: Name of the topic.
        table: Whose rows it holds.
        spans: The ranges.
        progress: Called with the records read since the last call.

    Returns:
        What each range holds.

    Raises:
        TopicError: A range cannot be read to its end.
        KafkaException: Kafka did not respond.
    """
    reporting = Lock()
    wanted = sorted({s for s in spans if s.start < s.end})

    def read(span: Span) -> Found:
        found = Found()
        parts = records(access, topic, span, of.get(span.partition))
        with closing(parts):
            for part in parts:
                found += _found(part, topic, span.partition, table)
                if progress:
                    with reporting:
                        progress(len(part))
        return found

    of = leaders(access, topic) if wanted else {}
    # A thread for each: much of their work is done outside of the interpreter's lock.
    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip(wanted, pool.map(read, wanted), strict=True))


def head(access: Clients, topic: str, table: Table, rows: int) -> list[dict[str, Any]]:
    """The first few committed rows; none for a topic that does not exist."""
    admin = access.admin()
    parts = topics.partitions(topics.describe(admin, [topic]))
    first = topics.first_offsets(admin, parts).get(topic, {})
    ends = topics.end_offsets(admin, parts, committed=True).get(topic, {})
    found: list[dict[str, Any]] = []
    of = leaders(access, topic)
    for partition, end in sorted(ends.items()):
        with closing(records(access, topic, Span(partition, first[partition], end), of.get(partition))) as read:
            for part in read:
                batch, _ = topic_rows.rows_of(part.values, table, part.keys)
                found += batch.slice(0, rows - len(found)).to_pylist()
                if len(found) == rows:
                    return found
    return found


def leaders(access: Clients, topic: str) -> dict[int, tuple[str, int]]:
    """Partition -> host and port of its leader, where it may be read from by Kafka's own protocol."""
    return topics.leaders(access.admin(), topic) if access.plain else {}


def records(access: Clients, topic: str, span: Span, leader: tuple[str, int] | None) -> Generator[rpc.Records]:
    """Read what is committed of a range.

    From the leader, if one is given, by Kafka's own protocol, as long as that works; the rest, an open transaction at
    its end for instance, by librdkafka, which knows of everything and reports what is wrong.

    Args:
        access: The clients.
        topic: Name of the topic.
        span: The range.
        leader: Host and port of the partition's leader; ``None``: librdkafka reads all of it.

    Raises:
        TopicError: As ``messages``.
    """
    at = span.start
    if leader and at < span.end:
        try:
            with rpc.Connection(leader) as connection:
                for part, behind in connection.read(topic, span.partition, at, span.end):
                    yield part
                    at = behind
        except (rpc.FetchError, OSError) as error:
            _log.info("topic %s, partition %d: librdkafka resumes at offset %d (%s)", topic, span.partition, at, error)
    if at < span.end:
        for batch in messages(access, topic, Span(span.partition, at, span.end)):
            values = pa.array([m.value() for m in batch], pa.binary())
            offsets, times = (np.array(each, np.int64) for each in zip(*map(_place, batch), strict=True))
            yield rpc.Records(values, offsets, times, partial(_keys, batch))


def messages(access: Clients, topic: str, span: Span) -> Generator[list[Message]]:
    """Read what is committed of a range by librdkafka.

    The offsets at the end are of no records (marks of commits, aborted rows), and a mark is written
    a moment after a commit returns: so a range is done when the position that Kafka reports has
    reached the end, and until then the transactions that are open are waited for.

    Raises:
        TopicError: No progress within ``STALL_SECONDS``, or the partition cannot be read.
    """
    with closing(access.consumer()) as consumer:
        consumer.assign([TopicPartition(topic, span.partition, span.start)])
        heard, done = time.monotonic(), span.start >= span.end
        while not done:
            batch: list[Message] = []
            for message in consumer.consume(READ_MESSAGES, timeout=0.1):
                error, offset = message.error(), message.offset()
                assert offset is not None, "a consumer gives it"
                if error is None:
                    if offset < span.end:
                        batch.append(message)
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise TopicError(
                        f"topic {topic}, partition {span.partition}, offset {offset}: {error.str()}",
                        transient=clients.passes(error),
                    )
                elif offset >= span.end:
                    done = True
            (reached,) = (p.offset for p in consumer.position(consumer.assignment()))
            done = done or reached >= span.end
            if batch:
                heard = time.monotonic()
                yield batch
            elif not done and time.monotonic() > heard + clients.STALL_SECONDS:
                raise TopicError(
                    f"topic {topic}, partition {span.partition}: expected to read up to offset {span.end}, got to"
                    f" {reached} and no further for {clients.STALL_SECONDS} s",
                    f"look for a transaction that hangs (kafka-transactions --bootstrap-server {access.bootstrap}"
                    " find-hanging --topic NAME) and check that all brokers run",
                    transient=True,
                )


def _place(message: Message) -> tuple[int | None, int]:
    """Offset and time of a message."""
    return message.offset(), message.timestamp()[1]


def _keys(batch: list[Message]) -> pa.Array:
    return pa.array([m.key() for m in batch], pa.binary())


def _found(part: rpc.Records, topic: str, partition: int, table: Table) -> Found:
    batch, bad = topic_rows.rows_of(part.values, table, part.keys)
    hashes = row_hash.batch_hashes(batch, table.ids)
    live = hashes[batch["_delivery"].is_null().to_numpy(zero_copy_only=False)]
    size = pc.sum(pc.binary_length(part.values)).as_py() or 0
    wrong, named = Measure(), []
    for at, reason in bad:
        value, offset = part.values[at].as_py(), int(part.offsets[at])
        wrong += Measure(1, topic_record_hash(partition, offset, value), len(value or b""))
        if len(named) < NAMED:
            named.append(f"topic {topic}[{partition}], offset {offset}: {reason}, got {(value or b'')[:40]!r}")
    good = Measure(batch.num_rows, row_hash.total(hashes), size - wrong.bytes)
    return Found(good, Measure(len(live), row_hash.total(live)), wrong, tuple(named))


def whole(first: Mapping[int, int], ends: Mapping[int, int]) -> list[Span]:
    """The ranges from the first offsets to the end offsets."""
    return [Span(partition, first.get(partition, 0), end) for partition, end in ends.items()]
