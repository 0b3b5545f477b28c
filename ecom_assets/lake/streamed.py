"""Topics to Delta tables, by Spark Structured Streaming, every record once.

What belongs here: the streamed table of a topic, what became of records that are not rows, and
the few things that every Delta table of the lake needs (where it is, what it holds, its
quarantine). What does not: anything that looks at more than one record; see ``merged``.

The streamed table has one row per record, undecodable ones included, so that a single Delta
commit accounts for all offsets of a micro-batch. The quarantine is derived from it.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec
from deltalake import DeltaTable, Schema
from pyspark.errors import PySparkException
from pyspark.sql import functions as sf

from ecom_assets.core import row_hash
from ecom_assets.core.errors import LakeError
from ecom_assets.core.location import Location, exists, remove
from ecom_assets.core.measure import Measure
from ecom_assets.core.parallel import ordered_map
from ecom_assets.core.settings import Settings
from ecom_assets.core.spark import last_words
from ecom_assets.dataset.model import Table
from ecom_assets.kafka import topic
from ecom_assets.lake import sink

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.streaming import DataStreamWriter, StreamingQuery

RECORDS_PER_BATCH = 4_000_000
"""Offsets of one micro-batch; memory does not depend on it, and a commit costs about a second."""

BATCH_ROWS = 65_536
"""Rows of a batch that is read without Spark."""

KAFKA_PATIENCE = 10.0
"""Seconds within which a broker must answer."""

SPARK_TYPES = {"long": "bigint", "string": "string"}

QUARANTINE = "table string, stage string, source string, line_or_offset bigint, key string, raw string, reason string"
"""Columns of every quarantine table, partitioned by stage: each stage replaces its own part alone."""

Stage = Literal["topic", "merge"]


def folder(table: Table, settings: Settings) -> Location:
    """Folder of the streamed Delta table."""
    return settings.lake / "streamed" / table.name


def quarantine(table: Table, settings: Settings) -> Location:
    """Folder of the Delta table with what was set aside."""
    return settings.lake / "quarantine" / table.name


def own_columns(table: Table) -> str:
    """The table's columns as Spark DDL; all may be null, as Delta needs no second contract."""
    return ", ".join(f"`{c.name}` {SPARK_TYPES[c.avro]}" for c in table.columns)


def java_kafka_config(config: Mapping[str, str]) -> dict[str, str]:
    """Translate librdkafka's security settings into the Java client's.

    Args:
        config: Settings as librdkafka spells them; those that are not about security are left out.

    Returns:
        Settings as the Java client spells them, without a prefix.

    Raises:
        OSError: A certificate or key file cannot be read.
    """
    java = {k: v for k, v in config.items() if k.startswith(("security.", "sasl.", "ssl."))}
    if mechanism := java.pop("sasl.mechanisms", None):
        java["sasl.mechanism"] = mechanism
    user, password = java.pop("sasl.username", None), java.pop("sasl.password", None)
    if user is not None:
        kind = "scram.Scram" if java.get("sasl.mechanism", "").startswith("SCRAM") else "plain.Plain"
        quoted = [json.dumps(text or "") for text in (user, password)]
        java["sasl.jaas.config"] = (
            f"org.apache.kafka.common.security.{kind}LoginModule required username={quoted[0]} password={quoted[1]};"
        )
    # The Java client reads PEM only as text, or as one file with both key and certificate.
    for ours, theirs, store in (
        ("ssl.ca", "ssl.truststore.certificates", "ssl.truststore.type"),
        ("ssl.certificate", "ssl.keystore.certificate.chain", "ssl.keystore.type"),
        ("ssl.key", "ssl.keystore.key", "ssl.keystore.type"),
    ):
        file, text = java.pop(f"{ours}.location", None), java.pop(f"{ours}.pem", None)
        if file or text:
            java |= {theirs: text or Path(str(file)).read_text(encoding="ascii"), store: "PEM"}
    if java.get("ssl.endpoint.identification.algorithm") == "none":
        java["ssl.endpoint.identification.algorithm"] = ""
    return java


