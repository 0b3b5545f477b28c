"""The embedded Spark: a Connect server that does its own work.

What belongs here: its configuration, and how one sees that it works. Queries belong to the rooms that ask them.
"""

from __future__ import annotations

import os
import sys
from typing import ClassVar

from typing_extensions import override

from ecom_assets.core.addresses import split
from ecom_assets.java import jars
from ecom_assets.java.program import OPENS
from ecom_assets.servers import probes
from ecom_assets.servers.files import properties
from ecom_assets.servers.process import connects
from ecom_assets.servers.server import Server


class Spark(Server):
    """A Spark Connect server with Kafka, Avro and Delta."""

    name = "spark"
    elsewhere: ClassVar = "spark"
    serves: ClassVar = "spark"
    usual: ClassVar = {"connect": 15002}
    level = "warn"

    @property
    @override
    def environment(self) -> dict[str, str]:
        # Spark starts Python for a UDF: the one with pyspark in it, not whichever comes first on the PATH.
        return {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}

    @override
    def prepare(self, ports: dict[str, int]) -> None:
        lines = self.properties(ports) | self.settings.spark_config
        (self.conf / "spark.properties").write_text(properties(lines, " "), encoding="ascii")

    def properties(self, ports: dict[str, int]) -> dict[str, object]:
        """The content of its ``spark.properties``."""
        host, cores = self.settings.host, os.cpu_count() or 2
        return {
            "spark.master": "local[*]",
            "spark.app.name": "ecom",
            "spark.connect.grpc.binding.address": host,
            "spark.connect.grpc.binding.port": ports["connect"],
            "spark.driver.host": host,
            "spark.driver.bindAddress": host,
            "spark.ui.enabled": "false",
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
            "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
            "spark.sql.catalogImplementation": "in-memory",
            "spark.sql.warehouse.dir": self.folder / "warehouse",
            "spark.local.dir": self.folder / "tmp",
            # Spark's defaults are made for a cluster: 200 tasks where the machine has few cores.
            "spark.sql.shuffle.partitions": 2 * cores,
            # Each commit of a stream reads the log, some dozens of lines, and each of the (50 by default) tasks
            # generates code for that first: a third of the processor time of a small commit by two tasks.
            "spark.databricks.delta.snapshotPartitions": 1,
            # What a log keeps of each commit: no list of all files while they are fewer than 50, no histogram of their
            # sizes (0.6 KB in place of 6), and a checkpoint as seldom as streamed tables have one.
            "spark.databricks.delta.allFilesInCrc.enabled": "false",
            "spark.databricks.delta.fileSizeHistogramMetrics.enabled": "false",
            "spark.databricks.delta.properties.defaults.checkpointInterval": 50,
            # A run of this project has more than the 100 kinds of generated code that Spark keeps compiled.
            "spark.sql.codegen.cache.maxEntries": 1000,
            # A lake in HDFS whose namenode has started again, or starts just now: ask up to 20 times, a second apart.
            "spark.hadoop.dfs.client.retry.policy.enabled": "true",
            "spark.hadoop.dfs.client.retry.policy.spec": "1000,20",
        }

    @override
    def command(self, ports: dict[str, int]) -> list[str]:
        own = jars.pyspark()
        options = [
            *OPENS,
            f"-Dderby.system.home={self.folder / 'tmp'}",
            "-XX:+UseParallelGC",  # rows are many and soon forgotten: a sixth less processor time for a merge
            "-Djdk.reflect.useDirectMethodHandle=false",
            "-Dio.netty.tryReflectionSetAccessible=true",
        ]
        return [
            *self.java(self.memory, [*own, *jars.classpath("spark")], *options),
            "org.apache.spark.deploy.SparkSubmit",
            "--properties-file", str(self.conf / "spark.properties"),
            "--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal",
        ]  # fmt: skip

    @override
    def address(self, host: str, ports: dict[str, int]) -> str:
        return f"sc://{host}:{ports['connect']}"

    @override
    def answers(self, address: str) -> bool:
        if "use_ssl=true" in address:
            return connects(*split(address))
        return probes.grpc(*split(address))
