"""HBase's Thrift server.

What belongs here: its configuration, and how one sees that it works, and HBase behind it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from ecom_assets.core.addresses import split
from ecom_assets.java import jars
from ecom_assets.java.clients import hbase_client
from ecom_assets.java.program import OPENS
from ecom_assets.servers.files import hbase_site, small_jar
from ecom_assets.servers.process import Record, connects
from ecom_assets.servers.server import Server


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
