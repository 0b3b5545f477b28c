"""The topic layer: every chunk of a table in its Kafka topic exactly once, and a measure of what is there.

Idempotence alone is not enough for that, since a restarted producer has a new identity: a chunk's
rows and the ledger record that says so are therefore one Kafka transaction, under a transactional id
that is the table's own, so that a new producer fences the last one and reads from the ledger what is in. Where there
are more cores, several processes produce a table, each under an id of its own; a new run fences the ids of all.
What belongs here is Kafka; chunk files, Avro and hashes have modules of their own.
"""

# ruff: noqa: SLF001 (librdkafka's own error codes begin with an underscore)
from __future__ import annotations

import functools
import itertools
import json
import logging
import os
import time
import uuid
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec, TopicDescription

from ecom_assets.core import avro, row_hash
from ecom_assets.core.errors import TopicError
from ecom_assets.core.location import Location
from ecom_assets.core.measure import Measure
from ecom_assets.core.parallel import ordered_map
from ecom_assets.core.quarantine import Quarantined
from ecom_assets.core.settings import Settings
from ecom_assets.csv import chunk, records
from ecom_assets.csv.chunk import Chunk
from ecom_assets.dataset.model import Table
from ecom_assets.dataset.shop import TABLES
from ecom_assets.kafka import rpc

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

TRANSACTION_CHUNKS = 64
TRANSACTION_ROWS = 50_000
TRANSACTION_BYTES = 16 << 20
"""A transaction ends at the first of these; four of them are in memory at a time."""
LANES = 4
"""Most processes that produce a table at a time. A new run fences them all, however many the last one had."""
LEDGER_PARTITIONS = 8
"""Each of the four tables has a partition of its own, so that none waits for another's open transaction."""
MAX_MESSAGE = 2 << 20
"""In bytes: a row may have 1 MiB (``records.MAX_RECORD``), which is above the defaults of Kafka."""
READ_MESSAGES = 10_000
READERS = 2
"""Partitions read at a time."""
NAMED = 100
"""How many bad records are named one by one; all are counted."""

REPLAY = "replay-"
"""Begins the names of ledger entries of chunks that are in once more: ``replay-<run>-<number>/<chunk>``."""
REPLAY_TICK = 0.2
"""Seconds between two transactions of a simulation, if a chunk is not worth more than that at its rate."""

TRANSACTION_SECONDS = 60
"""After which the broker aborts the transaction of a producer that is gone."""
PATIENCE = TRANSACTION_SECONDS + 30
"""Seconds without any progress after which waiting ends; a broker looks for dead transactions every 10 s."""
ADMIN_SECONDS = 30
REFUSAL_SECONDS = 3
"""In which a broker that refuses a client has told it so."""
ATTEMPTS = 5
BACKOFF = 0.2
"""Seconds before the second attempt; doubles with each."""

