"""The streamed layer: one row per record of a topic, undecodable records included.

What belongs here: the layer, what it holds at a cut, and its part of the quarantine. What does not: the query itself
(``query``), reading a few records without it (``fetch``), the continuous one (``follow``) and anything that looks at
more than one record (``merge``).

A single Delta commit accounts for all offsets of a micro-batch, so the quarantine is derived from the table, never
written in place of a row.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from pyspark.sql import functions as sf

from ecom_assets.core import row_hash
from ecom_assets.core.errors import LakeError, NotBuiltError
from ecom_assets.core.layer import Built, Cut, Layer, Measurement, OffsetSource, Row
from ecom_assets.core.location import Location, exists, remove
from ecom_assets.core.location import replace as swap
from ecom_assets.core.measure import Measure
from ecom_assets.core.progress import track
from ecom_assets.core.quarantine import topic_record_hash
from ecom_assets.core.settings import Settings
from ecom_assets.core.spark import reachable
from ecom_assets.dataset.model import Table
from ecom_assets.lake import delta, fetch, live_days, owner, quarantine, query, rewrite
from ecom_assets.lake.query import Place

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from ecom_assets.core.context import Context


class StreamedLayer(Layer):
    """Topics in Delta tables.

    Args:
        upstream: The topics.
    """

    name = "streamed"
    pool = "spark"
    kinds = frozenset({"spark", "delta"})
    replaceable = True
    description = "One row per record, with topic, partition, offset and timestamp."

    def __init__(self, upstream: OffsetSource) -> None:
        self.upstream = upstream
        self._topics = upstream

    def fingerprint(self, at: Context, table: Table) -> str:
        """The topic's id and its end offsets."""
        offsets = self._topics.offsets(at, [table]).get(table.name)
        if offsets is None:
            raise NotBuiltError(self._topics.name, table.name)
        return json.dumps([offsets.topic_id, sorted(offsets.ends.items())])

    def declaration(self, at: Context, table: Table) -> Mapping[str, Any]:  # noqa: ARG002
        """The columns that a record is decoded to."""
        return {"avro schema": table.avro}

    def exists(self, at: Context, table: Table) -> bool:
        """Whether there is a Delta table."""
        return exists(folder(table, at.settings))

    def build(self, at: Context, table: Table, *, repair: bool = False) -> Built:
        """Stream what is new in the topic, then stop: by Spark, or by this process where it is little.

        Spark's checkpoint and Delta's transaction identifiers make it exactly-once, also when a run was killed. A lost
        checkpoint is rebuilt from the table; a lost table is read again from the start of the topic.

        Raises:
            LakeError: The topic is missing, or the query failed.
            TopicError: No broker responded.
        """
        owner.register(at)
        rows = self._known_rows(at, table)
        with track(f"{self.name}/{table.name}", rows) as advance:
            streamed = self._rebuild(at, table, advance) if repair else self._resume(at, table, advance)
        return Built(streamed, unchanged=not streamed)

    def _known_rows(self, at: Context, table: Table) -> int | None:
        known = at.books.last_measurement(self._topics.name, table.name)
        return known.measure.rows if known else None

    def _resume(self, at: Context, table: Table, advance: Callable[[int], None]) -> int:
        place = Place.of(table, at.settings)
        while not (lock := try_lock(table, at.settings)):
            # Another process streams this table; little is left when it is done.
            if exists(place.table) and not self.unread(at, table):
                return 0
            time.sleep(1)
        with lock:
            before = delta.records(place.table)
            left = self.unread(at, table) if exists(place.table) else None
            if left == 0:
                if not settled(table, at.settings):
                    quarantine_undecoded(at, table)
                live_days.record(at, table)
                return 0
            rewrite.gather(place.table)
            if left is not None and left <= fetch.FEW:
                fetch.fetch(at, table, self._topics, place, advance)
            else:
                self._stream(at, table, place, advance)
            quarantine_undecoded(at, table)
            live_days.record(at, table)
            return delta.records(place.table) - before

    def _rebuild(self, at: Context, table: Table, advance: Callable[[int], None]) -> int:
        """Read the whole topic into a new table, and swap it for the one there."""
        lock = try_lock(table, at.settings)
        if lock is None:
            raise LakeError(f"streamed/{table.name}: another process streams it", "stop `ecom stream`, then run again")
        place, new = Place.of(table, at.settings), Place.next_to(table, at.settings)
        with lock:
            new.remove()
            self._stream(at, table, new, advance)
            rows = delta.records(new.table)
            # The old checkpoint must not outlive its table: a query would send again what the new table holds. Without
            # a checkpoint it resumes behind the offsets that the new table names.
            remove(place.checkpoint)
            swap(new.table, place.table)
            new.remove()
            quarantine_undecoded(at, table)
            live_days.record(at, table)
        return rows

    def _stream(self, at: Context, table: Table, place: Place, advance: Callable[[int], None]) -> None:
        known = delta.records(place.table)
        with query.running(at, table, self._topics, place, {"availableNow": True}) as running:
            done = False
            while not done:
                done = bool(running.awaitTermination(1))
                now = delta.records(place.table)
                advance(now - known)
                known = now

    def unread(self, at: Context, table: Table) -> int:
        """How many offsets of the topic have not been looked at yet.

        Raises:
            NotBuiltError: There is no topic.
        """
        offsets = self._topics.offsets(at, [table]).get(table.name)
        if offsets is None:
            raise NotBuiltError(self._topics.name, table.name)
        topic = self._topics.stored_as(at.settings, table)
        return query.unread(Place.of(table, at.settings), table, topic, offsets.ends)

    def extend(self, at: Context, table: Table, cut: Cut) -> Cut:
        """Fix the version, unless a later layer did, and the offsets that its rows come from."""
        path = folder(table, at.settings)
        version = delta.Version.parse(cut.streamed) if cut.streamed else delta.rows_version(path)
        if version is None:
            raise NotBuiltError(self.name, table.name)
        read = query.committed(delta.at_version(path, version), self._topics.stored_as(at.settings, table))
        return replace(cut, streamed=str(version), read=read)

    def position(self, at: Context, table: Table, cut: Cut) -> str:  # noqa: ARG002
        """The version of the Delta table."""
        return cut.streamed or ""

    def measure(self, at: Context, table: Table, cut: Cut) -> Measurement:
        """Read the table back by another program than the one that writes it."""
        return self._measured(at, table, cut, None)

    def derive(self, at: Context, table: Table, known: Measurement, cut: Cut) -> Measurement | None:
        """Read the files alone that the table got since, if it has only grown."""
        path = folder(table, at.settings)
        versions = [delta.Version.parse(position) for position in (known.position, cut.streamed or "")]
        names = delta.added(path, *versions)
        if names is None:
            return None
        found = self._measured(at, table, cut, names)
        bad = known.excluded["quarantined"] + found.excluded["quarantined"]
        return replace(found, measure=known.measure.before + found.measure, excluded={"quarantined": bad})

    def _measured(self, at: Context, table: Table, cut: Cut, names: set[str] | None) -> Measurement:
        """Read the table's files at a cut, or some of them."""
        path = folder(table, at.settings)
        version = delta.Version.parse(cut.streamed or "")
        found = delta.at_version(path, version)
        with track(f"verification: {self.name}/{table.name}", None):
            good = delta.measure(table, found, "_undecoded", names)
            bad = _undecoded(found, names)
        problems: tuple[str, ...] = ()
        if version == delta.rows_version(path) and not settled(table, at.settings):
            problem = (
                f"streamed/{table.name}: expected its undecodable records in {quarantine.folder(table, at.settings)},"
                f" got others; materialize streamed/{table.name} again"
            )
            problems = (problem,)
        return Measurement(
            table.name,
            self.name,
            good,
            {"quarantined": bad},
            position=self.position(at, table, cut),
            problems=problems,
        )

    def delete(self, at: Context, table: Table) -> None:
        """Delete the table, its checkpoint and its quarantine; the topic stays."""
        owner.register(at)
        quarantine.replace(None, table, at.settings, "topic")
        Place.of(table, at.settings).remove()
        Place.next_to(table, at.settings).remove()

    def preview(self, at: Context, table: Table, rows: int) -> Sequence[Row]:
        """The first few rows."""
        return delta.head(folder(table, at.settings), table.names, rows)

    def stored_as(self, settings: Settings, table: Table) -> str:
        """The Delta table's folder."""
        return str(folder(table, settings))


