"""The jobs and schedules.

What belongs here: which assets and checks run together, the live stream and maintenance. What does not: what starts
automatically; see ``sensors``.
"""

import time
from threading import Event, Timer

import dagster as dg
from pydantic import Field

from ecom_assets.core.layer import OffsetSource
from ecom_assets.defs.names import REPORT
from ecom_assets.defs.resources.home import HomeResource
from ecom_assets.hbase import maintenance as hbase_maintenance
from ecom_assets.lake import follow as live
from ecom_assets.lake import maintenance as lake_maintenance
from ecom_assets.paths import LAYERS, PATHS, TOPIC


def _groups(*groups: str) -> dg.AssetSelection:
    return dg.AssetSelection.groups(*groups)


pipeline = dg.define_asset_job(
    "pipeline",
    selection=_groups(*LAYERS, "reconciliation", "serving"),
    description="Everything, through Kafka and Spark: raw files to verified HBase tables.",
)

bulk_load = dg.define_asset_job(
    "bulk_load",
    selection=_groups(*(layer.name for layer in PATHS["bulk"]), "reconciliation", "serving"),
    description="The bulk path: raw files to verified HBase tables, without Kafka and Spark.",
    config={"ops": {layer.name: {"config": {"path": "bulk"}} for layer in PATHS["bulk"]}},
)

ingest = dg.define_asset_job(
    "ingest",
    selection=_groups("raw", "expanded", "chunked", "topic"),
    description="Load the source files into Kafka; sensors do the rest.",
)

stream = dg.define_asset_job(
    "stream",
    selection=_groups("streamed"),
    description="Stream all unread records into Delta, then exit.",
)

publish = dg.define_asset_job(
    "publish",
    selection=_groups("merged", "hbase", "reconciliation", "serving"),
    description="Merge what was streamed, load HBase, reconcile all layers, and publish the new versions.",
)

reconcile = dg.define_asset_job(
    "reconcile",
    selection=dg.AssetSelection.all_asset_checks(),
    description="Run all asset checks without materializing anything.",
)

nightly = dg.define_asset_job(
    "nightly",
    selection=dg.AssetSelection.all_asset_checks() | dg.AssetSelection.assets(REPORT),
    description="Run all asset checks, and renew the reconciliation report.",
)

analysis = dg.define_asset_job(
    "analysis",
    selection=_groups("raw", "expanded", "postgres", "analysis", "cache"),
    description="The analysis path: files, PostgreSQL, Spark, Redis.",
)


class Following(dg.Config):
    """Settings of a live stream."""

    interval: float = Field(5.0, gt=0, description="Seconds between the starts of two micro-batches")
    minutes: float = Field(0.0, ge=0, description="End after this time; 0: when the run is terminated")
    tables: list[str] = Field([], description="Which tables; empty: all")


@dg.op  # in no pool: it would keep Spark from the runs that process its rows
def topics_followed(context: dg.OpExecutionContext, config: Following, home: HomeResource) -> None:
    """Stream new records of the topics into Delta for as long as this runs."""
    stop, logged = Event(), 0.0

    def report(states: list[live.Live]) -> None:
        nonlocal logged
        if time.monotonic() - logged >= max(config.interval, 10):
            logged = time.monotonic()
            context.log.info("; ".join(f"{s.table}: {s.new:,} rows came in, {s.lag:,} offsets unread" for s in states))

    timer = Timer(60 * config.minutes, stop.set)
    if config.minutes:
        timer.start()
    try:
        at = home.at
        chosen = [at.dataset.tables[name] for name in config.tables or at.dataset.tables]
        source: OffsetSource = TOPIC
        live.follow(at, chosen, source, interval=config.interval, stop=stop, report=report)
    finally:
        timer.cancel()


@dg.job
def follow() -> None:
    """The live stream, like `ecom stream`: keeps Spark's queries running until the run is terminated."""
    topics_followed()


@dg.op(pool="spark")
def delta_tables(context: dg.OpExecutionContext, home: HomeResource) -> None:
    """Compact the Delta tables, and delete files that no reader needs any more."""
    context.add_output_metadata({"tables": dg.MetadataValue.json(lake_maintenance.compact_lake(home.at))})


@dg.op(pool="hbase")
def hbase_tables(context: dg.OpExecutionContext, home: HomeResource) -> None:
    """Major compaction of the HBase tables: one file per region and family."""
    context.add_output_metadata({"tables": dg.MetadataValue.json(hbase_maintenance.compact(home.at))})


@dg.job
def maintain() -> None:
    """Maintenance: OPTIMIZE, VACUUM, major compaction. Does not change any rows."""
    delta_tables()
    hbase_tables()


nightly_reconciliation = dg.ScheduleDefinition(job=nightly, cron_schedule="0 3 * * *", execution_timezone="UTC")
weekly_maintenance = dg.ScheduleDefinition(job=maintain, cron_schedule="0 4 * * 0", execution_timezone="UTC")

JOBS = [pipeline, bulk_load, ingest, stream, publish, reconcile, nightly, analysis, follow, maintain]
SCHEDULES = [nightly_reconciliation, weekly_maintenance]
