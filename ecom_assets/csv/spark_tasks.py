"""Expansion and chunking by Spark, whose tasks write the CSV files: for rows that outgrow one machine.

What belongs here: how the work is split, and which of the files that tasks have written count. What does not: the
work itself, which is the same on one machine (see ``expand`` and ``chunk``). The lake must be a folder that all of
Spark's workers see: one in HDFS, or a shared one.

Spark may run a task again, or twice at once. So each attempt writes a folder of its own, and only the files of those
that Spark reports as completed are moved to their places; the layer's folder appears when all are there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import uuid4

import pyarrow as pa
from pyspark.errors import PySparkException

from ecom_assets.core.errors import ServiceError
from ecom_assets.core.layer import Chunk
from ecom_assets.core.location import Location, emptied, move, replace
from ecom_assets.core.parallel import ordered_map
from ecom_assets.core.settings import Settings
from ecom_assets.core.spark import is_away, last_words
from ecom_assets.csv import chunk, expand
from ecom_assets.csv.blocks import Block, record_ends
from ecom_assets.csv.expand import Expansion
from ecom_assets.csv.plan import Plan
from ecom_assets.dataset.model import Table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PART_BYTES = 64 << 20
"""Bytes of a raw file that are a task's, about; each copy of them is a file."""

WRITERS = 8
"""Chunks that a task writes at a time: HDFS needs little work for a small file, but takes its time."""

BLOCKS = pa.schema([("part", "int32"), ("at", "int64"), ("bytes", "int64"), ("line", "int64"), ("regular", "bool")])
"""What a task gets to know of a block of the raw file."""

EXPANDED = "part bigint, folder string, bytes bigint, rows bigint, quarantined bigint"
"""What a task reports of the copies it has written."""

CUT = "source bigint, number bigint, folder string, rows bigint, bytes bigint, checksum string"
"""What a task reports of a chunk."""

Task = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def expand_table(
    spark: SparkSession, table: Table, settings: Settings, growth: Plan, progress: Callable[[int], None] | None = None
) -> Expansion:
    """Write the table's copies, each in parts, and its quarantine; safe to repeat.

    Args:
        spark: The session.
        table: The table.
        settings: Where.
        growth: How it grows.
        progress: Called with the bytes of the raw file done since the last call.

    Raises:
        HeaderError: The raw file's header is wrong.
        ServiceError: A task failed.
    """
    target = expand.folder(table, settings)
    rows = quarantined = 0
    parts: dict[int, Location] = {}
    with emptied(target.with_name(f".{table.name}.part")) as work, expand.quarantine(table, settings) as (file, swap):
        blocks = _sent(table, settings, growth, work)
        write = _expander(table, growth, work)
        for part, attempt, size, good, bad in _done(spark, blocks, target, write, EXPANDED):
            parts[part] = work / attempt
            rows, quarantined = rows + good, quarantined + bad
            if progress:
                progress(size)
        (work / "copies").mkdir()
        for part, attempt in sorted(parts.items()):
            for copy in range(growth.copies):
                move(attempt / expand.file_name(copy), work / "copies" / expand.file_name(copy, part))
            with (attempt / "bad").open("rb") as bad_rows:
                shutil.copyfileobj(bad_rows, file)
        swap(work / "copies")
    return Expansion(rows, quarantined, growth.copies)


def chunk_table(
    spark: SparkSession, table: Table, settings: Settings, progress: Callable[[int], None] | None = None
) -> list[Chunk]:
    """Cut a table's expanded files into the chunks that ``chunk.build`` makes of them; safe to repeat.

    Args:
        spark: The session.
        table: The table.
        settings: Where and how large.
        progress: Called with the rows done since the last call.

    Returns:
        The manifest.

    Raises:
        ServiceError: A task failed.
    """
    target = chunk.folder(table, settings)
    names = [path.name for path in expand.copies(table, settings)]
    sources = pa.table({"source": pa.array(range(len(names)), pa.int32()), "name": pa.array(names, pa.string())})
    found: list[tuple[int, int, str, int, int, str]] = []
    with emptied(target.with_name(f".{table.name}.part")) as work:
        write = _cutter(table, settings.chunk_bytes, expand.folder(table, settings), work)
        for reported in _done(spark, sources, target, write, CUT):
            found.append(reported)
            if progress:
                progress(reported[3])
        (work / "chunks").mkdir()
        chunks = []
        for _, number, attempt, rows, size, checksum in sorted(found):
            chunks.append(Chunk(chunk.file_name(len(chunks)), rows, size, int(checksum, 16)))
            move(work / attempt / chunk.file_name(number), work / "chunks" / chunks[-1].name)
        (work / "chunks" / chunk.MANIFEST).write_bytes(chunk.manifest(chunks).encode())
        replace(work / "chunks", target)
    return chunks


