"""The dashboard as a server: a Streamlit application.

What belongs here: how it is started and found. Its pages belong to the room ``dashboard``.
"""

from __future__ import annotations

import shutil
import sys
from typing import ClassVar

from typing_extensions import override

from ecom_assets.core.addresses import split
from ecom_assets.core.settings import ROOT, Settings
from ecom_assets.servers import probes
from ecom_assets.servers.server import Server


class Dashboard(Server):
    """The pages, a Streamlit application; it answers without the other servers, only less."""

    name = "dashboard"
    serves: ClassVar = "dashboard"
    usual: ClassVar = {"http": 8501}
    grace = 5
    on_demand = True

    SOURCE = ROOT / "ecom_assets" / "dashboard"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.log = self.out

    @property
    @override
    def environment(self) -> dict[str, str]:
        return {"ECOM_HOME": str(self.settings.home), "PYTHONPATH": str(ROOT)}

    @property
    @override
    def mark(self) -> str:
        return f"--ecom-service={self.folder}"

    @override
    def make_folders(self) -> None:
        self.out.parent.mkdir(parents=True, exist_ok=True)

    @override
    def prepare(self, ports: dict[str, int]) -> None:
        # Streamlit looks for its configuration in the folder it is started in.
        target = self.folder / ".streamlit" / "config.toml"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(self.SOURCE / "config.toml", target)

    @override
    def command(self, ports: dict[str, int]) -> list[str]:
        return [
            sys.executable, "-m", "ecom_assets.dashboard", "run", str(self.SOURCE / "app.py"),
            f"--server.address={self.settings.host}", f"--server.port={ports['http']}",
            "--", self.mark,
        ]  # fmt: skip

    @override
    def address(self, host: str, ports: dict[str, int]) -> str:
        return f"http://{host}:{ports['http']}"

    @override
    def answers(self, address: str) -> bool:
        return probes.dashboard(*split(address))
