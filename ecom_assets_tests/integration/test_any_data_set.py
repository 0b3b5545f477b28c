"""A data set that is declared and nothing else goes all the way, as the shop does."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ecom_assets.core.addresses import Addresses
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.loader import named
from ecom_assets.paths import LAYERS, open_home
from ecom_assets.serving import lookup, postgres
from ecom_assets.serving.queries import Queries
from ecom_assets_tests.runs import ecom, environment, settings_of

LIBRARY = """
dataset: library
tables:
  book:
    primary_key: [isbn]
    domains: {isbn: book}
    hbase: {row_key: [isbn], families: {d: "*"}}
  volume:
    primary_key: [isbn, number]
    domains: {isbn: book}
    references:
      - {columns: [isbn], table: book}
    hbase: {row_key: [isbn, {column: number, as: int64}], salt: 3, families: {d: "*"}}
    indexes:
      volumes_by_shelf: {row_key: [{column: shelf, as: fixed, width: 2}, isbn, {column: number, as: int64}]}
  loan:
    primary_key: [loan_id]
    topic_key: [reader]
    references:
      - {columns: [isbn], table: book}
      - {columns: [isbn, number], table: volume}
    hbase: {row_key: [loan_id], families: {d: "*"}}
    indexes:
      loans_by_reader: {row_key: [reader, day, loan_id]}
      latest_loans: {row_key: [isbn, {column: lent_at, as: reversed_time}, loan_id]}
  FROM:
    file: "ein Regal, das älteste.csv"
    primary_key: [select]
    topic_key: [select, order]
    hbase: {row_key: [order, select], families: {"group": "*"}}
"""
BOOK = {
    "type": "record",
    "name": "Book",
    "fields": [{"name": "isbn", "type": "string"}, {"name": "title", "type": ["null", "string"]}],
}
VOLUME = {
    "type": "record",
    "name": "Volume",
    "fields": [
        {"name": "isbn", "type": "string"},
        {"name": "number", "type": "long"},
        {"name": "shelf", "type": "string"},
    ],
}
LOAN = {
    "type": "record",
    "name": "Loan",
    "fields": [
        {"name": "loan_id", "type": "long"},
        {"name": "reader", "type": "string"},
        {"name": "isbn", "type": "string"},
        {"name": "number", "type": ["null", "long"]},
        {"name": "lent_at", "type": "string"},
        {"name": "day", "type": "string", "parsed_as": {"name": "day_date", "type": "date"}},
    ],
}
HOSTILE = {
    "type": "record",
    "name": "FROM",
    "fields": [
        {"name": "select", "type": "string", "header": "Größe (cm)"},
        {"name": "order", "type": "string", "header": 'a, "b"'},
        {
            "name": "group",
            "type": ["null", "string"],
            "header": "GROUP BY",
            "parsed_as": {"name": "from", "type": "decimal(9,2)"},
        },
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
    (folder / "volume.avsc").write_text(json.dumps(VOLUME), encoding="utf-8")
    (folder / "loan.avsc").write_text(json.dumps(LOAN), encoding="utf-8")
    (folder / "queries" / "per_day.sql").write_text(PER_DAY, encoding="utf-8")
    (folder / "FROM.avsc").write_text(json.dumps(HOSTILE), encoding="utf-8")
    files = folder / "files"
    files.mkdir()
    (files / "book.csv").write_text(
        "isbn,title\n" + "".join(f"978-{n:03},Volume {n}\n" for n in range(50)), encoding="utf-8"
    )
    volumes = [f"978-{n:03},{number},s{n % 3}\n" for n in range(50) for number in (10, 2)]
    odd = ["978-000,3,shelf\n"]  # a shelf of another width, which its row key cannot hold
    (files / "volume.csv").write_text("".join(["isbn,number,shelf\n", *volumes, volumes[7], *odd]), encoding="utf-8")
    days = [f"2026-11-{n % 28 + 1:02}" for n in range(500)]
    loans = "".join(
        f"{n},reader {n % 7},978-{n % 50:03},{2 if n % 2 else ''},{day}T08:00:00Z,{day}\n" for n, day in enumerate(days)
    )
    (files / "loan.csv").write_text("loan_id,reader,isbn,number,lent_at,day\n" + loans, encoding="utf-8")
    shelves = "".join(f"{n},table|{n % 3},{n}.5\n" for n in range(20))
    (files / "ein Regal, das älteste.csv").write_text(f'Größe (cm),"a, ""b""",GROUP BY\n{shelves}', encoding="utf-8")
    return folder


