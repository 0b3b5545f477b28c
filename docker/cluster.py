"""The cluster's start, as ``make cluster-up`` runs it: check first, start, and leave nothing half-started behind.

Standard library only: with Docker and ``make``, the project need not be installed. The compose command line comes
from the Makefile, which knows the files.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ENV = Path(__file__).with_name(".env")
PASSWORDS = ("ECOM_POSTGRES_PASSWORD", "ECOM_REDIS_PASSWORD")
PUBLISHED = {"ECOM_DAGSTER_PORT": ("dagster-webserver", 3000), "ECOM_DASHBOARD_PORT": ("dashboard", 8501)}
"""Variable with a published port -> the service that has it, and the usual one."""

MEMORY = 8 << 30
"""Bytes below which the cluster does not fit: what it uses at 1 %, and one more for the runs."""

LINES = 5
"""Last lines of the log that are shown of an unhealthy server."""


def read(path: Path) -> dict[str, str]:
    """The variables of an ``.env`` file; those of the environment take precedence, as in Compose."""
    pairs = re.findall(r"^([A-Z_]+)=(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: os.environ.get(name, value) for name, value in pairs}


def wrong(given: Mapping[str, str], memory: int, running: Sequence[str]) -> Iterator[str]:
    """What would keep the cluster from starting, a sentence each.

    Args:
        given: The variables.
        memory: Bytes that the engine has.
        running: Services that run already: their ports are their own.
    """
    for name in PASSWORDS:
        if not given.get(name):
            yield f"expected {name} in {ENV} to be a password, got none: write one there (letters and digits)"
        elif not given[name].isalnum():
            yield (
                f"expected {name} in {ENV} to be letters and digits, since it is part of addresses too: change it, on"
                " new volumes (`make cluster-down VOLUMES=1`) if the old one was in use"
            )
    if memory < MEMORY:
        yield (
            f"expected {MEMORY >> 30} GiB of memory, but the Docker engine has {memory / 2**30:.1f}: give it more"
            " (Docker Desktop: Settings, Resources), or use the processes of `make run`, which need 4"
        )
    for name, (service, usual) in PUBLISHED.items():
        host, port = given.get("ECOM_BIND") or "127.0.0.1", given.get(name) or str(usual)
        if not port.isdigit():
            yield f"expected {name} in {ENV} to be a port, got {port!r}: correct it"
        elif service not in running and not is_free(host, int(port)):
            yield (
                f"expected port {port} of {host} to be free for {service}, but another program has it: end that"
                f" program (`ss -ltnp 'sport = :{port}'` shows which), or set {name} in {ENV} to another"
            )


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError:
            return False
        return True


def output_of(*command: str) -> tuple[int, str]:
    """The exit code of a command, and its output."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return 127, f"{command[0]}: no such program"
    return done.returncode, (done.stdout if done.returncode == 0 else done.stderr or done.stdout).strip()


def look(compose: Sequence[str]) -> int:
    """Check that the cluster can start; returns the exit code."""
    code, memory = output_of("docker", "info", "--format", "{{.MemTotal}}")
    if code or not memory.isdigit():
        return fail(f"expected a Docker engine, got: {memory}\nStart it, or point DOCKER_HOST to it.")
    code, services = output_of(*compose, "ps", "--services", "--status", "running")
    if code:
        return fail(f"expected Compose 2.24 or later to read the compose files, got: {services}")
    found = list(wrong(read(ENV), int(memory), services.split()))
    return fail("\n".join(found)) if found else 0


def up(compose: Sequence[str], seconds: int) -> int:
    """Start all servers and wait until they are healthy; else stop them all. Returns the exit code."""
    done = subprocess.run([*compose, "up", "--detach", "--wait", "--wait-timeout", str(seconds)], check=False)
    if done.returncode == 0:
        return 0
    _, lines = output_of(*compose, "ps", "--all", "--format", "json")
    unwell = dict(sick(lines))
    for name in unwell:
        _, log = output_of(*compose, "logs", "--no-log-prefix", "--tail", str(LINES), name)
        print("\n".join(f"{name}: {line}" for line in log.splitlines()), file=sys.stderr)
    output_of(*compose, "down")
    names = ", ".join(f"{name} ({state})" for name, state in unwell.items())
    return fail(
        f"expected all servers to be healthy within {seconds} s, but these were not: {names or 'see above'}\n"
        "All are stopped, their data stay. Fix the cause in the lines above; on a slow machine try WAIT=1800."
    )


def sick(lines: str) -> Iterator[tuple[str, str]]:
    """Services that do not run or are not healthy, and their state, from the output of ``ps --format json``."""
    for line in lines.splitlines():
        each = json.loads(line)
        state = each["Health"] or each["State"]
        # One that waits for another is no cause.
        if (each["State"], each["Health"]) != ("running", "healthy") and each["State"] != "created":
            yield each["Service"], state


def fail(text: str) -> int:
    """Say what is wrong; returns the exit code."""
    print("\n".join(f"cluster-up: {line}" for line in text.splitlines()), file=sys.stderr)
    return 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("look", "up"))
    parser.add_argument("--wait", type=int, default=600)
    parser.add_argument("compose", nargs="+")
    asked = parser.parse_args()
    sys.exit(look(asked.compose) if asked.action == "look" else up(asked.compose, asked.wait))
