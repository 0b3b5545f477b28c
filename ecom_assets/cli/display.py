"""Live lines while servers start or stop, for a person at a terminal.

What belongs here: showing it, and starting the stack with it. What is started is decided in ``servers.stack``.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from ecom_assets.cli.console import console
from ecom_assets.core.addresses import Addresses
from ecom_assets.core.settings import Settings
from ecom_assets.servers.stack import Stack
from ecom_assets.servers.start import Step

COLORS = {
    "running": "green", "external": "green", "ok": "green", "found": "green", "stopped": "dim",
    "starting": "yellow", "warn": "yellow", "crashed": "red", "fail": "red",
}  # fmt: skip


def colored(word: str) -> str:
    """A state in its color."""
    return f"[{COLORS.get(word, 'default')}]{word}[/]"


class Display:
    """A spinner and the seconds for each server, a bar for the jars.

    Args:
        target: Where they are drawn.
    """

    def __init__(self, target: Console = console) -> None:
        # The state is a field, so that a server's line can change its words and keep its clock.
        columns = (
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description:8}"),
            TextColumn("{task.fields[state]}"),
        )
        self._servers = Progress(*columns, TimeElapsedColumn(), console=target)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._servers.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._servers.stop()

    def step(self, step: Step) -> None:
        """Show one change of a server."""
        if step.service not in self._tasks:
            self._tasks[step.service] = self._servers.add_task(step.service, total=1, state="")
        done = step.state not in ("starting", "stopping")
        self._servers.update(self._tasks[step.service], state=colored(step.state), completed=int(done))
        if step.note:
            self._servers.console.print(f"[yellow]{step.service}[/]: {step.note}")

    def fetching(self, done: int, total: int) -> None:
        """Show how many bytes of the jars are here."""
        if "jars" not in self._tasks:
            self._tasks["jars"] = self._servers.add_task("jars", total=total, state="")
        state = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB"
        self._servers.update(self._tasks["jars"], completed=done, state=state)


def start(
    settings: Settings,
    target: Console = console,
    also: Collection[str] = (),
    needed: Collection[str] | None = None,
) -> Addresses:
    """Start the servers of a home for someone who watches.

    Args:
        settings: The home.
        target: Where to show progress.
        also: Servers that are started only on demand.
        needed: What is needed, as servers call what they serve; all unless given.

    Returns:
        The addresses of what is needed; those of others if they run.

    Raises:
        ServiceError: A server does not start.
    """
    with Display(target) as display:
        return Stack(settings).up(display.step, display.fetching, also, needed)
