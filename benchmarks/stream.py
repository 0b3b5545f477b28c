"""A topic into Delta by Spark, and the same query by Spark's own functions into its noop sink, which writes nothing.

The same query: records are decoded into columns, and seen to be exactly one record each, of valid text. Spark's guide
(https://spark.apache.org/docs/latest/sql-data-sources-avro.html) leaves the latter out, so that is measured too. The
limit is Spark's reading of the same records without a look at them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager

from pyspark.sql import DataFrame
from pyspark.sql import functions as sf
from pyspark.sql.avro.functions import from_avro, to_avro

from benchmarks.harness import OURS, Goal, Sample, Step, timed, versus, within
from benchmarks.stage import Stage
from ecom_assets.lake import kafka_source
from ecom_assets.lake.record_files import RECORDS
from ecom_assets.paths import STREAMED
from ecom_assets_tests.tables import CLICK_STREAM as TABLE

NOOP = "noop sink"
UNVERIFIED = "noop sink, unverified"
LIMIT = "records unread"


@contextmanager
def stream(stage: Stage) -> Generator[Step]:
    """A topic into Delta."""
    settings, kafka, spark = stage.topic, stage.addresses.kafka, stage.spark
    checkpoint = stage.folder / "checkpoint"
    stage.arrow  # noqa: B018  is counted below
    rows = sum(map(len, stage.batches()))

    def ours() -> Sample:
        STREAMED.delete(stage.at, TABLE)
        return timed(lambda: STREAMED.build(stage.at, TABLE).rows)

    def noop(way: Callable[[DataFrame], DataFrame]) -> Sample:
        shutil.rmtree(checkpoint, ignore_errors=True)

        def work() -> int:
            topic = TABLE.topic(settings.namespace)
            records = kafka_source.read(spark, topic, settings, kafka, "earliest").select(*RECORDS)
            writer = way(records).writeStream.format("noop").option("checkpointLocation", str(checkpoint))
            query = writer.trigger(availableNow=True).start()
            try:
                query.awaitTermination()
            finally:
                query.stop()
            return rows

        return timed(work)

    yield Step(
        "stream",
        "rows",
        {
            OURS: ours,
            LIMIT: lambda: noop(lambda records: records),
            NOOP: lambda: noop(verified),
            UNVERIFIED: lambda: noop(decoded),
        },
        (
            versus("stream_vs_noop", NOOP, Goal(0.7)),
            versus("stream_vs_unverified", UNVERIFIED),
            within("stream_vs_limit", LIMIT),
        ),
        warm_ups=2,  # Spark compiles for longer than one round
    )
    STREAMED.delete(stage.at, TABLE)


def decoded(records: DataFrame) -> DataFrame:
    """Records with the table's columns in place of the value, as Spark's guide makes them."""
    row = records.withColumn("_row", from_avro("value", TABLE.avro, {"mode": "PERMISSIVE"}))
    return row.select("_row.*", *(name for name in RECORDS if name != "value"))


def verified(records: DataFrame) -> DataFrame:
    """As ``decoded``; with a reason in place of the columns where a value is not exactly one record of valid text."""
    row, value = sf.col("_row"), sf.col("value")
    utf8 = sf.lit(True)
    for column in TABLE.columns:
        if column.kind.is_text:
            utf8 &= sf.coalesce(sf.is_valid_utf8(row[column.name]), sf.lit(True))
    reason = (
        sf.when(value.isNull(), sf.lit("no value"))
        .when(row[TABLE.primary_key].isNull(), sf.lit("no record"))
        .when(to_avro(row, TABLE.avro) != value, sf.lit("not exactly one"))
        .when(~utf8, sf.lit("not UTF-8"))
    )
    read = records.withColumn("_row", from_avro("value", TABLE.avro, {"mode": "PERMISSIVE"}))
    own = [sf.when(sf.col("_reason").isNull(), row[c.name]).alias(c.name) for c in TABLE.columns]
    bad = sf.when(sf.col("_reason").isNotNull(), sf.struct("key", "value", "_reason")).alias("_undecoded")
    place = (name for name in RECORDS if name not in ("key", "value"))
    return read.withColumn("_reason", reason).select(*own, *place, bad)
