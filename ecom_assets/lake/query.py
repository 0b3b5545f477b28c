"""The query from a topic to its streamed table, by Spark Structured Streaming: every record exactly once.

What belongs here: starting and stopping the query, its checkpoint, and how far a table has read its topic. What does
not: what Spark's workers do with records (``sink``), when a query runs (``streamed``, ``follow``), and how a few
records are read without one (``fetch``).

Two places know how far a table has read: the query's checkpoint, up to the last offset looked at, markers of
transactions included; and each commit of the table, as Delta's transaction identifiers ``kafka/<topic>/<partition>``
(see ``record_files``): up to the last record of what Spark brought, and up to the last offset of what was read without
Spark (``fetch``), which leaves no checkpoint behind. The second is part of a version of the table, so rows and offsets
can be read at one point; a lost checkpoint is rebuilt from it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, Schema
from pyspark.errors import PySparkException

from ecom_assets.core.errors import LakeError, NotBuiltError
from ecom_assets.core.home import hint
from ecom_assets.core.location import Location, exists, remove
from ecom_assets.core.settings import Settings
from ecom_assets.core.spark import last_words
from ecom_assets.dataset.model import Table
from ecom_assets.lake import kafka_source, record_files, sink
from ecom_assets.lake.delta import latest, transaction

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.streaming import DataStreamWriter, StreamingQuery

    from ecom_assets.core.context import Context
    from ecom_assets.core.layer import Offsets, OffsetSource

DATA_LOSS = ("DATA_LOSS", "failOnDataLoss")
"""How Spark names records that are gone before they were read."""


@dataclass(frozen=True)
class Place:
    """Where a streamed table is stored.

    Attributes:
        table: Folder of the Delta table.
        checkpoint: Folder of the query's checkpoint.
    """

    table: Location
    checkpoint: Location

    @classmethod
    def of(cls, table: Table, settings: Settings) -> Place:
        """The place that readers know."""
        return cls(settings.lake / "streamed" / table.name, settings.lake / "checkpoints" / table.name)

    @classmethod
    def next_to(cls, table: Table, settings: Settings) -> Place:
        """The place for a new table that is to replace the one there."""
        name = f".{table.name}.next"
        return cls(settings.lake / "streamed" / name, settings.lake / "checkpoints" / name)

    def remove(self) -> None:
        """Delete both."""
        remove(self.table)
        remove(self.checkpoint)


def create(table: Table, target: Location) -> None:
    """Create the empty streamed table, or check that the one there has the same columns.

    Raises:
        LakeError: It has others.
    """
    wanted = Schema.from_arrow(record_files.columns(table))
    if exists(target):
        found = latest(target).schema()
        if [(f.name, f.type) for f in found.fields] != [(f.name, f.type) for f in wanted.fields]:
            raise LakeError(
                f"table {table.name}: expected the columns {_columns(wanted)} of {table.schema_file} in"
                f" {target}, got {_columns(found)}",
                f"`{hint('run --repair')}` reads the topic again from its start",
            )
        return
    configuration = {
        # Statistics on wide text cost more than the rest of a commit; on place and undecoded records they are cheap.
        "delta.dataSkippingStatsColumns": "_partition,_offset,_delivery,_undecoded.reason",
        # A checkpoint takes as long as two commits, and a live stream commits every few seconds (the default is 10).
        "delta.checkpointInterval": "50",
    }
    DeltaTable.create(str(target), wanted, configuration=configuration)


def _columns(schema: Schema) -> str:
    return ", ".join(f"{f.name} {f.type.to_json()}".replace('"', "") for f in schema.fields)


def seen(place: Place, table: Table, topic: str) -> dict[int, int]:
    """Partition -> offset up to which a table has looked at its topic; empty without a table.

    The greater of both: the checkpoint knows of markers behind the last record, and a query that was stopped has
    committed to the table what its checkpoint does not know of.

    Raises:
        LakeError: The checkpoint is damaged.
    """
    if not exists(place.table):
        return {}
    done = max((int(f.name) for f in (place.checkpoint / "commits").glob("[0-9]*")), default=-1)
    log = place.checkpoint / "offsets" / str(done)
    found = committed(latest(place.table), topic)
    for partition, offset in batch_offsets(log, table.name).items() if log.exists() else ():
        found[partition] = max(offset, found.get(partition, 0))
    return found


def batch_offsets(log: Location, table: str) -> dict[int, int]:
    """Partition -> the offset up to which a batch reads, from the checkpoint's file of that batch.

    A version, the batch's settings, then a line per source (Spark's ``OffsetSeqLog``).

    Raises:
        LakeError: The file is damaged.
    """
    text = log.read_text(encoding="utf-8")
    try:
        version, _, source = text.splitlines()
        (offsets,) = json.loads(source).values()
        if version == "v1" and all(isinstance(offset, int) for offset in offsets.values()):
            return {int(partition): offset for partition, offset in offsets.items()}
    except (ValueError, AttributeError):
        pass
    raise LakeError(
        f"table {table}: {log} is damaged: expected v1, settings and offsets, a line each, got {text[-200:]!r}",
        f"delete {log.parent.parent}; the stream resumes behind the last offsets that its table names",
    )


def committed(delta: DeltaTable, topic: str) -> dict[int, int]:
    """Partition -> offset up to which a version of a streamed table holds its topic, from its transactions."""
    files = pa.table(delta.get_add_actions(flatten=True))
    known = 1 + (pc.max(files["max._partition"]).as_py() or 0) if files.num_rows else 0
    ends: dict[int, int] = {}
    for partition in itertools.count():
        end = transaction(delta, record_files.app_id(topic, partition))
        if end is not None:
            ends[partition] = end
        elif partition >= known:
            return ends
    raise AssertionError("a topic's partitions have an end")


def unread(place: Place, table: Table, topic: str, ends: Mapping[int, int]) -> int:
    """How many offsets of a topic a table's query has not looked at yet.

    Markers of transactions count like records, so 0 means that nothing at all is left. A topic that ends before what
    was read was created again: that counts too, since the query must run to report it.

    Args:
        place: Where the table is.
        table: The table.
        topic: Its topic.
        ends: Partition -> offset behind the last committed record.

    Raises:
        LakeError: The checkpoint is damaged.
    """
    read = seen(place, table, topic)
    return sum(abs(end - read.get(partition, 0)) for partition, end in ends.items())


def clear_leftovers(checkpoint: Location) -> None:
    """Delete what a killed Spark was about to write to a checkpoint; nothing else may use it meanwhile.

    Spark refuses to begin its first batch while there is any file in the log of offsets
    (STATE_STORE_CHECKPOINT_LOCATION_NOT_EMPTY), and Hadoop does not write a lost file again next to its checksum.
    """
    for part in list(checkpoint.glob("*/.*.tmp")):
        part.unlink()
    for crc in list(checkpoint.glob("*/.*.crc")):
        if not crc.with_name(crc.name[1 : -len(".crc")]).exists():
            crc.unlink()


@contextmanager
def running(
    at: Context, table: Table, source: OffsetSource, place: Place, trigger: Mapping[str, Any]
) -> Generator[StreamingQuery]:
    """The query from a table's topic to a place; stopped when the block ends.

    Raises:
        LakeError: The topic is missing, records are gone before they were read, or the query failed.
        TopicError: No broker responded.
    """
    topic = source.stored_as(at.settings, table)
    if not exists(place.table):
        remove(place.checkpoint)
    for log in (place.checkpoint / "offsets").glob("[0-9]*"):  # Spark keeps a hundred at most
        batch_offsets(log, table.name)
    clear_leftovers(place.checkpoint)
    start, _ = begin(at, table, source, place)
    create(table, place.table)
    kafka = at.addresses.kafka
    records = kafka_source.read(at.spark, topic, at.settings, kafka, json.dumps({topic: start}))
    query = None
    try:
        query = into_table(records, table, topic, place).trigger(**trigger).start()
        yield query
        # A query that failed in its first second ended before anything waited for it.
        if error := query.exception():
            raise error
    except PySparkException as error:
        raise failure(at.settings, table, topic, kafka, error) from error
    finally:
        if query is not None:
            query.stop()


def into_table(records: DataFrame, table: Table, topic: str, place: Place) -> DataStreamWriter:
    """A stream of a topic's records, decoded, into the streamed table.

    Args:
        records: As Spark's Kafka source returns them.
        table: Whose records.
        topic: The topic's name.
        place: The table, which must exist, and the query's own folder.

    Returns:
        The query, without a trigger, not started.
    """
    records.sparkSession.dataSource.register(sink.StreamedSink)
    options = sink.options(table, topic, place.table, place.checkpoint)
    writer = records.select(*record_files.RECORDS).writeStream.format(sink.StreamedSink.name())
    return writer.options(**options, checkpointLocation=str(place.checkpoint))


def begin(at: Context, table: Table, source: OffsetSource, place: Place) -> tuple[dict[int, int], Offsets]:
    """Where a table resumes in its topic: behind what its checkpoint holds, or else itself, or else the very beginning.

    By numbers, never at the "earliest" that is left: what a topic lost before it was read would be skipped silently.

    Returns:
        Partition -> offset, and how far the topic goes.

    Raises:
        NotBuiltError: There is no topic.
        LakeError: Records are gone before they were read.
    """
    offsets, topic = source.offsets(at, [table]).get(table.name), source.stored_as(at.settings, table)
    if offsets is None:
        raise NotBuiltError(source.name, table.name)
    resume = dict.fromkeys(offsets.first, 0) | seen(place, table, topic)
    for partition, offset in resume.items():
        if offsets.first.get(partition, 0) > offset:
            raise LakeError(
                f"table {table.name}, topic {topic}, partition {partition}: expected to resume at offset {offset}, got"
                f" {offsets.first[partition]} as the first that Kafka still holds:"
                f" {offsets.first[partition] - offset} records have expired or were deleted before they were read",
                f"{_send_again(at.settings, table)} (check that its retention.ms and retention.bytes are -1)",
            )
    return resume, offsets


def created_again(settings: Settings, table: Table, topic: str, place: str) -> LakeError:
    """What it means that a topic ends before the offset up to which it was read."""
    return LakeError(
        f"table {table.name}, topic {topic}: expected to resume at {place}, got a topic that ends before:"
        " records are gone before they were read, or the topic was created again",
        _send_again(settings, table),
    )


def _send_again(settings: Settings, table: Table) -> str:
    return (
        f"`ecom reset topic --table {table.name} --home {settings.home}`, then run again: all chunks are sent to a new"
        " topic"
    )


def failure(settings: Settings, table: Table, topic: str, kafka: str, error: PySparkException) -> LakeError:
    """What a query's end means; transient unless records are lost."""
    cause = last_words(error)
    lost = any(sign in cause for sign in DATA_LOSS)
    if lost:
        again = _send_again(settings, table)
        remedy = f"records are gone before they were read, or the topic was created again: {again}"
    else:
        remedy = (
            f"see the server's log (`{hint('status', settings)}` names it) and run again: it resumes where it stopped"
        )
    return LakeError(f"table {table.name}, topic {topic} at {kafka}: {cause}", remedy, transient=not lost)