def stream(
    spark: SparkSession,
    table: Table,
    settings: Settings,
    kafka: str,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Bring what is new in a table's topic into its streamed table, then stop.

    Spark's checkpoint and Delta's transaction ids make it exactly-once, also when a run was
    killed. A lost checkpoint is made anew from the offsets in the table; a lost table is read
    again from the start of the topic.

    Args:
        spark: A Spark Connect session.
        table: Which table.
        settings: Lake, namespace and Kafka's security settings.
        kafka: Bootstrap servers, as Spark reaches them.
        progress: Told how many records have come in since it was last told.

    Returns:
        The number of records that came in, undecodable ones included.

    Raises:
        LakeError: The topic is missing, Kafka does not answer, or the query failed.
    """
    target = folder(table, settings)
    while not (lock := _claim(table, settings)):
        # Somebody else streams this table; what is left over when they are done is little.
        if exists(target) and not unread(table, settings, topic.positions(settings, kafka)[table.name].ends):
            return 0
        time.sleep(1)
    with lock:
        before = told = records(target)
        with _query(spark, table, settings, kafka, {"availableNow": True}) as query:
            while not query.awaitTermination(1):
                told = _tell(progress, target, told)
        _set_aside_undecoded(spark, table, settings)
        return _tell(progress, target, told) - before


@dataclass(frozen=True)
class Live:
    """How a table's continuous stream stands.

    Attributes:
        table: Name of the table.
        rows: Records in the streamed table.
        new: Those of them that came in since the stream was started.
        lag: Offsets in the topic that have not come in yet.
    """

    table: str
    rows: int
    new: int
    lag: int


def follow(
    spark: SparkSession,
    tables: Iterable[Table],
    settings: Settings,
    kafka: str,
    *,
    interval: float,
    stop: Event,
    tell: Callable[[list[Live]], object],
) -> None:
    """Keep bringing in what comes into topics, until told to stop.

    The queries have the checkpoints of the bounded ones, so either goes on where the other stopped.

    Args:
        spark: A Spark Connect session.
        tables: Which tables.
        settings: As for ``stream``.
        kafka: Bootstrap servers, as Spark reaches them.
        interval: Seconds between the starts of two micro-batches.
        stop: Ends the queries; a micro-batch that is cut off is done again by the next stream.
        tell: Told about once a second how each table stands.

    Raises:
        LakeError: Another process streams a table, or as ``stream``.
    """
    with ExitStack() as running:
        queries: dict[str, tuple[Table, StreamingQuery, int]] = {}
        for table in tables:
            if not (lock := _claim(table, settings)):
                raise LakeError(f"table {table.name}: another process streams it already; stop that first")
            running.enter_context(lock)
            before = records(folder(table, settings))
            trigger = {"processingTime": f"{interval} seconds"}
            query = running.enter_context(_query(spark, table, settings, kafka, trigger))
            queries[table.name] = (table, query, before)
        while not stop.wait(1):
            at = topic.positions(settings, kafka)
            told = []
            for table, query, before in queries.values():
                if not query.isActive:
                    raise query.exception() or LakeError(f"table {table.name}: its stream has ended without a word")
                rows = records(folder(table, settings))
                told.append(Live(table.name, rows, rows - before, unread(table, settings, at[table.name].ends)))
            tell(told)
        for table, query, _ in queries.values():
            query.stop()
            _set_aside_undecoded(spark, table, settings)


def unread(table: Table, settings: Settings, ends: Mapping[int, int]) -> int:
    """How many offsets of a topic have not come into its streamed table yet.

    Read from the query's checkpoint, so marks of transactions count like records and 0 means
    that nothing at all is left. A topic that ends before what was read was made anew: that
    counts too, since the stream is to look at it and to say so.

    Args:
        table: The table.
        settings: Where the lake is.
        ends: Partition -> the offset behind the last committed record.

    Raises:
        LakeError: The checkpoint is damaged.
    """
    read = _read(table, settings)
    return sum(abs(end - read.get(str(partition), 0)) for partition, end in ends.items())


def is_followed(table: Table, settings: Settings) -> bool:
    """Whether a process streams the table just now."""
    if lock := _claim(table, settings):
        with lock:
            return False
    return True


def settled(table: Table, settings: Settings) -> bool:
    """Whether every undecodable record of the streamed table stands in its quarantine."""
    path = quarantine(table, settings)
    files = _files(path) if exists(path) else None
    aside = 0
    if files and files.num_rows:
        aside = pc.sum(files.filter(pc.equal(files["partition.stage"], "topic"))["num_records"]).as_py() or 0
    return aside == undecoded(table, settings)


def _checkpoint(table: Table, settings: Settings) -> Location:
    return settings.lake / "checkpoints" / table.name


def _read(table: Table, settings: Settings) -> dict[str, int]:
    """Partition -> the offset up to which a table has read its topic, from its checkpoint; empty without one."""
    checkpoint = _checkpoint(table, settings)
    done = max((int(f.name) for f in (checkpoint / "commits").glob("[0-9]*")), default=-1)
    log = checkpoint / "offsets" / str(done)
    return _offsets(log, table) if log.exists() and exists(folder(table, settings)) else {}


def _offsets(log: Location, table: Table) -> dict[str, int]:
    """Partition -> the offset up to which a batch reads, from the checkpoint's file of that batch.

    A version, the batch's settings, then a line per source (Spark's ``OffsetSeqLog``).
    """
    text = log.read_text(encoding="utf-8")
    try:
        version, _, source = text.splitlines()
        (offsets,) = json.loads(source).values()
        if version == "v1" and all(isinstance(offset, int) for offset in offsets.values()):
            return offsets
    except (ValueError, AttributeError):
        pass
    raise LakeError(
        f"table {table.name}: {log} is damaged: expected v1, settings and offsets, a line each, got {text[-200:]!r};"
        f" delete {log.parent.parent}, and the stream goes on behind the last offsets that stand in its table"
    )


def _claim(table: Table, settings: Settings) -> AbstractContextManager[object] | None:
    """Take the right to stream a table, as long as the returned block lasts; ``None`` if another process has it."""
    path = settings.manifests / "streamed" / f"{table.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


@contextmanager
def _query(
    spark: SparkSession, table: Table, settings: Settings, kafka: str, trigger: Mapping[str, Any]
) -> Generator[StreamingQuery]:
    """The query from a table's topic to its streamed table; stopped when the block ends."""
    target, checkpoint = folder(table, settings), _checkpoint(table, settings)
    if not exists(target):
        remove(checkpoint)
    for log in (checkpoint / "offsets").glob("[0-9]*"):  # Spark keeps a hundred at most
        _offsets(log, table)
    for crc in checkpoint.glob("*/.*.crc"):
        # Hadoop would not write a lost file anew beside its checksum, and Spark suspect another query of it.
        if not crc.with_name(crc.name[1 : -len(".crc")]).exists():
            crc.unlink()
    start = _start(spark, table, settings, kafka)
    create(table, target)
    records = read_topic(spark, table, settings, kafka, start)
    writer = into_table(records, table, table.topic(settings.namespace), target, checkpoint)
    query = None
    try:
        query = writer.trigger(**trigger).start()
        yield query
        # A query that failed in its first second has ended before it was waited for.
        if error := query.exception():
            raise error
    except PySparkException as error:
        raise _stream_error(table, settings, kafka, error) from error
    finally:
        if query is not None:
            query.stop()


