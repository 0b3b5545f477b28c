"""HBase on HDFS: its master, its region servers, and the Thrift server next to them.

What belongs here: what differs from the embedded HBase.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from ecom_assets.java import jars
from ecom_assets.java.clients import hbase_client
from ecom_assets.servers.hbase import HBase
from ecom_assets.servers.nodes.hadoop import Hadoop
from ecom_assets.servers.nodes.node import Node
from ecom_assets.servers.process import Record
from ecom_assets.servers.thrift import Thrift


class _HBaseNode(Hadoop):
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
    """HBase's Thrift server, next to an HBase of several servers."""

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
