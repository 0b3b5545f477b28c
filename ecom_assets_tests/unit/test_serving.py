"""Serving without servers: what PostgreSQL is sent, what a cache without Redis does, what charts are given."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from ecom_assets.dashboard import charts, figures
from ecom_assets.serving import cache, postgres
from ecom_assets.tables import CLICK_STREAM, TABLES, TRANSACTIONS

EVENT: dict[str, Any] = {
    "session_id": "s", "event_name": "CLICK", "event_time": "2016-06-30T23:18:44.792905Z", "event_id": "e",
    "traffic_source": "WEB", "event_metadata": None,
}  # fmt: skip


def sent(**changes: Any) -> tuple[list[str], dict[str, int], bytes]:
    """An event's fields as PostgreSQL gets them, and what was lost."""
    batch = pa.RecordBatch.from_pylist([EVENT | changes], schema=CLICK_STREAM.arrow)
    text, lost = postgres.to_csv(batch, CLICK_STREAM)
    (row,) = csv.reader(io.StringIO(text.decode()))
    return row, lost, text


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("{'product_id': 1, 'quantity': 2, 'item_price': None}", {"product_id": 1, "quantity": 2, "item_price": None}),
        ("{'search_keywords': \"Ibu's\"}", {"search_keywords": "Ibu's"}),
        (r"{'search_keywords': 'a\'b\\c'}", {"search_keywords": "a'b\\c"}),
        ("{'search_keywords': ''}", {"search_keywords": ""}),
        ('{"promo_code": "X", "promo_amount": 5}', {"promo_code": "X", "promo_amount": 5}),
        ("{'search_keywords': ': None'}", {"search_keywords": ": None"}),
        ("{'a': True}", {"a": True}),
    ],
)
def test_literals_reach_postgres_as_json(literal: str, value: Any) -> None:
    """One text that is no JSON would end the load of a whole table."""
    row, lost, _ = sent(event_metadata=literal)
    assert json.loads(row[-1]) == value
    assert not lost


@pytest.mark.parametrize("literal", ["{'a': }", "{'a': 1} x", "{'a': nan}", "__import__('os')", "[" * 500, "{1, 2}"])
def test_what_is_no_literal_is_null_and_counted(literal: str) -> None:
    """Bad input must neither stop good rows nor vanish."""
    row, lost, _ = sent(event_metadata=literal)
    assert row[-1] == ""
    assert lost == {"metadata": 1}


@pytest.mark.parametrize("text", ["2016-02-30T00:00:00.000000Z", "12:30", "", "yesterday"])
def test_what_is_no_time_is_null_and_counted(text: str) -> None:
    """PostgreSQL would refuse it, and the table with it."""
    row, lost, _ = sent(event_time=text)
    assert row[2] == ""
    assert lost == {"event_time_ts": 1}


def test_null_and_empty_differ_and_no_byte_stops_a_load() -> None:
    """A null is nothing, an empty text two quotes; PostgreSQL knows no NUL."""
    _, _, text = sent(event_name="", traffic_source='a"b,\nc')
    assert text.startswith(b'"s","",')
    assert b'"a""b,\nc",' in text
    assert text.endswith(b",\n")
    assert sent(event_name="a\0b")[0][1] == "a\N{REPLACEMENT CHARACTER}b"


def test_every_table_has_its_columns_in_postgres() -> None:
    """A typed companion takes its text's place; a fifth table needs nothing here."""
    for table in TABLES.values():
        assert [c.source.name for c in postgres.columns(table)] == table.names
    kinds = {c.name: c.kind for c in postgres.columns(TRANSACTIONS)}
    assert kinds["created_at_ts"] == "timestamptz"
    assert kinds["items"] == "jsonb"
    assert kinds["total_amount"] == "bigint"


def test_a_cache_without_redis_computes_every_time() -> None:
    """Slower, never wrong."""
    asked = []

    def compute() -> tuple[pa.Table, str, bool]:
        asked.append(1)
        return pa.table({"n": [len(asked)]}), "test", True

    without = cache.Cache("", "x")
    assert [without.answer("k", compute).table["n"][0].as_py() for _ in range(3)] == [1, 2, 3]
    assert without.ratio() == 0.0
    with pytest.raises(ConnectionError, match="Redis"):
        without.put("k", pa.table({}), "test")


def test_what_is_no_answer_in_redis_is_computed_anew() -> None:
    """Another version of the project, or another program, may have written there."""
    made = cache.Cached(pa.table({"n": [1, None], "t": ["a", "b"]}), "test", "test", 12.5)
    found = cache._unpack(cache._pack(made))
    assert found
    assert (found.table, found.source, found.computed_by, found.computed_at) == (made.table, "Redis", "test", 12.5)
    for damaged in (b"", b"text", cache._pack(made)[:-40], cache._pack(made)[40:]):
        assert cache._unpack(damaged) is None


def test_charts_of_nothing_are_charts() -> None:
    """A choice without data must not break a page."""
    months = pa.table(
        {"month": pa.array([], pa.date32()), "category": pa.array([], pa.string()), "amount": pa.array([], pa.int64()),
         "units": pa.array([], pa.int64())}
    )  # fmt: skip
    chosen = figures.Filter(2016, 2022, "Apparel")
    assert charts.trend(figures.over_time(months, chosen), "amount", "IDR")["data"] == {"values": []}
    assert charts.bars(pl.DataFrame({"a": [], "b": []}), "a", "b", "n")["data"] == {"values": []}


def test_the_tail_of_many_bars_is_one() -> None:
    """Whatever is not shown by name must still be in the sum."""
    frame = pl.DataFrame({"name": list("abcdef"), "n": [6, 5, 4, 3, 2, 1]})
    rows = charts.bars(frame, "name", "n", "n", most=4)["data"]["values"]
    assert [(r["name"], r["value"]) for r in rows] == [("a", 6), ("b", 5), ("c", 4), ("3 others", 6)]
    assert sum(r["share"] for r in rows) == pytest.approx(1)
