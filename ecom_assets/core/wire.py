"""Values under Avro's logical types: a row as the primitive values that its record holds, and back.

What belongs here: date to int, decimal to bytes, and so on, in columns. What does not: the records (``avro``), and
which types there are (``dataset.kind``).

Avro writes bytes and texts alike, a length and that many bytes
(https://avro.apache.org/docs/1.12.0/specification/#binary-encoding), and pyruhvro has no bytes. So they are given to it
as texts; it looks into none.
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecom_assets.core import values
from ecom_assets.dataset.kind import INSTANT, Kind
from ecom_assets.dataset.model import Table

_ARROW = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "bytes": pa.string(),
}
_WIDTH = 16
"""Bytes of a decimal in Arrow."""
_SIGN = 0x80
_DAY = 86_400_000_000


def packed(rows: pa.RecordBatch, table: Table) -> pa.RecordBatch:
    """Rows, schema ``table.arrow``, as primitive values."""
    columns = [_packed(rows.column(place), column.kind) for place, column in enumerate(table.columns)]
    return pa.RecordBatch.from_arrays(columns, schema=_arrow(table))


def unpacked(rows: pa.RecordBatch, table: Table) -> pa.RecordBatch:
    """Primitive values as rows, schema ``table.arrow``.

    Raises:
        ValueError: A value is not one of its column's type, or a text not UTF-8.
    """
    columns = []
    for packed_column, column in zip(rows.columns, table.columns, strict=True):
        found = packed_column.cast(_ARROW[column.kind.wire])
        if column.kind.wire == "string":  # pyruhvro takes any bytes for text
            try:
                found.validate(full=True)
            except pa.ArrowInvalid:
                raise ValueError("text that is not UTF-8") from None
        made = _unpacked(found, column.kind)
        if made.null_count > found.null_count:
            place = pc.indices_nonzero(pc.and_(made.is_null(), found.is_valid()))[0].as_py()
            got = str(found[place])[:100] if column.kind.wire != "bytes" else "bytes"
            raise ValueError(f"{got} in {column.name}, which is no {column.kind.name}")
        columns.append(made)
    return pa.RecordBatch.from_arrays(columns, schema=table.arrow)


def _arrow(table: Table) -> pa.Schema:
    return pa.schema([pa.field(c.name, _ARROW[c.kind.wire], c.nullable) for c in table.columns])


def _packed(column: pa.Array, kind: Kind) -> pa.Array:
    if kind.name == "enum":
        return pc.index_in(column, pa.array(kind.symbols))
    if kind.name.startswith("time-"):
        stamps = pc.binary_join_element_wise("1970-01-01T", column, "").cast(pa.timestamp("us"))
        return pc.divide(stamps.cast(pa.int64()), kind.unit).cast(_ARROW[kind.wire])
    if pa.types.is_timestamp(kind.arrow):
        return pc.divide(column.cast(pa.int64()), kind.unit)
    if pa.types.is_decimal(kind.arrow):
        return _as_text(_decimal_bytes(column))
    if kind.name == "bytes":
        return _as_text(column)
    return column.cast(_ARROW[kind.wire])


def _unpacked(column: pa.Array, kind: Kind) -> pa.Array:
    """The values of a column; null also where one is out of range."""
    if kind.name == "enum":
        known = pc.and_(pc.greater_equal(column, 0), pc.less(column, len(kind.symbols)))
        return pa.array(kind.symbols).take(pc.if_else(known, column, pa.scalar(None, column.type)))
    if kind.name.startswith("time-"):
        numbers = pc.multiply(column.cast(pa.int64()), kind.unit)
        known = pc.and_(pc.greater_equal(numbers, 0), pc.less(numbers, _DAY))
        stamps = pc.if_else(known, numbers, pa.scalar(None, pa.int64())).cast(pa.timestamp("us")).cast(pa.string())
        return pc.utf8_slice_codeunits(stamps, len("1970-01-01 "))
    if pa.types.is_decimal(kind.arrow):
        return _decimals(_as_bytes(column), kind)
    if kind.name == "bytes":
        return _as_bytes(column)
    if kind.name == "uuid":
        return values.parse(column, kind)
    if pa.types.is_timestamp(kind.arrow):
        try:
            column = pc.multiply_checked(column, kind.unit).cast(INSTANT)
        except pa.ArrowInvalid:  # no time of this world
            column = pa.array([_scaled(each, kind.unit) for each in column.to_pylist()], pa.int64()).cast(INSTANT)
    return values.known(column.cast(kind.arrow))


def _scaled(number: int | None, unit: int) -> int | None:
    return None if number is None or abs(number * unit) >= 1 << 63 else number * unit


def _as_text(column: pa.Array) -> pa.Array:
    """Bytes under the name of texts."""
    validity, offsets, data = column.buffers()
    return pa.StringArray.from_buffers(len(column), offsets, data, validity, column.null_count, column.offset)


def _as_bytes(column: pa.Array) -> pa.Array:
    return pa.Array.from_buffers(pa.binary(), len(column), column.buffers(), column.null_count, column.offset)


def _decimal_bytes(column: pa.Array) -> pa.Array:
    """The unscaled numbers in two's complement, the highest byte first, in as few bytes as hold them."""
    rows = len(column)
    data = np.frombuffer(column.buffers()[1] or b"", np.uint8)
    data = data[column.offset * _WIDTH : (column.offset + rows) * _WIDTH].reshape(rows, _WIDTH)[:, ::-1]
    negative = data[:, :1] >= _SIGN
    fill = np.where(negative, 0xFF, 0).astype(np.uint8)
    # A byte is left out if it and all before it only repeat the sign, which the next one holds as well.
    spare = (data == fill)[:, :-1] & ((data[:, 1:] >= _SIGN) == negative)
    first = np.logical_and.accumulate(spare, axis=1).sum(axis=1)
    there = column.is_valid().to_numpy(zero_copy_only=False)
    kept = (np.arange(_WIDTH) >= first[:, None]) & there[:, None]
    ends = np.zeros(rows + 1, np.int32)
    np.cumsum(kept.sum(axis=1), out=ends[1:])
    validity = pa.array(there).buffers()[1] if column.null_count else None
    return pa.Array.from_buffers(pa.binary(), rows, [validity, pa.py_buffer(ends), pa.py_buffer(data[kept])])


