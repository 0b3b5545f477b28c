"""Tables that nobody has declared go all the way by the commands of the documentation: six of TPC-DS."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from ecom_assets.core.addresses import Addresses
from ecom_assets.dataset.loader import load
from ecom_assets.paths import LAYERS, open_home
from ecom_assets.servers.stack import Stack
from ecom_assets.serving import postgres
from ecom_assets_tests import tpcds
from ecom_assets_tests.runs import environment, settings_of

TABLES = ("customer", "customer_address", "item", "store", "store_returns", "store_sales")
"""With keys of two columns, keys that may be null, decimals, and a dimension that changes slowly."""

GUIDE = Path(__file__).parents[2] / "docs" / "your-own-data.md"

Do = Callable[[str], str]
"""Runs a command of the guide, which must succeed, and returns what it prints."""


@pytest.fixture
def env(tmp_path: Path, addresses: Addresses) -> dict[str, str]:
    found = environment(tmp_path / ".retail", addresses, "retail") | {"ECOM_DASHBOARD": "true"}
    return found | {"PATH": f"{Path(sys.executable).parent}:{found['PATH']}"}


@pytest.fixture
def do(tmp_path: Path, env: dict[str, str]) -> Iterator[Do]:
    def run(command: str) -> str:
        words = shlex.split(command, comments=True)
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    yield run
    run("ecom down --home .retail")


def commands() -> list[str]:
    """The commands of the guide's ten minutes."""
    part = GUIDE.read_text(encoding="utf-8").split("\n## ")[1]
    assert part.startswith("In ten minutes")
    return [line for block in re.findall(r"```console\n(.*?)```", part, re.DOTALL) for line in block.splitlines()]


def test_the_guide_leads_from_unknown_files_to_verified_tables(tmp_path: Path, env: dict[str, str], do: Do) -> None:
    """If this fails, people with tables of their own get stuck where the guide says that they would not."""
    tpcds.make(tmp_path / "exports", *TABLES)
    names = [command.split()[1] for command in commands()]
    assert names == ["init", "dataset", "dataset", "run"]
    for command in commands():
        do(command)

    dataset = load(tmp_path / "declared" / "retail")
    sales, returns = dataset.tables["store_sales"], dataset.tables["store_returns"]
    assert sales.primary_key == ("ss_item_sk", "ss_ticket_number")
    assert returns.primary_key == ("sr_item_sk", "sr_ticket_number")
    assert {reference.label for reference in returns.references} >= {
        "sr_item_sk -> item.i_item_sk",
        "sr_item_sk, sr_ticket_number -> store_sales.(ss_item_sk, ss_ticket_number)",
        "sr_customer_sk -> customer.c_customer_sk",
    }
    assert next(c for c in sales.columns if c.name == "ss_customer_sk").nullable
    (price,) = [c.parsed_as for c in sales.columns if c.name == "ss_net_profit"]
    assert str(price).startswith("('ss_net_profit_dec', 'decimal("), "money is decimal"

    tables = json.loads(do("ecom reconcile --home .retail --json").strip().splitlines()[-1])["tables"]
    assert set(tables) == set(TABLES)
    for name, table in tables.items():
        rows = (tmp_path / "exports" / f"{name}.csv").read_bytes().count(b"\n") - 1
        assert {layer: table[layer]["rows"] for layer in LAYERS} == dict.fromkeys(LAYERS, rows), name
        assert len({table[layer]["checksum"] for layer in LAYERS}) == 1, name

    settings = settings_of(env)
    with urlopen(Stack(settings).address("dashboard") + "/_stcore/health", timeout=10) as page:
        assert page.read() == b"ok"
    with open_home(settings) as at:
        loaded = postgres.load(settings, at.dataset, settings.postgres)
        assert not any(done.orphans or done.unparsed for done in loaded.values())
        with postgres.connect(settings.postgres) as connection:
            keys = connection.execute(
                "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND connamespace = 'retail'::regnamespace"
            ).fetchone()
    assert keys == (sum(len(table.references) for table in dataset.tables.values()),)
