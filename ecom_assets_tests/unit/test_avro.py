"""Avro values: pyruhvro against fastavro, byte for byte, and the bytes that are not records."""

from __future__ import annotations

import io
import json

import fastavro
import pyarrow as pa
import pyruhvro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_assets.core import avro
from ecom_assets.core.avro import AvroError
from ecom_assets.dataset.model import Table
from ecom_assets_tests.tables import CUSTOMER, PRODUCT, TABLES

LONG = st.integers(-(1 << 63), (1 << 63) - 1)
TEXT = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["", "\n", "\r\n", "\0", "NA", "null", 'ü, "x"\n', "😀" * 40, "x" * 63, "x" * 64, "é" * 8192]),
)


def fastavro_bytes(batch: pa.RecordBatch, table: Table) -> list[bytes]:
    """Records as fastavro writes them; with places, where the batch has them."""
    declared = json.loads(table.avro)
    placed = batch.num_columns > len(table.columns) and not batch.column("_row").null_count
    places = [{"name": name, "type": "long"} for name in avro.PLACE.names] if placed else []
    schema = fastavro.parse_schema(declared | {"fields": declared["fields"] + places})
    out = []
    for row in batch.to_pylist():
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, schema, row)
        out.append(buffer.getvalue())
    return out


@st.composite
def batches(draw: st.DrawFn, min_size: int = 0) -> tuple[Table, pa.RecordBatch]:
    table = draw(st.sampled_from(list(TABLES.values())))
    columns = {c.name: LONG if c.kind.is_integer else TEXT for c in table.columns}
    nullable = {c.name for c in table.columns if c.nullable}
    row = st.fixed_dictionaries({n: st.none() | s if n in nullable else s for n, s in columns.items()})
    return table, pa.RecordBatch.from_pylist(draw(st.lists(row, min_size=min_size, max_size=5)), schema=table.arrow)


def product(**values: object) -> pa.RecordBatch:
    row = dict.fromkeys(PRODUCT.names, "x") | {"id": 1, "year": 2012} | values
    return pa.RecordBatch.from_pylist([row], schema=PRODUCT.arrow)


@given(batches())
@settings(max_examples=60, deadline=None)
def test_same_bytes_as_fastavro(case: tuple[Table, pa.RecordBatch]) -> None:
    """If it failed, other readers of the topic (Spark) would see other rows than we wrote."""
    table, batch = case
    assert avro.encode(batch, table) == fastavro_bytes(batch, table)


@given(batches())
@settings(max_examples=40, deadline=None)
def test_decode_returns_the_rows(case: tuple[Table, pa.RecordBatch]) -> None:
    """If it failed, the topic's measure would not be that of the rows in it."""
    table, batch = case
    decoded = avro.decode(pa.array(fastavro_bytes(batch, table), pa.binary()), table)
    assert decoded.select(table.names).equals(batch)
    assert decoded["_delivery"].null_count == decoded["_row"].null_count == len(batch)


@given(batches(min_size=1), st.binary(max_size=60), st.data())
@settings(max_examples=80, deadline=None)
def test_any_bytes_decode_as_fastavro_or_are_named(
    case: tuple[Table, pa.RecordBatch], noise: bytes, data: st.DataObject
) -> None:
    """If it failed, a foreign record would crash the measure or pass as a row."""
    table, batch = case
    good = fastavro_bytes(batch, table)
    index = data.draw(st.integers(0, len(good)))
    decoded, bad = avro.decode_good(pa.array([*good[:index], noise, *good[index:]], pa.binary()), table)
    if bad:
        assert [i for i, _ in bad] == [index]
        assert decoded.select(table.names).equals(batch)
    else:
        assert fastavro_bytes(decoded.slice(index, 1), table) == [noise]


@pytest.mark.parametrize("rows", [0, 1, 2, 7])
def test_a_slice_encodes_as_itself(rows: int) -> None:
    """If it failed, an Arrow offset would be ignored and rows of another chunk be sent."""
    batch = pa.concat_batches([product(id=n, baseColour=None if n % 2 else f"c{n}") for n in range(9)])
    part = batch.slice(2, rows)
    assert avro.encode(part, PRODUCT) == fastavro_bytes(part, PRODUCT)


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view()], ids=str)
def test_text_of_any_layout(kind: pa.DataType) -> None:
    """If it failed, batches from polars could not be encoded."""
    batch = product(usage=None)
    other = batch.cast(pa.schema([f.with_type(kind) if f.type == pa.string() else f for f in batch.schema]))
    assert avro.encode(other, PRODUCT) == fastavro_bytes(batch, PRODUCT)


def test_a_megabyte_of_text() -> None:
    """If it failed, the longest allowed record would not reach the topic."""
    batch = product(productDisplayName="ü" * (1 << 19))
    values = avro.encode(batch, PRODUCT)
    assert values == fastavro_bytes(batch, PRODUCT)
    assert avro.decode(pa.array(values, pa.binary()), PRODUCT).select(PRODUCT.names).equals(batch)


