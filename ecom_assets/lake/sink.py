"""The sink of the streaming query: records become Parquet files, and these a commit of a Delta table.

What belongs here: what Spark's Python workers call, so it imports little. What does not: how records become files
(``record_files``), the query and its checkpoint (``query``).

Spark reads the topic and passes its records on as they are. Spark's own ``from_avro`` and Delta's writer work row by
row; here records are decoded, verified and written in columns, for half of the CPU time (``ecom bench --only
stream``).

**Exactly once.** A commit carries the query's id and the batch's number as Delta's transaction identifier, so a batch
that Spark repeats after a crash is not committed again. Files are never deleted at an abort, as Spark also aborts a
batch whose commit succeeded when its acknowledgment was lost.
"""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceStreamArrowWriter, WriterCommitMessage

from ecom_assets.core.location import Location, location
from ecom_assets.dataset.model import Table
from ecom_assets.lake import record_files
from ecom_assets.lake.record_files import File

if TYPE_CHECKING:
    from pyspark.sql.types import StructType


@dataclass
class Message(WriterCommitMessage):
    """What a task has written.

    Attributes:
        file: The file; ``None`` if there were no records.
    """

    file: File | None


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

    def write(self, iterator: Iterator[pa.RecordBatch]) -> Message:
        """Write the records of one partition of the topic, in flat memory."""
        return Message(record_files.write(iterator, self._table, self._topic, location(self._target)))

    def commit(self, messages: list[WriterCommitMessage | None], batchId: int) -> None:  # noqa: N803  Spark's name
        """Let the table's log name a batch's files, unless it does already."""
        from deltalake import DeltaTable, Transaction

        query = json.loads((location(self._checkpoint) / "metadata").read_text())["id"]
        delta = DeltaTable(self._target)
        done = delta.transaction_version(query)
        files = [message.file for message in cast("list[Message]", messages) if message.file]
        if files and (done is None or done < batchId):
            read: dict[int, int] = {}
            for file in files:
                read |= {p: max(end, read.get(p, 0)) for p, end in file.ends.items()}
            record_files.commit(delta, files, self._topic, read, [Transaction(query, batchId)])

    def abort(self, messages: list[WriterCommitMessage | None], batchId: int) -> None:  # noqa: N803  Spark's name
        """Leave what was written; see the module."""