_TRANSIENT = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError.CONCURRENT_TRANSACTIONS,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REQUEST_TIMED_OUT,
}
_UNHEARD = {KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._TRANSPORT}
"""Nobody has answered: which does not say why."""
_FENCED = {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clients:
    """The one place where Kafka clients are built.

    Attributes:
        bootstrap: Bootstrap servers, ``host:port[,host:port]``.
        config: Further librdkafka settings of every client (SASL, TLS, tuning); what the
            promise of this module rests on cannot be set here. May hold secrets.
    """

    bootstrap: str
    config: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def plain(self) -> bool:
        """Whether brokers are asked without encryption or password."""
        return self.config.get("security.protocol", "plaintext").lower() == "plaintext"

    def admin(self) -> AdminClient:
        """A client for topics and offsets."""
        return AdminClient(self._merged({}, {}))

    def consumer(self) -> Consumer:
        """A client that reads what is committed, joins no group and commits nothing."""
        return Consumer(
            self._merged(
                {
                    "fetch.wait.max.ms": 20,  # how long the broker holds back a fetch at the end of a partition
                    "fetch.queue.backoff.ms": 10,  # with the default, a queue once full is not filled for a second
                    "queued.max.messages.kbytes": 32_768,
                },
                {
                    "group.id": "ecom_assets",
                    "auto.offset.reset": "earliest",  # where offset 0 is gone
                    "isolation.level": "read_committed",
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,
                },
            )
        )

    def producer(self, transactional_id: str, on_delivery: Callable[[KafkaError | None, Message], None]) -> Producer:
        """A transactional client; ``on_delivery`` is called for failed messages only."""
        return Producer(
            self._merged(
                {
                    "compression.type": "lz4",
                    "linger.ms": 50,
                    "batch.size": 1 << 20,
                    "queue.buffering.max.messages": 200_000,
                    "queue.buffering.max.kbytes": 131_072,
                },
                {
                    "transactional.id": transactional_id,
                    "transaction.timeout.ms": TRANSACTION_SECONDS * 1000,
                    "acks": "all",
                    "partitioner": "murmur2_random",  # as the Java clients
                    "message.max.bytes": MAX_MESSAGE,
                    "delivery.report.only.error": True,
                    "on_delivery": on_delivery,
                },
            )
        )

    def refusal(self) -> str:
        """Why clients do not get in, as the first words with a broker tell it; empty if they tell nothing.

        A call that fails says no more than that nobody has answered, be it a broker that is down or a wrong password.
        """
        heard: list[KafkaError] = []
        admin = AdminClient(self._merged({}, {"error_cb": heard.append}))
        with suppress(KafkaException):
            admin.list_topics(timeout=REFUSAL_SECONDS)
        admin.poll(0)
        return next((e.str() for e in heard if e.code() != KafkaError._ALL_BROKERS_DOWN), "")

    def _merged(self, tuning: Mapping[str, object], needed: Mapping[str, object]) -> dict[str, Any]:
        return {**tuning, **self.config, **needed, "bootstrap.servers": self.bootstrap, "logger": _log}


@dataclass(frozen=True)
class ProduceResult:
    """What a call of ``produce`` did.

    Attributes:
        rows: Rows put into the topic by this call.
        chunks: Chunks put into the topic by this call.
        skipped_chunks: Chunks that the ledger said were in.
        bytes: Avro bytes put into the topic by this call, before compression.
        seconds: Time it took.
    """

    rows: int
    chunks: int
    skipped_chunks: int
    bytes: int
    seconds: float

    @property
    def unchanged(self) -> bool:
        """Whether the topic already held everything."""
        return self.chunks == 0


@dataclass(frozen=True)
class TopicMeasure:
    """What a topic was read to hold.

    Attributes:
        measure: Its rows.
        bad_rows: Records that are not rows of the table.
        bad: The first ``NAMED`` of them; ``source`` is ``topic[partition]`` and ``line`` the offset.
    """

    measure: Measure
    bad_rows: int = 0
    bad: tuple[Quarantined, ...] = ()


@dataclass(frozen=True)
class LedgerEntry:
    """A chunk that is in a topic.

    Attributes:
        table: Name of its table.
        chunk: What was put in.
        topic_id: Kafka's id of the topic, new each time a topic is made.
        transaction: Transactional id, run, and number within the run.
        attempt: Which attempt of that transaction it was, from 1.
    """

    table: str
    chunk: Chunk
    topic_id: str
    transaction: str
    attempt: int

    @property
    def key(self) -> str:
        """Key of the ledger record."""
        return f"{self.table}/{self.chunk.name}"

    def to_json(self) -> str:
        """Value of the ledger record."""
        return json.dumps(
            {
                "table": self.table,
                "chunk": self.chunk.name,
                "rows": self.chunk.rows,
                "bytes": self.chunk.bytes,
                "checksum": f"{self.chunk.checksum:016x}",
                "topic_id": self.topic_id,
                "transaction": self.transaction,
                "attempt": self.attempt,
            }
        )

    @classmethod
    def from_json(cls, value: bytes) -> LedgerEntry:
        """Read what ``to_json`` wrote.

        Raises:
            ValueError: It is not JSON, or a value has the wrong type.
            KeyError: A value is missing.
        """
        d = json.loads(value)
        part = Chunk(d["chunk"], d["rows"], d["bytes"], int(d["checksum"], 16))
        return cls(d["table"], part, d["topic_id"], d["transaction"], d["attempt"])


def ledger_topic(namespace: str) -> str:
    """Name of the topic that says which chunks are in."""
    return f"{namespace}.ledger"


def produce(
    table: Table, settings: Settings, kafka: str, progress: Callable[[int], None] | None = None
) -> ProduceResult:
    """Carry every chunk of the table's manifest into its topic, exactly once.

    May be called again after any interruption, and at any time: what is in stays in and is skipped.

    Args:
        table: The table.
        settings: Where the chunks lie, the namespace, partitions and further client settings.
        kafka: Bootstrap servers.
        progress: Called with the rows committed since the last call.

    Returns:
        What was done.

    Raises:
        FileNotFoundError: The table has no manifest of chunks.
        records.DamagedError: A chunk's file is not what the manifest says; nothing of it is committed.
        TopicError: The ledger does not fit the manifest, another producer took over, or Kafka
            did not do its part.
    """
    began = time.perf_counter()
    folder = chunk.folder(table, settings)
    manifest = chunk.read_manifest(folder)
    clients = Clients(kafka, settings.kafka_config)
    rows = chunks = size = 0
    with _kafka(clients, f"produce {table.topic(settings.namespace)}"):
        ingest = _Ingest(clients, table, settings, manifest)
        groups = list(_groups(c for c in manifest if c.name not in ingest.done))
        lanes = min(settings.producers or (os.cpu_count() or 1) // 2, LANES, len(groups))
        if lanes > 1:
            sent = _sent_by_processes(lanes, groups, (table, settings, kafka, ingest.topic_id))
        else:
            sent = _sent(ingest.lane, groups, folder, table)
        with closing(sent):
            for done in sent:
                rows, chunks, size = rows + done.rows, chunks + done.chunks, size + done.bytes
                if progress:
                    progress(done.rows)
    return ProduceResult(rows, chunks, len(ingest.done), size, time.perf_counter() - began)


@dataclass(frozen=True)
class _Sent:
    """What a transaction has put in."""

    rows: int
    chunks: int
    bytes: int


def _sent(lane: _Lane, groups: Iterable[list[Chunk]], folder: Location, table: Table) -> Generator[_Sent]:
    """Put groups of chunks in, each as a transaction; one is read and encoded while another is sent."""
    loads = ordered_map(lambda files: _load(files, table), _files(groups, folder), workers=1)
    with closing(loads):
        for load in loads:
            yield _Sent(lane.put(load), len(load.chunks), load.size)


_LaneOf = tuple[Table, Settings, str, str]
"""Table, settings, bootstrap servers and Kafka's id of the topic."""


def _sent_by_processes(lanes: int, groups: list[list[Chunk]], of: _LaneOf) -> Generator[_Sent]:
    """Put groups of chunks in by several processes, each with a transactional id of its own."""
    spawn = get_context("spawn")
    pool = ProcessPoolExecutor(lanes, spawn, _Process.begin, (spawn.Value("i", 0), of))
    try:
        for done in as_completed([pool.submit(_Process.send, group) for group in groups]):
            yield done.result()
    except BrokenProcessPool as error:
        raise TopicError(
            f"topic {of[0].topic(of[1].namespace)}: one of {lanes} processes that produce it was ended from outside;"
            " see whether memory ran out, then run again: what was committed is in and stays in"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


class _Process:
    """A process that produces: what it keeps between two transactions."""

    number: int
    of: _LaneOf
    lane: _Lane | None = None

    @classmethod
    def begin(cls, begun: Synchronized[int], of: _LaneOf) -> None:
        """Take the next number."""
        with begun.get_lock():
            cls.number, cls.of = begun.value, of
            begun.value += 1

    @classmethod
    def send(cls, group: list[Chunk]) -> _Sent:
        """Put a group of chunks in."""
        table, settings, kafka, topic_id = cls.of
        clients = Clients(kafka, settings.kafka_config)
        with _kafka(clients, f"produce {table.topic(settings.namespace)}"):
            if cls.lane is None:
                writer = _Writer(clients, table, settings.namespace, cls.number)
                cls.lane = _Lane(writer, table, settings.namespace, topic_id)
            return next(_sent(cls.lane, [group], chunk.folder(table, settings), table))


def simulate(
    table: Table,
    settings: Settings,
    kafka: str,
    rate: float,
    stop: Event,
    *,
    start: str = "",
    rows: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> ProduceResult:
    """Put a table's chunks into its topic at a chosen rate, as a shop would, until told to stop.

    Chunks that are not in yet come first and count as any other. When all are in, they come round
    again and again: the ledger tells these replays apart, so the proof knows how many rows a topic
    has twice, and the merged table collapses them as duplicates.

    Args:
        table: The table.
        settings: As for ``produce``.
        kafka: Bootstrap servers.
        rate: Rows a second.
        stop: Ends the simulation behind the transaction that is under way.
        start: Chunk to begin with; empty for the first.
        rows: Stop after about so many rows.
        progress: Called with the rows committed since the last call.

    Returns:
        What was done.

    Raises:
        ValueError: There is no chunk of that name, or none at all.
        FileNotFoundError, records.DamagedError, TopicError: As ``produce``.
    """
    began = time.perf_counter()
    folder = chunk.folder(table, settings)
    manifest = chunk.read_manifest(folder)
    names = [c.name for c in manifest]
    if not names or (start and start not in names):
        raise ValueError(
            f"{folder}: expected a chunk {start or '(any)'}, got {len(names)} chunks from"
            f" {names[0] if names else 'none'} to {names[-1] if names else 'none'}"
        )
    clients = Clients(kafka, settings.kafka_config)
    at = names.index(start) if start else 0
    order = manifest[at:] + manifest[:at]
    sent = chunks = size = 0
    with _kafka(clients, f"produce {table.topic(settings.namespace)}"):
        ingest = _Ingest(clients, table, settings, manifest)
        missing, again = [c for c in order if c.name not in ingest.done], itertools.cycle(order)
        due = time.monotonic()
        while not stop.is_set() and (rows is None or sent < rows):
            replay = not missing
            group: list[Chunk] = []
            # A transaction holds chunks of one kind: new ones, or such as are in already.
            while sum(c.rows for c in group) < min(rate * REPLAY_TICK, TRANSACTION_ROWS) and (replay or missing):
                group.append(next(again) if replay else missing.pop(0))
            load = _load(next(_files(iter([group]), folder)), table)
            count = ingest.lane.put(load, replay=replay)
            sent, chunks, size = sent + count, chunks + len(group), size + load.size
            if progress:
                progress(count)
            # From the time that was due, not from now, so that a slow commit is made up for.
            due = max(due + count / rate, time.monotonic() - 1)
            stop.wait(max(0.0, due - time.monotonic()))
    return ProduceResult(sent, chunks, 0, size, time.perf_counter() - began)


def measure(
    table: Table, settings: Settings, kafka: str, progress: Callable[[int], None] | None = None
) -> TopicMeasure:
    """Read a topic back, decode and hash every committed record that it held when this began.

    Args:
        table: The table.
        settings: The namespace and further client settings.
        kafka: Bootstrap servers.
        progress: Called with the records read since the last call.

    Returns:
        What it holds; nothing for a topic that does not exist.

    Raises:
        TopicError: Kafka did not do its part.
    """
    began = time.perf_counter()
    clients = Clients(kafka, settings.kafka_config)
    topic = table.topic(settings.namespace)
    found, bad_rows, named = Measure(), 0, []
    adding = Lock()

    def add(partition: int) -> None:
        nonlocal found, bad_rows
        with closing(_records(clients, topic, partition, ends[partition], leaders.get(partition))) as parts:
            for part in parts:
                batch, bad = avro.decode_good(part.values, table)
                hashes = row_hash.batch_hashes(batch, table.names)
                size = pc.sum(pc.binary_length(part.values)).as_py() or 0
                with adding:
                    found += Measure(batch.num_rows, row_hash.total(hashes), size)
                    bad_rows += len(bad)
                    for at, reason in bad[: max(0, NAMED - len(named))]:
                        named.append(_named(table, f"{topic}[{partition}]", part, at, reason))
                    if progress:
                        progress(len(part))

    with _kafka(clients, f"read {topic}"):
        admin = clients.admin()
        ends, leaders = _ends(admin, topic), _leaders(admin, topic) if clients.plain else {}
        # A thread for each: much of their work is done outside of the interpreter's lock.
        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(add, ends))
    return TopicMeasure(found + Measure(seconds=time.perf_counter() - began), bad_rows, tuple(named))


def _records(
    clients: Clients, topic: str, partition: int, end: int, leader: tuple[str, int] | None
) -> Generator[rpc.Records]:
    """Read what is committed of a partition, from the start up to an end offset.

    From its leader, if one is told, by Kafka's own protocol, as long as that goes; the rest, an open transaction at
    its end for instance, by librdkafka, which knows of everything and says what is wrong.

    Raises:
        TopicError: As ``_read``.
    """
    at = 0
    if leader and end:
        try:
            with rpc.Connection(leader) as connection:
                for part, behind in connection.read(topic, partition, at, end):
                    yield part
                    at = behind
        except (rpc.FetchError, OSError) as error:
            _log.info("topic %s, partition %d: librdkafka reads from offset %d on (%s)", topic, partition, at, error)
    if at < end:
        for messages in _read(clients, topic, {partition: end}, at):
            values = pa.array([m.value() for m in messages], pa.binary())
            yield rpc.Records(values, np.array([m.offset() for m in messages], np.int64))


def ledger(settings: Settings, kafka: str) -> dict[tuple[str, str], LedgerEntry]:
    """Which chunks are in the topics of the namespace.

    A chunk counts only if its topic is still the one that it was put into.

    Returns:
        ``(table, chunk name)`` -> entry.

    Raises:
        TopicError: Kafka did not do its part, or the ledger holds a foreign record.
    """
    clients = Clients(kafka, settings.kafka_config)
    with _kafka(clients, f"read {ledger_topic(settings.namespace)}"):
        admin = clients.admin()
        entries = _entries(clients, admin, settings.namespace)
        topics = _describe(admin, {f"{settings.namespace}.{e.table}" for e in entries.values()})
        ids = {name: str(topic.topic_id) for name, topic in topics.items()}
        return {key: e for key, e in entries.items() if e.topic_id == ids.get(f"{settings.namespace}.{e.table}")}


def replayed(table: Table, settings: Settings, kafka: str) -> Measure:
    """What a simulation has put into the table's topic once more, as the ledger tells.

    Raises:
        TopicError: As ``ledger``.
    """
    again = (e.chunk for (name, _), e in ledger(settings, kafka).items() if name == table.name and _is_replay(e))
    return sum((Measure(c.rows, c.checksum) for c in again), Measure())


@dataclass(frozen=True)
class Position:
    """How far a topic has come.

    Attributes:
        ends: Partition -> offset behind the last committed record.
        rows: Rows of the table's own chunks that are in, as the ledger tells.
        replayed: Rows that a simulation put in once more.
        last: When its last record was written, seconds since the epoch; ``None`` for an empty topic.
    """

    ends: dict[int, int]
    rows: int
    replayed: int
    last: float | None


def positions(settings: Settings, kafka: str) -> dict[str, Position]:
    """How far each topic of the namespace has come; quick enough for a sensor.

    Returns:
        Table -> position; tables without a topic are left out.

    Raises:
        TopicError: Kafka did not do its part.
    """
    clients = Clients(kafka, settings.kafka_config)
    with _kafka(clients, "read the offsets of the topics"):
        admin = clients.admin()
        names = {table.topic(settings.namespace): name for name, table in TABLES.items()}
        topics = _describe(admin, names)
        parts = [TopicPartition(topic, p.id) for topic, told in topics.items() for p in told.partitions]
        futures = [
            admin.list_offsets(dict.fromkeys(parts, kind), isolation_level=IsolationLevel.READ_COMMITTED)
            if parts
            else {}
            for kind in (OffsetSpec.latest(), OffsetSpec.max_timestamp())
        ]
        ends: dict[str, dict[int, int]] = {name: {} for name in topics}
        times: dict[str, list[int]] = {name: [] for name in topics}
        for part, future in futures[0].items():
            ends[part.topic][part.partition] = future.result().offset
        for part, future in futures[1].items():
            if (written := future.result().timestamp) > 0:
                times[part.topic].append(written)
        ids = {topic: str(told.topic_id) for topic, told in topics.items()}
        ledger_ends = tuple(sorted(_ends(admin, ledger_topic(settings.namespace)).items()))
        sums = _ledger_rows(clients, settings.namespace, ledger_ends, ids)
    return {
        names[topic]: Position(
            ends[topic], *sums.get(topic, (0, 0)), max(times[topic]) / 1000 if times[topic] else None
        )
        for topic in topics
    }


_ledger_cache: dict[tuple[object, ...], dict[str, tuple[int, int]]] = {}


def _ledger_rows(
    clients: Clients, namespace: str, ends: tuple[tuple[int, int], ...], ids: dict[str, str]
) -> dict[str, tuple[int, int]]:
    """Topic -> rows of its own chunks, and of replays; read again only if the ledger has grown."""
    state = (clients.bootstrap, namespace, ends, tuple(sorted(ids.items())))
    if state not in _ledger_cache:
        _ledger_cache.clear()
        sums: dict[str, tuple[int, int]] = {}
        for entry in _entries(clients, clients.admin(), namespace).values():
            topic = f"{namespace}.{entry.table}"
            if ids.get(topic) == entry.topic_id:
                own, again = sums.get(topic, (0, 0))
                count = entry.chunk.rows
                sums[topic] = (own, again + count) if _is_replay(entry) else (own + count, again)
        _ledger_cache[state] = sums
    return _ledger_cache[state]


def end_offsets(table: Table, settings: Settings, kafka: str) -> dict[int, int]:
    """The offset behind the last record of each partition, open transactions included.

    Returns:
        Partition -> offset; empty for a topic that does not exist.

    Raises:
        TopicError: Kafka did not do its part.
    """
    clients = Clients(kafka, settings.kafka_config)
    topic = table.topic(settings.namespace)
    with _kafka(clients, f"read the offsets of {topic}"):
        return _ends(clients.admin(), topic)


def exists(table: Table, settings: Settings, kafka: str) -> bool:
    """Whether the table has a topic.

    Raises:
        TopicError: Kafka did not do its part.
    """
    clients = Clients(kafka, settings.kafka_config)
    topic = table.topic(settings.namespace)
    with _kafka(clients, f"look for {topic}"):
        return bool(_describe(clients.admin(), [topic]))


def head(table: Table, settings: Settings, kafka: str, rows: int) -> list[dict[str, Any]]:
    """The first few committed rows; none for a topic that does not exist.

    Raises:
        TopicError: Kafka did not do its part.
    """
    clients = Clients(kafka, settings.kafka_config)
    topic = table.topic(settings.namespace)
    found: list[dict[str, Any]] = []
    with _kafka(clients, f"read {topic}"), closing(_read(clients, topic, _ends(clients.admin(), topic))) as batches:
        for messages in batches:
            batch, _ = avro.decode_good(pa.array([m.value() for m in messages], pa.binary()), table)
            found += batch.slice(0, rows - len(found)).to_pylist()
            if len(found) == rows:
                break
    return found


def delete(table: Table, settings: Settings, kafka: str) -> None:
    """Delete a table's topic and its ledger entries, so that it can be produced anew.

    A producer that runs is fenced. An entry counts only for the topic it was made for, so a crash
    between the two steps does no harm.

    Raises:
        TopicError: Kafka did not do its part.
    """
    clients = Clients(kafka, settings.kafka_config)
    topic, ledger_name = table.topic(settings.namespace), ledger_topic(settings.namespace)
    with _kafka(clients, f"delete {topic}"):
        admin = clients.admin()
        writer = _Writer(clients, table, settings.namespace)
        if _describe(admin, [topic]):
            admin.delete_topics([topic], operation_timeout=ADMIN_SECONDS)[topic].result()
            _wait(lambda: not _describe(admin, [topic]), f"expected topic {topic} to be gone")
        entries = _entries(clients, admin, settings.namespace, table.name)

        def send(producer: Producer, _: int) -> None:
            partition = _ledger_partition(table.name)
            for entry in entries.values():
                producer.produce(ledger_name, None, entry.key, partition)

        if entries:
            writer.transact(send)


@dataclass(frozen=True)
class _File:
    """A chunk and what its file holds."""

    chunk: Chunk
    path: Location
    data: bytes


@dataclass(frozen=True)
class _Load:
    """The messages of one transaction: chunks, and a key and an Avro value per row."""

    chunks: list[Chunk]
    keys: list[bytes]
    values: list[bytes]

    @property
    def size(self) -> int:
        """Avro bytes of its rows."""
        return sum(map(len, self.values))


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


def _files(groups: Iterable[list[Chunk]], folder: Location) -> Iterator[list[_File]]:
    """Read chunk files.

    Not a task for the background thread: each of the four system calls of a small file would wait up to
    5 ms for the interpreter's lock, which the thread that produces does not give up by itself.
    """
    for group in groups:
        try:
            yield [_File(part, folder / part.name, (folder / part.name).read_bytes()) for part in group]
        except FileNotFoundError as error:
            raise records.DamagedError(
                f"{error.filename}: expected a chunk of the manifest, got no file;"
                f" materialise chunked/{folder.name} again"
            ) from error


def _load(files: list[_File], table: Table) -> _Load:
    """Verify and encode chunks.

    Raises:
        records.DamagedError: A file is not what the manifest says; names it.
    """
    batch = _verified(files, table)
    keys = batch.column(table.entity_key).cast(pa.string()).cast(pa.binary())
    return _Load([f.chunk for f in files], keys.to_pylist(), avro.encode(batch, table))


def _verified(files: list[_File], table: Table) -> pa.RecordBatch:
    """Parse chunks and compare rows and checksums with the manifest.

    All are parsed as one; only if that does not fit is each parsed alone, to find the one to name.
    """
    if whole := records.joined([f.data for f in files], table):
        try:
            batch = records.read_clean(whole, table)
        except records.DamagedError:
            pass
        else:
            if _sums(batch, files, table) == [f.chunk.checksum for f in files]:
                return batch
    return pa.concat_batches([_verified_alone(f, table) for f in files])


def _verified_alone(file: _File, table: Table) -> pa.RecordBatch:
    batch = records.read_clean(file.data, table, str(file.path))
    found = row_hash.total(row_hash.batch_hashes(batch, table.names))
    if (batch.num_rows, found) != (file.chunk.rows, file.chunk.checksum):
        raise records.DamagedError(
            f"{file.path}: expected {file.chunk.rows} rows with checksum {file.chunk.checksum:016x}, got"
            f" {batch.num_rows} rows with checksum {found:016x}; materialise chunked/{table.name} again"
        )
    return batch


def _sums(batch: pa.RecordBatch, files: list[_File], table: Table) -> list[int]:
    """The checksum of each chunk's share of the batch; none of them if the batch has too many or too few rows."""
    ends = np.cumsum([f.chunk.rows for f in files])
    if batch.num_rows != ends[-1]:
        return []
    hashes = row_hash.batch_hashes(batch, table.names)
    return [row_hash.total(part) for part in np.split(hashes, ends[:-1])]


def _send(
    producer: Producer, attempt: int, *, topic: str, load: _Load, ledger: str, entries: list[LedgerEntry]
) -> None:
    """Hand a transaction's messages to the producer: its rows, and the ledger records of its chunks."""
    messages = itertools.chain(
        zip(itertools.repeat(topic), load.values, load.keys, strict=False),
        ((ledger, replace(e, attempt=attempt).to_json(), e.key, _ledger_partition(e.table)) for e in entries),
    )
    produce = producer.produce
    for message in messages:
        while True:  # ends, because a message that is not delivered in time fails the transaction
            try:
                produce(*message)
                break
            except BufferError:
                producer.poll(0.05)


class _Writer:
    """A transactional producer of a table; making one fences the last one of its number.

    Raises:
        TopicError: Another producer took over.
        KafkaException: An error that does not pass.
    """

    def __init__(self, clients: Clients, table: Table, namespace: str, lane: int = 0) -> None:
        self._topic = table.topic(namespace)
        transactional_id = f"{self._topic}.{lane}" if lane else self._topic
        self.run = f"{transactional_id}/{uuid.uuid4().hex[:8]}"
        self._failures: list[KafkaError] = []
        self._producer = clients.producer(transactional_id, self._failed)
        self._producer.list_topics(timeout=ADMIN_SECONDS)  # the sooner answer, if there is no broker at all
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._producer.init_transactions(ADMIN_SECONDS)
                break
            except KafkaException as error:  # a broker that has just started is not ready yet
                if not _passes(error.args[0]) or time.monotonic() > deadline:
                    raise
            time.sleep(BACKOFF)

    def transact(self, send: Callable[[Producer, int], None]) -> None:
        """Send a transaction, whole or not at all; again if an error is one that passes.

        Args:
            send: Produces the messages; is given the producer and the attempt, from 1.
        """
        for attempt in range(1, ATTEMPTS + 1):
            self._failures.clear()
            try:
                self._producer.begin_transaction()
                send(self._producer, attempt)
                self._commit()
                break
            except KafkaException as error:
                cause = self._cause(error)
                if cause.code() in _FENCED:
                    raise TopicError(
                        f"topic {self._topic}: another producer of this topic took over, so this one stopped;"
                        " let only one run at a time (what it committed is in and stays in)"
                    ) from error
                if not cause.fatal():
                    self._abort()
                if attempt == ATTEMPTS or not _passes(cause):
                    raise KafkaException(cause) from error
                _log.warning("topic %s: attempt %d failed and is made again: %s", self._topic, attempt, cause.str())
                time.sleep(BACKOFF * 2 ** (attempt - 1))
            except BaseException:
                try:
                    self._abort()
                except KafkaException as error:
                    _log.warning("topic %s: not aborted (%s); the broker will do it", self._topic, error.args[0].str())
                raise

    def _commit(self) -> None:
        """Commit; in short steps, since a signal is only heard between them."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._producer.commit_transaction(1)
                break
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise

    def _abort(self) -> None:
        self._producer.abort_transaction(ADMIN_SECONDS)

    def _cause(self, error: KafkaException) -> KafkaError:
        """Why a message was not delivered, if that is why the transaction failed."""
        if not error.args[0].fatal():  # poll would raise that again
            self._producer.poll(0)
        return self._failures[0] if self._failures else error.args[0]

    def _failed(self, error: KafkaError | None, _: Message) -> None:
        # An abort purges what is not yet sent, which is no failure.
        if error and error.code() not in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
            self._failures.append(error)


class _Lane:
    """A way of chunks into their topic."""

    def __init__(self, writer: _Writer, table: Table, namespace: str, topic_id: str) -> None:
        self._writer = writer
        self._table = table.name
        self._topic, self._ledger = table.topic(namespace), ledger_topic(namespace)
        self._topic_id = topic_id
        self._transactions = 0

    def put(self, load: _Load, *, replay: bool = False) -> int:
        """Put chunks in, with their ledger records, as one transaction; returns their rows."""
        writer, number = self._writer, self._transactions
        self._transactions += 1
        prefix = f"{REPLAY}{writer.run.rpartition('/')[2]}-{number:08d}/" if replay else ""
        entries = [
            LedgerEntry(self._table, replace(c, name=prefix + c.name), self._topic_id, f"{writer.run}/{number}", 1)
            for c in load.chunks
        ]
        writer.transact(functools.partial(_send, topic=self._topic, load=load, ledger=self._ledger, entries=entries))
        return sum(c.rows for c in load.chunks)


class _Ingest:
    """A table's topic, open for its chunks: whoever had it open before is fenced.

    Attributes:
        done: The chunks of the manifest that were in at the start, by name.
        topic_id: Kafka's id of the topic.
        lane: The way in.

    Raises:
        TopicError: The ledger does not fit the manifest, or another producer took over.
        KafkaException: An error that does not pass.
    """

    def __init__(self, clients: Clients, table: Table, settings: Settings, manifest: list[Chunk]) -> None:
        name, ledger = table.topic(settings.namespace), ledger_topic(settings.namespace)
        admin = clients.admin()
        # Before all else: from here on no other run can commit, nor delete the topic unnoticed.
        with ThreadPoolExecutor(LANES) as pool:
            writer, *_ = pool.map(lambda lane: _Writer(clients, table, settings.namespace, lane), range(LANES))
        _ensure(admin, ledger, LEDGER_PARTITIONS, settings.replication, {"cleanup.policy": "compact"})
        forever = {"retention.ms": "-1", "retention.bytes": "-1"}
        self.topic_id = _ensure(admin, name, settings.partitions, settings.replication, forever)
        self.lane = _Lane(writer, table, settings.namespace, self.topic_id)
        entries = _entries(clients, admin, settings.namespace, table.name).values()
        self.done = {e.chunk.name: e.chunk for e in entries if e.topic_id == self.topic_id and not _is_replay(e)}
        _check_fits(name, table.name, manifest, self.done)


def _passes(error: KafkaError) -> bool:
    return not error.fatal() and (error.retriable() or error.code() in _TRANSIENT)


def _is_replay(entry: LedgerEntry) -> bool:
    return entry.chunk.name.startswith(REPLAY)


def _check_fits(topic: str, table: str, manifest: list[Chunk], done: dict[str, Chunk]) -> None:
    """Check that what is in the topic is part of the manifest."""
    expected = {c.name: c for c in manifest}
    for name, part in done.items():
        now = expected.get(name)
        if now is None or (now.rows, now.checksum) != (part.rows, part.checksum):
            got = f"{now.rows} rows with checksum {now.checksum:016x}" if now else "no such chunk"
            raise TopicError(
                f"topic {topic}, chunk {name}: expected the {part.rows} rows with checksum {part.checksum:016x}"
                f" that are in the topic, got {got} in the manifest: the chunks were made anew from other data;"
                f" `ecom reset topic --table {table}`, then run again"
            )


def _ledger_partition(table: str) -> int:
    return zlib.crc32(table.encode()) % LEDGER_PARTITIONS


def _entries(
    clients: Clients, admin: AdminClient, namespace: str, table: str | None = None
) -> dict[tuple[str, str], LedgerEntry]:
    """Read the ledger to its end, of one table or of all, entries of deleted topics included."""
    name = ledger_topic(namespace)
    ends = _ends(admin, name)
    if table is not None:
        ends = {p: end for p, end in ends.items() if p == _ledger_partition(table)}
    entries: dict[str, LedgerEntry] = {}
    for messages in _read(clients, name, ends):
        for message in messages:
            key, value = message.key(), message.value()
            try:
                if value is None:
                    entries.pop((key or b"").decode(), None)
                else:
                    entry = LedgerEntry.from_json(value)
                    entries[entry.key] = entry
            except (ValueError, KeyError, TypeError) as error:
                raise TopicError(
                    f"topic {name}, partition {message.partition()}, offset {message.offset()}, key {key!r}:"
                    f" expected a ledger entry, got {value!r} ({error!r}); something else writes to this topic:"
                    " choose another namespace (ECOM_NAMESPACE)"
                ) from error
    return {(e.table, e.chunk.name): e for e in entries.values() if table in (None, e.table)}


def _read(clients: Clients, topic: str, ends: Mapping[int, int], start: int = 0) -> Generator[list[Message]]:
    """Read what is committed, from an offset up to the end offsets.

    The offsets at the end are of no records (marks of commits, aborted rows), and a mark is written
    a moment after a commit returns: so a partition is done when the position that Kafka tells has
    reached the end, and until then the transactions that are open are waited for.

    Raises:
        TopicError: No progress within ``PATIENCE``, or a partition that cannot be read.
    """
    waiting = {partition for partition, end in ends.items() if end > 0}
    with closing(clients.consumer()) as consumer:
        consumer.assign([TopicPartition(topic, p, start) for p in sorted(waiting)])
        heard = time.monotonic()
        while waiting:
            batch: list[Message] = []
            for message in consumer.consume(READ_MESSAGES, timeout=0.1):
                error, partition, offset = message.error(), message.partition(), message.offset()
                assert partition is not None, "a consumer gives both"
                assert offset is not None, "a consumer gives both"
                if error is None:
                    if offset < ends[partition]:
                        batch.append(message)
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise TopicError(f"topic {topic}, partition {partition}, offset {offset}: {error.str()}")
                elif offset >= ends[partition]:
                    waiting.discard(partition)
            reached = {p.partition: p.offset for p in consumer.position(consumer.assignment())}
            waiting -= {partition for partition, offset in reached.items() if offset >= ends[partition]}
            if batch:
                heard = time.monotonic()
                yield batch
            elif waiting and time.monotonic() > heard + PATIENCE:
                raise TopicError(
                    f"topic {topic}: expected to read up to the offsets {dict(ends)} (by partition), got to"
                    f" {reached} and no further for {PATIENCE} s; see whether a transaction hangs"
                    " (kafka-transactions.sh find-hanging) and whether all brokers run"
                )


def _ends(admin: AdminClient, topic: str) -> dict[int, int]:
    """Partition -> the offset behind its last record, committed or not; empty if there is no such topic."""
    found = _describe(admin, [topic])
    if not found:
        return {}
    asked = {TopicPartition(topic, p.id): OffsetSpec.latest() for p in found[topic].partitions}
    futures = admin.list_offsets(asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=ADMIN_SECONDS)
    return {at.partition: future.result().offset for at, future in futures.items()}


def _leaders(admin: AdminClient, topic: str) -> dict[int, tuple[str, int]]:
    """Partition -> host and port of its leader, where there is one."""
    return {
        p.id: (p.leader.host, p.leader.port)
        for told in _describe(admin, [topic]).values()
        for p in told.partitions
        if p.leader
    }


def _describe(admin: AdminClient, topics: Iterable[str]) -> dict[str, TopicDescription]:
    """What Kafka says of the topics that exist."""
    names = sorted(topics)
    if not names:
        return {}
    found = {}
    for name, future in admin.describe_topics(TopicCollection(names), request_timeout=ADMIN_SECONDS).items():
        try:
            found[name] = future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
    return found


def _ensure(admin: AdminClient, topic: str, partitions: int, copies: int, config: dict[str, str]) -> str:
    """Make a topic if there is none, and return its id; without a number of copies, as many as there are brokers."""
    found = _describe(admin, [topic])
    if not found:
        replicas = copies or min(3, len(admin.list_topics(timeout=ADMIN_SECONDS).brokers))
        own = {
            "compression.type": "producer",
            "max.message.bytes": str(MAX_MESSAGE),
            "min.insync.replicas": str(max(1, replicas - 1)),
        }
        try:
            admin.create_topics([NewTopic(topic, partitions, replicas, config=own | config)])[topic].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

        def ready() -> bool:
            # Each question may go to another broker, and one of several learns of a topic later: so it is kept here.
            found.update(_describe(admin, [topic]))
            return topic in found and all(p.leader for p in found[topic].partitions)

        _wait(ready, f"expected topic {topic} to have a leader for each partition")
    return str(found[topic].topic_id)


def _wait(done: Callable[[], bool], expected: str) -> None:
    deadline = time.monotonic() + ADMIN_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise TopicError(f"{expected}, got nothing of the kind in {ADMIN_SECONDS} s; see the broker's log")
        time.sleep(0.05)


def _named(table: Table, source: str, part: rpc.Records, at: int, reason: str) -> Quarantined:
    """Say where a bad record is; of its bytes the beginning, since the topic keeps them all."""
    raw = (part.values[at].as_py() or b"")[:1000].decode("utf-8", "backslashreplace")
    return Quarantined(table.name, source, int(part.offsets[at]), raw, reason)


@contextmanager
def _kafka(clients: Clients, what: str) -> Generator[None]:
    """Turn what Kafka raises into an error that a person can act on."""
    try:
        yield
    except KafkaException as error:
        got = error.args[0]
        why = clients.refusal() if got.code() in _UNHEARD else ""
        raise TopicError(
            f"Kafka at {clients.bootstrap}: expected to {what}, got {got.str() or got.name()}"
            f"{f' ({why})' if why else ''};"
            " see that the broker runs and that its address (ECOM_KAFKA) and settings (ECOM_KAFKA_CONFIG) are right,"
            " then run again"
        ) from error
