"""The producer of a topic: every chunk of a table exactly once, through crashes and with several processes.

Idempotence alone is not enough for that, since a restarted producer has a new identity: a chunk's rows and the ledger
record that vouches for them are therefore one Kafka transaction, under a transactional id that is the table's own, so
that a new producer fences the last one and reads from the ledger what is in. Where there are more cores, several
processes produce a table, each under an id of its own; a new run fences the ids of all.

What belongs here: transactions, and the workers that send them. What does not: where chunks come from (the layer
before it), the ledger's entries (``ledger``), replays at a rate (``simulate``).
"""

from __future__ import annotations

import functools
import itertools
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from confluent_kafka import Producer

from ecom_assets.core import avro, ordered_key
from ecom_assets.core.errors import TopicError
from ecom_assets.core.layer import Chunk, ChunkSource
from ecom_assets.core.parallel import ordered_map
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.kafka import ledger, owner, reader, topics
from ecom_assets.kafka.clients import Clients, translated
from ecom_assets.kafka.ledger import LedgerEntry
from ecom_assets.kafka.writer import Writer

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

TRANSACTION_CHUNKS = 64
TRANSACTION_ROWS = 50_000
TRANSACTION_BYTES = 16 << 20
"""A transaction ends at the first of these; four of them are in memory at a time."""
WORKERS = 4
"""Most processes that produce a table at a time. A new run fences them all, however many the last one had."""


@dataclass(frozen=True)
class ProduceResult:
    """What a call of ``produce`` did.

    Attributes:
        rows: Rows put into the topic by this call.
        chunks: Chunks put into the topic by this call.
        skipped_chunks: Chunks that were in before, as the ledger shows.
        bytes: Avro bytes put into the topic by this call, before compression.
        seconds: Time it took.
        sent: What the ledger was found to have at the start.
    """

    rows: int
    chunks: int
    skipped_chunks: int
    bytes: int
    seconds: float
    sent: ledger.Sent | None = None

    @property
    def unchanged(self) -> bool:
        """Whether the topic already held everything."""
        return self.chunks == 0


