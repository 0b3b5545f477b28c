"""Avro values of the topics: one schemaless binary record per row, by ``pyruhvro`` (Rust).

pyruhvro calls itself experimental, so nothing here takes its word: each encoded batch is
compared with fastavro on its first and last row, and each decoded batch must encode to the
very bytes it came from. What belongs here is bytes <-> Arrow; topics and Kafka do not.
"""

from __future__ import annotations

import io
import json
from functools import cache
from typing import Any

import fastavro
import pyarrow as pa
import pyruhvro

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
    values = _encode(batch, table).to_pylist()
    for row in sorted({0, len(values) - 1}) if values else ():
        expected = _reference(batch.slice(row, 1).to_pylist()[0], table)
        if values[row] != expected:
            raise AvroError(
                f"table {table.name}, row {row}: expected the Avro bytes {expected[:200].hex()} (fastavro),"
                f" got {values[row][:200].hex()} (pyruhvro); install the pyruhvro version of uv.lock"
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
        batch = pyruhvro.deserialize_array(values.to_pylist(), table.avro)  # ty: ignore[missing-attribute]
        batch = batch.cast(table.arrow)
    except (ValueError, TypeError) as error:
        raise _not_records(values, table, "that are none") from error
    try:
        batch.validate(full=True)  # pyruhvro takes any bytes for text
    except ValueError as error:
        raise _not_records(values, table, "with text that is not UTF-8") from error
    # pyruhvro ignores bytes behind a record.
    if not _encode(batch, table).equals(values):
        raise _not_records(values, table, "that are not exactly one")
    return batch


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
    (values,) = pyruhvro.serialize_record_batch(batch, table.avro, 1)  # ty: ignore[missing-attribute]
    return values


def _reference(row: dict[str, Any], table: Table) -> bytes:
    """Encode one row by fastavro."""
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, _schema(table.avro), row)
    return buffer.getvalue()


@cache
def _schema(avro: str) -> Any:
    return fastavro.parse_schema(json.loads(avro))
