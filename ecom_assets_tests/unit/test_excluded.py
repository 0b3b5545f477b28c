"""What the bulk path and PostgreSQL leave out of the expanded files, in every write mode, against plain Python."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from ecom_assets.core.settings import Settings, load
from ecom_assets.csv import expand, unique
from ecom_assets.dataset.model import Table
from ecom_assets_tests.state import State
from ecom_assets_tests.tables import PRODUCT
from ecom_assets_tests.topics import Row

BY_ORDER = replace(PRODUCT, deleted_if=("usage", ("gone",)))
MODES = [
    pytest.param(replace(PRODUCT, write="append", history=False), id="append"),
    pytest.param(PRODUCT, id="merge"),
    pytest.param(BY_ORDER, id="merge with deletions"),
    pytest.param(replace(BY_ORDER, version="year"), id="merge by version"),
    pytest.param(replace(PRODUCT, write="replace"), id="replace"),
]


def some_row(chance: random.Random) -> Row:
    row = dict.fromkeys(PRODUCT.names, "x") | {"id": chance.randrange(60), "year": chance.choice([None, 1, 2, 3])}
    return row | {"usage": chance.choice(["a", "b", "b", "gone"])}


def write(name: str, table: Table, settings: Settings, rows: list[Row]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.headers)
    writer.writerows([["" if value is None else value for value in row.values()] for row in rows])
    folder = expand.folder(table, settings)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text.getvalue().encode())


@pytest.mark.parametrize("table", MODES)
def test_each_row_is_left_out_for_the_reason_that_its_mode_says(table: Table, home: Path) -> None:
    """The bulk path, PostgreSQL and the charts would show other rows than the stream path."""
    chance, settings, state = random.Random(3), load(home=home), State(table)
    for place, sequence in enumerate((0, 1, 4, 7)):
        rows = [some_row(chance) for _ in range(50)]
        state.deliver(sequence, rows)
        write(expand.delivery_name(sequence) if place else expand.file_name(0), table, settings, rows)
    found = unique.Deduplicated(table, settings)
    rows = [row for batch in found for row in batch.to_pylist()]
    assert tally(rows) == tally([row for row, _ in state.rows.values()])
    assert {reason: each.rows for reason, each in found.left.items()} == {
        reason: len(each) for reason, each in state.left.items()
    }


def tally(rows: list[Row]) -> Counter[str]:
    return Counter(json.dumps(row, sort_keys=True) for row in rows)
