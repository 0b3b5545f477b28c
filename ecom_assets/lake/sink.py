"""The sink of the streaming query: records become Parquet files, and these a commit of a Delta table.

What belongs here: what Spark's Python workers do, so they import little. What does not: the query, its checkpoint, and
how the table is read; see ``query``.

Spark reads the topic and passes its records on as they are. Spark's own ``from_avro`` and Delta's writer work row by
row; here records are decoded, verified and written in columns, for half of the CPU time (``ecom bench --only
stream``).

**Exactly once.** Files do not count until a commit of Delta's log names them, and a commit carries the query's id
and the batch's number as Delta's transaction identifier
(https://github.com/delta-io/delta/blob/master/PROTOCOL.md#transaction-identifiers): a batch that Spark repeats after a
crash is not committed again. Files that no commit names are left for the vacuum; they are never deleted at an abort,
as Spark also aborts a batch whose commit succeeded when its acknowledgment was lost.

**One cut.** The same commit carries, as further identifiers, how far the batch has read each partition of the topic. So
every version of the table names the offsets that its rows come from, whatever happens to the checkpoint.
"""

from __future__ import annotations

import base64
import json
import pickle
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, cast
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql.datasource import DataSource, DataSourceStreamArrowWriter, WriterCommitMessage

from ecom_assets.core import avro, topic_rows
from ecom_assets.core.batches import gathered
from ecom_assets.core.location import Location, location
from ecom_assets.dataset.model import Table

if TYPE_CHECKING:
    from pyspark.sql.types import StructType

RECORDS = ("key", "value", "partition", "offset", "timestamp")
"""Columns of Spark's Kafka source that the sink takes."""

RECORD = (
    pa.field("_topic", pa.string()),
    pa.field("_partition", pa.int32()),
    pa.field("_offset", pa.int64()),
    pa.field("_timestamp", pa.timestamp("us", "UTC")),
)
"""The record that a row of the streamed table comes from."""

UNDECODED = pa.struct([("key", pa.binary()), ("value", pa.binary()), ("reason", pa.string())])
"""A record that is not a row of the table; null next to a row."""

GROUP_ROWS = 1 << 16
"""Rows of a Parquet row group: as many as are in memory at a time."""
GROUP_BYTES = 64 << 20
"""Bytes of them in memory."""


def columns(table: Table) -> pa.Schema:
    """The columns of a streamed table; all may be null, as Delta needs no second contract."""
    own = [field.with_nullable(True) for field in table.arrow]
    return pa.schema([*own, *avro.PLACE, topic_rows.TOMBSTONE, *RECORD, pa.field("_undecoded", UNDECODED)])


@dataclass
class File(WriterCommitMessage):
    """What a task has written, as Delta's log will record it.

    Attributes:
        name: Its name within the table's folder; empty if there were no records.
        size: Its bytes.
        rows: Its rows.
        stats: Rows, places, rows without a delivery and undecoded records, as JSON by Delta's protocol.
        ends: Partition -> offset behind its last record in the file.
    """

    name: str
    size: int
    rows: int
    stats: str
    ends: dict[int, int]


def app_id(topic: str, partition: int) -> str:
    """Name of the transaction identifier whose version is the offset up to which a partition was read."""
    return f"kafka/{topic}/{partition}"


def options(table: Table, topic: str, target: Location, checkpoint: Location) -> dict[str, str]:
    """The options of a query's sink.

    Args:
        table: Whose records; Spark's workers get it as it is, whatever their own installation declares.
        topic: The topic's name.
        target: The Delta table; it must exist.
        checkpoint: The query's own folder.
    """
    packed = base64.b64encode(pickle.dumps(table)).decode("ascii")
    return {"table": packed, "topic": topic, "target": str(target), "checkpoint": str(checkpoint)}


class StreamedSink(DataSource):
    """Spark's sink ``ecom_streamed``; see ``options``."""

    @classmethod
    def name(cls) -> str:
        """Its name in a query."""
        return "ecom_streamed"

    def streamWriter(self, schema: StructType, overwrite: bool) -> Writer:  # noqa: ARG002, N802  Spark's names
        """The writer of a query in append mode."""
        table = pickle.loads(base64.b64decode(self.options["table"]))  # noqa: S301  packed by ``options``
        return Writer(table, *(self.options[name] for name in ("topic", "target", "checkpoint")))


