"""The state of the outside world that sensors decide by: how far each table has come from the topic to the pages.

What belongs here: looking at topics, tables and books, quickly. What does not: decisions (``sensors``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ecom_assets.core.context import Context
from ecom_assets.core.layer import Offsets
from ecom_assets.dataset.model import Table
from ecom_assets.lake import delta, merge, query, streamed
from ecom_assets.lake.query import Place
from ecom_assets.paths import TOPIC
from ecom_assets.serving import publication


@dataclass(frozen=True)
class Progress:
    """How far a table has come.

    Attributes:
        table: Its name.
        offsets: How far its topic goes; ``None`` if there is none.
        ingested: Partition -> offset up to which the last ingestion has written; ``None`` if there was none.
        expected: Rows of the last chunked build; ``None`` if there was none.
        own: Rows of its own chunks in the topic.
        replayed: Rows that a simulation sent again.
        simulated: Rows that a simulation generated.
        read: Partition -> offset that the streamed table has looked at.
        streamed: Records in the streamed table.
        version: Version of the streamed table; empty without one.
        merged: Version of the streamed table that the merged one holds; empty without one.
    """

    table: str
    offsets: Offsets | None
    ingested: dict[int, int] | None
    expected: int | None
    own: int
    replayed: int
    simulated: int
    read: dict[int, int]
    streamed: int
    version: str
    merged: str

    @property
    def unread(self) -> int:
        """Offsets of the topic that the streamed table has not looked at."""
        ends = self.offsets.ends if self.offsets else {}
        return sum(abs(end - self.read.get(partition, 0)) for partition, end in ends.items())

    @property
    def ingesting(self) -> str:
        """Why the table's ingestion is not complete; empty if it is."""
        if self.offsets is None or self.expected is None or self.ingested is None:
            return f"{self.table}: nothing has been ingested yet"
        if self.own < self.expected:
            return f"{self.table}: {self.own:,} of {self.expected:,} rows are in the topic"
        return ""

    @property
    def streaming(self) -> str:
        """Why what was ingested is not streamed; empty if it is. Rows of a live stream may still be unread."""
        if self.ingesting:
            return self.ingesting
        behind = sum(max(0, end - self.read.get(p, 0)) for p, end in (self.ingested or {}).items())
        return f"{self.table}: {behind:,} ingested offsets are not streamed yet" if behind else ""


def progress(at: Context) -> dict[str, Progress]:
    """How far every table has come; quick enough for a sensor.

    Raises:
        TopicError: No broker responded, or it refused.
        ServiceError: It does not run.
    """
    tables = at.dataset.tables
    offsets = TOPIC.offsets(at, tables.values())
    return {name: _progress(at, table, offsets.get(name)) for name, table in tables.items()}


def _progress(at: Context, table: Table, offsets: Offsets | None) -> Progress:
    chunked, topic = at.books.build("chunked", table.name), at.books.build("topic", table.name)
    ends = topic.notes.get("ends") if topic else None
    totals = TOPIC.ledger_totals(at, table) if offsets else None
    place = Place.of(table, at.settings)
    version = delta.rows_version(place.table)
    merged = None
    if version and delta.rows_version(path := merge.folder(table, at.settings)):
        merged = merge.merged_version(delta.latest(path), version.id)
    return Progress(
        table.name,
        offsets,
        {int(partition): end for partition, end in ends.items()} if ends is not None else None,
        chunked.rows if chunked else None,
        totals.own.rows if totals else 0,
        totals.replayed.rows if totals else 0,
        totals.simulated.rows if totals else 0,
        query.seen(place, table, TOPIC.stored_as(at.settings, table)),
        delta.records(place.table),
        str(version or ""),
        str(merged or ""),
    )


def is_live(at: Context, name: str) -> bool:
    """Whether `ecom stream` or the job `follow` reads a table's topic."""
    return streamed.is_followed(at.dataset.tables[name], at.settings)


def published_for(at: Context) -> timedelta | None:
    """How long ago the last publication was; ``None`` if there was none."""
    last = publication.last(at.books)
    return datetime.now(UTC) - datetime.fromisoformat(last.at) if last else None
