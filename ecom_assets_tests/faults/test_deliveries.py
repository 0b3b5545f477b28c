"""Deliveries and kills: whatever breaks off, the next run brings in every row of every file, once."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime

import pytest

from ecom_assets.core.books import Books
from ecom_assets.paths import LAYERS
from ecom_assets.servers.stack import Stack
from ecom_assets_tests.exports import Shop
from ecom_assets_tests.runs import Condition, environment, finish, settings_of, start, wait_for

TOUCHED = ("customer", "click_stream")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("exports"), 0.002)


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory, stack: Stack, shop: Shop) -> dict[str, str]:
    """A home with the first files."""
    found = environment(tmp_path_factory.mktemp("home"), stack.addresses(), "killed_days")
    finish(found | {"ECOM_SOURCE": str(shop.folder)})
    return found


def reached(layer: str, since: datetime) -> Condition:
    """What the books say when a layer's turn has come once more: the layer before it was checked since."""
    if layer == LAYERS[0]:
        return lambda _: True
    before = LAYERS[LAYERS.index(layer) - 1]

    def is_reached(books: Books) -> bool:
        found = books.verification(before, "click_stream")
        return found is not None and found.at > since

    return is_reached


def check(env: dict[str, str], shop: Shop) -> None:
    """Run to the end: every layer holds every row."""
    tables = finish(env)
    for name in TOUCHED:
        assert {layer: tables[name][layer]["rows"] for layer in LAYERS} == dict.fromkeys(LAYERS, shop.rows(name))
        assert len({tables[name][layer]["checksum"] for layer in LAYERS}) == 1


@pytest.mark.parametrize("after", [0.05, 1.0], ids=["at once", "in the middle"])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_run_killed_while_a_delivery_is_loaded(env: dict[str, str], shop: Shop, layer: str, after: float) -> None:
    """If this fails, a machine that goes down at night costs rows of that day, or brings some in twice."""
    shop.deliver(3000, *TOUCHED)
    began = datetime.now(UTC)
    process = start(env, "run", "--json")
    wait_for(reached(layer, began), settings_of(env), process, 300)
    time.sleep(after)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    shop.deliver(100, *TOUCHED)  # the next day comes before anybody has looked
    check(env, shop)


def test_a_delivery_that_comes_during_a_run(env: dict[str, str], shop: Shop) -> None:
    """If this fails, a file that arrives at a bad moment is loaded in part, or never."""
    shop.deliver(2000, *TOUCHED)
    process = start(env, "run", "--json")
    for _ in range(2):
        time.sleep(6)
        shop.deliver(100, *TOUCHED)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    check(env, shop)


def test_two_runs_at_once(env: dict[str, str], shop: Shop) -> None:
    """If this fails, two people who load the same delivery bring it in twice."""
    shop.deliver(2000, *TOUCHED)
    runs = [start(env, "run", "--json") for _ in range(2)]
    for process in runs:
        _, err = process.communicate(timeout=400)
        assert process.returncode == 0, err
    check(env, shop)
