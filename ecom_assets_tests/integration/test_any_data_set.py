"""A data set that is declared and nothing else goes all the way, as the shop does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ecom_assets.core.addresses import Addresses
from ecom_assets.dataset.loader import named
from ecom_assets.paths import LAYERS, open_home
from ecom_assets.serving import lookup
from ecom_assets.serving.queries import Queries
from ecom_assets_tests.runs import ecom, environment, settings_of

LIBRARY = """
dataset: library
tables:
  book:
    primary_key: [isbn]
    domains: {isbn: book}
    hbase: {row_key: [isbn], families: {d: "*"}}
  loan:
    primary_key: [loan_id]
    topic_key: [reader]
    references:
      - {columns: [isbn], table: book}
    hbase: {row_key: [loan_id], families: {d: "*"}}
    indexes:
      loans_by_reader: {row_key: [reader, day, loan_id]}
"""
BOOK = {
    "type": "record",
    "name": "Book",
    "fields": [{"name": "isbn", "type": "string"}, {"name": "title", "type": ["null", "string"]}],
}
LOAN = {
    "type": "record",
    "name": "Loan",
    "fields": [
        {"name": "loan_id", "type": "long"},
        {"name": "reader", "type": "string"},
        {"name": "isbn", "type": "string"},
        {"name": "day", "type": "string", "parsed_as": {"name": "day_date", "type": "date"}},
    ],
}
PER_DAY = """-- title: Loans by day.
-- tables: loan
SELECT day_date, count(*) AS loans FROM loan GROUP BY 1
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """The declaration, and next to it the files."""
    folder = tmp_path / "library"
    (folder / "queries").mkdir(parents=True)
    (folder / "dataset.yaml").write_text(LIBRARY, encoding="utf-8")
    (folder / "book.avsc").write_text(json.dumps(BOOK), encoding="utf-8")
    (folder / "loan.avsc").write_text(json.dumps(LOAN), encoding="utf-8")
    (folder / "queries" / "per_day.sql").write_text(PER_DAY, encoding="utf-8")
    files = folder / "files"
    files.mkdir()
    (files / "book.csv").write_text(
        "isbn,title\n" + "".join(f"978-{n:03},Volume {n}\n" for n in range(50)), encoding="utf-8"
    )
    loans = "".join(f"{n},reader {n % 7},978-{n % 50:03},2026-11-{n % 28 + 1:02}\n" for n in range(500))
    (files / "loan.csv").write_text("loan_id,reader,isbn,day\n" + loans, encoding="utf-8")
    return folder


def test_a_declared_data_set_goes_all_the_way(library: Path, tmp_path: Path, addresses: Addresses) -> None:
    """If this fails, a team with other tables than the shop's has to write Python."""
    env = environment(tmp_path / "home", addresses, "library")
    code, reported, err = ecom(env, "run", "--dataset", str(library), "--source", str(library / "files"), "--json")
    assert code == 0, err
    tables: dict[str, Any] = reported["tables"]
    for name, rows in {"book": 50, "loan": 500}.items():
        assert {layer: tables[name][layer]["rows"] for layer in LAYERS} == dict.fromkeys(LAYERS, rows)
        assert len({tables[name][layer]["checksum"] for layer in LAYERS}) == 1

    code, again, err = ecom(env, "run", "--json")
    assert code == 0, err
    assert again["unchanged"] is True, "the home remembers its data set"

    settings = settings_of(env)
    with open_home(settings) as at:
        assert at.dataset.tables == named(str(library)).tables
        asked = Queries(settings, books=at.books).snapshot()
        assert asked.ask("per_day").table.column("loans").to_pylist() == [18] * 24 + [17] * 4
        found = asked.through("loans_by_reader", "reader 3").table
        assert found.column("loan_id").to_pylist() == _of_reader_3()
        assert lookup.examples(at.dataset.tables["book"], settings, addresses) == ["978-000"]


def _of_reader_3() -> list[str]:
    """Its loans, the latest first."""
    return [str(n) for n in sorted((n for n in range(500) if n % 7 == 3), key=lambda n: (n % 28, str(n)), reverse=True)]