def _decimals(column: pa.Array, kind: Kind) -> pa.Array:
    """Decimals of such bytes; null where they are none, too many, or have more digits than the type."""
    rows = len(column)
    edges = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + rows + 1]
    data = np.frombuffer(column.buffers()[2] or b"", np.uint8)[edges[0] : edges[-1]]
    sizes, there = np.diff(edges), column.is_valid().to_numpy(zero_copy_only=False)
    if not (there <= ((sizes > 0) & (sizes <= _WIDTH))).all():
        return _decimals_one_by_one(column, kind)
    wide = np.zeros((rows, _WIDTH), np.uint8)
    wide[there] = np.where(data[(edges[:-1] - edges[0])[there]] >= _SIGN, 0xFF, 0)[:, None]
    wide[np.arange(_WIDTH) >= _WIDTH - sizes[:, None]] = data
    validity = pa.array(there).buffers()[1] if column.null_count else None
    buffers = [validity, pa.py_buffer(np.ascontiguousarray(wide[:, ::-1]))]
    made = pa.Array.from_buffers(kind.arrow, rows, buffers, column.null_count)
    try:
        made.validate(full=True)
    except pa.ArrowInvalid:
        return _decimals_one_by_one(column, kind)
    return made


def _decimals_one_by_one(column: pa.Array, kind: Kind) -> pa.Array:
    numbers = (None if not data else int.from_bytes(data, "big", signed=True) for data in column.to_pylist())
    most = 10**kind.arrow.precision
    scaled = [None if n is None or abs(n) >= most else Decimal((n < 0, _digits(n), -kind.arrow.scale)) for n in numbers]
    return pa.array(scaled, kind.arrow)


def _digits(number: int) -> tuple[int, ...]:
    return tuple(map(int, str(abs(number))))
