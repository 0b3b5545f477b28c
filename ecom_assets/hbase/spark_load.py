"""Whole tables into HBase by Spark, whose tasks write HBase's files: for rows that outgrow one machine.

What belongs here: the path of the rows to one task per region, each in the order of its keys, and what a task does.
What does not: the bytes of a file (see ``hfile``), and the same on one machine without Spark, which takes less of its
time (see ``bulk_load``). The staging folder must be one that all of Spark's workers and HBase's servers see: one in
HDFS, where HBase loads a file by renaming it, or a shared one.

Spark may run a task again, or twice at once. So each attempt writes a folder of its own, and HBase loads only
those that Spark reports as complete.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from uuid import uuid4

import pyarrow as pa
from pyspark.errors import PySparkException

from ecom_assets.core.errors import HBaseError
from ecom_assets.core.location import Location, emptied
from ecom_assets.core.progress import Advance
from ecom_assets.core.settings import Settings
from ecom_assets.core.spark import is_away, last_words
from ecom_assets.dataset.model import Table
from ecom_assets.hbase.admin import HBaseAdmin
from ecom_assets.hbase.bulk_load import Region, Steps, folder, loading
from ecom_assets.hbase.hfile import Files
from ecom_assets.hbase.layout import Layout, Target

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

WRITTEN = "region bigint, folder string, rows bigint"
"""What a task returns about the files it has written."""


def load(
    target: Target, rows: DataFrame, settings: Settings, admin: HBaseAdmin, *, progress: Advance | None = None
) -> int:
    """Write rows; safe to repeat.

    Args:
        target: The table; it must exist. Rows that are there and not in ``rows`` stay.
        rows: Clean rows with the table's columns, in any order, each row key once.
        settings: For the staging folder and the compression.
        admin: HBase's Admin, open.
        progress: Called with the rows done since the last call.

    Returns:
        Rows written.

    Raises:
        HBaseError: A task failed (HBase cannot hold a row, or a row key comes twice; or the staging folder is not
            theirs to write), HBase could not load a file, or a region has changed since its file was begun.
    """
    name = target.name
    regions = admin.regions(name)
    steps = Steps(progress)

    with emptied(folder(name, settings)) as staging, loading(name, admin, steps) as hand_over:
        write = _writer(target, regions, staging, settings.hbase_compression)
        written = placed(rows, target.table, [start for start, _ in regions[1:]]).mapInArrow(write, WRITTEN)
        try:
            for region, path, count in written.toLocalIterator():
                steps.total += count
                steps.written(3 * count)
                hand_over(staging / path, regions[region], count)
        except PySparkException as error:
            raise HBaseError(
                f"HBase table {name}: expected Spark's tasks to write files into {staging}, got: {last_words(error)}",
                "see that Spark's workers run ecom_assets and may write there; or load with ECOM_HBASE_LOADER=hfile",
                transient=is_away(error),
            ) from error
    return steps.total


def placed(rows: DataFrame, table: Table, splits: list[bytes]) -> DataFrame:
    """Bring rows to the partition of their region, and there into the order of their keys.

    Args:
        rows: Has the table's columns.
        table: For the row key.
        splits: First keys of the second, third, … region.

    Returns:
        The table's columns, and ``_region``; one partition per region.
    """
    layout = Layout(table)

    def keyed(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            own = batch.select(table.names).cast(table.arrow)
            keys = layout.keys(own)
            regions = pa.array([bisect_right(splits, key) for key in keys.to_pylist()], pa.int32())
            yield pa.RecordBatch.from_arrays([*own.columns, keys, regions], names=[*table.names, "_key", "_region"])

    columns = ", ".join([*(f"`{c.name}` {c.kind.spark}" for c in table.columns), "_key binary", "_region int"])
    placed = rows.select(*table.names).mapInArrow(keyed, columns)
    return placed.repartitionById(1 + len(splits), "_region").sortWithinPartitions("_key").drop("_key")


def _writer(
    target: Target, regions: list[Region], staging: Location, compression: str
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What a task does: write the files of its region."""
    table = target.table

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        layout = Layout(table)
        attempt, region, rows = uuid4().hex, 0, 0
        (staging / attempt).mkdir()  # without the folder around it, which is gone where another task has failed
        with Files(staging / attempt, "rows", layout.families, target.timestamp, compression=compression) as files:
            for batch in batches:
                region = batch.column("_region")[0].as_py()
                own = batch.select(table.names).cast(table.arrow)
                keys = layout.keys(own)
                start, stop = regions[region]
                first, last = keys[0].as_py(), keys[-1].as_py()
                if first < start or (stop and last >= stop):
                    raise ValueError(f"expected row keys from {start!r} to {stop!r}, got {first!r} to {last!r}")
                files.write(keys, layout.values(own))
                rows += len(own)
        if rows:
            yield pa.RecordBatch.from_pydict({"region": [region], "folder": [attempt], "rows": [rows]})

    return write
