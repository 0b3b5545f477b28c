"""Rows that change, and kills: whatever breaks off, each store ends with the very rows that plain Python says."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime

import pytest

from ecom_assets.core.books import Books
from ecom_assets.servers.stack import Stack
from ecom_assets_tests.changing import Changing, check
from ecom_assets_tests.runs import Condition, environment, finish, settings_of, start, wait_for

LAYERS = ("streamed", "merged", "hbase")
"""Layers that do other work for rows that change; ``test_deliveries`` has kills in the others."""
RANDOM = 200
"""Deliveries that are drawn at random."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Changing:
    return Changing(tmp_path_factory.mktemp("changing"), seed=7)


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory, stack: Stack, made: Changing) -> dict[str, str]:
    """A home with the first files."""
    found = environment(tmp_path_factory.mktemp("home"), stack.addresses(), "killed_changes")
    finish(found | {"ECOM_SOURCE": str(made.source), "ECOM_DATASET": str(made.declaration)})
    return found


def begun(layer: str, since: datetime) -> Condition:
    """What the books say when the layer before one has been checked since."""
    before = {"streamed": "topic", "merged": "streamed", "hbase": "merged"}[layer]

    def is_begun(books: Books) -> bool:
        checked = (books.verification(before, table) for table in ("people", "members", "prices", "events"))
        return any(found is not None and found.at > since for found in checked)

    return is_begun


@pytest.mark.parametrize("after", [0.05, 1.0, 2.5], ids=["at once", "in the middle", "later"])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_run_killed_while_rows_change(env: dict[str, str], made: Changing, layer: str, after: float) -> None:
    """If this fails, a machine that goes down at night leaves customers with two addresses, or with none."""
    made.deliver()
    made.deliver()
    began = datetime.now(UTC)
    process = start(env, "run", "--json")
    wait_for(begun(layer, began), settings_of(env), process, 300)
    time.sleep(after)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    made.deliver()  # the next day comes before anybody has looked
    finish(env)
    check(made, settings_of(env))


def test_deliveries_at_random(env: dict[str, str], made: Changing) -> None:
    """If this fails, some order of changes, deletions and deliveries that come again leads to other rows."""
    left = RANDOM
    while left:
        for _ in range(several := min(left, made.chance.choice([1, 2, 5, 10, 20, 40]))):
            made.deliver()
        left -= several
        finish(env)
        check(made, settings_of(env))
