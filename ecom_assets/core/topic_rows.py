"""Records of a topic as rows of its table: values decoded, and tombstones as rows of their key alone.

What belongs here: what every reader of a topic takes for a row, so that all count alike. What does not: the bytes of a
value (``avro``) and of a key (``ordered_key``), and Kafka.

A record without a value is Kafka's way to delete what is under its key (a tombstone). It is a row that asks for a
deletion where rows are merged and the topic is keyed by the primary key; elsewhere it is no row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecom_assets.core import avro, ordered_key, values
from ecom_assets.dataset.model import Table

TOMBSTONE = pa.field("_tombstone", pa.bool_())
"""Whether a row is a tombstone: its columns are null, but for those of the key."""


def schema(table: Table) -> pa.Schema:
    """The columns of rows: the table's own, their place, and ``TOMBSTONE``; all may be null."""
    return pa.schema([*(field.with_nullable(True) for field in avro.schema(table)), TOMBSTONE])


def rows_of(
    records: pa.Array, table: Table, keys: Callable[[], pa.Array]
) -> tuple[pa.RecordBatch, list[tuple[int, str]]]:
    """Decode records.

    Args:
        records: Their values, binary; null of a tombstone.
        table: Their table.
        keys: Called for their keys, binary, if there is a tombstone.

    Returns:
        The rows in order, and ``(index, reason)`` of each record that is none.
    """
    there = np.flatnonzero(records.is_valid().to_numpy(zero_copy_only=False))
    rows, flaws = avro.decode_good(records if len(there) == len(records) else records.drop_null(), table)
    whole = _with_tombstones(rows, table, np.zeros(len(rows), bool))
    bad = [(int(there[index]), reason) for index, reason in flaws]
    if len(there) == len(records):
        return whole, bad
    empty = np.flatnonzero(records.is_null().to_numpy(zero_copy_only=False))
    if not table.takes_tombstones:
        return whole, sorted([*bad, *((int(index), avro.tombstone(table)) for index in empty)])
    taken = keys().take(pa.array(empty))
    deleted, known = _of_keys(taken, table)
    bad += [
        (int(index), f"expected a key of {table.name}, got the tombstone of {key!r}")
        for index, key, good in zip(empty, taken.to_pylist(), known, strict=True)
        if not good
    ]
    good = np.setdiff1d(there, [index for index, _ in bad])
    order = np.argsort(np.concatenate([good, empty[known]]), kind="stable")
    return pa.concat_batches([whole, deleted]).take(pa.array(order)), sorted(bad)


def _with_tombstones(rows: pa.RecordBatch, table: Table, are: np.ndarray) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([*rows.columns, pa.array(are)], schema=schema(table))


def _of_keys(keys: pa.Array, table: Table) -> tuple[pa.RecordBatch, np.ndarray]:
    """Rows of keys alone, of those that are keys of the table, and which these are."""
    kinds = {column.name: column.kind for column in table.columns}
    texts = [_parts(key, len(table.topic_key)) for key in keys.to_pylist()]
    columns = {
        name: values.parse(pa.array([parts and parts[place] for parts in texts], pa.string()), kinds[name])
        for place, name in enumerate(table.topic_key)
    }
    known = np.ones(len(keys), bool)
    for column in columns.values():
        known &= column.is_valid().to_numpy(zero_copy_only=False)
    columns = {name: column.filter(pa.array(known)) for name, column in columns.items()}
    count = int(known.sum())
    arrays = [columns[field.name] if field.name in columns else pa.nulls(count, field.type) for field in schema(table)]
    arrays[-1] = pc.fill_null(arrays[-1], True)
    return pa.RecordBatch.from_arrays(arrays, schema=schema(table)), known


def _parts(key: bytes | None, count: int) -> list[str] | None:
    """The texts of a key's parts; ``None`` if it is no key of so many."""
    forms: list[ordered_key.KeyForm] = ["text"] * count
    pieces = (key or b"").split(ordered_key.END, count - 1)
    if len(pieces) != count or not key:
        return None
    found = [ordered_key.decode_part(piece, forms, place) for place, piece in enumerate(pieces)]
    try:
        return [part.decode() for part in found if part is not None] if None not in found else None
    except UnicodeDecodeError:
        return None
