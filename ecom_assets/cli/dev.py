"""``ecom dev``: the stack, and Dagster's UI with its daemon, until Ctrl-C.

What belongs here: starting Dagster's own development server, reporting its address once it responds, and ending it. It
runs in a session of its own: a terminal's Ctrl-C goes to it alone, by way of this process, which also takes leave of
the servers that end meanwhile.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ecom_assets.cli.console import console, succeeded
from ecom_assets.cli.options import Home, configure, dagster_home
from ecom_assets.core.errors import ServiceError
from ecom_assets.core.settings import ROOT

SUPERSEDED = "ignore:Function `dev_command`:FutureWarning"
"""Dagster's advice to run another of its commands; it does not apply to `ecom dev`."""

STOP_SECONDS = 60
"""Seconds that Dagster is given to stop its own processes."""

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end it."""


def dev(
    *,
    home: Home = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the UI.")] = 3000,
) -> None:
    """Start the stack and Dagster's UI with its daemon; Ctrl-C stops Dagster, `ecom down` the stack."""
    settings = configure(home=home)
    from ecom_assets.cli.display import start
    from ecom_assets.servers import probes, process

    if not process.is_free(settings.host, port):
        raise ServiceError(
            f"expected port {port} of {settings.host} to be free for Dagster's UI, but another program listens there",
            "end that program, or choose another port with --port",
        )
    dagster_home(settings)
    start(settings, console)
    command = [
        str(Path(sys.executable).with_name("dagster")), "dev", "-w", str(ROOT / "ecom_assets" / "workspace.yaml"),
        "-h", settings.host, "-p", str(port),
    ]  # fmt: skip
    warnings = ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), SUPERSEDED)))
    env = os.environ | {"PYTHONWARNINGS": warnings}
    dagster = subprocess.Popen(command, env=env, start_new_session=True)
    with _passed_on(dagster):
        announced = False
        while dagster.poll() is None:
            if not announced and probes.dagster(settings.host, port):
                announced = True
                succeeded(f"Dagster's UI: http://{settings.host}:{port}")
            process.reap()
            time.sleep(0.5)
    raise typer.Exit(max(dagster.returncode, 0))


@contextmanager
def _passed_on(child: subprocess.Popen[bytes]) -> Generator[None]:
    """Pass signals that end this process on to a child, and never leave it behind."""

    def stop(*_: object) -> None:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)

    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
