"""All kinds of servers: those of a home, those of a cluster, and what ``ecom serve`` can be.

What belongs here: the lists, and the order in which servers need one another. What does not: what a server is.
"""

from __future__ import annotations

from ecom_assets.core.settings import Settings
from ecom_assets.servers.dashboard import Dashboard
from ecom_assets.servers.hbase import HBase
from ecom_assets.servers.kafka import Kafka
from ecom_assets.servers.nodes.dagster import CodeLocation, Daemon, Webserver
from ecom_assets.servers.nodes.hbase import HBaseMaster, RegionServer, ThriftGate
from ecom_assets.servers.nodes.hdfs import DataNode, NameNode
from ecom_assets.servers.nodes.kafka import Broker
from ecom_assets.servers.nodes.spark import SparkConnect, SparkMaster, SparkWorker
from ecom_assets.servers.nodes.yarn import NodeManager, ResourceManager
from ecom_assets.servers.nodes.zookeeper import ZooKeeper
from ecom_assets.servers.postgres import Postgres
from ecom_assets.servers.redis import Redis
from ecom_assets.servers.server import Server
from ecom_assets.servers.spark import Spark
from ecom_assets.servers.thrift import Thrift

EMBEDDED: tuple[type[Server], ...] = (Kafka, HBase, Thrift, Spark)
"""One of each, for a home of the profile embedded."""

STORES: tuple[type[Server], ...] = (Postgres, Redis, Dashboard)
"""What a home has on both profiles."""

ROLES: dict[str, type[Server]] = {
    kind.name: kind
    for kind in (
        Broker, ZooKeeper, NameNode, DataNode, ResourceManager, NodeManager, HBaseMaster, RegionServer, ThriftGate,
        SparkMaster, SparkWorker, SparkConnect, *STORES, CodeLocation, Webserver, Daemon,
    )
}  # fmt: skip
"""What ``ecom serve`` can be."""


def of(profile: str, settings: Settings) -> list[Server]:
    """The servers of a home, those first that others need.

    Args:
        profile: ``embedded`` or ``cluster``.
        settings: The home.
    """
    stores = [kind(settings) for kind in STORES]
    if profile != "cluster":
        return [*(kind(settings) for kind in EMBEDDED), *stores]
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
        *stores,
    ]
