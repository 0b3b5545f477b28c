"""All of TPC-DS, from unknown CSV files to verified tables in HBase, without a line of Python for it."""

from __future__ import annotations

from pathlib import Path

from ecom_assets.core.addresses import Addresses
from ecom_assets.paths import LAYERS
from ecom_assets_tests import tpcds
from ecom_assets_tests.runs import ecom, environment, shown

TABLES = 24


def test_all_tables(tmp_path: Path, addresses: Addresses) -> None:
    """If this fails, a retailer with tables that we have not seen cannot use us."""
    files, declared = tmp_path / "files", tmp_path / "tpcds"
    tpcds.make(files)
    env = environment(tmp_path / "home", addresses, "tpcds")
    print(shown(env, "init", str(declared), "--from", str(files)))
    code, reported, err = ecom(env, "run", "--dataset", str(declared), "--source", str(files), "--json", seconds=1800)
    assert code == 0, err
    assert len(reported["tables"]) == TABLES
    for name, table in reported["tables"].items():
        rows = (files / f"{name}.csv").read_bytes().count(b"\n") - 1
        assert {layer: table[layer]["rows"] for layer in LAYERS} == dict.fromkeys(LAYERS, rows), name
        assert len({table[layer]["checksum"] for layer in LAYERS}) == 1, name
