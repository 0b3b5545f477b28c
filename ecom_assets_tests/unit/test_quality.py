"""Checks of data quality that need no server."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from ecom_assets.core.layer import Measurement
from ecom_assets.core.measure import Measure
from ecom_assets.core.settings import load
from ecom_assets.dataset.model import Dataset, Reference
from ecom_assets.lake import merge
from ecom_assets.paths import engine, open_home
from ecom_assets.reconcile import quality
from ecom_assets_tests.tables import CUSTOMER, PRODUCT


def test_a_key_that_is_not_unique_is_seen_on_the_bulk_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a primary key that is too narrow drops nine rows of ten on that path, and all passes."""
    (check,) = (c for c in quality.CHECKS if (c.layer, c.name) == ("hbase", "conflicts"))
    with open_home(load(home=tmp_path)) as at:
        bulk = engine(at, "bulk")
        left = {"duplicates": Measure(), "conflicts": Measure(90)}
        found = Measurement("product", "hbase", Measure(10), left)
        monkeypatch.setattr(bulk, "look_up", lambda *_: found)
        file = at.settings.quarantine / "product.conflicts.jsonl"
        file.parent.mkdir()
        file.write_text(json.dumps({"table": "product", "key": 7, "row": {"id": 7}, "reason": "other values"}) + "\n")
        seen = check.run(bulk, PRODUCT)
        assert not seen.ok
        assert not seen.warn
        assert seen.figures["finding"] == "the key is not unique: 90 of 100 rows share one with another, different row"
        assert [sample["key"] for sample in seen.samples] == ["7"]
        assert check.run(bulk, replace(PRODUCT, conflicts_tolerated=0.9)).ok
        found = Measurement("product", "hbase", Measure(10))
        assert check.run(bulk, PRODUCT).ok, "behind a merged layer nothing is left out"


@pytest.mark.parametrize("name", ["home", "a *b?", "100% 'tüte'"])
def test_a_table_is_read_wherever_its_home_is(tmp_path: Path, name: str) -> None:
    """If this fails, checks fail, or look at other files, in a folder whose name looks like a pattern or an address."""
    settings = load(home=tmp_path / name)
    columns = {c.name: (range(100, 103) if c.kind.is_integer else ["x", "y", "z"]) for c in CUSTOMER.columns}
    rows = pa.table({n: pa.array(v) for n, v in columns.items()})
    folder = merge.folder(CUSTOMER, settings)
    write_deltalake(str(folder), rows)
    write_deltalake(str(folder), rows.slice(2), mode="append")
    with open_home(settings) as at:
        found = quality.primary_key(engine(at, "stream"), CUSTOMER)
    assert not found.ok
    assert found.figures["rows"] == 4
    assert found.figures["keys that come more than once"] == 1
    write_deltalake(str(folder), rows, mode="overwrite")
    with open_home(settings) as at:
        assert quality.primary_key(engine(at, "stream"), CUSTOMER).ok, "files of earlier versions do not count"


def test_a_key_of_any_name_is_counted(tmp_path: Path) -> None:
    """If this fails, a table with a column called like one of the query's own cannot be checked."""
    names = ("rows", "n")
    fields = [{"name": name, "type": "string"} for name in names]
    table = replace(CUSTOMER, name="t", avsc={"fields": fields}, primary_key=names, references=())
    with open_home(load(home=tmp_path), Dataset.of("own", table)) as at:
        write_deltalake(
            str(merge.folder(table, at.settings)), pa.table({"rows": ["1", "1", "2"], "n": ["x", "x", "x"]})
        )
        found = quality.primary_key(engine(at, "stream"), table)
    assert not found.ok
    assert (found.figures["rows"], found.figures["keys that come more than once"]) == (3, 1)
    assert found.samples == [{"rows": "1", "n": "x", "_rows": 2}]


def test_a_compound_reference_is_followed_whatever_columns_are_called(tmp_path: Path) -> None:
    """If this fails, rows that refer to nothing pass, or a column called like one of the query's stops the check."""
    names = ("value", "key0")
    fields = [{"name": name, "type": ["null", "string"]} for name in names]
    there = replace(CUSTOMER, name="there", avsc={"fields": fields}, primary_key=names, references=())
    here = replace(there, name="here", references=(Reference(names, "there", names),))
    with open_home(load(home=tmp_path), Dataset.of("own", here, there)) as at:
        write_deltalake(str(merge.folder(there, at.settings)), pa.table({"value": ["a", "b"], "key0": ["x", "y"]}))
        rows = {"value": ["a", "a", None, "b"], "key0": ["x", "y", "z", "y"]}
        write_deltalake(str(merge.folder(here, at.settings)), pa.table(rows))
        found = quality.references(engine(at, "stream"), here)
    assert not found.ok
    assert found.figures == {"value, key0 -> there.(value, key0)": "1 of 3 dangle"}
    assert [(sample["value"], sample["key0"]) for sample in found.samples] == [("a", "y")]
