"""The home as a Dagster resource: what every asset, check and sensor uses."""

from collections.abc import Callable
from functools import cached_property
from typing import ClassVar

import dagster as dg

from ecom_assets.core import settings as settings_module
from ecom_assets.core.context import Context
from ecom_assets.core.engine import Engine
from ecom_assets.core.settings import HomeMismatchError, Settings
from ecom_assets.dataset.loader import named
from ecom_assets.dataset.model import Dataset, Table
from ecom_assets.defs.resources.hbase import HBaseResource
from ecom_assets.defs.resources.kafka import KafkaResource
from ecom_assets.defs.resources.spark import SparkConnectResource
from ecom_assets.paths import engine, open_home


class HomeResource(dg.ConfigurableResource):
    """A home folder and the servers that work for it.

    Addresses that a system's resource leaves empty come from the settings, and if these are empty too, from the home's
    embedded stack when they are first needed: a code location loads without any server and without a look at the home.

    Attributes:
        load: Reads the settings when they are first needed.
        dataset: The tables.
    """

    kafka: dg.ResourceDependency[KafkaResource]
    spark: dg.ResourceDependency[SparkConnectResource]
    hbase: dg.ResourceDependency[HBaseResource]

    load: ClassVar[Callable[[], Settings]] = staticmethod(settings_module.load)
    dataset: ClassVar[Dataset]

    @cached_property
    def at(self) -> Context:
        """The home, opened."""
        given = {
            "kafka": self.kafka.bootstrap,
            "kafka_config": self.kafka.config,
            "spark": self.spark.address,
            "hbase_thrift": self.hbase.thrift,
            "hbase_zookeeper": self.hbase.zookeeper,
        }
        settings = self.load().model_copy(update={name: value for name, value in given.items() if value})
        if named(settings.dataset).name != self.dataset.name:
            raise HomeMismatchError(
                f"{settings.home}: expected definitions of its data set {settings.dataset}, got those of"
                f" {self.dataset.name}",
                f"set ECOM_DATASET={settings.dataset} where Dagster is started, and reload the code location",
            )
        return open_home(settings, self.dataset, lambda: self.spark.session_of(lambda: self.at.addresses.spark))

    def engine(self, path: str) -> Engine:
        """The engine of a path."""
        return engine(self.at, path)

    def engine_of(self, layer: str, table: Table) -> Engine:
        """The engine of the path on which a layer of a table was built last."""
        build = self.at.books.build(layer, table.name)
        return self.engine(build.path if build else "stream")

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """Close what was opened."""
        if "at" in self.__dict__:
            self.at.close()


def home_resource(load: Callable[[], Settings], dataset: Dataset) -> type[HomeResource]:
    """The class of the resource of a home that is given, not found in the environment."""

    class Home(HomeResource):
        """A given home."""

    Home.load = staticmethod(load)
    Home.dataset = dataset
    return Home
