"""The jobs, and the resources that all assets share."""

import dagster as dg

from ecom_assets.resources.hbase import HBaseResource
from ecom_assets.resources.home import HomeResource
from ecom_assets.resources.kafka import KafkaResource
from ecom_assets.resources.spark import SparkConnectResource
from ecom_assets.tables import LAYERS


def _route(layers: tuple[str, ...]) -> dg.AssetSelection:
    return dg.AssetSelection.groups(*layers, "proof", "serving")


pipeline = dg.define_asset_job(
    "pipeline",
    selection=_route(LAYERS),
    description="Everything, through Kafka and Spark: raw files to proven HBase tables.",
)

bulk_load = dg.define_asset_job(
    "bulk_load",
    selection=_route(("raw", "expanded", "hbase")),
    description="The short way: raw files to proven HBase tables, without Kafka and Spark.",
    config={"ops": {"hbase": {"config": {"route": "bulk"}}}},
)


@dg.definitions
def shared() -> dg.Definitions:
    """One process per run: steps share their warm libraries, and the heavy work is in servers and threads anyway."""
    systems = {"kafka": KafkaResource(), "spark": SparkConnectResource(), "hbase": HBaseResource()}
    return dg.Definitions(
        jobs=[pipeline, bulk_load],
        resources={**systems, "home": HomeResource(**systems)},
        executor=dg.in_process_executor,
    )
