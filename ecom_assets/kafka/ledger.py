"""The ledger of a topic: a record for each chunk that was put in, in the same transaction as the chunk's rows.

What belongs here: its entries, and running totals of them. What does not: who writes it (``producer``).

Each table has a ledger of its own, ``<namespace>.<table>.ledger``, of one partition, so an offset names a point in it.
It is append-only and never compacted, and no entry comes twice: a producer reads it after all earlier producers are
fenced, so it puts a chunk in at most once for each id of the topic; replays have names of their own; and an attempt
that failed is aborted together with its entries. So totals need no set of names: the totals at one offset plus the
entries behind it are those at a later one, and minus the entries before it those at an earlier one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Self

from ecom_assets.core.errors import TopicError
from ecom_assets.core.layer import Chunk
from ecom_assets.core.measure import Measure
from ecom_assets.core.row_hash import MODULUS
from ecom_assets.dataset.model import Table
from ecom_assets.kafka import reader
from ecom_assets.kafka.clients import Clients
from ecom_assets.kafka.reader import NONE

REPLAY = "replay-"
"""Begins the names of entries of chunks that are in once more: ``replay-<run>-<number>/<chunk>``."""

SIMULATED = "simulated-"
"""Begins the names of entries of rows that no chunk has, in the same way; ``<chunk>`` is the one that they were derived
from."""

_KINDS = {REPLAY: "replayed", SIMULATED: "simulated"}
_SUMS = ("own", *_KINDS.values())


@dataclass(frozen=True)
class LedgerEntry:
    """A chunk that is in a topic.

    Attributes:
        table: Name of its table.
        chunk: What was put in.
        topic_id: Kafka's id of the topic, new each time a topic is created.
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

    @property
    def kind(self) -> str:
        """Which of the sums of ``Totals`` its rows belong to."""
        return next((kind for begin, kind in _KINDS.items() if self.chunk.name.startswith(begin)), "own")

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


@dataclass(frozen=True)
class Totals:
    """What the ledger of a topic comes to.

    Attributes:
        own: Rows of the table's own chunks, each once.
        replayed: Rows that a simulation put in once more.
        simulated: Rows that a simulation generated.
        offset: Offset of the ledger up to which its entries are counted.
        entries: Entries that were read for this.
    """

    own: Measure = NONE
    replayed: Measure = NONE
    simulated: Measure = NONE
    offset: int = 0
    entries: int = 0

    @property
    def delivered(self) -> Measure:
        """What the topic must hold of rows that deliveries brought."""
        return self.own + self.replayed

    def to_json(self) -> dict[str, Any]:
        """A JSON object that ``from_json`` reads; without ``entries``."""
        sums = {name: getattr(self, name).to_json() for name in _SUMS}
        return {**sums, "offset": self.offset}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Totals:
        """Read what ``to_json`` wrote; further keys are ignored."""
        own, replayed, simulated = (Measure.from_json(data[name]) for name in _SUMS)
        return cls(own, replayed, simulated, data["offset"])


@dataclass(frozen=True)
class Sent:
    """Chunks that a ledger was found to have, so that it need not be read from its beginning again.

    Attributes:
        topics: Kafka's ids of the topic and its ledger.
        offset: Offset of the ledger behind their entries.
        chunks: How many they are, the first of the table's.
        digest: Of these chunks, which must be the same ones.
    """

    topics: tuple[str, str]
    offset: int
    chunks: int
    digest: str

    def of(self, topics: tuple[str, str], end: int, chunks: list[Chunk]) -> list[Chunk]:
        """The first of a table's chunks, if these are in the topic by this; none if topics or chunks are others.

        Args:
            topics: Kafka's ids of the topic and its ledger now.
            end: End offset of the ledger.
            chunks: The table's chunks now.
        """
        first = chunks[: self.chunks]
        return first if (self.topics, self.digest) == (topics, digest(first)) and self.offset <= end else []

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Self | None:
        """Read what ``dataclasses.asdict`` made of one."""
        if not data:
            return None
        topic, book = data["topics"]
        return cls((topic, book), data["offset"], data["chunks"], data["digest"])


def topic_of(table: Table, namespace: str) -> str:
    """Name of a table's ledger."""
    return f"{table.topic(namespace)}.ledger"


def entries(
    access: Clients, topic: str, start: int, end: int, leader: tuple[str, int] | None = None
) -> Iterator[LedgerEntry]:
    """Read a range of a ledger, entries of deleted topics included.

    Args:
        access: The clients.
        topic: Name of the ledger.
        start: First offset.
        end: Offset to stop before.
        leader: Host and port of its partition's leader, if it may be read from directly.

    Raises:
        TopicError: It holds a foreign record, or cannot be read.
    """
    with closing(reader.records(access, topic, reader.Span(0, start, end), leader)) as parts:
        for part in parts:
            for offset, value in zip(part.offsets.tolist(), part.values.to_pylist(), strict=True):
                try:
                    entry = LedgerEntry.from_json(value)
                except (ValueError, KeyError, TypeError) as error:
                    raise TopicError(
                        f"topic {topic}, partition 0, offset {offset}: expected a ledger entry, got {value!r}"
                        f" ({error!r}); something else writes to this topic",
                        "choose another namespace (ECOM_NAMESPACE)",
                    ) from error
                yield entry


def totals_at(known: Totals, end: int, topic_id: str, read: Callable[[int, int], Iterator[LedgerEntry]]) -> Totals:
    """Totals up to an offset, by the entries between it and that of known totals, be it later or earlier.

    Args:
        known: Totals of the same topic at another offset; ``Totals()``: at the beginning.
        end: The offset.
        topic_id: Whose entries count.
        read: Reads the entries between two offsets, as ``entries`` does.
    """
    sums, count = {name: getattr(known, name) for name in _SUMS}, 0
    forward = end >= known.offset
    for entry in read(*sorted((known.offset, end))):
        count += 1
        if entry.topic_id == topic_id:
            part = Measure(entry.chunk.rows, entry.chunk.checksum)
            sums[entry.kind] += part if forward else negative(part)
    return Totals(**sums, offset=end, entries=count)


def negative(measure: Measure) -> Measure:
    """What takes a measure away when it is added."""
    return replace(measure, rows=-measure.rows, checksum=-measure.checksum % MODULUS, bytes=-measure.bytes)


def digest(chunks: Sequence[Chunk]) -> str:
    """A name of chunks as they are."""
    return hashlib.sha256(repr([(c.name, c.rows, c.checksum) for c in chunks]).encode()).hexdigest()