def test_a_declared_data_set_goes_all_the_way(library: Path, tmp_path: Path, addresses: Addresses) -> None:
    """If this fails, a team with other tables than the shop's has to write Python."""
    env = environment(tmp_path / "home", addresses, "library")
    code, reported, err = ecom(env, "run", "--dataset", str(library), "--source", str(library / "files"), "--json")
    assert code == 0, err
    tables: dict[str, Any] = reported["tables"]
    for name, rows in {"book": 50, "loan": 500, "FROM": 20}.items():
        assert {layer: tables[name][layer]["rows"] for layer in LAYERS} == dict.fromkeys(LAYERS, rows)
        assert len({tables[name][layer]["checksum"] for layer in LAYERS}) == 1
    volumes = {layer: tables["volume"][layer]["rows"] for layer in LAYERS}
    assert volumes == dict.fromkeys(LAYERS, 101) | {"raw": 102, "merged": 100, "hbase": 100}, (
        "one is odd, one comes twice"
    )
    assert tables["volume"]["merged"]["checksum"] == tables["volume"]["hbase"]["checksum"]

    settings = settings_of(env)
    before = _builds(settings)
    add_reviews(library)
    code, again, err = ecom(env, "run", "--json")
    assert code == 0, err
    assert again["tables"]["review"]["hbase"]["rows"] == 3, "the home remembers its data set"
    after = _builds(settings)
    assert {key: after[key] for key in before} == before, "a table that is declared later is the only one that is built"
    assert {table for _, table in after.keys() - before.keys()} == {"review"}

    with open_home(settings) as at:
        assert at.dataset.tables == named(str(library)).tables
        asked = Queries(settings, books=at.books).snapshot()
        assert asked.ask("per_day").table.column("loans").to_pylist() == [18] * 24 + [17] * 4
        found = asked.through("loans_by_reader", "reader 3").table
        assert found.column("loan_id").to_pylist() == _of_reader_3()
        latest = lookup.under(at.dataset.indexes["latest_loans"], "978-003", settings, addresses, 3)
        assert [row["lent_at"] for row in latest] == [f"2026-11-{day}T08:00:00Z" for day in (26, 24, 20)]
        of_one = asked.under("volume", "978-003").table
        assert of_one.column("number").to_pylist() == ["2", "10"], "in the order of numbers"
        on_shelf = asked.through("volumes_by_shelf", "s1").table
        assert on_shelf.num_rows == 2 * sum(n % 3 == 1 for n in range(50))
        assert {row["shelf"] for row in on_shelf.to_pylist()} == {"s1"}
        loaded = postgres.load(settings, at.dataset, settings.postgres)
        assert {name: done.rows for name, done in loaded.items()} == {
            "book": 50,
            "volume": 100,
            "loan": 500,
            "FROM": 20,
        }
        with postgres.connect(settings.postgres) as connection:
            total = connection.execute('SELECT sum("from") FROM library."FROM"').fetchone()
        assert total == (Decimal("200.00"),), "money is decimal"
        assert asked.under("FROM", "table|2").table.column("select").to_pylist() == ["11", "14", "17", "2", "5", "8"]
        assert not any(done.orphans for done in loaded.values())
        assert lookup.examples(at.dataset.tables["book"], settings, addresses) == ["978-000"]


def add_reviews(library: Path) -> None:
    """Declare one table more, and put its file to the others."""
    with (library / "dataset.yaml").open("a", encoding="utf-8") as declaration:
        declaration.write('  review:\n    primary_key: [id]\n    hbase: {row_key: [id], families: {d: "*"}}\n')
    fields = [{"name": "id", "type": "long"}, {"name": "stars", "type": "long"}]
    (library / "review.avsc").write_text(json.dumps({"type": "record", "name": "R", "fields": fields}), "utf-8")
    (library / "files" / "review.csv").write_text("id,stars\n1,5\n2,4\n3,1\n", encoding="utf-8")


def _builds(settings: Settings) -> dict[tuple[str, str], object]:
    """Layer and table -> when it was last built, and from what."""
    with open_home(settings) as at:
        return {(build.layer, build.table): (build.at, build.fingerprint) for build in at.books.builds()}


def _of_reader_3() -> list[str]:
    """Its loans, the latest first."""
    return [str(n) for n in sorted((n for n in range(500) if n % 7 == 3), key=lambda n: (n % 28, str(n)), reverse=True)]
