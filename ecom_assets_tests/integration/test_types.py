"""A data set with a column of each type goes all the way, and every system holds the same values."""

from __future__ import annotations

import csv
import json
import random
import string
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from ecom_assets.core.addresses import Addresses
from ecom_assets.csv.audit_values import canonical
from ecom_assets.paths import LAYERS, open_home
from ecom_assets.serving import lookup, postgres
from ecom_assets.serving.queries import Queries
from ecom_assets_tests.kinds import THINGS, avsc, rows
from ecom_assets_tests.runs import ecom, environment, settings_of, shown

DECLARATION = """
dataset: typed
tables:
  things:
    primary_key: [id]
    domains: {id: thing, device: device}
    conflicts_tolerated: 0.01
    hbase: {row_key: [{column: id, as: int64}], families: {d: "*"}}
  visit:
    primary_key: [device, at]
    domains: {device: device, thing: thing}
    references:
      - {columns: [thing], table: things, tolerated: 0.2}
    hbase: {row_key: [device, {column: at, as: reversed_time}], families: {d: "*"}}
    indexes:
      visits_by_day: {row_key: [day, size, device, {column: at, as: reversed_time}]}
  note:
    primary_key: [key]
    domains: {key: note}
    hbase: {row_key: [key], families: {d: "*"}}
"""
VISIT = [
    {"name": "device", "type": {"type": "string", "logicalType": "uuid"}},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "day", "type": {"type": "int", "logicalType": "date"}},
    {"name": "size", "type": {"type": "enum", "name": "Size", "symbols": ["S", "M", "XL"]}},
    {"name": "thing", "type": ["null", "long"]},
    {"name": "paid", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}]},
]
NOTE = [
    {"name": "key", "type": "string"},
    {"name": "pairs", "type": ["null", "string"], "parsed_as": {"name": "parsed", "type": "map<string,string>"}},
]
QUERY = """-- title: Paid by day.
-- tables: visit
SELECT day, size, sum(paid) AS paid, min("at") AS first FROM visit GROUP BY day, size
"""
ROWS = 200
VISITS = 60
BEGIN = datetime.fromisoformat("2024-02-28T22:00:00")


def visits() -> list[list[str]]:
    """Visits as CSV fields, times in any zone, UUIDs in either case."""
    made = []
    for n in range(VISITS):
        at = BEGIN + timedelta(hours=n, microseconds=n)
        device = str(UUID(int=(n % 7 << 120) + 5))
        zone = ["Z", "+00:00", "", "+00"][n % 4]
        made.append(
            [
                device.upper() if n % 2 else device,
                at.isoformat(" T"[n % 2], "microseconds") + zone,
                at.date().isoformat(),
                ["S", "M", "XL"][n % 3],
                str(n) if n % 3 else "",
                f"{n}.5" if n % 5 else "",
            ]
        )
    return made


@pytest.fixture
def typed(tmp_path: Path) -> Path:
    """The declaration, and next to it the files."""
    folder = tmp_path / "typed"
    (folder / "queries").mkdir(parents=True)
    (folder / "dataset.yaml").write_text(DECLARATION, encoding="utf-8")
    (folder / "queries" / "paid.sql").write_text(QUERY, encoding="utf-8")
    (folder / "things.avsc").write_text(json.dumps(avsc()), encoding="utf-8")
    for name, fields in (("visit", VISIT), ("note", NOTE)):
        (folder / f"{name}.avsc").write_text(
            json.dumps({"type": "record", "name": name, "fields": fields}), encoding="utf-8"
        )
    files = folder / "files"
    files.mkdir()
    things = [[_quoted(text) for text in row.values()] for row in made()]
    again, other, wrong = list(things[7]), list(things[8]), list(things[9])
    again[THINGS.names.index("price")] = f"{Decimal(made()[7]['price'] or 0):.2f}"
    other[THINGS.names.index("day")] = "1987-06-05"
    wrong[THINGS.names.index("day")] = "2023-02-29"
    lines = [*things, again, other, wrong]
    (files / "things.csv").write_text(
        ",".join(THINGS.names) + "\n" + "".join(",".join(line) + "\n" for line in lines), encoding="utf-8"
    )
    with (files / "visit.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[f["name"] for f in VISIT], *visits()])
    chance = random.Random(1)
    long = "".join(chance.choices(string.ascii_letters + string.digits, k=9_000))
    with (files / "note.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [
                ["key", "pairs"],
                [long, "none"],
                ["a", r'{"x": "\\u0000"}'],
                ["b", r'{"x": "\u0000"}'],
                ["c", "{'n': 007}"],
            ]
        )
    return folder


def _quoted(text: str | None) -> str:
    return "" if text is None else '"' + text.replace('"', '""') + '"'