def delete(table: Table, settings: Settings) -> None:
    """Delete the streamed table, its checkpoint and its quarantine; the topic stays."""
    replace_quarantine(None, table, settings, "topic")
    remove(folder(table, settings))
    remove(_checkpoint(table, settings))


def read_topic(spark: SparkSession, table: Table, settings: Settings, kafka: str, start: str) -> DataFrame:
    """The records of a table's topic as a stream, as Spark's Kafka source gives them.

    Args:
        spark: A Spark Connect session.
        table: Which table.
        settings: For the namespace and Kafka's security settings.
        kafka: Bootstrap servers, as Spark reaches them.
        start: Where to begin, as Spark's ``startingOffsets``.
    """
    options = {
        **{f"kafka.{k}": v for k, v in java_kafka_config(settings.kafka_config).items()},
        "kafka.bootstrap.servers": kafka,
        "kafka.isolation.level": "read_committed",
        "kafka.max.poll.records": "10000",
        # Behind the last record of a partition stands the mark of its transaction: Kafka would hold back
        # the answer for the default of half a second to see whether more comes.
        "kafka.fetch.max.wait.ms": "10",
        # Half a minute of silence is a broker that is gone; the defaults wait for two minutes, several times.
        "kafka.request.timeout.ms": "15000",
        "kafka.default.api.timeout.ms": "30000",
        "kafkaConsumer.pollTimeoutMs": "30000",
        "subscribe": table.topic(settings.namespace),
        "startingOffsets": start,
        "failOnDataLoss": "true",
        "maxOffsetsPerTrigger": str(RECORDS_PER_BATCH),
    }
    return spark.readStream.format("kafka").options(**options).load()


