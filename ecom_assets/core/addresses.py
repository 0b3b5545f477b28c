"""Where the servers of a home are; who starts or finds them does not belong here."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Addresses:
    """Where the servers of a home are.

    Attributes:
        kafka: Bootstrap servers, ``host:port[,host:port]``.
        hbase_thrift: Host and port.
        hbase_zookeeper: Quorum, ``host:port[,host:port]``.
        spark: ``sc://host:port``.
        postgres: ``postgresql://user:password@host:port/database``; empty if it does not run.
        redis: ``redis://:password@host:port/0``; empty if it does not run.
    """

    kafka: str
    hbase_thrift: tuple[str, int]
    hbase_zookeeper: str
    spark: str
    postgres: str = field(default="", repr=False)
    redis: str = field(default="", repr=False)
