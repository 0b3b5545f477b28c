"""HDFS of a namenode and a datanode, each as `ecom serve` runs it: where tests put a lake."""

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

from ecom_assets.services import probes

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

    Attributes:
        uri: ``hdfs://host:port``.
    """

    def __init__(self, folder: Path) -> None:
        rpc, http, data, ipc, pages = free_ports(5)
        self.folder, self.uri = folder, f"hdfs://{HOST}:{rpc}"
        self.ports = {
            "namenode": {"rpc": rpc, "http": http},
            "datanode": {"data": data, "ipc": ipc, "http": pages},
        }
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start what does not run, and wait until files can be written."""
        for role, ports in self.ports.items():
            if role not in self.running:
                home = self.folder / role
                home.mkdir(exist_ok=True)
                env = os.environ | {
                    "ECOM_HOME": str(home), "ECOM_NAMENODE": self.uri, "ECOM_COPIES": "1",
                    "ECOM_JAVA_COMPILER": "quick", "ECOM_PORTS": json.dumps(ports),
                }  # fmt: skip
                with (home / "log").open("ab") as log:
                    self.running[role] = subprocess.Popen(
                        [sys.executable, "-m", "ecom_assets.cli", "serve", role], env=env, stdout=log, stderr=log
                    )
        deadline = time.monotonic() + SECONDS
        while not probes.namenode(HOST, self.ports["namenode"]["http"]):
            for role, server in self.running.items():
                assert server.poll() is None, (self.folder / role / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, f"expected HDFS to take writes within {SECONDS} s"
            time.sleep(0.2)

    def stop(self, *roles: str) -> None:
        """Kill some of them, or all."""
        for role in roles or tuple(self.running):
            server = self.running.pop(role)
            server.send_signal(signal.SIGKILL)
            server.wait()


@contextmanager
def hdfs_in(folder: Path) -> Generator[Hdfs]:
    """HDFS in a folder, up; killed at the end."""
    servers = Hdfs(folder)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()
