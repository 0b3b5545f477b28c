"""What a layer is: the protocol in front of every system's work, and the values that pass through it.

What belongs here: ``Layer``, the few narrower protocols by which one room uses another's layer, ``Built``, ``Cut``,
``Measurement`` and ``Changes``. What does not: any work (each room has the class of its layer), any decision when to do
it (``engine``) and any comparison (``reconcile.report``).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from ecom_assets.core.home import hint
from ecom_assets.core.measure import Measure
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from ecom_assets.core.context import Context

Row = Mapping[str, object]


@dataclass(frozen=True)
class Built:
    """What a build did.

    Attributes:
        rows: Rows written by this build; 0 if there was nothing to do.
        unchanged: Whether there was nothing to do.
        seconds: Time it took; the engine fills it in.
        notes: Further figures by name; they are kept in the books and shown in the UI.
    """

    rows: int = 0
    unchanged: bool = False
    seconds: float = 0.0
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cut:
    """One point in a table's history up to which all its layers are measured.

    A cut is fixed backward from the last layer: each layer knows which version, or which offsets, of the one before it
    was built from (``Layer.extend``). So both sides of a boundary are read at the same point, however far the other
    layers have come in the meantime.

    Attributes:
        merged: Version of the merged Delta table, ``id@number``; ``None`` where no later layer fixed one.
        streamed: Version of the streamed Delta table, ``id@number``.
        read: Partition -> offset up to which that version has read the topic.
        ends: Partition -> offset up to which the topic is measured; no transaction crosses it.
        ledger: Offset up to which entries of the ledger count: all transactions before ``ends`` and no other.
    """

    merged: str | None = None
    streamed: str | None = None
    read: Mapping[int, int] | None = None
    ends: Mapping[int, int] | None = None
    ledger: int | None = None


@dataclass(frozen=True)
class Measurement:
    """What one layer of one table was found to hold at a cut.

    Attributes:
        table: Name of the table.
        layer: Name of the layer.
        measure: Its good rows.
        excluded: Further rows by reason. Those of ``boundary.LEFT_OUT`` were left out at the boundary before this
            layer. A simulation sent ``replayed`` rows into the topic once more, and no delivery brought the ``live``
            ones, so they are among its rows and not among those of the layer before. ``pending`` rows are among the
            topic's rows and not among those of the layer behind it. ``quarantined`` rows could not be read: in raw and
            topic they are stored among the others, in expanded and streamed they were moved to quarantine; their
            checksum is that of ``core.quarantine``.
        position: Names the content that was measured: equal names, equal content.
        copies: Expanded only: each copy with its keys folded back to those of the first.
        last_copy: Raw only: the rows that the last copy takes.
        problems: What was found damaged, a few samples, a sentence each.
        build_seconds: Time it took to build the layer, if known.
    """

    table: str
    layer: str
    measure: Measure
    excluded: Mapping[str, Measure] = field(default_factory=dict)
    position: str = ""
    copies: tuple[Measure, ...] = ()
    last_copy: Measure | None = None
    problems: tuple[str, ...] = ()
    build_seconds: float = 0.0

    @property
    def excluded_rows(self) -> int:
        """Rows of ``excluded``."""
        return sum(m.rows for m in self.excluded.values())

    def to_json(self) -> dict[str, Any]:
        """A JSON object that ``from_json`` reads."""
        return {
            "table": self.table,
            "layer": self.layer,
            "measure": self.measure.to_json(),
            "excluded": {reason: m.to_json() for reason, m in self.excluded.items()},
            "position": self.position,
            "copies": [m.to_json() for m in self.copies],
            "last_copy": self.last_copy.to_json() if self.last_copy else None,
            "problems": list(self.problems),
            "build_seconds": round(self.build_seconds, 3),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Measurement:
        """Read what ``to_json`` wrote."""
        return cls(
            data["table"],
            data["layer"],
            Measure.from_json(data["measure"]),
            {reason: Measure.from_json(m) for reason, m in data["excluded"].items()},
            data["position"],
            tuple(Measure.from_json(m) for m in data["copies"]),
            Measure.from_json(data["last_copy"]) if data["last_copy"] else None,
            tuple(data["problems"]),
            data["build_seconds"],
        )


class Layer(Protocol):
    """A stage that every table passes, in one system; a class per layer, in the room of its system.

    A layer holds no connection and no state of a home: all of that comes with the ``Context`` of each call. Every
    method may be repeated at any moment, after any crash. None deletes sound data: only ``delete`` does, and a
    ``build`` with ``repair`` builds the new content next to the old and swaps it in.

    Attributes:
        name: First part of its assets' keys.
        upstream: The layer it is built from; ``None`` for the first one.
        pool: Builds and checks of one pool run one at a time.
        kinds: Technologies, for the UI.
        replaceable: Whether it may be rebuilt and swapped; a topic may not, since others read it.
        append_only: Whether new content leaves the old as it is, as in a log; what comes behind a cut can wait for the
            next one.
        description: What it holds, one sentence for the UI.
    """

    name: str
    upstream: Layer | None
    pool: str
    kinds: frozenset[str]
    replaceable: bool = True
    append_only: bool = False
    description: str

    @abstractmethod
    def fingerprint(self, at: Context, table: Table) -> str:
        """Name what a build now would be made from: equal names, equal content. Reads no data.

        Raises:
            NotBuiltError: The layer before it has not been built.
        """
        ...

    def declaration(self, at: Context, table: Table) -> Mapping[str, Any]:  # noqa: ARG002  the default
        """What of the declaration and the settings is built into this layer; a change of it means a rebuild."""
        return {}

    @abstractmethod
    def exists(self, at: Context, table: Table) -> bool:
        """Whether the layer holds the table."""
        ...

    @abstractmethod
    def build(self, at: Context, table: Table, *, repair: bool = False) -> Built:
        """Bring the layer up to what is upstream.

        Args:
            at: Connections and settings.
            table: The table.
            repair: Build all of it again next to what is there, and swap. Never passed to a layer that is not
                replaceable.
        """
        ...

    def receive(self, at: Context) -> None:  # noqa: ARG002  the default
        """Take what waits outside, for all tables; of a layer that is built from another, nothing does.

        So a delivery counts for the tables that it does not touch, too.
        """
        return

    def replay(self, at: Context, table: Table, deliveries: range) -> Built:  # noqa: ARG002  the default
        """Bring the rows of some deliveries in once more; the layer holds the same ones as before.

        Args:
            at: Connections and settings.
            table: The table.
            deliveries: Their sequences.
        """
        return self.build(at, table, repair=self.replaceable)

    def remedy(self, settings: Settings, table: Table) -> str:
        """What to do about a layer whose check failed, as a clause that follows its name."""
        if self.upstream is None:
            return "bring the file back as it was, or load the new one into another home"
        if self.replaceable:
            return f"`{hint('run --repair', settings)}` rebuilds it and what is built from it"
        reset = hint(f"reset {self.name} --table {table.name}", settings)
        return f"others may read it, so nothing replaces it; `{reset}` deletes it, `{hint('run', settings)}` builds it"

    def extend(self, at: Context, table: Table, cut: Cut) -> Cut:  # noqa: ARG002  the default
        """Fix this layer in a cut, and the point of the layer before it that this one was built from."""
        return cut

    @abstractmethod
    def position(self, at: Context, table: Table, cut: Cut) -> str:
        """Name the content at a cut: equal names, equal content. Reads no data."""
        ...

    @abstractmethod
    def measure(self, at: Context, table: Table, cut: Cut) -> Measurement:
        """Read the layer back at a cut, every row of it."""
        ...

    def derive(self, at: Context, table: Table, known: Measurement, cut: Cut) -> Measurement | None:  # noqa: ARG002
        """Get the measurement at a cut from a known one by reading only the difference; ``None``: not possible."""
        return None

    def differences(self, at: Context, table: Table, cut: Cut) -> Sequence[str]:  # noqa: ARG002  the default
        """Name the first rows that differ from the layer before, after a check has failed; a sentence each."""
        return ()

    @abstractmethod
    def delete(self, at: Context, table: Table) -> None:
        """Delete the layer's content of a table, its quarantine and checkpoints included."""
        ...

    @abstractmethod
    def preview(self, at: Context, table: Table, rows: int) -> Sequence[Row]:
        """The first few rows; none where there are none."""
        ...

    @abstractmethod
    def stored_as(self, settings: Settings, table: Table) -> str:
        """Full name of what holds the table: a path, a topic, an HBase table."""
        ...


