"""What HDFS's, YARN's and HBase's servers have in common: a ``site.xml``, and a main class that reads it.

What belongs here: settings that all of them share.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from ecom_assets.java import jars
from ecom_assets.java.program import OPENS
from ecom_assets.servers.files import hbase_site, small_jar
from ecom_assets.servers.nodes.node import Node

PAGES = {f"webapps/{name}": text for name, text in {
    "": "", "hdfs/": "", "hdfs/index.html": "<a href='/jmx'>/jmx</a>", "datanode/": "",
    "datanode/index.html": "<a href='/jmx'>/jmx</a>", "static/": "", "static/none": "",
}.items()}  # fmt: skip
"""HDFS's own pages are not in its jars, and without any it does not start; its ``/jmx`` has everything."""


class Hadoop(Node):
    """What HDFS's and HBase's servers have in common: a ``site.xml``, and a main class that reads it."""

    main: ClassVar[str]
    needs = ("namenode",)
    level = "warn"

    @property
    def file(self) -> Path:
        """Its configuration."""
        return self.conf / "site.xml"

    def site(self, ports: dict[str, int]) -> dict[str, object]:  # noqa: ARG002 - for subclasses
        """The content of its configuration files."""
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