def made() -> list[dict[str, str | None]]:
    """The things, as texts."""
    return rows(ROWS, seed=11)


def test_every_type_goes_all_the_way(typed: Path, tmp_path: Path, addresses: Addresses) -> None:
    """If this fails, some system holds another value than the file, or no value at all."""
    env = environment(tmp_path / "home", addresses, "typed")
    code, reported, err = ecom(
        env, "run", "--dataset", str(typed), "--source", str(typed / "files"), "--expand", "2", "--json"
    )
    assert code == 0, err
    tables: dict[str, Any] = reported["tables"]
    counts = {name: [tables[name][layer]["rows"] for layer in LAYERS] for name in tables}
    # One thing is quarantined; in each copy, one comes twice and one has a conflict.
    assert counts["things"] == [ROWS + 3, *[2 * ROWS + 4] * 4, 2 * ROWS, 2 * ROWS]
    assert counts["visit"] == [VISITS, *[2 * VISITS] * 6]
    assert counts["note"] == [4, *[8] * 6]

    settings = settings_of(env)
    with open_home(settings) as at:
        things = at.dataset.tables["things"]
        asked = Queries(settings, books=at.books).snapshot()
        for text in made()[:20]:
            (found,) = asked.under("things", text["id"] or "").table.to_pylist()
            expected = {
                c.name: None if (own := text[c.name]) is None else c.kind.shown(canonical(own.encode(), c.kind) or b"")
                for c in things.columns
                if (text[c.name] is None or not c.kind.is_plain)
            }
            assert {name: found[name] for name in expected} == expected
        device = str(UUID(int=(3 << 120) + 5)).upper()
        own = asked.under("visit", device).table
        own_visits = [v for v in visits() if v[0].lower() == device.lower()]
        assert own.column("at").to_pylist() == [v[1][:26].replace(" ", "T") + "Z" for v in reversed(own_visits)]
        by_day = lookup.under(at.dataset.indexes["visits_by_day"], "2024-02-29", settings, addresses, 100)
        assert len(by_day) == 2 * sum(v[2] == "2024-02-29" for v in visits())

        answer = {(r["day"], r["size"]): (r["paid"], r["first"]) for r in asked.ask("paid").table.to_pylist()}
        some = [v for v in visits() if v[2] == "2024-02-29" and v[3] == "M"]
        paid, first = answer[date(2024, 2, 29), "M"]
        assert paid == 2 * sum(Decimal(v[5] or 0) for v in some), "money is decimal"
        assert first.replace(tzinfo=None) == min(datetime.fromisoformat(v[1][:26]) for v in some)

        loaded = postgres.load(settings, at.dataset, settings.postgres)
        assert {name: (done.rows, done.keyed) for name, done in loaded.items()} == {
            "things": (2 * ROWS, True), "visit": (2 * VISITS, True), "note": (8, False),
        }  # fmt: skip
        columns = ", ".join(
            f"encode({name}, 'base64')" if name.endswith("raw") else f"{name}::text" for name in things.names
        )
        with postgres.connect(settings.postgres) as connection:
            connection.execute("SET timezone = 'UTC'; SET datestyle = 'ISO'")
            for text in made()[:50]:
                query = f"SELECT {columns} FROM typed.things WHERE id = {text['id']}"
                row = connection.execute(query.encode()).fetchone()
                assert row
                for column, got in zip(things.columns, row, strict=True):
                    assert _same(column.kind.name, got, text[column.name]), (column.name, got, text[column.name])
            parsed = dict(
                connection.execute("SELECT key, parsed->>'x' FROM typed.note WHERE length(key) = 1").fetchall()
            )
    assert parsed == {"a": r"\u0000", "b": "\N{REPLACEMENT CHARACTER}", "c": None}

    shown(env, "simulate", "--table", "visit", "--rows", "40", "--rate", "5000")
    code, reported, err = ecom(env, "run", "--json")
    assert code == 0, err
    after = reported["tables"]["visit"]
    more = after["topic"]["live"]
    assert more >= 40
    assert after["topic"]["rows"] == after["merged"]["rows"] == after["hbase"]["rows"] == 2 * VISITS + more
    assert after["topic"]["checksum"] == after["hbase"]["checksum"] != tables["visit"]["hbase"]["checksum"]


def _same(kind: str, got: str | None, text: str | None) -> bool:
    """Whether PostgreSQL's text of a value is of the same value as the file's."""
    if got is None or text is None:
        return got is text
    own = next(c.kind for c in THINGS.columns if c.kind.name == kind)
    if kind in ("string", "bytes"):
        return got == text
    return canonical(got.encode(), own) == canonical(text.encode(), own)