def into_table(
    records: DataFrame, table: Table, topic: str, target: Location, checkpoint: Location
) -> DataStreamWriter:
    """A stream of a topic's records, decoded, into the streamed table.

    Args:
        records: As ``read_topic`` gives them.
        table: Whose records.
        topic: The topic's name.
        target: The table; it must exist.
        checkpoint: The query's own folder.

    Returns:
        The query, to be given a trigger and started.
    """
    records.sparkSession.dataSource.register(sink.StreamedSink)
    options = {"table": table.name, "topic": topic, "target": str(target), "checkpoint": str(checkpoint)}
    writer = records.select(*sink.RECORDS).writeStream.format(sink.StreamedSink.name())
    return writer.options(**options, checkpointLocation=str(checkpoint))


def measure(table: Table, settings: Settings) -> Measure:
    """Count and checksum the rows of the streamed table; a missing table holds none."""
    return measure_delta(table, folder(table, settings), "_undecoded")


def undecoded(table: Table, settings: Settings) -> int:
    """How many records of the streamed table are not rows, as its log tells; they stand in its quarantine."""
    if not exists(path := folder(table, settings)):
        return 0
    files = _files(path)
    return records(path) - int(pc.sum(files["null_count._undecoded.reason"]).as_py()) if files.num_rows else 0


def records(path: Location) -> int:
    """The number of rows of a Delta table, as its log tells; no data is read. A missing table has none."""
    return int(pc.sum(_files(path)["num_records"]).as_py() or 0) if exists(path) else 0


def measure_delta(table: Table, path: Location, null: str | None = None) -> Measure:
    """Count and checksum a Delta table as it lies on disk.

    Not by Spark, which writes the merged table and reads the streamed one for it: two programs that read the same
    rows prove more than one, and this one takes a third of the time.

    Args:
        table: Whose columns to hash.
        path: The Delta table; a missing one holds no rows.
        null: A column; only rows where it is null count.

    Returns:
        Rows, checksum, bytes of the live files and seconds.
    """
    if not exists(path):
        return Measure()
    began = time.monotonic()

    def hashed(batch: pa.RecordBatch) -> Measure:
        return Measure(batch.num_rows, row_hash.total(row_hash.batch_hashes(batch, table.names)))

    found = sum(ordered_map(hashed, read_batches(path, table.names, null)), Measure())
    size = int(pc.sum(_files(path)["size_bytes"]).as_py() or 0)
    return found + Measure(bytes=size, seconds=time.monotonic() - began)


