"""HDFS: its namenode and its datanodes.

What belongs here: their configuration. Files of the lake are read and written by ``core.location``.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from ecom_assets.java import jars
from ecom_assets.java.program import run_java
from ecom_assets.servers.nodes.hadoop import Hadoop


class NameNode(Hadoop):
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
            # A file may be closed before a datanode has reported its last block: clients would ask again half a second
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
                remedy="fix the cause above (usually disk space or permissions) and retry",
            )  # fmt: skip
            self._formatting.rename(self.data)
        super().prepare(ports)


class DataNode(Hadoop):
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
