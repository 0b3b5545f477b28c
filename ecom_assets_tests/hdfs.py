"""HDFS of a namenode and a datanode, and YARN on it, each server as `ecom serve` runs it: where tests put a lake."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ecom_assets.servers import probes

HOST = "127.0.0.1"
SECONDS = 120


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]


class Hdfs:
    """A namenode and a datanode on ports of their own.

    Args:
        folder: Where they keep their data.
        yarn: Whether YARN runs there too: a resource manager and a node manager.

    Attributes:
        uri: ``hdfs://host:port``.
        yarn: The resource manager, ``host:port``.
    """

    def __init__(self, folder: Path, *, yarn: bool = False) -> None:
        rpc, http, data, ipc, pages = free_ports(5)
        self.folder, self.uri = folder, f"hdfs://{HOST}:{rpc}"
        self.ports = {
            "namenode": {"rpc": rpc, "http": http},
            "datanode": {"data": data, "ipc": ipc, "http": pages},
        }
        self.yarn = ""
        if yarn:
            # The usual ports, for some of them must lie side by side.
            self.yarn = f"{HOST}:8032"
            self.ports |= {"resourcemanager": {}, "nodemanager": {}}
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start what does not run, and wait until files can be written."""
        for role, ports in self.ports.items():
            if role not in self.running:
                home = self.folder / role
                home.mkdir(exist_ok=True)
                env = os.environ | {
                    "ECOM_HOME": str(home), "ECOM_NAMENODE": self.uri, "ECOM_YARN": self.yarn, "ECOM_COPIES": "1",
                    "ECOM_JAVA_COMPILER": "quick", "ECOM_PORTS": json.dumps(ports),
                }  # fmt: skip
                with (home / "log").open("ab") as log:
                    self.running[role] = subprocess.Popen(
                        [sys.executable, "-m", "ecom_assets.cli", "serve", role], env=env, stdout=log, stderr=log
                    )
        deadline = time.monotonic() + SECONDS
        while not self._answers():
            for role, server in self.running.items():
                assert server.poll() is None, (self.folder / role / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, f"expected {', '.join(self.running)} within {SECONDS} s"
            time.sleep(0.2)

    def _answers(self) -> bool:
        takes_writes = probes.namenode(HOST, self.ports["namenode"]["http"])
        return takes_writes and (not self.yarn or probes.resourcemanager(HOST, 8088))

    def stop(self, *roles: str) -> None:
        """Kill some of them, or all."""
        for role in roles or tuple(self.running):
            server = self.running.pop(role)
            server.send_signal(signal.SIGKILL)
            server.wait()


@contextmanager
def hdfs_in(folder: Path, *, yarn: bool = False) -> Generator[Hdfs]:
    """HDFS in a folder, up; killed at the end."""
    servers = Hdfs(folder, yarn=yarn)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()
