"""A topic into Delta by Spark, beside the very same query into Spark's noop sink, which throws its rows away.

What lies between the two is what writing costs: Parquet, Delta's commits, and the files' way to the disk. The same
query into plain Parquet files tells how much of that is Parquet.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager

from benchmarks.harness import OURS, Goal, Sample, Step, timed, versus, within
from benchmarks.stage import Stage
from ecom_assets.pipeline import streamed
from ecom_assets.tables import CLICK_STREAM as TABLE

NOOP = "noop sink"
LIMIT = "Parquet alone"


@contextmanager
def stream(stage: Stage) -> Generator[Step]:
    """A topic into Delta."""
    settings, kafka, spark = stage.topic, stage.addresses.kafka, stage.spark
    checkpoint, files = stage.folder / "checkpoint", stage.folder / "files"
    stage.arrow  # noqa: B018  is counted below
    rows = sum(map(len, stage.batches()))

    def ours() -> Sample:
        streamed.delete(TABLE, settings)
        return timed(lambda: streamed.stream(spark, TABLE, settings, kafka))

    def into(sink: str) -> Sample:
        for path in (checkpoint, files):
            shutil.rmtree(path, ignore_errors=True)

        def work() -> int:
            frame = streamed.read_topic(spark, TABLE, settings, kafka, "earliest")
            writer = frame.writeStream.format(sink).option("checkpointLocation", str(checkpoint))
            query = writer.trigger(availableNow=True).start(str(files) if sink == "parquet" else None)
            try:
                query.awaitTermination()
            finally:
                query.stop()
            return rows

        return timed(work)

    yield Step(
        "stream",
        "rows",
        {OURS: ours, LIMIT: lambda: into("parquet"), NOOP: lambda: into("noop")},
        (versus("stream_vs_noop", NOOP, Goal(0.7)), within("stream_vs_limit", LIMIT)),
        warm_ups=2,  # Spark compiles for longer than one round
    )
    streamed.delete(TABLE, settings)
