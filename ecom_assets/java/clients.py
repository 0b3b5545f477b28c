"""Settings of the Java clients of HBase and YARN; servers and programs take the same ones.

What belongs here: settings by which a client finds its servers. What does not: those of the servers themselves.
"""

from __future__ import annotations

from ecom_assets.core.addresses import split


def hbase_client(zookeeper: str) -> dict[str, object]:
    """HBase's settings for a client of the ZooKeeper at ``host:port[,host:port]``."""
    hosts, ports = zip(*(split(a) for a in zookeeper.split(",")), strict=True)
    return {"hbase.zookeeper.quorum": ",".join(hosts), "hbase.zookeeper.property.clientPort": ports[0]}


def yarn_client(address: str) -> dict[str, object]:
    """Hadoop's settings for a client of the resource manager at ``host:port``; its other ports are next to it."""
    host, port = split(address)
    return {
        "yarn.resourcemanager.hostname": host,
        "yarn.resourcemanager.address": address,
        "yarn.resourcemanager.scheduler.address": f"{host}:{port - 2}",
        "yarn.resourcemanager.resource-tracker.address": f"{host}:{port - 1}",
    }