class Writer(DataSourceStreamArrowWriter):
    """Writes a task's records, and commits a batch's files; see ``options`` for the arguments."""

    def __init__(self, table: Table, topic: str, target: str, checkpoint: str) -> None:
        self._table = table
        self._topic = topic
        self._target = target
        self._checkpoint = checkpoint

    def write(self, iterator: Iterator[pa.RecordBatch]) -> File:
        """Write the records of one partition of the topic, in flat memory."""
        name = f"part-{uuid4()}.zstd.parquet"
        path = location(self._target) / name
        rows_of = (decoded(batch, self._table, self._topic) for batch in iterator if len(batch))
        groups = map(pa.Table.from_batches, gathered(rows_of, GROUP_ROWS, GROUP_BYTES))
        first = next(groups, None)
        if first is None:
            return File("", 0, 0, "", {})
        rows = undecoded = unplaced = 0
        low, high, ends = {}, {}, {}
        try:
            with path.open("wb") as file, _parquet(file, self._table) as parquet:
                for group in chain([first], groups):
                    parquet.write_table(group, row_group_size=len(group))
                    rows += len(group)
                    undecoded += len(group) - group["_undecoded"].null_count
                    unplaced += group["_delivery"].null_count
                    for column in ("_partition", "_offset"):
                        span = pc.min_max(group[column]).as_py()
                        low[column] = min(span["min"], low.get(column, span["min"]))
                        high[column] = max(span["max"], high.get(column, span["max"]))
                    last = group.group_by("_partition").aggregate([("_offset", "max")])
                    for partition, offset in zip(*(c.to_pylist() for c in last.select([0, 1]).columns), strict=True):
                        ends[partition] = max(offset + 1, ends.get(partition, 0))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        nulls = {**dict.fromkeys(low, 0), "_delivery": unplaced, "_undecoded": {"reason": rows - undecoded}}
        stats = {"numRecords": rows, "minValues": low, "maxValues": high, "nullCount": nulls}
        return File(name, path.stat().st_size, rows, json.dumps(stats), ends)

    def commit(self, messages: list[WriterCommitMessage | None], batchId: int) -> None:  # noqa: N803  Spark's name
        """Let the table's log name a batch's files, unless it does already."""
        from deltalake import CommitProperties, DeltaTable, Transaction
        from deltalake.transaction import AddAction, RemoveAction

        query = json.loads((location(self._checkpoint) / "metadata").read_text())["id"]
        delta = DeltaTable(self._target)
        done = delta.transaction_version(query)
        now = int(time.time() * 1000)
        files = [file for file in cast("list[File]", messages) if file.name]
        if files and (done is None or done < batchId):
            actions: list[AddAction | RemoveAction] = [
                AddAction(f.name, f.size, {}, now, data_change=True, stats=f.stats) for f in files
            ]
            metrics = {"numFiles": len(files), "numOutputRows": sum(f.rows for f in files)}
            read: dict[int, int] = {}
            for file in files:
                read |= {p: max(end, read.get(p, 0)) for p, end in file.ends.items()}
            places = [Transaction(app_id(self._topic, p), end) for p, end in sorted(read.items())]
            properties = CommitProperties(
                {"operationMetrics": {name: str(number) for name, number in metrics.items()}},  # as Spark writes them
                app_transactions=[Transaction(query, batchId), *places],
            )
            delta.create_write_transaction(actions, "append", delta.schema(), commit_properties=properties)

    def abort(self, messages: list[WriterCommitMessage | None], batchId: int) -> None:  # noqa: N803  Spark's name
        """Leave what was written; see the module."""


def decoded(records: pa.RecordBatch, table: Table, topic: str) -> pa.RecordBatch:
    """Records to rows of the streamed table, one for each, undecodable ones included.

    Args:
        records: The columns ``RECORDS``, of one topic.
        table: Whose records.
        topic: Its name.

    Returns:
        The columns of ``columns(table)``.
    """
    count, values = len(records), records["value"]
    rows, flaws = topic_rows.rows_of(values, table, lambda: records["key"].cast(pa.binary()))
    reasons = dict(flaws)
    undecoded = pa.nulls(count, UNDECODED)
    if reasons:
        bad = np.array(sorted(reasons))
        good = np.setdiff1d(np.arange(count), bad)
        rows = pa.RecordBatch.from_arrays([c.take(_places(good, count)) for c in rows.columns], names=rows.schema.names)
        parts = [records["key"].take(bad), values.take(bad), pa.array([reasons[n] for n in bad.tolist()])]
        undecoded = pa.StructArray.from_arrays(parts, fields=list(UNDECODED)).take(_places(bad, count))
    place = [pa.repeat(topic, count), *(records[c] for c in ("partition", "offset", "timestamp"))]
    arrays = [*rows.columns, *(c.cast(f.type) for c, f in zip(place, RECORD, strict=True)), undecoded]
    return pa.RecordBatch.from_arrays(arrays, schema=columns(table))


def _places(at: np.ndarray, count: int) -> pa.Array:
    """For each of ``count`` positions the index of the item placed there; null where there is none."""
    numbers = np.zeros(count, np.int64)
    empty = np.ones(count, bool)
    numbers[at], empty[at] = np.arange(len(at)), False
    return pa.array(numbers, mask=empty)


def _parquet(file: object, table: Table) -> pq.ParquetWriter:
    """A Parquet file for rows of the streamed table.

    Statistics let readers skip row groups, but keys and times are stored in any order, so nothing could be skipped.
    Texts that differ in each row, as keys do, gain nothing from a dictionary.
    """
    schema = columns(table)
    counted = ("_row", "_offset")  # each value is a little more than the last one
    plain = {*table.key_columns, *counted, "_timestamp"}
    return pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        write_statistics=False,
        store_schema=False,
        use_dictionary=[name for name in schema.names if name not in plain],
        column_encoding=dict.fromkeys(counted, "DELTA_BINARY_PACKED"),
    )
