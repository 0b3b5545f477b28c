"""Rows and cells, row keys, and the bytes on the wire; no server."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thriftpy2.protocol import TCyBinaryProtocol
from thriftpy2.thrift import TMessageType
from thriftpy2.transport.memory import TCyMemoryBuffer

from ecom_assets.core.errors import HBaseError
from ecom_assets.core.measure import Measure
from ecom_assets.dataset.model import HBaseLayout, Table
from ecom_assets.hbase import scan, thrift
from ecom_assets.hbase.layout import Layout, row_keys, split_keys
from ecom_assets.hbase.thrift import ThriftIOError
from ecom_assets_tests.tables import CLICK_STREAM, CUSTOMER, TABLES, TRANSACTIONS

THRIFT: Any = sys.modules["Hbase_thrift"]  # made by happybase from its .thrift file

each_table = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)

TEXT = st.sampled_from(["", "|", "a|b", 'ü, "x"\n', "\0", "NA", "日本"]) | st.text(
    st.characters(exclude_categories=("Cs",)), max_size=12
)


@st.composite
def batches(draw: st.DrawFn, table: Table) -> pa.RecordBatch:
    """Rows that the schema allows, with whatever is hard in them; only an empty row key is left out."""
    size = draw(st.integers(1, 5))
    columns = []
    for column in table.columns:
        values = st.integers(-(2**63), 2**63 - 1) if column.kind.is_integer else TEXT
        if (column.name,) == table.hbase.row_key and column.kind.is_text:
            values = values.filter(bool)
        if column.nullable:
            values = values | st.none()
        columns.append(draw(st.lists(values, min_size=size, max_size=size)))
    return pa.RecordBatch.from_arrays(
        [pa.array(c, f.type) for c, f in zip(columns, table.arrow, strict=True)], schema=table.arrow
    )


def texts(row: dict[str, str | int | None]) -> list[bytes | None]:
    """The fields of a row as the canonical form has them."""
    return [None if v is None else str(v).encode() for v in row.values()]


def cells_of(layout: Layout, batch: pa.RecordBatch) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Key and cells of each row."""
    columns = [(cell, values.to_pylist()) for cell, values in layout.columns(batch)]
    return [
        (key, {cell: values[i] for cell, values in columns if values[i] is not None})
        for i, key in enumerate(layout.keys(batch).to_pylist())
    ]


@each_table
@settings(max_examples=40)
@given(data=st.data())
def test_round_trip(table: Table, data: st.DataObject) -> None:
    """Broken: a row read back from HBase is not the row that was written."""
    layout = Layout(table)
    batch = data.draw(batches(table))
    got = [layout.fields(key, cells) for key, cells in cells_of(layout, batch)]
    assert got == [texts(row) for row in batch.to_pylist()]


@pytest.mark.parametrize("size", [1, 200, 1 << 20])
def test_removals_are_what_thrift_reads(size: int) -> None:
    """Broken: another row is removed, a family of it is left, or a put is sent in place of a removal."""
    keys = [b"\0", b"a", b"a" * 300, b"\xff"]
    mutations: list[tuple[bytes, list[tuple[bytes, bool]]]] = []
    for call in thrift.removals(pa.array(keys), ["info", "more"], size):
        body = b"\x0b\x00\x01\x00\x00\x00\x01t" + b"\x0f\x00\x02\x0c" + call.rows.to_bytes(4, "big") + call.body
        buffer = TCyMemoryBuffer(body + b"\x0a\x00\x03" + bytes(8) + b"\x00")
        arguments = THRIFT.Hbase.mutateRowsTs_args()
        TCyBinaryProtocol(buffer, decode_response=False).read_struct(arguments)
        assert call.rows == len(arguments.rowBatches)
        assert call.first == arguments.rowBatches[0].row
        mutations += [(b.row, [(m.column, m.isDelete) for m in b.mutations]) for b in arguments.rowBatches]
    assert mutations == [(key, [(b"info", True), (b"more", True)]) for key in keys]


@each_table
@settings(max_examples=40)
@given(data=st.data(), size=st.sampled_from([1, 200, 1 << 20]))
def test_calls_are_what_thrift_reads(table: Table, data: st.DataObject, size: int) -> None:
    """Broken: the server sees other rows, keys or cells than were given, or a call is cut within a row."""
    layout = Layout(table)
    batch = data.draw(batches(table))
    got = []
    for call in thrift.calls(layout.keys(batch), layout.columns(batch), size):
        protocol = TCyBinaryProtocol(TCyMemoryBuffer(bytes(call.body)), decode_response=False)
        rows = [protocol.read_struct(THRIFT.BatchMutation()) for _ in range(call.rows)]
        assert call.first == rows[0].row
        assert len(call.body) <= size or call.rows == 1
        assert not any(m.isDelete for row in rows for m in row.mutations)
        got += [(row.row, {m.column: m.value for m in row.mutations}) for row in rows]
    assert got == cells_of(layout, batch)


