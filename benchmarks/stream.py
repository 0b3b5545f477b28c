"""A topic into Delta by Spark, beside Spark's own reading of it into its noop sink, which throws its rows away.

Spark's own reading is ``from_avro``, as its guide has it (https://spark.apache.org/docs/latest/sql-data-sources-avro.html),
and leaves out what a stream into a table has to do besides: to see that a record is exactly one, and to write it. The
limit is Spark's reading of the same records without a look at them.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager

from pyspark.sql import Column
from pyspark.sql.avro.functions import from_avro

from benchmarks.harness import OURS, Goal, Sample, Step, timed, versus, within
from benchmarks.stage import Stage
from ecom_assets.pipeline import streamed
from ecom_assets.pipeline.delta_sink import RECORDS
from ecom_assets.tables import CLICK_STREAM as TABLE

NOOP = "noop sink"
LIMIT = "records unread"


@contextmanager
def stream(stage: Stage) -> Generator[Step]:
    """A topic into Delta."""
    settings, kafka, spark = stage.topic, stage.addresses.kafka, stage.spark
    checkpoint = stage.folder / "checkpoint"
    stage.arrow  # noqa: B018  is counted below
    rows = sum(map(len, stage.batches()))

    def ours() -> Sample:
        streamed.delete(TABLE, settings)
        return timed(lambda: streamed.stream(spark, TABLE, settings, kafka))

    def noop(*columns: Column | str) -> Sample:
        shutil.rmtree(checkpoint, ignore_errors=True)

        def work() -> int:
            frame = streamed.read_topic(spark, TABLE, settings, kafka, "earliest").select(*columns)
            writer = frame.writeStream.format("noop").option("checkpointLocation", str(checkpoint))
            query = writer.trigger(availableNow=True).start()
            try:
                query.awaitTermination()
            finally:
                query.stop()
            return rows

        return timed(work)

    place = [name for name in RECORDS if name != "value"]
    row = from_avro("value", TABLE.avro)
    yield Step(
        "stream",
        "rows",
        {OURS: ours, LIMIT: lambda: noop(*RECORDS), NOOP: lambda: noop(row, *place)},
        (versus("stream_vs_noop", NOOP, Goal(0.7)), within("stream_vs_limit", LIMIT)),
        warm_ups=2,  # Spark compiles for longer than one round
    )
    streamed.delete(TABLE, settings)
