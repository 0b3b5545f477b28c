"""Six tables of TPC-DS, declared by ``ecom init`` and nobody else, go all the way."""

from __future__ import annotations

from pathlib import Path

from ecom_assets.core.addresses import Addresses
from ecom_assets.dataset.loader import load
from ecom_assets.paths import LAYERS, open_home
from ecom_assets.serving import postgres
from ecom_assets_tests import tpcds
from ecom_assets_tests.runs import ecom, environment, settings_of, shown

TABLES = ("customer", "customer_address", "item", "store", "store_returns", "store_sales")
"""With keys of two columns, keys that may be null, decimals, and a dimension that changes slowly."""


def test_unknown_tables_go_all_the_way(tmp_path: Path, addresses: Addresses) -> None:
    """If this fails, a retailer with other tables than ours has to write declarations or Python."""
    files, declared = tmp_path / "files", tmp_path / "tpcds"
    tpcds.make(files, *TABLES)
    env = environment(tmp_path / "home", addresses, "tpcds")
    shown(env, "init", str(declared), "--from", str(files))

    dataset = load(declared)
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

    code, reported, err = ecom(env, "run", "--dataset", str(declared), "--source", str(files), "--json")
    assert code == 0, err
    assert set(reported["tables"]) == set(TABLES)
    for name, table in reported["tables"].items():
        rows = (files / f"{name}.csv").read_bytes().count(b"\n") - 1
        assert {layer: table[layer]["rows"] for layer in LAYERS} == dict.fromkeys(LAYERS, rows), name
        assert len({table[layer]["checksum"] for layer in LAYERS}) == 1, name

    settings = settings_of(env)
    with open_home(settings) as at:
        loaded = postgres.load(settings, at.dataset, settings.postgres)
        assert not any(done.orphans or done.unparsed for done in loaded.values())
        with postgres.connect(settings.postgres) as connection:
            keys = connection.execute(
                "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND connamespace = 'tpcds'::regnamespace"
            ).fetchone()
    assert keys == (sum(len(table.references) for table in dataset.tables.values()),)
