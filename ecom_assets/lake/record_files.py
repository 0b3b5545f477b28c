"""Files of a streamed table: records decoded, written in columns, and the commit that makes them count.

What belongs here: what a table's rows look like, and how records become files and these a version. It is what Spark's
Python workers do, so it imports little. What does not: who reads the records; see ``sink`` and ``fetch``.

**One cut.** Each commit carries, as Delta's transaction identifiers
(https://github.com/delta-io/delta/blob/master/PROTOCOL.md#transaction-identifiers), how far each partition of the
topic was read. So every version of the table names the offsets that its rows come from. A file does not count until a
commit names it; what none names is left for the vacuum.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.transaction import AddAction

from ecom_assets.core import avro, topic_rows
from ecom_assets.core.batches import gathered
from ecom_assets.core.location import Location
from ecom_assets.dataset.model import Table

RECORDS = ("key", "value", "partition", "offset", "timestamp")
"""Columns that records are taken by: those of Spark's Kafka source."""

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


@dataclass(frozen=True)
class File:
    """A file that was written, as Delta's log will record it.

    Attributes:
        name: Its name within the table's folder.
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


def write(records: Iterator[pa.RecordBatch], table: Table, topic: str, target: Location) -> File | None:
    """Write records into a table's folder, in flat memory.

    Args:
        records: The columns ``RECORDS``, of one topic.
        table: Whose records.
        topic: Its name.
        target: The table's folder.

    Returns:
        The file; ``None`` if there are no records.
    """
    name = f"part-{uuid4()}.zstd.parquet"
    path = target / name
    rows_of = (decoded(batch, table, topic) for batch in records if len(batch))
    groups = map(pa.Table.from_batches, gathered(rows_of, GROUP_ROWS, GROUP_BYTES))
    first = next(groups, None)
    if first is None:
        return None
    rows = undecoded = unplaced = 0
    low, high, ends = {}, {}, {}
    try:
        with path.open("wb") as file, _parquet(file, table) as parquet:
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


def commit(
    delta: DeltaTable, files: Sequence[File], topic: str, ends: Mapping[int, int], more: Sequence[Transaction] = ()
) -> None:
    """Let the table's log name files.

    Args:
        delta: The table; nobody else may have committed such offsets since it was opened.
        files: The files.
        topic: Whose records they hold.
        ends: Partition -> offset up to which it was read.
        more: Further transaction identifiers.

    Raises:
        CommitFailedError: Somebody else has.
    """
    now = int(time.time() * 1000)
    actions = [AddAction(f.name, f.size, {}, now, data_change=True, stats=f.stats) for f in files]
    metrics = {"numFiles": len(files), "numOutputRows": sum(f.rows for f in files)}
    places = [Transaction(app_id(topic, partition), end) for partition, end in sorted(ends.items())]
    properties = CommitProperties(
        {"operationMetrics": {name: str(number) for name, number in metrics.items()}},  # as Spark writes them
        app_transactions=[*more, *places],
    )
    delta.create_write_transaction([*actions], "append", delta.schema(), commit_properties=properties)


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
