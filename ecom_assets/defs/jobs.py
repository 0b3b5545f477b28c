"""The jobs and schedules, and the resources that all assets share."""

import time
from threading import Event, Timer

import dagster as dg
from pydantic import Field

from ecom_assets.dataset.shop import LAYERS, TABLES
from ecom_assets.defs.resources.hbase import HBaseResource
from ecom_assets.defs.resources.home import HomeResource
from ecom_assets.defs.resources.kafka import KafkaResource
from ecom_assets.defs.resources.spark import SparkConnectResource
from ecom_assets.hbase import maintenance as hbase_maintenance
from ecom_assets.lake import maintenance, streamed
from ecom_assets.serving import publication


def _layers(*layers: str) -> dg.AssetSelection:
    return dg.AssetSelection.groups(*layers)


pipeline = dg.define_asset_job(
    "pipeline",
    selection=_layers(*LAYERS, "proof", "serving"),
    description="Everything, through Kafka and Spark: raw files to proven HBase tables.",
)

bulk_load = dg.define_asset_job(
    "bulk_load",
    selection=_layers("raw", "expanded", "hbase", "proof", "serving"),
    description="The short way: raw files to proven HBase tables, without Kafka and Spark.",
    config={"ops": {"hbase": {"config": {"route": "bulk"}}}},
)

ingest = dg.define_asset_job(
    "ingest",
    selection=_layers("raw", "expanded", "chunked", "topic"),
    description="The shop's files into Kafka; the sensors do the rest.",
)

stream = dg.define_asset_job(
    "stream",
    selection=_layers("streamed"),
    description="What is unread in the topics into Delta, then stop.",
)

publish = dg.define_asset_job(
    "publish",
    selection=_layers("merged", "hbase", "proof", "serving"),
    description="What was streamed: merge it, load HBase, prove all layers, and let the pages show it.",
)

reconcile = dg.define_asset_job(
    "reconcile",
    selection=dg.AssetSelection.all_asset_checks(),
    description="All checks of all layers, every row read back; makes nothing.",
)


class Following(dg.Config):
    """How a live stream goes on."""

    interval: float = Field(5.0, gt=0, description="Seconds between the starts of two micro-batches")
    minutes: float = Field(0.0, ge=0, description="End by itself after so long; 0: when the run is terminated")
    tables: list[str] = Field(list(TABLES), description="Which tables")


@dg.op  # in no pool: it would keep Spark from the runs that carry its rows on
def topics_followed(context: dg.OpExecutionContext, config: Following, home: HomeResource) -> None:
    """What comes into the topics comes into Delta, for as long as this runs."""
    stop, told_at = Event(), 0.0

    def tell(stands: list[streamed.Live]) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= max(config.interval, 10):
            told_at = time.monotonic()
            context.log.info("; ".join(f"{s.table}: {s.new:,} rows came in, {s.lag:,} offsets unread" for s in stands))

    timer = Timer(60 * config.minutes, stop.set)
    if config.minutes:
        timer.start()
    try:
        flow = home.flow
        chosen = [TABLES[name] for name in config.tables]
        streamed.follow(
            flow.spark, chosen, flow.settings, flow.addresses.kafka, interval=config.interval, stop=stop, tell=tell
        )
    finally:
        timer.cancel()


@dg.job
def follow() -> None:
    """The live stream, like `ecom stream`: keeps Spark's queries running until the run is terminated."""
    topics_followed()


@dg.op(pool="spark")
def delta_tables(context: dg.OpExecutionContext, home: HomeResource) -> None:
    """Compact the Delta tables, and delete files that no reader can need any more."""
    with publication.kept(home.flow.settings):
        context.add_output_metadata({"tables": dg.MetadataValue.json(maintenance.compact_lake(home.flow.settings))})


@dg.op(pool="hbase")
def hbase_tables(context: dg.OpExecutionContext, home: HomeResource) -> None:
    """Major compaction of the HBase tables: one file per region and family."""
    context.add_output_metadata({"tables": dg.MetadataValue.json(hbase_maintenance.compact(home.flow))})


@dg.job
def maintain() -> None:
    """Upkeep: Delta OPTIMIZE and VACUUM, HBase major compaction. Holds and changes no row."""
    delta_tables()
    hbase_tables()


nightly_proof = dg.ScheduleDefinition(job=reconcile, cron_schedule="0 3 * * *", execution_timezone="UTC")
weekly_upkeep = dg.ScheduleDefinition(job=maintain, cron_schedule="0 4 * * 0", execution_timezone="UTC")


@dg.definitions
def shared() -> dg.Definitions:
    """One process per run: steps share their warm libraries, and the heavy work is in servers and threads anyway."""
    systems = {"kafka": KafkaResource(), "spark": SparkConnectResource(), "hbase": HBaseResource()}
    return dg.Definitions(
        jobs=[pipeline, bulk_load, ingest, stream, publish, reconcile, follow, maintain],
        schedules=[nightly_proof, weekly_upkeep],
        resources={**systems, "home": HomeResource(**systems)},
        executor=dg.in_process_executor,
    )
