"""Where the servers of a home are; who starts or finds them does not belong here."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ecom_assets.core.errors import ServiceError


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


def split(address: str) -> tuple[str, int]:
    """Host and port of ``[scheme://]host:port[/…]``.

    Raises:
        ServiceError: The address has another form.
    """
    match = re.fullmatch(r"(?:\w+://)?([^/:;]+|\[[^]]+\]):(\d+)(?:[/;].*)?", address)
    if not match:
        raise ServiceError(f"expected host:port, got {address!r}", "correct the address in the settings (ECOM_…)")
    return match[1], int(match[2])
