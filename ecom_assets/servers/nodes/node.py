"""What a server of a cluster is: one of several of its kind, which finds its peers by addresses.

What belongs here: the base of all nodes, and where the peers of one are. A node finds them by the settings when
``ecom serve`` runs it, and by its stack when ``ecom up --profile cluster`` does. What does not: any kind's own
configuration.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar

from typing_extensions import override

from ecom_assets.core.addresses import split
from ecom_assets.core.settings import Settings
from ecom_assets.java import jars
from ecom_assets.servers import probes
from ecom_assets.servers.process import Record
from ecom_assets.servers.server import Server

ANYWHERE = "0.0.0.0"  # noqa: S104  given as the host, it means that others are to reach the server


JARS = (*jars.SERVERS, "hdfs")
"""The sets of jars that a cluster's servers need."""


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
        """Those that the settings name."""
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
    brokers = [(name.rpartition("-")[2], at) for name, at in places.items() if name.startswith("kafka-")]
    found = {"controllers": ",".join(f"{number}@{r.host}:{r.ports['controller']}" for number, r in brokers)}
    for field, name, form, purpose in (
        ("hbase_zookeeper", "zookeeper", "{}:{}", "zookeeper"),
        ("namenode", "namenode", "hdfs://{}:{}", "rpc"),
        ("spark_master", "spark-master", "spark://{}:{}", "master"),
    ):
        if record := places.get(name):
            found[field] = form.format(record.host, record.ports[purpose])
    return found