def folder(table: Table, settings: Settings) -> Location:
    """Folder of the streamed Delta table."""
    return Place.of(table, settings).table


def try_lock(table: Table, settings: Settings) -> AbstractContextManager[object] | None:
    """Lock the streaming of a table until the returned block ends; ``None`` if another process holds the lock."""
    path = settings.home / "locks" / f"streamed-{table.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def is_followed(table: Table, settings: Settings) -> bool:
    """Whether a process streams the table just now."""
    if lock := try_lock(table, settings):
        with lock:
            return False
    return True


_ROWS = "null_count._undecoded.reason"
"""How many records of a file are rows, in the log's statistics."""


def undecoded(found: DeltaTable) -> int:
    """How many records of a streamed table are not rows: from its log, and from files of which the log does not say."""
    known, unknown = _described(delta.files(found))
    counted = pc.sum(pc.subtract(known["num_records"], known[_ROWS])).as_py() or 0
    if not unknown.num_rows:
        return counted
    return counted + sum(
        len(b) - b["_undecoded"].null_count for b in delta.batches(found, ["_undecoded"], names=_names(unknown))
    )


def _described(files: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Files of which the log says how many of their records are rows, and others.

    The sink says it; delta-rs does not, of the files that it writes when it compacts a table.
    """
    if _ROWS not in files.column_names:
        return files.slice(0, 0).append_column(_ROWS, pa.array([], pa.int64())), files
    said = pc.is_valid(files[_ROWS])
    return files.filter(said), files.filter(pc.invert(said))


def _names(files: pa.Table) -> set[str]:
    return set(files["path"].to_pylist())


def settled(table: Table, settings: Settings) -> bool:
    """Whether the quarantine holds exactly the undecodable records of the streamed table, content included."""
    found = delta.latest(folder(table, settings))
    path = quarantine.folder(table, settings)
    kept = Measure()
    if exists(path):
        columns = ["source", "line_or_offset", "raw", "reason"]
        rows = DeltaTable(str(path)).to_pyarrow_dataset().to_batches(columns, filter=pc.field("stage") == "topic")
        kept = _sum((row[c] for c in columns) for batch in rows for row in batch.to_pylist())
    if undecoded(found) != kept.rows:
        return False
    return not kept.rows or kept == _sum(
        (f"{r['_topic']}[{r['_partition']}]", r["_offset"], _text(r["_undecoded"]["value"]), r["_undecoded"]["reason"])
        for r in _bad(found)
    )


def _sum(rows: Iterable[Iterable[Any]]) -> Measure:
    """Count and checksum rows of quarantine."""
    hashes = (row_hash.row_hash(enumerate(None if v is None else str(v).encode() for v in row)) for row in rows)
    return sum((Measure(1, each) for each in hashes), Measure())


def quarantine_undecoded(at: Context, table: Table) -> None:
    """Move the undecodable records of the streamed table to quarantine, in place of those there."""
    path = folder(table, at.settings)
    if not undecoded(delta.latest(path)):
        quarantine.replace(None, table, at.settings, "topic")
        return
    with reachable(f"the quarantine of {table.name}"):
        quarantine.replace(_undecoded_rows(at, path), table, at.settings, "topic")


def _undecoded_rows(at: Context, path: Location) -> DataFrame:
    """The undecodable records, as the quarantine has them."""
    return (
        at.spark.read.format("delta")
        .load(str(path))
        .where("_undecoded IS NOT NULL")
        .select(
            sf.format_string("%s[%d]", "_topic", "_partition").alias("source"),
            sf.col("_offset").alias("line_or_offset"),
            _as_text("_undecoded.key").alias("key"),
            _as_text("_undecoded.value").alias("raw"),
            sf.col("_undecoded.reason").alias("reason"),
        )
    )


def _undecoded(found: DeltaTable, names: set[str] | None = None) -> Measure:
    """Count and checksum the undecodable records; as for a topic, by place and value."""
    if not undecoded(found):
        return Measure()
    bad = _bad(found, names)
    hashes = (topic_record_hash(r["_partition"], r["_offset"], r["_undecoded"]["value"]) for r in bad)
    return sum((Measure(1, each) for each in hashes), Measure())


def _bad(found: DeltaTable, among: set[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of undecodable records, among all files or some of them."""
    known, unknown = _described(delta.files(found))
    names = _names(known.filter(pc.less(known[_ROWS], known["num_records"]))) | _names(unknown)
    names = names if among is None else names & among
    for batch in delta.batches(found, ["_topic", "_partition", "_offset", "_undecoded"], names=names):
        yield from pa.Table.from_batches([batch]).filter(pc.field("_undecoded").is_valid()).to_pylist()


def _text(value: bytes | None) -> str | None:
    r"""Bytes as text, as ``_as_text`` writes it: those that are not UTF-8 as ``\xNN`` each."""
    if value is None:
        return None
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02X}" for byte in value)


def _as_text(name: str) -> Column:
    r"""Bytes as text; those that are not UTF-8 as ``\xNN`` each."""
    column = sf.col(name)
    escaped = sf.regexp_replace(sf.hex(column), "(..)", r"\\x$1")
    return sf.when(sf.is_valid_utf8(column.cast("string")), column.cast("string")).otherwise(escaped)
