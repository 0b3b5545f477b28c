"""ZooKeeper as a server of its own.

What belongs here: its configuration. The embedded HBase has one in its own process.
"""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from ecom_assets.java import jars
from ecom_assets.java.program import OPENS
from ecom_assets.servers.files import properties
from ecom_assets.servers.nodes.node import Node


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
            # It keeps every snapshot for ever unless configured otherwise.
            "autopurge.snapRetainCount": 3,
            "autopurge.purgeInterval": 1,
        }
        (self.conf / "zoo.cfg").write_text(properties(lines), encoding="ascii")

    @override
    def command(self, ports: dict[str, int]) -> list[str]:
        java = self.java(self.memory, jars.classpath("hbase"), *OPENS)
        return [*java, "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(self.conf / "zoo.cfg")]