def read_batches(
    path: Location,
    columns: list[str],
    null: str | None = None,
    version: int | None = None,
    files: Collection[str] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Read a Delta table without Spark, in flat memory.

    Args:
        path: Folder of the table.
        columns: Which columns, in the order wanted.
        null: A column; only rows where it is null are wanted.
        version: Which version of the table; the newest if not given.
        files: Names of files within its folder; only their rows are wanted, if given.

    Yields:
        Arrow batches of at most 65,536 rows.

    Raises:
        LakeError: There is no Delta table.
    """
    # Not by the dataset's own scan: that decodes whole row groups, which took 600 MB instead of 35.
    whole = dataset(path, version)
    wanted = pa.schema([whole.schema.field(c) for c in columns])
    for file in whole.get_fragments():
        if files is not None and file.path.rpartition("/")[2] not in files:
            continue
        with file.open() as source, pq.ParquetFile(source, buffer_size=1 << 20) as parquet:
            for batch in parquet.iter_batches(BATCH_ROWS, columns=[*columns, null] if null else columns):
                # Who wrote a file chose how texts lie in memory, and not all that Arrow does can be done with all ways.
                rows = batch.select(columns).cast(wanted)
                yield rows.filter(batch.column(null).is_null()) if null else rows


def dataset(path: Location, version: int | None = None) -> Any:
    """A Delta table as it is now, or was at a version, as an Arrow dataset.

    Raises:
        LakeError: There is no Delta table.
    """
    if not exists(path):
        raise LakeError(f"expected a Delta table in {path}, got none; materialize it first")
    return DeltaTable(str(path), version=version).to_pyarrow_dataset()


def replace_quarantine(frame: DataFrame | None, table: Table, settings: Settings, stage: Stage) -> None:
    """Replace what a stage has set aside; other stages keep theirs.

    Args:
        frame: The columns of ``QUARANTINE`` without ``table`` and ``stage``; ``None`` for nothing.
        table: Whose quarantine.
        settings: Where the lake is.
        stage: Which stage.
    """
    path = quarantine(table, settings)
    if frame is None:
        if exists(path) and DeltaTable(str(path)).partitions([("stage", "=", stage)]):
            DeltaTable(str(path)).delete(f"stage = '{stage}'")
        return
    named = frame.withColumns({"table": sf.lit(table.name), "stage": sf.lit(stage)})
    columns = [sf.col(name).cast(kind).alias(name) for name, kind in (c.split() for c in QUARANTINE.split(", "))]
    writer = named.select(*columns).write.format("delta").partitionBy("stage").mode("overwrite")
    if exists(path):
        writer = writer.option("replaceWhere", f"stage = '{stage}'")
    writer.save(str(path))


def _tell(progress: Callable[[int], None] | None, target: Location, told: int) -> int:
    """Tell what has come in since; from the table's log, as the query's progress can lack its row counts."""
    now = records(target)
    if progress and now != told:
        progress(now - told)
    return now


def _files(path: Location) -> pa.Table:
    return pa.table(DeltaTable(str(path)).get_add_actions(flatten=True))


def create(table: Table, target: Location) -> None:
    """Make the empty streamed table, or see that the one there is of the same contract.

    Raises:
        LakeError: It is of another.
    """
    wanted = Schema.from_arrow(sink.columns(table))
    if exists(target):
        there = DeltaTable(str(target)).schema()
        if [(f.name, f.type) for f in there.fields] != [(f.name, f.type) for f in wanted.fields]:
            raise LakeError(
                f"table {table.name}: expected the columns {_told(wanted)} of schemas/{table.name}.avsc in"
                f" {target}, got {_told(there)}; delete that folder, and the topic is read again from its start"
            )
        return
    configuration = {
        # Statistics on wide text cost more than the rest of a commit; on place and undecoded records they are cheap.
        "delta.dataSkippingStatsColumns": "_partition,_offset,_undecoded.reason",
        # A checkpoint takes as long as two commits, and a live stream commits every few seconds (the default is 10).
        "delta.checkpointInterval": "50",
    }
    DeltaTable.create(str(target), wanted, configuration=configuration)


def _told(schema: Schema) -> str:
    return ", ".join(f"{f.name} {f.type.to_json()}".replace('"', "") for f in schema.fields)


def _first_offsets(table: Table, settings: Settings, kafka: str) -> dict[int, int]:
    """Partition -> the first offset that a table's topic still holds."""
    name = table.topic(settings.namespace)
    clients = topic.Clients(kafka, settings.kafka_config)
    try:
        admin = clients.admin()
        # All topics: to ask for one by name would create it.
        found = admin.list_topics(timeout=KAFKA_PATIENCE).topics.get(name)
        if found is None:
            raise LakeError(f"table {table.name}: there is no topic {name} at {kafka}; materialize its topic first")
        asked = {TopicPartition(name, p): OffsetSpec.earliest() for p in found.partitions}
        futures = admin.list_offsets(asked, request_timeout=KAFKA_PATIENCE)
        return {at.partition: future.result().offset for at, future in futures.items()}
    except KafkaException as error:
        raise LakeError(
            f"table {table.name}, topic {name}: no Kafka broker has answered at {kafka} within"
            f" {KAFKA_PATIENCE:g} s ({clients.refusal() or error.args[0].str()}); `ecom status` shows which servers run"
        ) from error


def _start(spark: SparkSession, table: Table, settings: Settings, kafka: str) -> str:
    """Where a query goes on: behind what its checkpoint tells, or else its table, or else at the very beginning.

    By numbers, never at the "earliest" that is left: what a topic lost before it was read would be
    skipped without a word.
    """
    name, target = table.topic(settings.namespace), folder(table, settings)
    first = _first_offsets(table, settings, kafka)
    at = dict.fromkeys(first, 0)
    if (_checkpoint(table, settings) / "commits").exists():
        at |= {int(partition): offset for partition, offset in _read(table, settings).items()}
    elif exists(target) and records(target):
        place = spark.read.format("delta").load(str(target)).groupBy("_partition").agg(sf.max("_offset"))
        at |= {partition: last + 1 for partition, last in place.collect()}
    for partition, offset in at.items():
        if first.get(partition, 0) > offset:
            raise LakeError(
                f"table {table.name}, topic {name}, partition {partition}: expected to go on at offset {offset}, got"
                f" {first[partition]} as the first that Kafka still holds: {first[partition] - offset} records have"
                f" aged out or were deleted before they were read; `ecom reset topic --table {table.name}`, then run"
                " again, and all chunks are put into a new topic (see that its retention.ms and retention.bytes are -1)"
            )
    return json.dumps({name: at})


def _text(name: str) -> Column:
    r"""Bytes as text; those that are not UTF-8 as ``\xNN`` each."""
    column = sf.col(name)
    escaped = sf.regexp_replace(sf.hex(column), "(..)", r"\\x$1")
    return sf.when(sf.is_valid_utf8(column.cast("string")), column.cast("string")).otherwise(escaped)


def _set_aside_undecoded(spark: SparkSession, table: Table, settings: Settings) -> None:
    if not undecoded(table, settings):
        replace_quarantine(None, table, settings, "topic")
        return
    path = folder(table, settings)
    bad = (
        spark.read.format("delta")
        .load(str(path))
        .where("_undecoded IS NOT NULL")
        .select(
            sf.format_string("%s[%d]", "_topic", "_partition").alias("source"),
            sf.col("_offset").alias("line_or_offset"),
            _text("_undecoded.key").alias("key"),
            _text("_undecoded.value").alias("raw"),
            sf.col("_undecoded.reason").alias("reason"),
        )
    )
    replace_quarantine(bad, table, settings, "topic")


def _stream_error(table: Table, settings: Settings, kafka: str, error: PySparkException) -> LakeError:
    cause = last_words(error)
    remedy = "see the server's log (`ecom status` names it) and run again: it resumes where it stopped"
    if "DATA_LOSS" in cause or "failOnDataLoss" in cause:
        remedy = (
            "records are gone before they were read, or the topic was made anew: `ecom reset topic --table"
            f" {table.name}`, then run again, and all chunks are put into a new topic"
        )
    return LakeError(f"table {table.name}, topic {table.topic(settings.namespace)} at {kafka}: {cause}\n{remedy}")