def reply(result: object, method: str = "scannerGetList") -> bytes:
    """A reply as a Thrift server writes it."""
    buffer = TCyMemoryBuffer()
    protocol = TCyBinaryProtocol(buffer, decode_response=False)
    protocol.write_message_begin(method, TMessageType.REPLY, 0)
    protocol.write_struct(result)
    return buffer.getvalue()


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """Data as a socket might hand it over."""
    return (data[i : i + size] for i in range(0, len(data), size))


@settings(max_examples=40)
@given(data=st.data(), size=st.integers(1, 400))
def test_page_is_read_however_it_arrives(data: st.DataObject, size: int) -> None:
    """Broken: rows of a scan are lost or mangled when a reply comes in pieces, or bytes of it are left over."""
    layout = Layout(CLICK_STREAM)
    rows = cells_of(layout, data.draw(batches(CLICK_STREAM)))
    result = THRIFT.Hbase.scannerGetList_result()
    result.success = [
        THRIFT.TRowResult(row=key, columns={c: THRIFT.TCell(value=v, timestamp=1) for c, v in cells.items()})
        for key, cells in rows
    ]
    parts = pieces(reply(result), size)
    assert thrift.read_page(lambda: next(parts)) == rows
    assert next(parts, None) is None


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_error_of_a_scan_is_raised(size: int) -> None:
    """Broken: an error of the server during a scan passes for an empty page, or hangs."""
    result = THRIFT.Hbase.scannerGetList_result()
    result.io = ThriftIOError(message="org.apache.hadoop.hbase.NotServingRegionException: gone" + "\n\tat x" * 500)
    parts = pieces(reply(result), size)
    with pytest.raises(ThriftIOError, match="gone"):
        thrift.read_page(lambda: next(parts))


SOUND = {
    b"event_details:event_name": b"CLICK", b"event_details:event_time": b"T", b"event_details:event_id": b"E",
    b"traffic_source:traffic_source": b"WEB",
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "cells", "message"),
    [
        (b"S\0T\0E", SOUND | {b"metadata:extra": b""}, "metadata:extra"),
        (b"S\0T\0X", SOUND, "as the cells say"),
        (b"T\0E", SOUND, "as the cells say"),
        (b"\0E", SOUND, "as the cells say"),
        (b"S\0T\0E", {c: v for c, v in SOUND.items() if not c.endswith(b"event_id")}, "event_details:event_id"),
    ],
    ids=["unknown cell", "other event", "no session", "short key", "key cell absent"],
)
def test_damage_is_named_and_counts(key: bytes, cells: dict[bytes, bytes], message: str) -> None:
    """Broken: a row that something else wrote passes for a row of ours, or the row cannot be identified."""
    layout = Layout(CLICK_STREAM)
    page = [(b"S\0T\0E", SOUND)]
    sound = scan._hash_page(layout, page)
    assert (len(sound.hashes), sound.problems) == (1, ())
    damaged = scan._hash_page(layout, [(key, cells)])
    assert (len(damaged.hashes), len(damaged.problems)) == (1, 1)
    other = scan._hash_page(layout, [(key, cells | {b"metadata:more": b""})])
    assert len({0, *sound.hashes, *damaged.hashes, *other.hashes}) == 4
    assert message in damaged.problems[0]
    assert repr(key) in damaged.problems[0]


def test_scans_add_up() -> None:
    """Broken: the problems or rows of all regions but one are forgotten, or the list of problems grows without end."""
    part = scan.Scan(Measure(7, 2**64 - 1, seconds=1.0), 7, tuple("abcdefg"))
    assert part + part == scan.Scan(Measure(14, 2**64 - 2, seconds=2.0), 14, tuple("abcdefgabc"))


def rows_of(table: Table, **values: object) -> pa.RecordBatch:
    """A sound row, and one with these values."""
    sound = [7 if c.kind.is_integer else "x" for c in table.columns]
    other = [values.get(c.name, v) for c, v in zip(table.columns, sound, strict=True)]
    schema = pa.schema([f.with_nullable(True) for f in table.arrow])
    return pa.RecordBatch.from_pylist([dict(zip(table.names, row, strict=True)) for row in (sound, other)], schema)


@pytest.mark.parametrize(
    ("table", "values", "message"),
    [
        (TRANSACTIONS, {"booking_id": ""}, "has 0 bytes"),
        (CUSTOMER, {"customer_id": None}, "has 0 bytes"),
        (CLICK_STREAM, {"event_id": None}, "has 0 bytes"),
        (TRANSACTIONS, {"booking_id": "k" * 32768}, "has 32768 bytes"),
    ],
    ids=["empty", "null", "null part", "too long"],
)
def test_impossible_row_key_is_reported(table: Table, values: dict[str, object], message: str) -> None:
    """Broken: a row that HBase cannot hold is dropped without a word."""
    with pytest.raises(HBaseError, match=f"{table.name}: expected row keys .* got 1 others in 2 rows.* {message}"):
        Layout(table).keys(rows_of(table, **values))


