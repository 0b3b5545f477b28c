"""Whole tables into HBase as files: rows sorted on disk, cut where regions end, taken over by HBase's own bulk load.

What belongs here: the way of the rows from batches in any order to one file per region and family. What does not: the
bytes of a file (see ``hfile``), and how rows lie in HBase (see ``hbase``). For a few rows ``hbase.load`` is quicker.

Rows are spilled to parts, each a range of keys small enough to be sorted in memory; the parts follow one another in
the order of their keys. While one is written, the next is sorted and HBase takes over the region before. A region
appears in HBase at once, with all families, or not at all; a load that broke off is simply done again, since equal
rows make equal cells. No file crosses a region's border: HBase would have to rewrite it, and has lost rows at that
(https://issues.apache.org/jira/browse/HBASE-30501).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ecom_assets.core.batches import gathered
from ecom_assets.core.errors import ServiceError
from ecom_assets.core.location import Location, emptied, rmtree
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.hbase.admin import HBaseAdmin
from ecom_assets.hbase.hfile import Files
from ecom_assets.hbase.table import TIMESTAMP, Layout, Progress, split_keys

T = TypeVar("T")

Region = tuple[bytes, bytes]
"""First key of a region, and the first key behind it; empty for no border."""

PARTS = 64
"""Ranges of keys into which rows are spilled."""
PART_BYTES = 96 * 1024 * 1024
"""A larger part is parted again; two of them and their sorted copies are in memory at a time."""
SPILL_ROWS = 1 << 18
"""Rows parted at once: fewer make many small pieces."""
WRITE_ROWS = 1 << 17
"""Rows written at once."""


def folder(table: Table, settings: Settings) -> Location:
    """Where the table's files are made, for this process and HBase's servers alike."""
    return settings.staging / table.hbase_table(settings.namespace)


def spill_folder(table: Table, settings: Settings) -> Path:
    """Where rows wait for their turn, for this process alone."""
    return settings.home / "spill" / table.hbase_table(settings.namespace)


def load(
    table: Table,
    batches: Iterable[pa.RecordBatch],
    sample: pa.Array | pa.ChunkedArray,
    settings: Settings,
    admin: HBaseAdmin,
    *,
    progress: Progress | None = None,
) -> int:
    """Write rows; safe to repeat.

    Args:
        table: The table; it must exist. Rows that are there and not in ``batches`` stay.
        batches: Clean rows in schema order, in any order of rows, each row key once.
        sample: Row keys of rows spread evenly over them, for parts of equal size.
        settings: For the namespace, the staging folder and the compression.
        admin: HBase's Admin, open.
        progress: Called with the rows done since the last call.

    Returns:
        Rows written.

    Raises:
        ValueError: A row cannot lie in HBase (see ``hbase.Layout``), or a row key comes twice.
        ServiceError: HBase could not take over a file, or a region has changed since its file was begun.
    """
    name = table.hbase_table(settings.namespace)
    layout = Layout(table)
    regions = admin.regions(name)
    borders = [start for start, _ in regions[1:]]
    cuts = sorted({*borders, *split_keys(sample, min(PARTS, 1 + len(sample) // 1000))})
    steps = Steps(progress)

    with (
        emptied(folder(table, settings)) as staging,
        ThreadPoolExecutor(len(layout.families)) as writers,
        handing_over(name, admin, steps) as hand_over,
        closing(_ahead(_sorted(layout, steps.reading(batches), cuts, spill_folder(table, settings)))) as parts,
    ):
        for region, chunks in groupby(parts, lambda part: bisect_right(borders, part[0][0].as_py())):
            path, rows = staging / f"region-{region:05}", 0
            with Files(
                path, "rows", layout.families, TIMESTAMP, compression=settings.hbase_compression, pool=writers
            ) as files:
                for keys, part in chunks:
                    for start in range(0, len(part), WRITE_ROWS):
                        piece = part.slice(start, WRITE_ROWS)
                        files.write(keys.slice(start, WRITE_ROWS), layout.values(piece))
                        steps.written(len(piece))
                        rows += len(piece)
            hand_over(path, regions[region], rows)
    return steps.total


@contextmanager
def handing_over(name: str, admin: HBaseAdmin, steps: Steps) -> Generator[Callable[[Location, Region, int], None]]:
    """Let HBase take over one region's files after the other's, while others are written.

    Args:
        name: HBase's name of the table.
        admin: HBase's Admin, open.
        steps: Told of the rows.

    Yields:
        Takes a folder of files, their region and rows; raises what an earlier one has failed with. The block ends when
        all are taken over.

    Raises:
        ServiceError: As ``_take_over``.
    """
    loads: list[Future[None]] = []

    def work(path: Location, region: Region, rows: int) -> None:
        _take_over(name, path, region, admin)
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


def _take_over(name: str, path: Location, region: Region, admin: HBaseAdmin) -> None:
    """Let HBase take over the files of a region, and delete them.

    Args:
        name: HBase's name of the table.
        path: Has a folder per column family.
        region: The region that they were written for.
        admin: HBase's Admin, open.

    Raises:
        ServiceError: HBase could not, or there is no such region any more: the files might cross a border.
    """
    if region not in admin.regions(name):
        raise ServiceError(
            f"HBase table {name}: expected the region from key {region[0]!r} to {region[1]!r}, but it was split"
            " or merged while its files were written",
            "run again",
        )
    admin.bulk_load(name, path)
    rmtree(path)


def _sorted(
    layout: Layout, batches: Iterable[pa.RecordBatch], cuts: list[bytes], spill: Path
) -> Generator[tuple[pa.Array, pa.RecordBatch]]:
    """Sort rows by row key, in bounded memory.

    Args:
        layout: Makes the keys.
        batches: The rows in any order.
        cuts: Keys that no part crosses, increasing.
        spill: A folder to be made and removed.

    Yields:
        Parts in the order of their keys, as ``(row keys, rows)``.
    """
    with emptied(spill):
        files = _spill(layout, batches, cuts, spill)
        for path in files:
            with pa.memory_map(str(path)) as source:
                rows = pa.ipc.open_stream(source).read_all()
                step = 1 + len(rows) // 10_000
                within: list[bytes] = []
                if rows.nbytes > PART_BYTES:
                    sample = layout.keys(rows.take(pa.array(range(0, len(rows), step))))
                    within = split_keys(sample, 1 + 2 * rows.nbytes // PART_BYTES)
                if within:
                    yield from _sorted(layout, rows.to_batches(), within, path.with_suffix(".parts"))
                elif len(rows):
                    yield _sort(layout, rows)
            path.unlink()


def _sort(layout: Layout, rows: pa.Table) -> tuple[pa.Array, pa.RecordBatch]:
    batch = rows.combine_chunks().to_batches()[0]
    keys = layout.keys(batch)
    order = pc.sort_indices(keys)
    return keys.take(order), batch.take(order)


def _spill(layout: Layout, batches: Iterable[pa.RecordBatch], cuts: list[bytes], spill: Path) -> list[Path]:
    """Write each row into the file of its range of keys.

    Returns:
        The files, one per range, in the order of the keys.
    """
    borders = pl.Series(cuts, dtype=pl.Binary)
    paths = [spill / f"{n:05}" for n in range(len(cuts) + 1)]
    writers = [pa.ipc.new_stream(str(path), layout.table.arrow) for path in paths]
    try:
        for batch in map(pa.concat_batches, gathered(batches, SPILL_ROWS, PART_BYTES)):
            keys = pl.Series(layout.keys(batch))
            at = borders.search_sorted(keys, side="right").to_numpy().astype(np.uint16)
            order = np.argsort(at, kind="stable")
            # Of one schema: a Delta table's columns, for instance, may all be null as far as Arrow knows.
            rows = pa.RecordBatch.from_arrays(batch.take(pa.array(order)).columns, schema=layout.table.arrow)
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

    def __init__(self, progress: Progress | None) -> None:
        self.total = 0
        self._progress = progress
        self._quarters = 0
        self._told = 0
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
        """Count rows that HBase has taken over."""
        self._add(rows)

    def _add(self, quarters: int) -> None:
        with self._lock:
            self._quarters += quarters
            done = self._quarters // 4 - self._told
            self._told += done
            if self._progress and done:
                self._progress(done)