def _done(spark: SparkSession, units: pa.Table, target: Location, write: Task, reported: str) -> Iterator[Any]:
    """Let tasks write files, and collect what each of them reports.

    Args:
        spark: The session.
        units: What tasks get to know; the first column has the task's number.
        target: Where the files are to lie in the end.
        write: What a task does.
        reported: What a task reports.
    """
    task, order = units.column_names[:2]
    tasks = spark.createDataFrame(units).repartitionById(1 + max(units[task].to_pylist(), default=0), task)
    try:
        yield from tasks.sortWithinPartitions(order).mapInArrow(write, reported).toLocalIterator()
    except PySparkException as error:
        raise ServiceError(
            f"{target}: expected Spark's tasks to write files, got: {last_words(error)}",
            "see that Spark's workers run ecom_assets and see the lake (ECOM_LAKE_URI); or take a home with"
            " ECOM_CSV_ENGINE=local",
            transient=is_away(error),
        ) from error


def _sent(table: Table, settings: Settings, growth: Plan, work: Location) -> pa.Table:
    """Send the raw file to where tasks see it, and list its blocks: only who comes from its start knows their ends."""
    reported: list[dict[str, object]] = []
    part = at = begin = 0
    with (work / "raw").open("wb") as file:
        for block in expand.raw_blocks(table, settings, growth):
            file.write(block.data)
            if at - begin >= PART_BYTES:
                part, begin = part + 1, at
            size = len(block.data)
            reported.append(
                {"part": part, "at": at, "bytes": size, "line": block.line, "regular": block.ends is not None}
            )
            at += size
    # A file without a row has copies without a row.
    return pa.Table.from_pylist(reported or [{"part": 0, "at": 0, "bytes": 0, "line": 2, "regular": True}], BLOCKS)


def _expander(table: Table, growth: Plan, work: Location) -> Task:
    """What a task does: write the copies of some blocks."""

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        units = [unit for batch in batches for unit in batch.to_pylist()]
        attempt = _attempt(work)
        with ExitStack() as opened:
            raw = opened.enter_context((work / "raw").open("rb"))
            outputs = [
                opened.enter_context((attempt / expand.file_name(copy)).open("wb")) for copy in range(growth.copies)
            ]
            bad = opened.enter_context((attempt / "bad").open("wb"))
            rows, quarantined = expand.write_copies(_read(raw, units), table, growth, outputs=outputs, bad=bad)
        size = sum(unit["bytes"] for unit in units)
        yield _report(EXPANDED, [(units[0]["part"], attempt.name, size, rows, quarantined)])

    return write


def _read(raw: BinaryIO, units: list[dict[str, Any]]) -> Iterator[Block]:
    """The blocks that a task is to read."""
    for unit in units:
        if unit["bytes"]:
            raw.seek(unit["at"])
            data = raw.read(unit["bytes"])
            yield Block(data, unit["line"], record_ends(data) if unit["regular"] else None)


def _cutter(table: Table, size: int, folder: Location, work: Location) -> Task:
    """What a task does: cut an expanded file."""

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for unit in (unit for batch in batches for unit in batch.to_pylist()):
            if reported := cut(unit["source"], folder / unit["name"]):
                yield _report(CUT, reported)

    def cut(source: int, path: Location) -> list[tuple[object, ...]]:
        attempt = _attempt(work)

        def save(each: tuple[int, tuple[int, int, bytes]]) -> tuple[object, ...]:
            number, (rows, checksum, body) = each
            (attempt / chunk.file_name(number)).write_bytes(body)
            return source, number, attempt.name, rows, len(body), f"{checksum:016x}"

        return list(ordered_map(save, enumerate(chunk.cut(path, table, size)), WRITERS))

    return write


def _attempt(work: Location) -> Location:
    """A new folder of a task's own."""
    folder = work / uuid4().hex
    folder.mkdir()
    return folder


def _report(schema: str, rows: Sequence[tuple[object, ...]]) -> pa.RecordBatch:
    names = [column.split()[0] for column in schema.split(", ")]
    return pa.RecordBatch.from_arrays([pa.array(column) for column in zip(*rows, strict=True)], names)
