"""Dagster as servers of a cluster: the code location, the webserver, and the daemon that queues and watches runs.

What belongs here: how each is started. How they store and launch is defined in ``dagster.cluster.yaml``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from ecom_assets.core.addresses import split
from ecom_assets.core.settings import ROOT
from ecom_assets.servers.nodes.node import Node

INSTANCE = ROOT / "ecom_assets" / "dagster.cluster.yaml"
"""The instance: storage, queue, launcher."""


class _Dagster(Node):
    """A process of Dagster; all of them read one instance's settings."""

    @property
    @override
    def memory(self) -> str:
        return ""

    @property
    @override
    def environment(self) -> dict[str, str]:
        # One for all of them and for the runs: what a run prints is kept there, and shown by the webserver.
        home = self.settings.home
        return {
            "DAGSTER_HOME": str(self.settings.dagster),
            "ECOM_HOME": str(home),
            "ECOM_DATASET": self.settings.dataset,
        }

    @override
    def prepare(self, ports: dict[str, int]) -> None:
        self.settings.dagster.mkdir(parents=True, exist_ok=True)
        part = self.folder / "dagster.yaml"
        part.write_text(INSTANCE.read_text(encoding="utf-8"), encoding="utf-8")
        part.replace(self.settings.dagster / "dagster.yaml")
        host, port = split(self.settings.code_location or f"{self.settings.host}:4000")
        workspace = f"load_from: [{{grpc_server: {{host: {host}, port: {port}, location_name: ecom_assets}}}}]\n"
        (self.folder / "workspace.yaml").write_text(workspace, encoding="utf-8")

    def program(self, name: str, *arguments: str) -> list[str]:
        """A program of Dagster's, of this environment."""
        return [str(Path(sys.executable).with_name(name)), *arguments]


class CodeLocation(_Dagster):
    """The definitions, served to the webserver and the daemon."""

    name = "dagster-code"
    usual: ClassVar = {"grpc": 4000}
    health = ("grpc", "grpc")

    @override
    def command(self, ports: dict[str, int]) -> list[str]:
        return self.program(
            "dagster", "api", "grpc", "-m", "ecom_assets.definitions", "--location-name", "ecom_assets",
            "-h", self.settings.host, "-p", str(ports["grpc"]),
        )  # fmt: skip


class Webserver(_Dagster):
    """Dagster's pages and its API."""

    name = "dagster-webserver"
    usual: ClassVar = {"http": 3000}
    health = ("dagster", "http")

    @override
    def command(self, ports: dict[str, int]) -> list[str]:
        workspace = str(self.folder / "workspace.yaml")
        return self.program("dagster-webserver", "-w", workspace, "-h", self.settings.host, "-p", str(ports["http"]))


class Daemon(_Dagster):
    """Dagster's daemon: schedules, sensors, the queue of runs and the watch over them."""

    name = "dagster-daemon"
    usual: ClassVar = {}
    health = ("daemon", "")

    @override
    def command(self, ports: dict[str, int]) -> list[str]:
        return self.program("dagster-daemon", "run", "-w", str(self.folder / "workspace.yaml"))
