"""Avro values of the topics: one schemaless binary record per row, by ``pyruhvro`` (Rust).

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


class AvroError(ValueError):
    """Rows that cannot be encoded, or bytes that are not the table's records."""


def encode(batch: pa.RecordBatch, table: Table) -> list[bytes]:
    """Encode rows as Avro.

    Args:
        batch: The table's columns, in any order; text of any Arrow layout.
        table: Whose rows they are.

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
    values = _encode(wire.packed(batch, table), table).to_pylist()
    for row in sorted({0, len(values) - 1}) if values else ():
        expected, got = batch.slice(row, 1).to_pylist()[0], _read(values[row], table)
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
        The rows, schema ``table.arrow``.

    Raises:
        AvroError: One of them is not exactly one record of the table; ``decode_good`` finds which.
    """
    try:
        packed = pyruhvro.deserialize_array(values.to_pylist(), table.wire_avro)  # ty: ignore[missing-attribute]
    except (ValueError, TypeError) as error:
        raise _not_records(values, table, "that are none") from error
    # pyruhvro ignores bytes behind a record.
    if not _encode(packed, table).equals(values):
        raise _not_records(values, table, "that are not exactly one")
    try:
        return wire.unpacked(packed, table)
    except ValueError as error:
        raise _not_records(values, table, f"with {error}") from error


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
            return pa.RecordBatch.from_pylist([], schema=table.arrow), [(0, str(error))]
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
    (values,) = pyruhvro.serialize_record_batch(batch, table.wire_avro, 1)  # ty: ignore[missing-attribute]
    return values


def _read(record: bytes, table: Table) -> dict[str, Any] | None:
    """Decode one record by fastavro; ``None`` if it does not end with its last field."""
    buffer = io.BytesIO(record)
    try:
        row = cast("dict[str, Any]", fastavro.schemaless_reader(buffer, _schema(table.avro), None))
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
