"""Minutes of random faults while data flow, then the reconciliation: ``make soak MINUTES=10``.

A round begins with a layer of a table deleted at random. A simulated shop and a live stream work for a
while, then a run brings everything into HBase; whatever is at work, a random part of it is killed every few
seconds. A round ends when a run has succeeded, its report balanced. The seed that is printed chooses the
same faults again with ``--seed``, though a machine never meets them at quite the same moments.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ecom_assets.core.settings import load
from ecom_assets.paths import LAYERS
from ecom_assets.servers.stack import Stack
from ecom_assets_tests.tables import TABLES

console = Console(highlight=False)
SERVERS = ("kafka", "spark", "hbase", "thrift")
TIMEOUT = 900
"""Seconds after which a round that does not end is a failure; a run takes a minute or two."""


class Soak:
    """A home of its own, what works on it, and the dice."""

    def __init__(self, home: Path, seed: int) -> None:
        self.home = home
        self.random = random.Random(seed)
        self.stack = Stack(load(home=home, class_archives=False))
        self.clients: dict[str, subprocess.Popen[str]] = {}
        self.killed: Counter[str] = Counter()
        home.mkdir(parents=True, exist_ok=True)
        self.log = (home / "soak.log").open("a", encoding="utf-8")

    def start(self, name: str, *args: str) -> subprocess.Popen[str]:
        """Start a command of ours next to the others; its stderr goes to the log."""
        command = [sys.executable, "-m", "ecom_assets.cli", *args, "--home", str(self.home)]
        env = os.environ | {"ECOM_DASHBOARD": "false"}
        print("$ ecom", *args, file=self.log, flush=True)
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=self.log, text=True, start_new_session=True
        )
        self.clients[name] = process
        return process

    def do(self, *args: str) -> str:
        """Run a command of ours that must succeed, and return what it prints."""
        process = self.start("command", *args)
        out, _ = process.communicate(timeout=TIMEOUT)
        del self.clients["command"]
        if process.returncode:
            raise SystemExit(f"`ecom {' '.join(args)}` failed; see {self.log.name}")
        return out

    def kill(self, *parts: str) -> None:
        """Kill one of the parts without warning."""
        name = self.random.choice(parts)
        working = {n: p.pid for n, p in self.clients.items() if p.poll() is None}
        pid = (working | {s.service: s.pid for s in self.stack.status()}).get(name)
        if not pid:
            return
        console.print(f"  {time.strftime('%H:%M:%S')} kill -9 {name}")
        print(f"# kill -9 {name}", file=self.log, flush=True)
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            (os.killpg if name in working else os.kill)(pid, signal.SIGKILL)
            self.killed[name] += 1

    def flow(self, seconds: float) -> None:
        """Let a shop and a live stream work, and kill a random part every few seconds."""
        usual = {"simulate": ["--again", "--rate", "3000"], "stream": ["--interval", "2"]}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.stack.up()
            for name, options in usual.items():
                if name not in self.clients or self.clients[name].poll() is not None:
                    self.start(name, name, *options)
            time.sleep(self.random.uniform(8, 15))
            self.kill("kafka", "spark", *usual)
        for name in usual:
            process = self.clients.pop(name)
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=60)
            except subprocess.TimeoutExpired:  # its server has just been killed
                process.kill()
                process.communicate()

    def run(self) -> dict[str, int]:
        """Runs, each with a part killed at a random moment, until one has succeeded; returns HBase's rows."""
        deadline = time.monotonic() + TIMEOUT
        gentle = 0
        while time.monotonic() < deadline:
            self.stack.up()
            process = self.start("run", "run", "--json")
            try:
                # Later and later, so that a run comes through in the end.
                process.wait(self.random.uniform(5, 40) + 20 * gentle)
            except subprocess.TimeoutExpired:
                self.kill(*SERVERS, "run")
            out, _ = process.communicate(timeout=TIMEOUT)
            gentle += 1
            if process.returncode == 0:
                tables = json.loads(out.splitlines()[-1])["tables"]
                return {name: layers["hbase"]["rows"] for name, layers in tables.items()}
        raise SystemExit(f"no run has succeeded within {TIMEOUT} s; see {self.log.name}")


def main(
    *,
    minutes: Annotated[float, typer.Option(help="How long faults go on.")] = 10,
    seed: Annotated[int | None, typer.Option(help="Chooses the faults; a random one if left out.")] = None,
    scale: Annotated[float, typer.Option(help="Size of the shop; 1.0 is 13.8 million rows.")] = 0.005,
    home: Annotated[Path | None, typer.Option(help="An empty folder; kept. A temporary one if left out.")] = None,
) -> None:
    """Kill random parts of the stack and of runs for some minutes, and verify that no row is lost."""
    seed = seed if seed is not None else random.SystemRandom().randrange(10**6)
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as temporary:
        soak = Soak(home or Path(temporary), seed)
        console.print(f"seed {seed}: `make soak MINUTES={minutes:g} SEED={seed}` chooses the same faults again")
        end, rounds = time.monotonic() + 60 * minutes, 0
        try:
            soak.do("run", "--scale", str(scale), "--json")
            while time.monotonic() < end:
                rounds += 1
                layer, table = soak.random.choice(LAYERS[1:]), soak.random.choice(list(TABLES))
                console.print(f"round {rounds}: {layer}/{table} deleted")
                soak.stack.up()
                soak.do("reset", layer, "--table", table, "--yes")
                soak.flow(min(30, max(0, end - time.monotonic())))
                rows = soak.run()
                console.print("  balances: " + ", ".join(f"{name} {count:,}" for name, count in rows.items()))
            soak.stack.up()
            result = json.loads(soak.do("reconcile", "--json").splitlines()[-1])
        finally:
            for process in soak.clients.values():
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
            soak.stack.down()
    faults = ", ".join(f"{name} {times}" for name, times in soak.killed.most_common())
    console.print(f"{rounds} rounds, killed: {faults}; the report {'balances' if result['ok'] else 'DOES NOT BALANCE'}")
    raise typer.Exit(0 if result["ok"] else 1)


if __name__ == "__main__":
    typer.run(main)