@dataclass(frozen=True)
class Changes:
    """How a source's rows at a cut differ from those at an earlier one; batches in schema order.

    Attributes:
        new: Rows that are there and were not: inserted ones, and those of updates as they are now. Each call
            reads them again.
        old: Rows that were there and are not any more: deleted ones, and those of updates as they were.
        replaced: How many rows ``old`` has; 0 if the table has only grown.
    """

    new: Callable[[], Iterable[pa.RecordBatch]]
    old: Callable[[], Iterable[pa.RecordBatch]] = tuple
    replaced: int = 0


class RowSource(Layer, Protocol):
    """A layer that HBase can be loaded from: the merged tables, or the unique rows of the expanded files."""

    @abstractmethod
    def batches(self, at: Context, table: Table, cut: Cut) -> Iterable[pa.RecordBatch]:
        """Clean rows in schema order, each primary key once, at a cut."""
        ...

    def changes(self, at: Context, table: Table, since: Cut, cut: Cut) -> Changes | None:  # noqa: ARG002
        """How the rows at a cut differ from those at an earlier one; ``None`` if that cannot be named."""
        return None

    @abstractmethod
    def sample(self, at: Context, table: Table, columns: Sequence[str]) -> pa.Table:
        """Some columns of about 100,000 rows spread evenly, always the same ones of the same content."""
        ...

    @abstractmethod
    def frame(self, at: Context, table: Table, cut: Cut) -> DataFrame:
        """The same rows as a Spark frame.

        Raises:
            ServiceError: This source has no frame.
        """
        ...

    @abstractmethod
    def left_out(self, at: Context, table: Table) -> Mapping[str, Measure]:
        """Rows of this layer that ``batches`` leaves out, by reason, measured again; empty where there are none."""
        ...


