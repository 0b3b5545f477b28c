"""A home whose Dagster runs by itself."""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ecom_assets.servers.stack import Stack
from ecom_assets_tests.automation.dagster import Dagster
from ecom_assets_tests.automation.home import Home
from ecom_assets_tests.exports import Shop
from ecom_assets_tests.runs import environment

SCALE = "0.0005"


@pytest.fixture(scope="session", params=os.environ.get("ECOM_TEST_SEEDS", "1").split(","), ids="seed {}".format)
def chance(request: pytest.FixtureRequest) -> random.Random:
    """All randomness of a test; its seed is part of the test's name."""
    return random.Random(int(request.param))


@pytest.fixture
def shop_home(stack: Stack, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Home]:
    """A fresh home on the session's servers, with webserver, daemon and code server of its own."""
    with _home(stack, tmp_path, request, ECOM_SCALE=SCALE) as home:
        yield home


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A folder of exports."""
    (tmp_path / "exports").mkdir()
    return Shop(tmp_path / "exports", float(SCALE))


@pytest.fixture
def exports_home(stack: Stack, tmp_path: Path, shop: Shop, request: pytest.FixtureRequest) -> Iterator[Home]:
    """The same, with that folder as its source."""
    with _home(stack, tmp_path, request, ECOM_SOURCE=str(shop.folder)) as home:
        yield home


@contextmanager
def _home(stack: Stack, tmp_path: Path, request: pytest.FixtureRequest, **given: str) -> Generator[Home]:
    namespace = f"auto_{zlib.crc32(request.node.name.encode()):08x}"
    env = environment(tmp_path / "home", stack.addresses(), namespace) | given
    env |= {"ECOM_STREAM_SECONDS": "5", "ECOM_PUBLISH_SECONDS": "15"}
    logs = tmp_path / "logs"
    logs.mkdir()
    (tmp_path / "home").mkdir(mode=0o700)
    with Dagster(env, logs) as dagster, Home(env, dagster) as home:
        yield home