def produce(
    upstream: ChunkSource,
    table: Table,
    settings: Settings,
    kafka: str,
    progress: Callable[[int], None] | None = None,
    *,
    sent: ledger.Sent | None = None,
) -> ProduceResult:
    """Put every chunk of the layer before into the table's topic, exactly once.

    May be called again after any interruption, and at any time: what is in stays in and is skipped.

    Args:
        upstream: Where the chunks come from; it is sent to other processes.
        table: The table.
        settings: The home, the namespace, partitions and further client settings.
        kafka: Bootstrap servers.
        progress: Called with the rows committed since the last call.
        sent: What an earlier call found the ledger to have.

    Returns:
        What was done.

    Raises:
        NotBuiltError: There are no chunks yet.
        CsvError: A chunk differs from its manifest entry; nothing of it is committed.
        OwnedError: Another home owns the topics.
        TopicError: The ledger does not fit the chunks, the topic's settings would lose records, another producer
            fenced this one, or Kafka did not do its part.
    """
    began = time.perf_counter()
    access = Clients.of(settings, kafka)
    rows = chunks = size = 0
    with translated(access, f"produce {table.topic(settings.namespace)}", settings.home):
        ingest = Ingest(access, upstream.chunks(settings, table), table, settings, sent)
        groups = list(_groups(ingest.missing))
        workers = min(settings.producers or (os.cpu_count() or 1) // 2, WORKERS, len(groups))
        if workers > 1:
            sending = _sent_by_processes(workers, groups, _Job(upstream, table, settings, kafka, ingest.topic_id))
        else:
            sending = _sent(ingest.worker, groups, upstream, table, settings)
        with closing(sending):
            for done in sending:
                rows, chunks, size = rows + done.rows, chunks + done.chunks, size + done.bytes
                if progress:
                    progress(done.rows)
    return ProduceResult(rows, chunks, len(ingest.done), size, time.perf_counter() - began, ingest.sent)


def replay(
    upstream: ChunkSource,
    table: Table,
    settings: Settings,
    kafka: str,
    *,
    deliveries: range,
    progress: Callable[[int], None] | None = None,
) -> ProduceResult:
    """Put the chunks of some deliveries that are in the table's topic into it once more.

    Args:
        upstream: As for ``produce``.
        table: The table.
        settings: As for ``produce``.
        kafka: Bootstrap servers.
        deliveries: Sequences of the deliveries.
        progress: As for ``produce``.

    Raises:
        NotBuiltError, CsvError, OwnedError, TopicError: As ``produce``.
    """
    began = time.perf_counter()
    access = Clients.of(settings, kafka)
    rows = chunks = size = 0
    with translated(access, f"replay into {table.topic(settings.namespace)}", settings.home):
        chunks_there = upstream.chunks(settings, table)
        ingest = Ingest(access, chunks_there, table, settings)
        again = [c for c in chunks_there if c.name in ingest.done and c.delivery in deliveries]
        for group in _groups(again):
            each = load(upstream, table, group, upstream.read(settings, table, group))
            done = ingest.worker.put(each, ledger.REPLAY)
            rows, chunks, size = rows + done, chunks + len(group), size + each.size
            if progress:
                progress(done)
    return ProduceResult(rows, chunks, 0, size, time.perf_counter() - began)


def delete(table: Table, settings: Settings, kafka: str) -> None:
    """Delete a table's topic and its ledger, so that it can be produced again.

    Producers that run are fenced. An entry counts only for the topic it was written for, so a crash between the two
    steps does no harm.

    Raises:
        OwnedError: Another home owns the topics.
        TopicError: Kafka did not do its part.
    """
    access = Clients.of(settings, kafka)
    topic = table.topic(settings.namespace)
    with translated(access, f"delete {topic}", settings.home):
        admin = access.admin()
        owner.check(access, admin, settings)
        _fence(access, table, settings)
        topics.delete(admin, topic)
        topics.delete(admin, ledger.topic_of(table, settings.namespace))


@dataclass(frozen=True)
class _Sent:
    """What a transaction has put in."""

    rows: int
    chunks: int
    bytes: int


def _sent(
    worker: Worker, groups: Iterable[list[Chunk]], upstream: ChunkSource, table: Table, settings: Settings
) -> Generator[_Sent]:
    """Put groups of chunks in, each as a transaction; one is decoded and encoded while another is sent.

    Files are read here and not by the background thread: each of the four system calls of a small file would wait up
    to 5 ms for the interpreter's lock, which the thread that produces does not release by itself.
    """
    files = ((group, upstream.read(settings, table, group)) for group in groups)
    loads = ordered_map(lambda read: load(upstream, table, *read), files, workers=1)
    with closing(loads):
        for each in loads:
            yield _Sent(worker.put(each), len(each.chunks), each.size)


@dataclass(frozen=True)
class _Job:
    """What a process that produces is given."""

    upstream: ChunkSource
    table: Table
    settings: Settings
    kafka: str
    topic_id: str


def _sent_by_processes(workers: int, groups: list[list[Chunk]], job: _Job) -> Generator[_Sent]:
    """Put groups of chunks in by several processes, each with a transactional id of its own."""
    spawn = get_context("spawn")
    pool = ProcessPoolExecutor(workers, spawn, _Process.begin, (spawn.Value("i", 0), job))
    try:
        for done in as_completed([pool.submit(_Process.send, group) for group in groups]):
            yield done.result()
    except BrokenProcessPool as error:
        raise TopicError(
            f"topic {job.table.topic(job.settings.namespace)}: expected {workers} processes to produce it, got one that"
            " was ended from outside",
            "see whether memory ran out, then run again: what was committed is in and stays in",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


class _Process:
    """A process that produces: what it keeps between two transactions."""

    number: int
    job: _Job
    worker: Worker | None = None

    @classmethod
    def begin(cls, begun: Synchronized[int], job: _Job) -> None:
        """Take the next number."""
        with begun.get_lock():
            cls.number, cls.job = begun.value, job
            begun.value += 1

    @classmethod
    def send(cls, group: list[Chunk]) -> _Sent:
        """Put a group of chunks in."""
        job = cls.job
        access = Clients.of(job.settings, job.kafka)
        with translated(access, f"produce {job.table.topic(job.settings.namespace)}", job.settings.home):
            if cls.worker is None:
                writer = Writer(access, job.table, job.settings, cls.number)
                cls.worker = Worker(writer, job.table, job.settings.namespace, job.topic_id)
            return next(_sent(cls.worker, [group], job.upstream, job.table, job.settings))


@dataclass(frozen=True)
class Load:
    """The messages of one transaction: chunks, and a key and an Avro value per row."""

    chunks: Sequence[Chunk]
    keys: list[bytes]
    values: list[bytes]

    @property
    def size(self) -> int:
        """Avro bytes of its rows."""
        return sum(map(len, self.values))


def load(upstream: ChunkSource, table: Table, chunks: Sequence[Chunk], data: Sequence[bytes]) -> Load:
    """Verify and encode chunks.

    Raises:
        CsvError: A chunk differs from its manifest entry; names it.
    """
    return encoded(upstream.rows(table, chunks, data), table, chunks)


def encoded(batch: pa.RecordBatch, table: Table, chunks: Sequence[Chunk]) -> Load:
    """Encode rows, with their places where they are those of chunks."""
    keys = ordered_key.encode([batch.column(name) for name in table.topic_key], ["text"] * len(table.topic_key))
    return Load(chunks, keys.to_pylist(), avro.encode(batch, table, _places(chunks) if chunks else None))


def _places(chunks: Sequence[Chunk]) -> pa.RecordBatch:
    """The place of each row of chunks."""
    deliveries = np.repeat([c.delivery for c in chunks], [c.rows for c in chunks])
    rows = np.concatenate([np.arange(c.first_row, c.first_row + c.rows) for c in chunks])
    return pa.RecordBatch.from_arrays([pa.array(each, pa.int64()) for each in (deliveries, rows)], schema=avro.PLACE)


def _groups(chunks: Iterable[Chunk]) -> Iterator[list[Chunk]]:
    """Cut chunks into transactions, in order."""
    group: list[Chunk] = []
    for part in chunks:
        full = len(group) == TRANSACTION_CHUNKS or (
            sum(c.rows for c in group) + part.rows > TRANSACTION_ROWS
            or sum(c.bytes for c in group) + part.bytes > TRANSACTION_BYTES
        )
        if group and full:
            yield group
            group = []
        group.append(part)
    if group:
        yield group


def _send(producer: Producer, attempt: int, *, topic: str, load: Load, ledger: str, entries: list[LedgerEntry]) -> None:
    """Hand a transaction's messages to the producer: its rows, and the ledger records of its chunks."""
    messages = itertools.chain(
        zip(itertools.repeat(topic), load.values, load.keys, strict=False),
        ((ledger, replace(e, attempt=attempt).to_json(), e.key, 0) for e in entries),
    )
    produce = producer.produce
    for message in messages:
        while True:  # ends, because a message that is not delivered in time fails the transaction
            try:
                produce(*message)
                break
            except BufferError:
                producer.poll(0.05)


class Worker:
    """Puts chunks into their topic, a transaction at a time."""

    def __init__(self, writer: Writer, table: Table, namespace: str, topic_id: str) -> None:
        self._writer = writer
        self._table = table.name
        self._topic, self._ledger = table.topic(namespace), ledger.topic_of(table, namespace)
        self._topic_id = topic_id
        self._transactions = 0

    def put(self, load: Load, mark: str = "") -> int:
        """Put chunks in, with their ledger records, as one transaction; returns their rows.

        Args:
            load: The chunks.
            mark: Begins the names of their entries, where they are not the table's own chunks (``ledger.REPLAY``).
        """
        writer, number = self._writer, self._transactions
        self._transactions += 1
        prefix = f"{mark}{writer.run.rpartition('/')[2]}-{number:08d}/" if mark else ""
        entries = [
            LedgerEntry(self._table, replace(c, name=prefix + c.name), self._topic_id, f"{writer.run}/{number}", 1)
            for c in load.chunks
        ]
        writer.transact(functools.partial(_send, topic=self._topic, load=load, ledger=self._ledger, entries=entries))
        return sum(c.rows for c in load.chunks)


class Ingest:
    """A table's topic, open for its chunks: a process that had it open before is fenced.

    Attributes:
        done: The table's own chunks that were in at the start, by name.
        missing: Those that were not, in order.
        sent: The first ones that were in.
        topic_id: Kafka's id of the topic.
        worker: Puts chunks in.

    Raises:
        OwnedError: Another home owns the topics.
        TopicError: The ledger does not fit the chunks, the topic's settings would lose records, or another producer
            fenced this one.
        KafkaException: An error that does not pass.
    """

    def __init__(
        self, access: Clients, chunks: list[Chunk], table: Table, settings: Settings, sent: ledger.Sent | None = None
    ) -> None:
        name, book = table.topic(settings.namespace), ledger.topic_of(table, settings.namespace)
        admin = access.admin()
        owner.register(access, admin, settings)
        # Before all else: from here on no other run can commit, nor delete the topic unnoticed.
        writer = _fence(access, table, settings)
        book_id = topics.ensure(admin, book, 1, settings.replication, topics.FOREVER)
        self.topic_id = topics.ensure(admin, name, settings.partitions, settings.replication, topics.FOREVER)
        if problems := topics.check_settings(admin, [name, book], access.bootstrap):
            raise TopicError("; ".join(problems), "run these commands, then run again")
        self.worker = Worker(writer, table, settings.namespace, self.topic_id)
        ids, end = (self.topic_id, book_id), topics.ends(admin, book)[0]
        known = sent.of(ids, end, chunks) if sent else []
        entries = ledger.entries(
            access, book, sent.offset if sent and known else 0, end, reader.leaders(access, book).get(0)
        )
        mine = [e for e in entries if e.topic_id == self.topic_id]
        self.done = {c.name: c for c in known} | {e.chunk.name: e.chunk for e in mine if e.kind == "own"}
        first = list(itertools.takewhile(lambda c: c.name in self.done, chunks))
        self.sent = ledger.Sent(ids, end, len(first), ledger.digest(first))
        if not known and not mine and reader.head(access, name, table, 1):
            raise TopicError(
                f"topic {name}: expected a topic that was produced with its ledger {book}, got rows that the ledger"
                " does not know",
                f"choose another namespace (ECOM_NAMESPACE), or delete what is there: `ecom reset topic --table"
                f" {table.name} --home {settings.home}`",
            )
        _check_fits(name, table.name, chunks, self.done, settings.home)
        self.missing = [c for c in chunks if c.name not in self.done]


def _fence(access: Clients, table: Table, settings: Settings) -> Writer:
    """Fence every producer of a table; returns the one that may write now."""
    with ThreadPoolExecutor(WORKERS) as pool:
        return next(iter(list(pool.map(lambda number: Writer(access, table, settings, number), range(WORKERS)))))


def _check_fits(topic: str, table: str, chunks: list[Chunk], done: dict[str, Chunk], home: Path) -> None:
    """Check that what is in the topic is part of the chunks."""
    expected = {c.name: c for c in chunks}
    for name, part in done.items():
        now = expected.get(name)
        if now is None or (now.rows, now.checksum) != (part.rows, part.checksum):
            got = f"{now.rows} rows with checksum {now.checksum:016x}" if now else "no such chunk"
            raise TopicError(
                f"topic {topic}, chunk {name}: expected the {part.rows} rows with checksum {part.checksum:016x}"
                f" that are in the topic, got {got} in the layer before: the chunks were built again from other data",
                f"`ecom reset topic --table {table} --home {home}`, then run again",
            )
