"""Writing what a merge of new rows changes: files of a Delta table, and typed rows for them.

What belongs here: how rows become files, and who types those that are new. What does not: which rows these are
(``increment``), and how texts are typed (``usual``, ``typed``). Files do not count until a commit names them; those
that none names are left for the vacuum.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from ecom_assets.core.batches import gathered
from ecom_assets.core.location import Location, emptied, exists
from ecom_assets.dataset.model import Table
from ecom_assets.lake import delta, usual
from ecom_assets.lake.typed import typed as by_spark_typed

if TYPE_CHECKING:
    from ecom_assets.core.context import Context

FILE_BYTES = 1 << 30
"""A file is ended with the row group by which its rows exceed this in memory; on disk they take about a quarter."""
SMALL_BYTES = 4 << 20
SMALL_FILES = 20
"""So many files smaller than that a table may have."""
GROUP_ROWS = 1 << 17
"""Rows of a row group: as many as are in memory at a time."""
GROUP_BYTES = 64 << 20
"""Bytes of them in memory."""


class File(NamedTuple):
    """A file that was written.

    Attributes:
        name: Its name in the table's folder.
        size: Its bytes.
        rows: Its rows.
    """

    name: str
    size: int
    rows: int

    @property
    def action(self) -> AddAction:
        """What a commit of delta-rs says of it."""
        now, stats = int(time.time() * 1000), json.dumps({"numRecords": self.rows})
        return AddAction(self.name, self.size, {}, now, data_change=True, stats=stats)


def files(folder: Location, rows: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[File]:
    """Write rows into a Delta table's folder, in flat memory.

    Args:
        folder: The table's folder.
        rows: The rows.
        schema: The table's columns.

    Yields:
        Each file.
    """
    groups = (pa.Table.from_batches(group, schema) for group in gathered(rows, GROUP_ROWS, GROUP_BYTES))
    group = next(groups, None)
    while group is not None:
        path, count, size = folder / f"part-{uuid4()}.snappy.parquet", 0, 0
        with path.open("wb") as file, pq.ParquetWriter(file, schema, write_statistics=False) as parquet:
            while group is not None:
                parquet.write_table(group, row_group_size=len(group))
                count, size = count + len(group), size + group.nbytes
                group = next(groups, None)
                if size > FILE_BYTES:
                    break
        yield File(path.name, path.stat().st_size, count)


def gather(folder: Location) -> None:
    """Write small files of a table again as one, if they are many; no row changes.

    Each delivery leaves a few. To be called between the build of the layer behind and further rows: those who look for
    what came since a version find the one with fewer files instead (``delta.at_version``).
    """
    if not exists(folder):
        return
    sizes = delta.files(delta.latest(folder))["size_bytes"].to_pylist()
    if sum(size < SMALL_BYTES for size in sizes) > SMALL_FILES:
        delta.opened(folder).optimize.compact(target_size=SMALL_BYTES)


@contextmanager
def typed_rows(
    at: Context, table: Table, rows: Iterator[pa.RecordBatch], schema: pa.Schema, staging: Location
) -> Generator[list[Location]]:
    """Add the typed companions to rows: in this process where all texts are of their usual form, else by Spark.

    Args:
        at: Connections and settings.
        table: Whose rows these are.
        rows: The table's own columns, and any others whose names begin with ``_``.
        schema: The companions' types, among others.
        staging: A folder that this may use; it is gone in the end.

    Yields:
        Files with the rows; none if there are no rows.
    """
    with emptied(staging) as folder:
        first = next(rows, None)
        if first is None:
            yield []
            return
        plain, done, names, odd = folder / "plain.parquet", folder / "typed.parquet", first.schema.names, False
        with ExitStack() as files:
            source = _written(files, plain, first.schema)
            target: pq.ParquetWriter | None = None
            for batch in itertools.chain([first], rows):
                source.write_batch(batch)
                if not odd and (typed := usual.typed(batch, table, schema)):
                    target = target or _written(files, done, typed.schema)
                    target.write_batch(typed)
                else:
                    odd = True
        if not odd:
            yield [done]
            return
        by_spark, more = folder / "by_spark", [name for name in names if name not in table.names]
        by_spark_typed(at.spark.read.parquet(str(plain)), table, more).write.parquet(str(by_spark))
        yield sorted(by_spark.glob("*.parquet"), key=lambda each: each.name)


def _written(files: ExitStack, path: Location, schema: pa.Schema) -> pq.ParquetWriter:
    """A Parquet file that is written as long as the others are."""
    file = files.enter_context(path.open("wb"))
    return files.enter_context(pq.ParquetWriter(file, schema, write_statistics=False))


def read(paths: Iterable[Location], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of files with the columns that are wanted, in flat memory."""
    for path in paths:
        for batch in delta.of_file(path, schema.names):
            yield batch.select(schema.names).cast(schema)
