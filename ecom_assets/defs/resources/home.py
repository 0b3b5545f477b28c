"""The home as a Dagster resource: what every asset and check goes through."""

from functools import cached_property

import dagster as dg

from ecom_assets.core.settings import load
from ecom_assets.defs.resources.hbase import HBaseResource
from ecom_assets.defs.resources.kafka import KafkaResource
from ecom_assets.defs.resources.spark import SparkConnectResource
from ecom_assets.flow import Flow


class HomeResource(dg.ConfigurableResource):
    """A home folder and the servers that work for it.

    Addresses that a system's resource leaves empty come from the settings, and if these
    are empty too, from the home's embedded stack when they are first needed: a code
    location loads without any server.
    """

    kafka: dg.ResourceDependency[KafkaResource]
    spark: dg.ResourceDependency[SparkConnectResource]
    hbase: dg.ResourceDependency[HBaseResource]

    @cached_property
    def flow(self) -> Flow:
        """The flow of this home."""
        given = {
            "kafka": self.kafka.bootstrap,
            "kafka_config": self.kafka.config,
            "spark": self.spark.address,
            "hbase_thrift": self.hbase.thrift,
            "hbase_zookeeper": self.hbase.zookeeper,
        }
        settings = load().model_copy(update={name: value for name, value in given.items() if value})
        return Flow(settings, lambda: self.spark.spark_session)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """Release what the flow opened."""
        if "flow" in self.__dict__:
            self.flow.close()
