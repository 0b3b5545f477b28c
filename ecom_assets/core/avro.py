"""Avro values of the topics: one schemaless binary record per row, by ``pyruhvro`` (Rust).

Behind the columns of a row that a delivery brought are two more longs, its place: the sequence of the delivery, and the
number of the row there. So rows have one order on every path. Rows of other producers have no place: they are
records of the table's schema alone. The two cannot be confused, since a record ends where its last column does.

pyruhvro calls itself experimental, so nothing here takes its word: each encoded batch is
read by fastavro on its first and last row, and each decoded batch must encode to the
very bytes it came from. What belongs here is bytes <-> Arrow; topics and Kafka do not.
"""

from __future__ import annotations

import io
import json
from datetime import time
from functools import cache
from typing import Any, cast
from uuid import UUID

import fastavro
import pyarrow as pa
import pyruhvro

from ecom_assets.core import wire
from ecom_assets.dataset.model import Table

PLACE = pa.schema([pa.field("_delivery", pa.int64()), pa.field("_row", pa.int64())])
"""The sequence of the delivery that brought a row, and the number of the row there, from 0."""


class AvroError(ValueError):
    """Rows that cannot be encoded, or bytes that are not the table's records."""


def encode(batch: pa.RecordBatch, table: Table, places: pa.RecordBatch | None = None) -> list[bytes]:
    """Encode rows as Avro.

    Args:
        batch: The table's columns, in any order; text of any Arrow layout.
        table: Whose rows they are.
        places: The place of each, schema ``PLACE``, no nulls; ``None`` for rows without.

    Returns:
        One record per row, in order.

    Raises:
        AvroError: A value is null or of another type where the table does not allow it, or
            pyruhvro and fastavro disagree.
    """
    try:
        # pyruhvro takes plain strings only, and writes a forbidden null as 0 without a word.
        batch = batch.select(table.names).cast(table.arrow)
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise AvroError(f"table {table.name}: expected rows of {table.schema_file}, got {error}") from error
    whole = batch if places is None else _joined(batch, places)
    values = _encode(_joined(wire.packed(batch, table), places), table).to_pylist()
    for row in sorted({0, len(values) - 1}) if values else ():
        expected, got = whole.slice(row, 1).to_pylist()[0], _read(values[row], table, placed=places is not None)
        if got != expected:
            raise AvroError(
                f"table {table.name}, row {row}: expected Avro bytes that fastavro reads as {str(expected)[:500]},"
                f" got {str(got)[:500]} of pyruhvro's; install the pyruhvro version of uv.lock"
            )
    return values


def decode(values: pa.Array, table: Table) -> pa.RecordBatch:
    """Decode Avro records.

    Args:
        values: One record each, binary.
        table: Whose rows they are.

    Returns:
        The rows, schema ``table.arrow``, and their places behind it, schema ``PLACE``; null where a row has none.

    Raises:
        AvroError: One of them is not exactly one record of the table, or some have a place and others have not;
            ``decode_good`` decodes them in any case, and finds which are none.
    """
    try:
        rows = _decode(values, table, placed=True)
    except AvroError:
        rows = _decode(values, table, placed=False)
    width = len(table.columns)
    columns = rows.columns[width:] or [pa.nulls(len(rows), field.type) for field in PLACE]
    own = pa.RecordBatch.from_arrays(rows.columns[:width], names=rows.schema.names[:width])
    try:
        return _joined(wire.unpacked(own, table), pa.RecordBatch.from_arrays(columns, schema=PLACE))
    except ValueError as error:
        raise _not_records(values, table, f"with {error}") from error


def schema(table: Table) -> pa.Schema:
    """The columns of decoded rows."""
    return pa.schema([*table.arrow, *PLACE])


def _decode(values: pa.Array, table: Table, *, placed: bool) -> pa.RecordBatch:
    """Records as primitive values, all of them with a place, or all without."""
    form = _placed(table.wire_avro) if placed else table.wire_avro
    try:
        packed = pyruhvro.deserialize_array(values.to_pylist(), form)  # ty: ignore[missing-attribute]
    except (ValueError, TypeError) as error:
        raise _not_records(values, table, "that are none") from error
    # pyruhvro ignores bytes behind a record.
    if not _encode(packed, table).equals(values):
        raise _not_records(values, table, "that are not exactly one")
    return packed


def decode_good(values: pa.Array, table: Table) -> tuple[pa.RecordBatch, list[tuple[int, str]]]:
    """Decode what can be decoded.

    Args:
        values: One record each, binary.
        table: Whose rows they are.

    Returns:
        The good rows in order, and ``(index, reason)`` of each of the others.
    """
    try:
        return decode(values, table), []
    except AvroError as error:
        if len(values) == 1:
            return pa.RecordBatch.from_pylist([], schema=schema(table)), [(0, str(error))]
    middle = len(values) // 2
    left, bad = decode_good(values.slice(0, middle), table)
    right, more = decode_good(values.slice(middle), table)
    return pa.concat_batches([left, right]), bad + [(middle + index, reason) for index, reason in more]


def tombstone(table: Table) -> str:
    """Why a record without a value is no row."""
    return f"expected one Avro record of {table.name}, got no value (a tombstone)"


def _not_records(values: pa.Array, table: Table, flaw: str) -> AvroError:
    if len(values) != 1:
        return AvroError(f"expected Avro records of {table.schema_file}, got among them bytes {flaw}")
    value = values[0].as_py()
    if value is None:
        return AvroError(tombstone(table))
    return AvroError(f"expected one Avro record of {table.name}, got {len(value)} bytes {flaw}")


def _encode(batch: pa.RecordBatch, table: Table) -> pa.Array:
    placed = batch.num_columns > len(table.columns)
    form = _placed(table.wire_avro) if placed else table.wire_avro
    (values,) = pyruhvro.serialize_record_batch(batch, form, 1)  # ty: ignore[missing-attribute]
    return values


def _joined(rows: pa.RecordBatch, places: pa.RecordBatch | None) -> pa.RecordBatch:
    """Rows with their places behind their own columns."""
    if places is None:
        return rows
    return pa.RecordBatch.from_arrays(
        [*rows.columns, *places.columns], schema=pa.schema([*rows.schema, *places.schema])
    )


@cache
def _placed(avro: str) -> str:
    """A schema with the place of a row behind its columns."""
    declared = json.loads(avro)
    places = [{"name": name, "type": "long"} for name in PLACE.names]
    return json.dumps(declared | {"fields": declared["fields"] + places})


def _read(record: bytes, table: Table, *, placed: bool) -> dict[str, Any] | None:
    """Decode one record by fastavro; ``None`` if it does not end with its last field."""
    buffer = io.BytesIO(record)
    form = _placed(table.avro) if placed else table.avro
    try:
        row = cast("dict[str, Any]", fastavro.schemaless_reader(buffer, _schema(form), None))
    except (EOFError, IndexError, ValueError):
        return None
    for column in table.columns:
        value = row[column.name]
        if isinstance(value, time):
            row[column.name] = value.isoformat("microseconds")
        elif isinstance(value, UUID):
            row[column.name] = str(value)
    return row if not buffer.read(1) else None


@cache
def _schema(avro: str) -> Any:
    return fastavro.parse_schema(json.loads(avro))
