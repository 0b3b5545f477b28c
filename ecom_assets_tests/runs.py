"""Runs of the command line as people start them, on servers that the tests hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ecom_assets.services.stack import Addresses
from ecom_assets.settings import Settings, load


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


def ecom(env: dict[str, str], *args: str) -> tuple[int, dict[str, Any], str]:
    process = start(env, *args)
    out, err = process.communicate(timeout=300)
    lines = out.strip().splitlines()
    return process.returncode, json.loads(lines[-1]) if lines else {}, err


def settings_of(env: dict[str, str]) -> Settings:
    given = {k: env[f"ECOM_{k.upper()}"] for k in ("home", "namespace", "kafka", "spark")}
    return load(**given, hbase_thrift=env["ECOM_HBASE_THRIFT"], hbase_zookeeper=env["ECOM_HBASE_ZOOKEEPER"])