def test_row_keys_of_a_sample() -> None:
    """Broken: the borders of regions are not taken from the keys that rows get."""
    schema = pa.schema([CLICK_STREAM.arrow.field(c) for c in CLICK_STREAM.hbase.row_key])
    rows = [{"session_id": "s", "event_time": str(i), "event_id": "e"} for i in range(4)]
    sample = pa.Table.from_batches([pa.RecordBatch.from_pylist(rows[i : i + 2], schema) for i in (0, 2)])
    assert split_keys(row_keys(sample, CLICK_STREAM), 2) == [b"s\0002\0e"]


def test_longest_row_key_is_taken() -> None:
    """Broken: a row that HBase can hold is refused."""
    keys = Layout(TRANSACTIONS).keys(rows_of(TRANSACTIONS, booking_id="k" * 32767))
    assert keys.to_pylist() == [b"x", b"k" * 32767]


def test_row_of_nulls_is_reported() -> None:
    """Broken: a row without a single cell vanishes in HBase."""
    nulls = dict.fromkeys(n for n in CUSTOMER.names if n != "customer_id")
    with pytest.raises(HBaseError, match=r"nulls alone in 1 of 2 rows, the first of which is \{'customer_id': 7,"):
        Layout(CUSTOMER).columns(rows_of(CUSTOMER, **nulls))


@pytest.mark.parametrize(
    "layout",
    [
        HBaseLayout("t", {"f": ("first_name",)}, ("customer_id",), ("text",)),
        HBaseLayout("t", {"f": tuple(CUSTOMER.names[2:])}, ("customer_id", "first_name"), ("text", "text")),
        HBaseLayout("t", {"f": tuple(CUSTOMER.names[1:]), "g": ("gender",)}, ("customer_id",), ("text",)),
    ],
    ids=["column nowhere", "two in the key alone", "column twice"],
)
def test_layout_that_loses_columns_is_refused(layout: HBaseLayout) -> None:
    """Broken: a table can be declared whose rows cannot be read back."""
    with pytest.raises(ValueError, match=r"customer: expected .* correct its declaration"):
        Layout(dataclasses.replace(CUSTOMER, hbase=layout))


def test_key_columns_may_all_be_cells() -> None:
    """Broken: a table cannot keep its whole row key in cells as well, or damage of its keys goes unseen."""
    table = dataclasses.replace(
        CUSTOMER, hbase=HBaseLayout("t", {"f": tuple(CUSTOMER.names)}, ("first_name", "customer_id"), ("text", "text"))
    )
    layout = Layout(table)
    batch = rows_of(table, first_name="a|", customer_id=-1)
    pairs = cells_of(layout, batch)
    assert [layout.fields(*pair) for pair in pairs] == [texts(row) for row in batch.to_pylist()]
    with pytest.raises(HBaseError, match="as the cells say"):
        layout.fields(pairs[0][0] + b"\0", pairs[0][1])


@given(st.lists(st.binary(min_size=1, max_size=3), max_size=60), st.integers(1, 9))
def test_split_keys(keys: list[bytes], regions: int) -> None:
    """Broken: regions of unequal size or empty ones, or borders that HBase refuses."""
    splits = split_keys(pa.array(keys, pa.binary()), regions)
    unique = sorted(set(keys))
    assert splits == sorted(set(splits))
    assert len(splits) == max(0, min(regions, len(unique)) - 1)
    borders = [b"", *splits, b"\xff" * 4]
    sizes = [sum(a <= k < b for k in unique) for a, b in pairwise(borders)]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (ConnectionResetError("peer"), True),
        (TimeoutError("slow"), True),
        (ThriftIOError(message="...: org.apache.hadoop.hbase.NotServingRegionException: x is not online"), True),
        (THRIFT.IllegalArgument(message="scanner ID is invalid"), True),
        (ThriftIOError(message="org.apache.hadoop.hbase.TableNotFoundException: t"), False),
        (ThriftIOError(message="java.lang.IllegalArgumentException: KeyValue size too large"), False),
    ],
    ids=["reset", "timeout", "region moves", "scanner gone", "no table", "too large"],
)
def test_only_what_passes_is_tried_again(
    error: Exception,
    transient: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Broken: a load ends at the first hiccup, never ends, or repeats what can never succeed."""
    tries: list[int] = []
    monkeypatch.setattr(thrift.time, "sleep", lambda _: None)

    def work() -> None:
        tries.append(1)
        raise error

    count = thrift.ATTEMPTS if transient else 1
    with pytest.raises(RuntimeError, match=f"^table t: failed after {count} tries with "):
        thrift.retry(work, "table t")
    assert len(tries) == count


def test_second_try_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a success after a transient error is not taken."""
    monkeypatch.setattr(thrift.time, "sleep", lambda _: None)
    errors = iter([ConnectionResetError("peer")])

    def work() -> str:
        for error in errors:
            raise error
        return "done"

    assert thrift.retry(work, "table t") == "done"
