"""The layer topic: one Avro record per row, each chunk in one transaction with its ledger record.

What belongs here: ``TopicLayer``, which joins this room's modules to the books and to the layer before. What does not:
any call of a Kafka client.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from functools import partial
from threading import Event
from typing import Any

import pyarrow as pa
from confluent_kafka.admin import AdminClient
from typing_extensions import override

from ecom_assets.core import avro
from ecom_assets.core.context import Context
from ecom_assets.core.errors import NotBuiltError, TopicError
from ecom_assets.core.layer import Built, ChunkSource, Cut, Measurement, Offsets, OffsetSource, Row
from ecom_assets.core.progress import track
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.kafka import cut as cuts
from ecom_assets.kafka import ledger, producer, reader, topics
from ecom_assets.kafka import simulate as feed
from ecom_assets.kafka.clients import Clients, translated
from ecom_assets.kafka.ledger import Totals
from ecom_assets.kafka.measurement import Position, Sums, steps
from ecom_assets.kafka.producer import ProduceResult
from ecom_assets.kafka.reader import Span


class TopicLayer(OffsetSource):
    """The topics of a data set, one per table, each with its ledger.

    Args:
        upstream: Where the chunks come from; it must be picklable, since the processes that produce are sent it.
    """

    name = "topic"
    pool = "kafka"
    kinds = frozenset({"kafka", "avro"})
    replaceable = False
    append_only = True
    description = "One Avro record per row; each chunk is in one transaction with its ledger record."

    def __init__(self, upstream: ChunkSource) -> None:
        self.upstream = self._chunks = upstream

    @override
    def fingerprint(self, at: Context, table: Table) -> str:
        """Name the chunks, the namespace and the brokers.

        Raises:
            NotBuiltError: The layer before it has not been built.
        """
        build = at.books.build(self._chunks.name, table.name)
        if build is None:
            # Chunks need layers of their own first, so "materialize them" would only lead to the next such error.
            remedy = "start the job `ingest`, which builds everything from the raw file to the topic"
            raise NotBuiltError(self._chunks.name, table.name, remedy)
        parts = [build.fingerprint, at.settings.namespace, at.addresses.kafka]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @override
    def declaration(self, at: Context, table: Table) -> Mapping[str, Any]:
        """The key of the records and their schema, the place of a row behind it included."""
        schema = hashlib.sha256(table.avro.encode()).hexdigest()[:16]
        return {"topic_key": ", ".join(table.topic_key), "schema": schema, "place": ", ".join(avro.PLACE.names)}

    @override
    def exists(self, at: Context, table: Table) -> bool:
        """Whether the table has a topic.

        Raises:
            TopicError: Kafka did not do its part.
        """
        with _kafka(at, f"look for {self.stored_as(at.settings, table)}") as (_, admin):
            return bool(topics.topic_id(admin, self.stored_as(at.settings, table)))

    @override
    def stored_as(self, settings: Settings, table: Table) -> str:
        """Name of the table's topic."""
        return table.topic(settings.namespace)

    # Writing

    @override
    def build(self, at: Context, table: Table, *, repair: bool = False) -> Built:
        """Put every chunk of the layer before that is not in yet into the topic, exactly once.

        Raises:
            NotBuiltError: There are no chunks yet.
            CsvError: A chunk differs from its manifest entry; nothing of it is committed.
            OwnedError: Another home owns the topics.
            TopicError: The ledger does not fit the chunks, the topic's settings would lose records, another producer
                fenced this one, or Kafka did not do its part.
        """
        chunks = self._chunks.chunks(at.settings, table)
        key = _sent(table)
        known = ledger.Sent.from_json(at.books.state(key))
        with track(f"topic/{table.name}", sum(c.rows for c in chunks)) as advance:
            done = producer.produce(self._chunks, table, at.settings, at.addresses.kafka, advance, sent=known)
        at.books.set_state(key, asdict(done.sent) if done.sent else None)
        # Not the last stable offsets of this moment: those of a transaction follow a while after its commit.
        ends = self.extend(at, table, Cut()).ends or {}
        notes = {
            "chunks": done.chunks,
            "skipped_chunks": done.skipped_chunks,
            "avro_bytes": done.bytes,
            "ends": {str(partition): end for partition, end in ends.items()},
        }
        return Built(done.rows, done.unchanged, done.seconds, notes)

    @override
    def replay(self, at: Context, table: Table, deliveries: range) -> Built:
        """Send the chunks of some deliveries once more; the ledger marks them as replayed.

        Raises:
            TopicError: As ``build``.
        """
        with track(f"topic/{table.name}", None) as advance:
            kafka = at.addresses.kafka
            done = producer.replay(self._chunks, table, at.settings, kafka, deliveries=deliveries, progress=advance)
        return Built(done.rows, unchanged=True)  # the books keep what the topic was built from

    def simulate(
        self,
        at: Context,
        table: Table,
        stop: Event,
        *,
        rate: float,
        start: str = "",
        rows: int | None = None,
        fresh: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> ProduceResult:
        """Put the chunks into the topic at a chosen rate until it is stopped; see ``simulate.simulate``."""
        kafka = at.addresses.kafka
        return feed.simulate(
            self._chunks,
            table,
            at.settings,
            kafka,
            stop,
            rate=rate,
            start=start,
            rows=rows,
            fresh=fresh,
            progress=progress,
        )

    @override
    def delete(self, at: Context, table: Table) -> None:
        """Delete the topic and its ledger; producers that run are fenced.

        Raises:
            OwnedError: Another home owns the topics.
            TopicError: Kafka did not do its part.
        """
        producer.delete(table, at.settings, at.addresses.kafka)
        at.books.set_state(_state(table), None)
        at.books.set_state(_sent(table), None)

    # Looking on

    @override
    def offsets(self, at: Context, tables: Iterable[Table]) -> dict[str, Offsets]:
        """How far the topics of some tables go, in one round; tables without a topic are left out.

        Raises:
            TopicError: No broker responded, or it refused.
        """
        names = {self.stored_as(at.settings, table): table.name for table in tables}
        with _kafka(at, "read the offsets of the topics") as (_, admin):
            return {names[topic]: found for topic, found in topics.offsets(admin, names).items()}

    @override
    def records(
        self, at: Context, table: Table, start: Mapping[int, int], ends: Mapping[int, int]
    ) -> Iterator[pa.RecordBatch]:
        """Read what is committed of a topic, in flat memory, one partition after the other.

        Raises:
            TopicError: A range cannot be read to its end.
        """
        topic = self.stored_as(at.settings, table)
        with _kafka(at, f"read {topic}") as (access, _):
            leaders = reader.leaders(access, topic)
            for partition, end in sorted(ends.items()):
                span = Span(partition, start.get(partition, 0), end)
                with closing(reader.records(access, topic, span, leaders.get(partition))) as parts:
                    yield from (part.in_columns(partition) for part in parts)

    def ledger_totals(self, at: Context, table: Table) -> Totals:
        """What the ledger comes to now: rows and checksum of the table's own chunks, and of what simulations sent.

        Only entries behind the offset that the books remember are read.

        Raises:
            TopicError: Kafka did not do its part, or the ledger holds a foreign record.
        """
        book = ledger.topic_of(table, at.settings.namespace)
        with _kafka(at, f"read {book}") as (access, admin):
            parts = topics.partitions(topics.describe(admin, [book]))
            end = topics.end_offsets(admin, parts, committed=True).get(book, {}).get(0, 0)
            return _totals(at, table, access, admin, end)

    def check_settings(self, at: Context, table: Table) -> list[str]:
        """Name the settings of the topic and its ledger by which records would be lost or refused, with the remedy.

        Raises:
            TopicError: Kafka did not do its part.
        """
        names = _names(at.settings, table)
        with _kafka(at, f"read the settings of {names[0]}") as (access, admin):
            return topics.check_settings(admin, names, access.bootstrap)

    @override
    def preview(self, at: Context, table: Table, rows: int) -> Sequence[Row]:
        """The first few committed rows; none for a topic that does not exist.

        Raises:
            TopicError: Kafka did not do its part.
        """
        topic = self.stored_as(at.settings, table)
        with _kafka(at, f"read {topic}") as (access, _):
            return reader.head(access, topic, table, rows)

    # Measuring

    @override
    def extend(self, at: Context, table: Table, cut: Cut) -> Cut:
        """Fix the ends of the topic and of its ledger such that no transaction crosses them.

        Producers, simulations included, pause for one request (see ``cut``). A cut whose ends are fixed stays as it is.

        Raises:
            TopicError: A transaction before that point does not end, or Kafka did not do its part.
        """
        if cut.ends is not None:
            return cut
        with _kafka(at, f"fix a cut of {self.stored_as(at.settings, table)}") as (_, admin):
            fixed = cuts.fix(admin, table, at.settings)
        return replace(cut, ends=fixed.ends, ledger=fixed.ledger)

    @override
    def position(self, at: Context, table: Table, cut: Cut) -> str:
        """Name the content at a cut: the topic's id, its first offsets, and the offsets of the cut.

        Raises:
            TopicError: Kafka did not do its part.
        """
        topic = self.stored_as(at.settings, table)
        with _kafka(at, f"look for {topic}") as (_, admin):
            return Position.at(admin, topic, cut).to_text()

    @override
    def measure(self, at: Context, table: Table, cut: Cut) -> Measurement:
        """Read, decode and hash every committed record before ``cut.ends``.

        ``quarantined`` are the records before ``cut.read`` (before ``cut.ends`` if that is not fixed) that are not
        rows; their checksum is the sum of ``core.quarantine.topic_record_hash``. ``pending`` are the rows at or behind
        ``cut.read``, ``replayed`` those that the ledger names as such up to ``cut.ledger``, ``live`` those that no
        delivery brought. Bad records are problems only if the other rows do not equal the ledger.

        Raises:
            TopicError: Kafka did not do its part.
        """
        found = self._measured(at, table, None, cut)
        assert found is not None, "from the beginning there is always a path"
        return found

    @override
    def derive(self, at: Context, table: Table, known: Measurement, cut: Cut) -> Measurement | None:
        """Get a measurement from a known one by the records between their offsets, which are added or subtracted.

        ``None`` if the topic is another one, if records that were counted are gone from it, or if the result does not
        equal the ledger: then only ``measure`` can name what differs.

        Raises:
            TopicError: Kafka did not do its part.
        """
        return self._measured(at, table, known, cut)

    def _measured(self, at: Context, table: Table, known: Measurement | None, cut: Cut) -> Measurement | None:
        began = time.perf_counter()
        topic, book = _names(at.settings, table)
        with _kafka(at, f"read {topic}") as (access, admin), track(f"measure topic/{table.name}", None) as advance:
            wanted = Position.at(admin, topic, cut)
            before = Position.from_text(known.position) if known else Position(wanted.topic_id, wanted.first)
            if before is None or not before.leads_to(wanted):
                return None
            path = steps(before, wanted)
            found = reader.measure(access, topic, table, [step.span for step in path], advance)
            sums = (Sums.of(known) if known else Sums()).along(path, found)
            totals = _totals(at, table, access, admin, wanted.ledger)
            if known and not sums.fits(totals):
                return None
            problems = topics.check_settings(admin, [topic, book], access.bootstrap)
        seconds = time.perf_counter() - began
        return sums.measurement(table, topic, wanted, totals=totals, problems=problems, seconds=seconds)


@contextmanager
def _kafka(at: Context, what: str) -> Generator[tuple[Clients, AdminClient]]:
    """The clients of a home; what they raise is translated."""
    access = Clients.of(at.settings, at.addresses.kafka)
    with translated(access, what, at.settings.home):
        yield access, access.admin()


def _names(settings: Settings, table: Table) -> tuple[str, str]:
    """The topic and its ledger."""
    return table.topic(settings.namespace), ledger.topic_of(table, settings.namespace)


def _sent(table: Table) -> str:
    """Under which the books keep what the ledger was found to have."""
    return f"topic/{table.name}/sent"


def _state(table: Table) -> str:
    return f"topic/{table.name}/ledger"


def _totals(at: Context, table: Table, access: Clients, admin: AdminClient, end: int) -> Totals:
    """Totals of the ledger up to an offset, from those that the books remember on; the latest are remembered."""
    topic, book = _names(at.settings, table)
    found = topics.describe(admin, [topic, book])
    ids = {"topic_id": str(found[topic].topic_id), "ledger_id": str(found[book].topic_id)} if len(found) == 2 else {}
    state, known = at.books.state(_state(table)), Totals()
    if ids and state and state["topic_id"] == ids["topic_id"]:
        if state["ledger_id"] != ids["ledger_id"]:
            raise TopicError(
                f"topic {book}: expected the ledger of {topic} that was read before (id {state['ledger_id']}), got"
                f" another topic (id {ids['ledger_id']}): it was deleted, and with it what is known of {topic}",
                f"`ecom reset topic --table {table.name} --home {at.settings.home}`, then run again",
            )
        known = Totals.from_json(state)
    leader = found[book].partitions[0].leader if ids and access.plain else None
    read = partial(ledger.entries, access, book, leader=(leader.host, leader.port) if leader else None)
    totals = ledger.totals_at(known, end, ids.get("topic_id", ""), read)
    if ids and end > known.offset:
        at.books.set_state(_state(table), ids | totals.to_json())
    return totals
