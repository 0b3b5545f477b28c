"""The embedded HBase: master, region server and ZooKeeper in one process.

What belongs here: its configuration, and how one sees that it works. Tables and rows belong to the room ``hbase``.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from ecom_assets.core.addresses import split
from ecom_assets.java import jars
from ecom_assets.java.clients import hbase_client
from ecom_assets.java.program import OPENS
from ecom_assets.servers import probes
from ecom_assets.servers.files import hbase_site
from ecom_assets.servers.server import Server


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
