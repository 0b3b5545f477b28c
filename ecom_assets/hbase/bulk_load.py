"""Many rows into HBase as files: rows sorted on disk, cut where regions end, loaded by HBase's own bulk load.

What belongs here: the path of the rows from batches in any order to one file per region and family. What does not: the
bytes of a file (see ``hfile``), and how rows are stored in HBase (see ``layout``). For a few rows ``write.load`` is
quicker.

Rows are spilled to parts, each a range of keys small enough to be sorted in memory; the parts follow one another in
the order of their keys. While one is written, the next is sorted and HBase loads the region before. A region
appears in HBase at once, with all families, or not at all; a load that broke off is simply repeated, since equal
rows make equal cells. No file crosses a region's boundary: HBase would have to rewrite it, and has lost rows at that
(https://issues.apache.org/jira/browse/HBASE-30501).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import chain, groupby
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ecom_assets.core.batches import gathered
from ecom_assets.core.errors import HBaseError
from ecom_assets.core.location import Location, emptied, rmtree
from ecom_assets.core.progress import Advance
from ecom_assets.core.settings import Settings
from ecom_assets.hbase.admin import HBaseAdmin
from ecom_assets.hbase.hfile import Files, Keys
from ecom_assets.hbase.layout import Layout, Target, split_keys

T = TypeVar("T")

Region = tuple[bytes, bytes]
"""First key of a region, and the first key behind it; empty for no boundary."""

PARTS = 128
"""Ranges of keys into which rows are spilled."""
PART_BYTES = 32 * 1024 * 1024
"""A larger part is parted again; two of them and their sorted copies are in memory at a time."""
SPILL_ROWS = 1 << 16
"""Rows parted at once: fewer make many small pieces."""
WRITE_ROWS = 1 << 16
"""Rows written at once."""
GONE = pa.field("_gone", pa.bool_(), nullable=False)
"""Column next to a row's own, while it is sorted: whether it is one that is to be hidden."""


def folder(name: str, settings: Settings) -> Location:
    """Where the files of a table, by HBase's name of it, are written, for this process and HBase's servers alike."""
    return settings.staging / name


def spill_folder(name: str, settings: Settings) -> Path:
    """Where the rows of a table are sorted, for this process alone."""
    return settings.home / "spill" / name


def clear(name: str, settings: Settings) -> None:
    """Delete what loads of a table, by HBase's name of it, have left in the folders."""
    rmtree(folder(name, settings))
    rmtree(spill_folder(name, settings))