def test_a_forbidden_null_is_an_error() -> None:
    """If it failed, pyruhvro would write a missing id as 0."""
    nullable = pa.schema([f.with_nullable(True) for f in PRODUCT.arrow])
    batch = pa.RecordBatch.from_pylist([dict.fromkeys(PRODUCT.names)], schema=nullable)
    with pytest.raises(AvroError, match=r"table product: expected rows of schemas/shop/product\.avsc.*id"):
        avro.encode(batch, PRODUCT)


def test_a_missing_column_is_an_error() -> None:
    """If it failed, a batch of another table would be encoded with columns shifted."""
    with pytest.raises(AvroError, match=r"table customer.*customer_id"):
        avro.encode(product(), CUSTOMER)


@pytest.mark.parametrize("wrong", [0, 2], ids=["first", "last"])
def test_disagreement_with_fastavro_stops(wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it failed, a defect of the experimental encoder would reach the topic."""
    real = pyruhvro.serialize_record_batch  # ty: ignore[missing-attribute]

    def broken(batch: pa.RecordBatch, schema: str, chunks: int) -> list[pa.Array]:
        values = real(batch, schema, chunks)[0].to_pylist()
        values[wrong] = values[wrong] + b"\0"
        return [pa.array(values, pa.binary())]

    monkeypatch.setattr(pyruhvro, "serialize_record_batch", broken)
    with pytest.raises(AvroError, match=rf"row {wrong}: expected Avro bytes"):
        avro.encode(pa.concat_batches([product(id=n) for n in range(3)]), PRODUCT)


def _good() -> bytes:
    return avro.encode(product(productDisplayName="😀"), PRODUCT)[0]


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(None, id="tombstone"),
        pytest.param(b"", id="empty"),
        pytest.param(_good()[:-1], id="cut"),
        pytest.param(_good() + b"\0", id="surplus"),
        pytest.param(_good().replace("😀".encode(), b"\xff\xff\xff\xff"), id="not-utf8"),
        pytest.param(b"\x02\xfe\xff\xff\xff\xff\xff\xff\xff\x7f", id="huge-length"),
        pytest.param(b"\x02\x03", id="negative-length"),
    ],
)
def test_poison_is_named_and_the_rest_read(bad: bytes | None) -> None:
    """If it failed, one foreign record would hide the rows around it, or count as a row."""
    good = avro.encode(pa.concat_batches([product(id=n) for n in range(5)]), PRODUCT)
    with pytest.raises(AvroError, match=r"schemas/shop/product\.avsc"):
        avro.decode(pa.array([*good, bad], pa.binary()), PRODUCT)
    batch, found = avro.decode_good(pa.array([*good[:3], bad, *good[3:], bad], pa.binary()), PRODUCT)
    assert batch["id"].to_pylist() == [0, 1, 2, 3, 4]
    assert [index for index, _ in found] == [3, 6]
    assert all(reason for _, reason in found)


@given(batches(min_size=1), st.data())
@settings(max_examples=40, deadline=None)
def test_places_come_back(case: tuple[Table, pa.RecordBatch], data: st.DataObject) -> None:
    """If it failed, rows would be merged in another order than they were delivered in."""
    table, batch = case
    numbers = st.lists(st.integers(0, (1 << 63) - 1), min_size=len(batch), max_size=len(batch))
    columns = [pa.array(data.draw(numbers), pa.int64()) for _ in avro.PLACE]
    places = pa.RecordBatch.from_arrays(columns, schema=avro.PLACE)
    values = avro.encode(batch, table, places)
    assert values == fastavro_bytes(avro.decode(pa.array(values, pa.binary()), table), table)
    decoded = avro.decode(pa.array(values, pa.binary()), table)
    assert decoded.select(table.names).equals(batch)
    assert decoded.select(avro.PLACE.names).equals(places)


def test_rows_with_and_without_a_place_in_one_topic() -> None:
    """If it failed, a row of another producer would be taken for damaged, or would get the place of a neighbor."""
    rows = pa.concat_batches([product(id=n) for n in range(4)])
    places = pa.RecordBatch.from_arrays([pa.array([7] * 4), pa.array([10, 11, 12, 13])], schema=avro.PLACE)
    placed, plain = avro.encode(rows, PRODUCT, places), avro.encode(rows, PRODUCT)
    batch, bad = avro.decode_good(pa.array([placed[0], plain[1], plain[2], placed[3], b"?"], pa.binary()), PRODUCT)
    assert batch.select(PRODUCT.names).equals(rows)
    assert (batch["_delivery"].to_pylist(), batch["_row"].to_pylist()) == ([7, None, None, 7], [10, None, None, 13])
    assert [index for index, _ in bad] == [4]
