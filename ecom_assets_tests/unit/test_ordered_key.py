"""Keys of several parts: as bytes they differ, and sort, as their parts do."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecom_assets.core import ordered_key
from ecom_assets.csv import records
from ecom_assets.csv.audit import audit
from ecom_assets.dataset.model import HBaseLayout, KeyForm
from ecom_assets.hbase.layout import Layout, row_keys
from ecom_assets_tests.tables import CLICK_STREAM, CUSTOMER

TEXT = st.text(st.sampled_from("\0\1\2a|ü") | st.characters(exclude_categories=("Cs",)), max_size=4)
LONG = st.integers(-(2**63), 2**63 - 1)


@pytest.mark.parametrize(("values", "forms", "expected"), ordered_key.TEST_VECTORS)
def test_vectors(values: tuple[str | int, ...], forms: tuple[KeyForm, ...], expected: str) -> None:
    """Broken: keys have other bytes than the format says, and no table of before is found."""
    key = bytes.fromhex(expected)
    assert ordered_key.encode_one(values, forms) == key
    assert ordered_key.encode([pa.array([value]) for value in values], forms).to_pylist() == [key]


@given(st.lists(st.tuples(TEXT, LONG, TEXT), min_size=1, max_size=8))
def test_bytes_sort_as_the_parts_do(rows: list[tuple[str, int, str]]) -> None:
    """Broken: two rows share a key, or a scan returns rows in another order than that of their parts."""
    forms: tuple[KeyForm, ...] = ("text", "int64", "text")
    keys = [ordered_key.encode_one(row, forms) for row in rows]
    assert ordered_key.encode([pa.array(column) for column in zip(*rows, strict=True)], forms).to_pylist() == keys
    parts = [(first.encode(), number, last.encode()) for first, number, last in rows]
    assert sorted(set(parts)) == [part for _, part in sorted(set(zip(keys, parts, strict=True)))]
    for key, (first, number, _) in zip(keys, rows, strict=True):
        begin = ordered_key.encode_one([first], forms)
        assert [k.startswith(begin) for k in keys] == [row[0] == first for row in rows]
        assert key.startswith(ordered_key.encode_one([first, number], forms))


TIME = st.datetimes(timezones=st.just(UTC)).map(lambda t: t.isoformat().replace("+00:00", "Z"))


@given(st.lists(TIME, min_size=1, max_size=5))
def test_the_latest_time_sorts_first(times: list[str]) -> None:
    """Broken: a scan for the newest rows finds others."""
    forms: tuple[KeyForm, ...] = ("reversed_time",)
    keys = [ordered_key.encode_one([time], forms) for time in times]
    assert ordered_key.encode([pa.array(times)], forms).to_pylist() == keys
    moments = [datetime.fromisoformat(time) for time in times]
    assert sorted(set(moments), reverse=True) == [m for _, m in sorted(set(zip(keys, moments, strict=True)))]


@pytest.mark.parametrize("shown", ["{}", "{}Z", "{}.5Z", "{}.123456Z", "{}.1234567Z", "{}+00:00"])
@pytest.mark.parametrize(
    "moment",
    ["2022-07-31T10:00:00", "2024-02-29T23:59:59", "2023-02-29T10:00:00", "2022-07-31T24:00:00", "2022-07-31T10:00:60",
     "2022-13-01T10:00:00", "0000-01-01T10:00:00", "0001-01-01T00:00:00", "9999-12-31T23:59:59", "2022-07-31 10:00:00",
     "2022-7-31T10:00:00", "١٢٣٤-07-31T10:00:00", ""],
)  # fmt: skip
def test_the_readers_agree_on_times(tmp_path: Path, moment: str, shown: str) -> None:
    """Broken: a row that no row key can hold stops a run, or raw files are counted otherwise than they are read."""
    value = shown.format(moment)
    layout = HBaseLayout("t", {"d": ("at",)}, ("at", "id"), ("reversed_time", "text"))
    fields = [{"name": "id", "type": "string"}, {"name": "at", "type": "string"}]
    table = dataclasses.replace(
        CUSTOMER, name="t", avsc={"fields": fields}, primary_key=("id",), topic_key=("id",), domains={}, hbase=layout
    )
    data = f"id,at\na,2022-01-01T00:00:00Z\nb,{value}\n".encode()
    (tmp_path / "t.csv").write_bytes(data)
    try:
        ordered_key.microseconds(value)
        good = 2
    except ValueError:
        good = 1
    alone = records.read_rows(data, table, "t.csv")
    assert (alone.batch.num_rows, len(alone.bad)) == (good, 2 - good)
    assert audit(tmp_path / "t.csv", table).rows.rows == good
    expected = [Layout(table).key([row["at"], row["id"]]) for row in alone.batch.to_pylist()]
    assert row_keys(alone.batch, table).to_pylist() == expected


@given(st.lists(TEXT, min_size=1, max_size=5), st.integers(0, 2))
def test_a_slice_and_chunks_are_encoded_alike(values: list[str], cut: int) -> None:
    """Broken: rows that are a part of a batch have other keys than the same rows alone."""
    forms: tuple[KeyForm, ...] = ("text", "text")
    expected = [ordered_key.encode_one((value, value), forms) for value in values]
    whole = pa.array(["\0", *values]).slice(1)
    assert ordered_key.encode([whole, whole], forms).to_pylist() == expected
    chunked = pa.chunked_array([whole.slice(0, cut), whole.slice(cut)], pa.string())
    assert ordered_key.encode([chunked, chunked], forms).to_pylist() == expected


def test_parts_that_join_alike_are_two_rows() -> None:
    """Broken: two rows share a row key, and the table cannot be loaded (A2)."""
    rows = [
        {"session_id": "a", "event_time": "b", "event_id": "c|d"},
        {"session_id": "a", "event_time": "b|c", "event_id": "d"},
    ]
    keys = row_keys(pa.Table.from_pylist(rows), CLICK_STREAM).to_pylist()
    assert keys == [b"a\0b\0c|d", b"a\0b|c\0d"]


@pytest.mark.parametrize("salt", [0, 7])
@pytest.mark.parametrize("derived", [0, 1, 3])
@given(st.lists(st.tuples(TEXT, LONG, TIME, TEXT), min_size=1, max_size=4))
def test_a_row_comes_back_from_its_cells(salt: int, derived: int, rows: list[tuple[str, int, str, str]]) -> None:
    """Broken: a column that is stored in the row key alone comes back changed."""
    names = ("first_name", "customer_id", "first_join_date", "last_name")
    cells = tuple(n for n in CUSTOMER.names if n != names[derived])
    layout = Layout(
        dataclasses.replace(
            CUSTOMER, hbase=HBaseLayout("t", {"f": cells}, names, ("text", "int64", "reversed_time", "text"), salt=salt)
        )
    )
    batch = pa.RecordBatch.from_pylist(
        [dict.fromkeys(CUSTOMER.names) | dict(zip(names, row, strict=True)) for row in rows], CUSTOMER.arrow
    )
    columns = [(cell, values.to_pylist()) for cell, values in layout.columns(batch)]
    for n, key in enumerate(layout.keys(batch).to_pylist()):
        row = batch.slice(n, 1).to_pylist()[0]
        assert key == layout.key([row[name] for name in names])
        stored = {cell: values[n] for cell, values in columns if values[n] is not None}
        assert layout.record(key, stored) == {name: None if v is None else str(v) for name, v in row.items()}