def load(
    target: Target,
    batches: Iterable[pa.RecordBatch],
    sample: pa.Array | pa.ChunkedArray,
    settings: Settings,
    admin: HBaseAdmin,
    *,
    gone: Iterable[pa.RecordBatch] | None = None,
    progress: Advance | None = None,
) -> int:
    """Write rows, and hide others; safe to repeat.

    Args:
        target: The table; it must exist. Rows that are there and in neither ``batches`` nor ``gone`` stay.
        batches: Clean rows in schema order, in any order of rows, each row key once.
        sample: Row keys of rows spread evenly over them, for parts of equal size.
        settings: For the folders and the compression.
        admin: HBase's Admin, open.
        gone: Rows as they were, for those that have changed or are to be there no more: all that HBase holds under
            their keys is hidden one millisecond before the target's timestamp.
        progress: Called with the rows done since the last call.

    Returns:
        Rows written and hidden; a row that is both counts twice.

    Raises:
        HBaseError: HBase cannot hold a row (see ``Layout``), a row key comes twice, HBase could not load a file, or a
            region has changed since its file was begun.
    """
    name, layout = target.name, Layout(target.table)
    regions = admin.regions(name)
    splits = [start for start, _ in regions[1:]]
    cuts = sorted({*splits, *split_keys(sample, min(PARTS, 1 + len(sample) // 1000))})
    steps, schema = Steps(progress), layout.table.arrow
    if gone is not None:
        schema = schema.append(GONE)
        batches = chain(_marked(batches, schema, gone=False), _marked(gone, schema, gone=True))
    spill = spill_folder(name, settings)

    with (
        emptied(folder(name, settings)) as staging,
        ThreadPoolExecutor(len(layout.families)) as writers,
        loading(name, admin, steps) as hand_over,
        closing(_ahead(_sorted(layout, steps.reading(batches), cuts, spill, schema))) as parts,
    ):
        for region, chunks in groupby(parts, lambda part: bisect_right(splits, part[0][0].as_py())):
            path, rows = staging / f"region-{region:05}", 0
            with Files(
                path, "rows", layout.families, target.timestamp, compression=settings.hbase_compression, pool=writers
            ) as files:
                for keys, part in chunks:
                    _write(files, layout, keys, part, steps)
                    rows += len(part)
            hand_over(path, regions[region], rows)
    return steps.total


def _marked(batches: Iterable[pa.RecordBatch], schema: pa.Schema, *, gone: bool) -> Iterator[pa.RecordBatch]:
    """Rows with the column ``GONE``."""
    for batch in batches:
        yield pa.RecordBatch.from_arrays([*batch.columns, pa.repeat(pa.scalar(gone), len(batch))], schema=schema)


def _write(files: Files, layout: Layout, keys: pa.Array, part: pa.RecordBatch, steps: Steps) -> None:
    """Write sorted rows, and markers before those that are to be hidden.

    Raises:
        UnsortedError: A row key comes twice among the rows to be written.
    """
    hidden = None
    values: Mapping[str, pa.Array] | None = None
    if GONE.name in part.schema.names:
        hidden = part.column(GONE.name)
        new, there = part.filter(pc.invert(hidden)), keys.filter(pc.invert(hidden))
        values = layout.values(new)
        old = pc.unique(keys.filter(hidden))
        if len(there):
            Keys(there)  # for below a key that comes twice would count once
        keys = pc.unique(keys)
        hidden = pc.is_in(keys, old)
        places = pc.index_in(keys, there)
        values = {column: cells.take(places) for column, cells in values.items()}
    for start in range(0, len(keys), WRITE_ROWS):
        cells = (
            layout.values(part.slice(start, WRITE_ROWS))
            if values is None
            else {column: each.slice(start, WRITE_ROWS) for column, each in values.items()}
        )
        files.write(
            keys.slice(start, WRITE_ROWS),
            cells,
            gone=None if hidden is None else hidden.slice(start, WRITE_ROWS),
        )
    steps.written(len(part))


@contextmanager
def loading(name: str, admin: HBaseAdmin, steps: Steps) -> Generator[Callable[[Location, Region, int], None]]:
    """Load one region's files after the other's, while others are written.

    Args:
        name: HBase's name of the table.
        admin: HBase's Admin, open.
        steps: Counts the rows.

    Yields:
        Accepts a folder of files, their region and rows; raises what an earlier one has failed with. The block ends
        when all are loaded.

    Raises:
        HBaseError: As ``_load_region``.
    """
    loads: list[Future[None]] = []

    def work(path: Location, region: Region, rows: int) -> None:
        _load_region(name, path, region, admin)
        steps.loaded(rows)

    with ThreadPoolExecutor(1) as loader:

        def hand_over(path: Location, region: Region, rows: int) -> None:
            for load in loads:
                if load.done():
                    load.result()  # a failure ends the load here, not after all has been written
            loads.append(loader.submit(work, path, region, rows))

        try:
            yield hand_over
            for load in loads:
                load.result()
        finally:
            for load in loads:  # those that wait, when another has failed
                load.cancel()


def _load_region(name: str, path: Location, region: Region, admin: HBaseAdmin) -> None:
    """Load the files of a region, and delete them.

    Args:
        name: HBase's name of the table.
        path: Has a folder per column family.
        region: The region that they were written for.
        admin: HBase's Admin, open.

    Raises:
        HBaseError: HBase could not, or there is no such region any more: the files might cross a boundary.
    """
    if region not in admin.regions(name):
        raise HBaseError(
            f"HBase table {name}: expected the region from key {region[0]!r} to {region[1]!r}, but it was split"
            " or merged while its files were written",
            "run again",
            transient=True,
        )
    admin.bulk_load(name, path)
    rmtree(path)


def _sorted(
    layout: Layout, batches: Iterable[pa.RecordBatch], cuts: list[bytes], spill: Path, schema: pa.Schema | None = None
) -> Generator[tuple[pa.Array, pa.RecordBatch]]:
    """Sort rows by row key, in bounded memory.

    Args:
        layout: Makes the keys.
        batches: The rows in any order.
        cuts: Keys that no part crosses, increasing.
        spill: A folder to be made and removed.
        schema: Of the rows: the table's, as a rule; or the same with the column ``GONE`` behind.

    Yields:
        Parts in the order of their keys, as ``(row keys, rows)``.
    """
    with emptied(spill):
        files = _spill(layout, batches, cuts, spill, schema or layout.table.arrow)
        for path in files:
            rows = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
            within = _cuts_within(layout, rows)
            if within:
                yield from _sorted(layout, rows.to_batches(), within, path.with_suffix(".parts"), schema)
            elif len(rows):
                part = _sort(layout, rows)
                del rows  # or its pages stay in memory while the sorted copy is written
                yield part
            path.unlink()


def _cuts_within(layout: Layout, rows: pa.Table) -> list[bytes]:
    """Keys by which a part that is too large to be sorted in memory is parted again; empty for others."""
    if rows.nbytes <= PART_BYTES:
        return []
    sample = layout.keys(rows.take(pa.array(range(0, len(rows), 1 + len(rows) // 10_000))))
    return split_keys(sample, 1 + 2 * rows.nbytes // PART_BYTES)


def _sort(layout: Layout, rows: pa.Table) -> tuple[pa.Array, pa.RecordBatch]:
    batch = rows.combine_chunks().to_batches()[0]
    keys = layout.keys(batch)
    order = pc.sort_indices(keys)
    return keys.take(order), batch.take(order)


def _spill(
    layout: Layout, batches: Iterable[pa.RecordBatch], cuts: list[bytes], spill: Path, schema: pa.Schema
) -> list[Path]:
    """Write each row into the file of its range of keys.

    Returns:
        The files, one per range, in the order of the keys.
    """
    boundaries = pl.Series(cuts, dtype=pl.Binary)
    paths = [spill / f"{n:05}" for n in range(len(cuts) + 1)]
    writers = [pa.ipc.new_stream(str(path), schema) for path in paths]
    try:
        for batch in map(pa.concat_batches, gathered(batches, SPILL_ROWS, PART_BYTES)):
            keys = pl.Series(layout.keys(batch))
            at = boundaries.search_sorted(keys, side="right").to_numpy().astype(np.uint16)
            order = np.argsort(at, kind="stable")
            # Of one schema: a Delta table's columns, for instance, may all be null as far as Arrow knows.
            rows = pa.RecordBatch.from_arrays(batch.take(pa.array(order)).columns, schema=schema)
            ends = np.cumsum(np.bincount(at, minlength=len(paths))).tolist()
            for writer, start, stop in zip(writers, [0, *ends], ends, strict=False):
                if stop > start:
                    writer.write_batch(rows.slice(start, stop - start))
    finally:
        for writer in writers:
            writer.close()
    return paths


def _ahead(items: Generator[T]) -> Generator[T]:
    """Make the next item while this one is used."""

    def following() -> T | None:
        return next(items, None)

    with closing(items), ThreadPoolExecutor(1) as pool:
        coming = pool.submit(following)
        while (item := coming.result()) is not None:
            coming = pool.submit(following)
            yield item


class Steps:
    """Progress of rows that are read, written and loaded: each counts once, half of it when it was read."""

    def __init__(self, progress: Advance | None) -> None:
        self.total = 0
        self._progress = progress
        self._quarters = 0
        self._reported = 0
        self._lock = Lock()

    def reading(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Pass batches on and count them."""
        for batch in batches:
            yield batch
            self.total += len(batch)
            self._add(2 * len(batch))

    def written(self, rows: int) -> None:
        """Count rows that are in a file."""
        self._add(rows)

    def loaded(self, rows: int) -> None:
        """Count rows that HBase has loaded."""
        self._add(rows)

    def _add(self, quarters: int) -> None:
        with self._lock:
            self._quarters += quarters
            done = self._quarters // 4 - self._reported
            self._reported += done
            if self._progress and done:
                self._progress(done)
