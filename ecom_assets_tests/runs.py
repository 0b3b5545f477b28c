"""Runs of the command line as people start them, on servers that the tests hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ecom_assets.core.addresses import Addresses
from ecom_assets.core.books import Books, books_file
from ecom_assets.core.settings import Settings, load
from ecom_assets.paths import LAYERS

Condition = Callable[[Books], object]
"""Whether the books say something."""


def environment(home: Path, addresses: Addresses, namespace: str) -> dict[str, str]:
    """A home that uses the session's servers by their addresses, as people use servers elsewhere."""
    return os.environ | {
        "ECOM_HOME": str(home),
        "ECOM_NAMESPACE": namespace,
        "ECOM_KAFKA": addresses.kafka,
        "ECOM_SPARK": addresses.spark,
        "ECOM_HBASE_THRIFT": "{}:{}".format(*addresses.hbase_thrift),
        "ECOM_HBASE_ZOOKEEPER": addresses.hbase_zookeeper,
        "ECOM_POSTGRES": addresses.postgres,
        "ECOM_REDIS": addresses.redis,
        "ECOM_DASHBOARD": "false",
    }


def start(env: dict[str, str], *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ecom_assets.cli", *args],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ecom(env: dict[str, str], *args: str, seconds: float = 300) -> tuple[int, dict[str, Any], str]:
    process = start(env, *args)
    out, err = process.communicate(timeout=seconds)
    lines = out.strip().splitlines()
    return process.returncode, json.loads(lines[-1]) if lines else {}, err


def shown(env: dict[str, str], *args: str) -> str:
    """What a command prints that must succeed."""
    process = start(env, *args)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    return out


def wait_for(done: Condition, settings: Settings, process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Wait until the books of a home say something; the run that writes them must not end before."""
    deadline = time.monotonic() + seconds
    while True:
        if books_file(settings).exists():
            with Books.open(settings) as books:
                while not done(books):
                    assert process.poll() is None, process.communicate()[1]
                    assert time.monotonic() < deadline, f"not within {seconds:g} s"
                    time.sleep(0.005)
            return
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"no books within {seconds:g} s"
        time.sleep(0.005)


def built(layer: str, table: str = "click_stream") -> Condition:
    """A layer of a table is built."""
    return lambda books: books.build(layer, table)


def verified(layer: str, table: str = "click_stream") -> Condition:
    """A layer of a table was checked."""
    return lambda books: books.verification(layer, table)


def beginning(layer: str, settings: Settings) -> Condition:
    """What the books say when a layer's turn has come: the layer before it was checked."""
    if layer == LAYERS[0]:
        return lambda _: settings.raw.exists()
    return verified(LAYERS[LAYERS.index(layer) - 1])


def finish(env: dict[str, str], *command: str) -> dict[str, Any]:
    """Run again what was broken off: it must end well, its report balanced; returns what it reports of the tables.

    Args:
        env: The home.
        command: What runs the pipeline; ``run`` if not given.
    """
    code, reported, err = ecom(env, *(command or ["run"]), "--json")
    assert code == 0, err
    assert reported["ok"] is True
    return reported["tables"]


def settings_of(env: dict[str, str]) -> Settings:
    """The settings of a home, with every address that it remembers."""
    given = {k: env[f"ECOM_{k.upper()}"] for k in ("home", "namespace", "kafka", "spark")}
    return load(
        **given,
        lake_uri=env.get("ECOM_LAKE_URI"),
        hbase_thrift=env["ECOM_HBASE_THRIFT"],
        hbase_zookeeper=env["ECOM_HBASE_ZOOKEEPER"],
        postgres=env["ECOM_POSTGRES"],
        redis=env["ECOM_REDIS"],
    )
