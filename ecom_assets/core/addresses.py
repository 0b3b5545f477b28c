"""Where the servers of a home are; who starts or finds them does not belong here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

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


class LocatedAddresses(Addresses):
    """Addresses that are looked up when they are used: work fails only for want of a server that it needs.

    Args:
        locate: Gives the address of a server by the name of what it serves.
    """

    def __init__(self, locate: Callable[[str], str]) -> None:
        object.__setattr__(self, "_locate", locate)

    def __getattribute__(self, name: str) -> Any:
        """The address of a server, as ``Addresses`` has it.

        Raises:
            ServiceError: It does not run.
        """
        served = _SERVED.get(name)
        if served is None:
            return super().__getattribute__(name)
        found = super().__getattribute__("_locate")(served)
        return split(found) if name == "hbase_thrift" else found


_SERVED = {
    "kafka": "kafka",
    "hbase_thrift": "thrift",
    "hbase_zookeeper": "hbase",
    "spark": "spark",
    "postgres": "postgres",
    "redis": "redis",
}
"""Field of ``Addresses`` -> what the server serves."""
