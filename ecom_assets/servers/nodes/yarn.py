"""YARN: its resource manager and its node managers, for the jobs of MapReduce.

What belongs here: their configuration. The jobs belong to the room ``hbase``.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from ecom_assets.java import jars
from ecom_assets.java.clients import yarn_client
from ecom_assets.java.program import JAVA
from ecom_assets.servers.nodes.hadoop import Hadoop
from ecom_assets.servers.nodes.node import JARS

NODE_MEMORY = 2048
"""MiB that the jobs of MapReduce may use on a node: its master's, and two or three tasks' at a time."""


class _Yarn(Hadoop):
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
