"""A home whose Dagster runs by itself."""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecom_assets.servers.stack import Stack
from ecom_assets_tests.automation.dagster import Dagster
from ecom_assets_tests.automation.home import Home
from ecom_assets_tests.runs import environment

SCALE = "0.0005"


@pytest.fixture(scope="session", params=os.environ.get("ECOM_TEST_SEEDS", "1").split(","), ids="seed {}".format)
def chance(request: pytest.FixtureRequest) -> random.Random:
    """All randomness of a test; its seed is part of the test's name."""
    return random.Random(int(request.param))


@pytest.fixture
def shop_home(stack: Stack, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Home]:
    """A fresh home on the session's servers, with webserver, daemon and code server of its own."""
    namespace = f"auto_{zlib.crc32(request.node.name.encode()):08x}"
    env = environment(tmp_path / "home", stack.addresses(), namespace) | {
        "ECOM_SCALE": SCALE,
        "ECOM_STREAM_SECONDS": "5",
        "ECOM_PUBLISH_SECONDS": "15",
    }
    logs = tmp_path / "logs"
    logs.mkdir()
    (tmp_path / "home").mkdir(mode=0o700)
    with Dagster(env, logs) as dagster, Home(env, dagster) as home:
        yield home
