"""The jobs and schedules.

What belongs here: which assets and checks run together, the live stream and maintenance. What does not: what starts
automatically; see ``sensors``.
"""

import time
from collections.abc import Iterable
from threading import Event, Timer

import dagster as dg
from pydantic import Field

from ecom_assets.core.layer import OffsetSource
from ecom_assets.defs import deliveries
from ecom_assets.defs.names import Names
from ecom_assets.defs.resources.home import HomeResource
from ecom_assets.hbase import maintenance as hbase_maintenance
from ecom_assets.lake import follow as live
from ecom_assets.lake import maintenance as lake_maintenance
from ecom_assets.paths import LAYERS, PATHS, TOPIC

BULK = tuple(layer.name for layer in PATHS["bulk"])

JOBS = {
    "pipeline": (
        (*LAYERS, "reconciliation", "serving"),
        "Everything, through Kafka and Spark: raw files to verified HBase tables.",
    ),
    "bulk_load": (
        (*BULK, "reconciliation", "serving"),
        "The bulk path: raw files to verified HBase tables, without Kafka and Spark.",
    ),
    "ingest": (("raw", "expanded", "chunked", "topic"), "Load the source files into Kafka; sensors do the rest."),
    "stream": (("streamed",), "Stream all unread records into Delta, then exit."),
    "publish": (
        ("merged", "hbase", "reconciliation", "serving"),
        "Merge what was streamed, load HBase, reconcile all layers, and publish the new versions.",
    ),
    "analysis": (
        ("raw", "expanded", "postgres", "analysis", "cache"),
        "The analysis path: files, PostgreSQL, Spark, Redis.",
    ),
}
"""Job -> the groups of assets that it materializes, and what it is for."""


def jobs_and_schedules(
    names: Names, checks: Iterable[dg.AssetChecksDefinition], executor: dg.ExecutorDefinition
) -> dg.Definitions:
    """The jobs of a data set, and the schedules of some.

    Args:
        names: What its definitions are called.
        checks: All of its checks.
        executor: Executes the steps of a run.
    """
    config = {"ops": {names.of(layer): {"config": {"path": "bulk"}} for layer in BULK}}
    of_groups = [
        dg.define_asset_job(
            names.of(name),
            selection=dg.AssetSelection.groups(*map(names.of, groups)),
            description=description,
            config=config if name == "bulk_load" else None,
            executor_def=executor,
            tags=deliveries.DEFAULT if set(groups) & set(deliveries.PARTITIONED) else None,
        )
        for name, (groups, description) in JOBS.items()
    ]
    checked = dg.AssetSelection.checks(*checks)
    reconcile = dg.define_asset_job(
        names.of("reconcile"),
        selection=checked,
        description="Run all asset checks without materializing anything.",
        executor_def=executor,
    )
    nightly = dg.define_asset_job(
        names.of("nightly"),
        selection=checked | dg.AssetSelection.assets(names.report),
        description="Run all asset checks, and renew the reconciliation report.",
        executor_def=executor,
    )
    maintain = maintain_job(names, executor)
    schedules = [
        dg.ScheduleDefinition(job=nightly, cron_schedule="0 3 * * *", execution_timezone="UTC"),
        dg.ScheduleDefinition(job=maintain, cron_schedule="0 4 * * 0", execution_timezone="UTC"),
    ]
    jobs = [*of_groups, reconcile, nightly, follow_job(names, executor), maintain]
    return dg.Definitions(jobs=jobs, schedules=schedules)


class Following(dg.Config):
    """Settings of a live stream."""

    interval: float = Field(5.0, gt=0, description="Seconds between the starts of two micro-batches")
    minutes: float = Field(0.0, ge=0, description="End after this time; 0: when the run is terminated")
    tables: list[str] = Field([], description="Which tables; empty: all")


def follow_job(names: Names, executor: dg.ExecutorDefinition) -> dg.JobDefinition:
    """The live stream as a job."""

    # In no pool: it would keep Spark from the runs that process its rows.
    @dg.op(name=names.of("topics_followed"), required_resource_keys={names.home})
    def topics_followed(context: dg.OpExecutionContext, config: Following) -> None:
        """Stream new records of the topics into Delta for as long as this runs."""
        _follow(context, config, names.home_of(context))

    @dg.job(name=names.of("follow"), executor_def=executor)
    def follow() -> None:
        """The live stream, like `ecom stream`: keeps Spark's queries running until the run is terminated."""
        topics_followed()

    return follow


def _follow(context: dg.OpExecutionContext, config: Following, home: HomeResource) -> None:
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


def maintain_job(names: Names, executor: dg.ExecutorDefinition) -> dg.JobDefinition:
    """Maintenance as a job."""

    @dg.op(name=names.of("delta_tables"), pool=names.of("spark"), required_resource_keys={names.home})
    def delta_tables(context: dg.OpExecutionContext) -> None:
        """Compact the Delta tables, and delete files that no reader needs any more."""
        compacted = lake_maintenance.compact_lake(names.home_of(context).at)
        context.add_output_metadata({"tables": dg.MetadataValue.json(compacted)})

    @dg.op(name=names.of("hbase_tables"), pool=names.of("hbase"), required_resource_keys={names.home})
    def hbase_tables(context: dg.OpExecutionContext) -> None:
        """Major compaction of the HBase tables: one file per region and family."""
        compacted = hbase_maintenance.compact(names.home_of(context).at)
        context.add_output_metadata({"tables": dg.MetadataValue.json(compacted)})

    @dg.job(name=names.of("maintain"), executor_def=executor)
    def maintain() -> None:
        """Maintenance: OPTIMIZE, VACUUM, major compaction. Does not change any rows."""
        delta_tables()
        hbase_tables()

    return maintain
