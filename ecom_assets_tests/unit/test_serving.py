"""Serving without servers: what PostgreSQL is sent, what a cache without Redis does, what charts are given."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from datetime import date
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from ecom_assets.dashboard import charts, figures
from ecom_assets.dataset.chart import Bars, Columns, Funnel, Map, Table
from ecom_assets.dataset.query import Query
from ecom_assets.serving import cache, engines, postgres
from ecom_assets_tests.tables import CLICK_STREAM, TABLES, TRANSACTIONS

QUERY = Query("q", "A query.", "SELECT 1", ())
CHARTS = (
    Bars(kind="bars", x="c", y="b", unit="n"),
    Funnel(kind="funnel", steps={"b": "Came"}, of="b"),
    Map(kind="map", x="d", y="e", size="b", unit="n"),
    Table(columns={"b": "B", "c": "C"}, by="b", rows=2),
    Columns(kind="columns", x="a", y="b", unit="n"),
    Bars(kind="bars", x="c", y="b", unit="n", nulls=False),
)
"""A chart of each kind."""

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
        (r'{"a": "\\u0000"}', {"a": r"\u0000"}),
        (r'{"a": "\u0000"}', {"a": "\N{REPLACEMENT CHARACTER}"}),
        (r'{"a": "\ud83d\ude00"}', {"a": "\N{GRINNING FACE}"}),
    ],
)
def test_literals_reach_postgres_as_json(literal: str, value: Any) -> None:
    """One text that is no JSON would end the load of a whole table."""
    row, lost, _ = sent(event_metadata=literal)
    assert json.loads(row[-1]) == value
    assert not lost


@pytest.mark.parametrize(
    "literal",
    [
        "{'a': }", "{'a': 1} x", "{'a': nan}", "__import__('os')", "[" * 500, "{1, 2}", "{'a': 007}", "{'a': 1, }",
        "{'a': 1'b': 2}", "{'a': ٣}", r'{"a": "\ud83d"}', "[{'a': 1} {'a': 2}]", "(1, 2)", "{'a': 0x1}", "{'a': 1_0}",
        "{'a': " + "1" * 5000 + "x}",
    ],
)  # fmt: skip
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
    nothing = pa.table({"a": pa.array([], pa.date32()), "b": pa.array([], pa.int64()), "c": pa.array([], pa.string()),
                        "d": pa.array([], pa.float64()), "e": pa.array([], pa.float64())})  # fmt: skip
    query = replace(QUERY, filters={"Years": ("a",), "Kind": ("c",), "Span": ("b", "b")})
    assert figures.options([(query, nothing)]) == {"Years": [], "Kind": [], "Span": []}
    rows = figures.chosen(query, nothing, {"Years": (2016, 2022), "Kind": "x", "Span": (1, 2)})
    for chart in CHARTS:
        assert charts.drawn(chart, figures.shown("T", chart, query, rows)) == ""
    assert charts.moments(pl.DataFrame(schema={"at": pl.Datetime("us", "UTC"), "rows": pl.Int64}), "rows", "n") == ""


def test_a_chart_whose_column_is_not_there_says_so() -> None:
    """If this fails, a typing error in a header is shown as an unexpected error."""
    rows = pl.DataFrame({"a": [1], "b": [1]})
    with pytest.raises(figures.ChartError, match=r"'T' of the query q: .*\(a, b\), got c(?s:.*)queries/q\.sql"):
        figures.shown("T", CHARTS[0], QUERY, rows)


def test_each_kind_shows_its_numbers() -> None:
    """If this fails, a chart adds up the wrong rows, or hides some."""
    table = pa.table({"a": [date(2020, 5, 1), date(2020, 5, 1), date(2019, 1, 1), None], "b": [1, 2, 4, 8],
                      "c": ["x", None, "x", "y"], "d": [1.0, 1.0, 3.0, None], "e": [5.0, 5.0, 6.0, 7.0]})  # fmt: skip
    rows = figures.chosen(QUERY, table, {})
    bars, funnel, places, best, days, without = (figures.shown("T", chart, QUERY, rows).rows() for chart in CHARTS)
    assert bars == [("y", 8), ("x", 5), (figures.UNKNOWN, 2)]
    assert funnel == [("Came", 15, 1.0)]
    assert places == [(1.0, 5.0, 3), (3.0, 6.0, 4)]
    assert best == [(8, "y"), (4, "x")]
    assert days == [(date(2019, 1, 1), 4), (date(2020, 5, 1), 3)], "what has no place on the axis is left out"
    assert without == [("y", 8), ("x", 5)]
    assert figures.summary(CHARTS[0], rows) == {"total": 15, "given": 13 / 15}
    assert charts.summary("{given} of {total} & more", 1500, 0.5) == (
        '<p class="summary"><b>50.0%</b> of <b>1.5 k</b> &amp; more</p>'
    )


def test_filters_narrow_the_rows() -> None:
    """If this fails, people see other years or values than they chose; of spans, several at once."""
    table = pa.table({"a": [date(2019, 3, 1), date(2020, 3, 1), date(2021, 3, 1)], "from": [2019, 2020, 2020],
                      "to": [2019, 2020, 2021], "c": ["x", "x", None]})  # fmt: skip
    query = replace(QUERY, filters={"Years": ("a",), "Kind": ("c",)})
    assert figures.options([(query, table)]) == {"Years": [2019, 2020, 2021], "Kind": ["x"]}
    assert figures.chosen(query, table, {"Years": (2020, 2021)})["a"].dt.year().to_list() == [2020, 2021]
    assert figures.chosen(query, table, {"Years": (2019, 2021), "Kind": "x"})["a"].dt.year().to_list() == [2019, 2020]
    spans = replace(QUERY, filters={"Years": ("from", "to")})
    assert figures.options([(spans, table)]) == {"Years": [2019, 2020, 2021]}
    assert figures.chosen(spans, table, {"Years": (2018, 2022)}).height == 0, "no row was computed for all of them"
    assert figures.chosen(spans, table, {"Years": (2020, 2022)})["to"].to_list() == [2021]


def test_days_and_months_without_a_value_keep_their_place() -> None:
    """If this fails, a gap in time looks like none."""
    frame = pl.DataFrame({"day": [date(2026, 11, 1), date(2026, 11, 3)], "n": [1, 2]})
    drawn = charts.columns(frame, "day", "n", "loans")
    assert re.findall(r'<i style="left:([\d.]+)%', drawn) == ["16.67", "83.33"]
    assert "03 November 2026: 2 loans" in drawn
    assert re.findall(r"<span[^>]*>(.*?)</span>", drawn) == ["01 Nov", "03 Nov"]


def test_a_map_without_an_outline_is_where_its_dots_are() -> None:
    """If this fails, a data set without an outline has no map, or dots outside of it."""
    drawn = charts.dots(pl.DataFrame({"x": [10.0, 12.0], "y": [50.0, 51.0], "n": [1, 4]}), "loans")
    assert re.findall(r"left:([\d.]+)%;top:([\d.]+)%;width:([\d.]+)%", drawn) == [
        ("25.00", "66.67", "2.25"),
        ("75.00", "33.33", "4.50"),
    ]


def test_the_tail_of_many_bars_is_one() -> None:
    """Whatever is not shown by name must still be in the sum."""
    frame = pl.DataFrame({"name": list("abcdef"), "n": [6000, 5000, 4000, 3000, 2000, 1000]})
    drawn = charts.bars(frame, "name", "n", "things", most=4)
    rows = re.findall(r'<tr title="([\d,]+) things, ([\d.]+)%"><th scope="row">(.*?)</th>.*?</i>([\d,]+)</td>', drawn)
    assert [(name, number) for _, _, name, number in rows] == [
        ("a", "6,000"),
        ("b", "5,000"),
        ("c", "4,000"),
        ("3 others", "6,000"),
    ]
    assert all(hint == number for hint, _, _, number in rows)
    assert sum(float(share) for _, share, _, _ in rows) == pytest.approx(100, abs=0.2)


def test_a_bar_is_as_long_as_its_number() -> None:
    """If this fails, a chart lies: lengths and places must follow the numbers, months without any keep their place."""
    frame = pl.DataFrame({"month": [date(2020, 1, 1), date(2020, 2, 1), date(2020, 5, 1)], "n": [10, 40, 20]})
    drawn = re.findall(r'<i style="left:([\d.]+)%;width:[\d.]+%;height:([\d.]+)%" title="(.*?)"', columns(frame))
    assert [title for _, _, title in drawn] == ["January 2020: 10 IDR", "February 2020: 40 IDR", "May 2020: 20 IDR"]
    assert [float(left) for left, _, _ in drawn] == [10, 30, 90]
    assert [float(height) for _, height, _ in drawn] == [25, 100, 50]
    axis = re.findall(r'<b style="bottom:([\d.]+)%">(.*?)</b>', columns(frame))
    assert axis == [("0.00", "0"), ("25.00", "10"), ("50.00", "20"), ("75.00", "30"), ("100.00", "40")]
    lengths = re.findall(r"width:([\d.]+)%", charts.bars(frame.cast({"month": pl.String}), "month", "n", "n"))
    assert [float(length) / 72 for length in lengths] == pytest.approx([0.25, 1, 0.5], abs=0.01)
    funnel = pl.DataFrame({"step": ["a", "b"], "came": [3, 1], "share": [1.0, 1 / 3]})
    assert re.findall(r"width:([\d.]+)%", charts.steps(funnel)) == ["100.00", "33.33"]


@pytest.mark.parametrize("most", [1, 3, 7, 999, 1001, 25_000, 3_999_999, 15_230_000_000, 2.4e12])
def test_the_numbers_of_an_axis_are_round_and_reach_the_highest_bar(most: float) -> None:
    """An axis that ends below a bar, or has twenty lines, cannot be read."""
    drawn = columns(pl.DataFrame({"month": [date(2020, 1, 1)], "n": [most]}))
    axis = [float(place) for place in re.findall(r'<b style="bottom:([\d.]+)%">', drawn)]
    assert axis[0] == 0
    assert axis[-1] == 100
    assert 2 <= len(axis) <= 5
    (height,) = re.findall(r"height:([\d.]+)%", drawn)
    assert 50 < float(height) <= 100


def test_names_in_charts_are_text() -> None:
    """If this fails, a name that somebody has typed runs as a script in every reader's browser."""
    name = "<img src=x onerror=alert(1)>"
    frame = pl.DataFrame({"name": [name], "units": [1]})
    for drawn in (
        charts.bars(frame, "name", "units", name),
        charts.columns(frame, "name", "units", name),
        charts.rows(frame, {"name": name}, "units"),
        charts.facts({name: name}),
        charts.summary(name, 1, 1),
    ):
        assert "<img" not in drawn
        assert "&lt;img" in drawn


def columns(frame: pl.DataFrame) -> str:
    """Months drawn."""
    return charts.columns(frame, "month", "n", "IDR")


def test_a_table_whose_name_begins_with_another_is_not_taken_for_it() -> None:
    """If this fails, a question about product_reviews is asked of product."""
    text = "SELECT * FROM product_reviews JOIN product ON product.id = product_id"
    assert engines._named(text, "product", "frame0") == (
        "SELECT * FROM product_reviews JOIN {frame0} AS `product` ON product.id = product_id"
    )
    assert engines._named('SELECT 1 FROM "FROM"', "FROM", "frame1") == "SELECT 1 FROM {frame1} AS `FROM`"