@dataclass(frozen=True)
class Chunk:
    """One part of a table: the unit that the ledger of a topic knows.

    Attributes:
        name: Its file name.
        rows: Rows in it.
        bytes: Its size in bytes, header included.
        checksum: Sum of its row hashes modulo 2^64.
        delivery: Sequence of the delivery that it is of; it follows from the name.
        first_row: Number of its first row there, from 0; it follows from the chunks before.
    """

    name: str
    rows: int
    bytes: int
    checksum: int
    delivery: int = field(default=0, compare=False)
    first_row: int = field(default=0, compare=False)


class ChunkSource(Layer, Protocol):
    """A layer of chunks, as the producer of a topic reads it. Its methods need no connection: processes share it."""

    @abstractmethod
    def chunks(self, settings: Settings, table: Table) -> list[Chunk]:
        """All chunks in order.

        Raises:
            NotBuiltError: The layer has not been built, or not to its end.
        """
        ...

    @abstractmethod
    def read(self, settings: Settings, table: Table, chunks: Sequence[Chunk]) -> list[bytes]:
        """The bytes of some chunks.

        Raises:
            CsvError: The file of a chunk is gone; names it and the remedy.
        """
        ...

    @abstractmethod
    def rows(self, table: Table, chunks: Sequence[Chunk], data: Sequence[bytes]) -> pa.RecordBatch:
        """The rows of some chunks, in order, verified against the chunks' row counts and checksums.

        Raises:
            CsvError: A chunk differs from its manifest entry; names it and the remedy.
        """
        ...


@dataclass(frozen=True)
class Offsets:
    """How far a topic goes.

    Attributes:
        topic_id: Kafka's id of the topic, new each time a topic is created.
        first: Partition -> first offset that Kafka still holds.
        ends: Partition -> offset behind the last committed record (the last stable offset).
        last: When its last record was written, seconds since the epoch; ``None`` for an empty topic.
    """

    topic_id: str
    first: Mapping[int, int]
    ends: Mapping[int, int]
    last: float | None


class OffsetSource(Layer, Protocol):
    """A layer of topics, as the streaming query reads it."""

    @abstractmethod
    def offsets(self, at: Context, tables: Iterable[Table]) -> dict[str, Offsets]:
        """How far the topics of some tables go, in one round; tables without a topic are left out.

        Raises:
            TopicError: No broker responded, or it refused.
        """
        ...

    @abstractmethod
    def records(
        self, at: Context, table: Table, start: Mapping[int, int], ends: Mapping[int, int]
    ) -> Iterator[pa.RecordBatch]:
        """Read what is committed of a topic, in flat memory.

        Args:
            at: Connections and settings.
            table: Whose topic.
            start: Partition -> first offset; 0 where it is not named.
            ends: Partition -> offset to stop before.

        Yields:
            The columns key, value, partition, offset and timestamp, as Spark's Kafka source has them.

        Raises:
            TopicError: A range cannot be read to its end.
        """
        ...
