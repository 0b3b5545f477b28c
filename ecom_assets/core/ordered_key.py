r"""Keys of several parts as bytes: no two keys alike, and in the order of their parts.

This module is the definition that every engine follows; nothing else belongs here. Keys of topics and row keys of
HBase are made of it.

**Form.** A part of the form ``text`` is its canonical text (``core.values``). If another part follows, the byte ``00``
stands behind it; so that it occurs nowhere else, ``00`` within such a part is written ``01 01``, and ``01`` is written
``01 02``. No other byte changes, and a last part is left as it is. A part of the form ``int64`` is eight bytes, those
of the integer with the highest bit inverted, the highest byte first. A part of the form ``fixed`` is its text, which
must be equally long in every key. A part of the form ``reversed_time`` is a time in UTC, ``2022-07-31T10:00:00.5Z``
with up to six digits behind the point, as its microseconds since 1970, all bits inverted, in the form ``int64``: the
latest sorts first. Behind these three nothing stands.

So bytes compare as the parts do, one after the other, and the keys whose first parts are given are those that begin
with these parts' bytes. FoundationDB and CockroachDB escape the same way, with other bytes
(https://apple.github.io/foundationdb/data-modeling.html#tuples).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecom_assets.core.values import texts
from ecom_assets.dataset.kind import INSTANT
from ecom_assets.dataset.model import KeyForm

END = b"\x00"
"""What stands behind a text that another part follows."""

_ESCAPES = ((b"\x01", b"\x01\x02"), (END, b"\x01\x01"))
"""What is replaced in such a text, in this order."""

_SIGN = 1 << 63

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

TEST_VECTORS: tuple[tuple[tuple[str | int, ...], tuple[KeyForm, ...], str], ...] = (
    (("a",), ("text",), "61"),
    (("a", ""), ("text", "text"), "61 00"),
    (("a", "b\x00"), ("text", "text"), "61 00 62 00"),
    (("a\x00", "b"), ("text", "text"), "61 01 01 00 62"),
    (("a\x01", "b"), ("text", "text"), "61 01 02 00 62"),
    (("\x01\x00", -7, "|"), ("text", "text", "text"), "01 02 01 01 00 2d 37 00 7c"),
    ((0, 258), ("int64", "int64"), "80 00 00 00 00 00 00 00 80 00 00 00 00 00 01 02"),
    (("a", -1, "\x01"), ("text", "int64", "text"), "61 00 7f ff ff ff ff ff ff ff 01"),
    (("\x00a", "b"), ("fixed", "text"), "00 61 62"),
    (("1970-01-01T00:00:00Z", "a"), ("reversed_time", "text"), "7f ff ff ff ff ff ff ff 61"),
    (("1970-01-01T00:00:00.5Z",), ("reversed_time",), "7f ff ff ff ff f8 5e df"),
)
"""Keys, their forms, and their bytes in hexadecimal; each engine's implementation is tested against them."""


def encode_one(values: Sequence[str | int | bytes], forms: Sequence[KeyForm]) -> bytes:
    """Encode one key (the reference: slow, obvious).

    Args:
        values: Its parts; fewer than there are forms for what the keys of these first parts begin with.
        forms: The form of each part.

    Raises:
        ValueError: A part is no integer of 64 bits, or no time, where its form wants one.
    """
    return b"".join(one_part(value, forms, n) + END * ended(forms, n) for n, value in enumerate(values))


def one_part(value: str | int | bytes, forms: Sequence[KeyForm], position: int) -> bytes:
    """Encode a value as the part at a position, without what stands behind it.

    Raises:
        ValueError: As ``encode_one``.
    """
    if forms[position] == "int64":
        return _packed(int(value))
    if forms[position] == "reversed_time":
        return _packed(~microseconds(as_text(value).decode()))
    return escape(as_text(value)) if ended(forms, position) else as_text(value)


def encode(columns: Sequence[pa.Array | pa.ChunkedArray], forms: Sequence[KeyForm]) -> pa.Array | pa.ChunkedArray:
    """Encode many keys.

    Args:
        columns: A column for each part, of any type that keys can have. Where one is null, so is the key.
        forms: The form of each part.

    Returns:
        The keys, binary.
    """
    return joined([part(column, forms, n) for n, column in enumerate(columns)], forms)


def part(column: pa.Array | pa.ChunkedArray, forms: Sequence[KeyForm], position: int) -> pa.Array | pa.ChunkedArray:
    """Encode a column as the part at a position, without what stands behind it.

    Raises:
        pyarrow.ArrowInvalid: It is of the form int64 or reversed_time, and some text is no integer, or no time.
    """
    if forms[position] == "int64":
        return _int64(column)
    if forms[position] == "reversed_time":
        times = column if pa.types.is_timestamp(column.type) else column.cast(pa.string())
        return _int64(pc.bit_wise_not(times.cast(INSTANT).cast(pa.int64())))
    value = texts(column)
    return _all_escaped(value) if ended(forms, position) else value


def joined(parts: Sequence[pa.Array | pa.ChunkedArray], forms: Sequence[KeyForm]) -> pa.Array | pa.ChunkedArray:
    """Join encoded parts to keys."""
    if len(parts) == 1:
        return parts[0]
    if set(forms[:-1]) == {"text"}:
        return pc.binary_join_element_wise(*parts, END)
    pieces = [
        pc.binary_join_element_wise(piece, b"", END) if ended(forms, n) else piece for n, piece in enumerate(parts)
    ]
    return pc.binary_join_element_wise(*pieces, b"")


def ended(forms: Sequence[KeyForm], position: int) -> bool:
    """Whether ``END`` stands behind a part."""
    return forms[position] == "text" and position < len(forms) - 1


def decode_part(data: bytes, forms: Sequence[KeyForm], position: int) -> bytes | None:
    """The text of a part from its bytes, without what stands behind it; ``None`` if they are not what is written."""
    if forms[position] == "int64":
        return str(struct.unpack(">Q", data)[0] - _SIGN).encode() if len(data) == 8 else None
    if not ended(forms, position):
        return data
    value = data
    for old, new in reversed(_ESCAPES):
        value = value.replace(new, old)
    return value if escape(value) == data else None


def decode_parts(parts: pa.Array, forms: Sequence[KeyForm], position: int) -> pa.Array:
    """The same for many keys: binary, null where bytes are not what is written."""
    numbers = forms[position] == "int64" and len(parts) and not parts.null_count
    if numbers and pc.all(pc.equal(pc.binary_length(parts), 8), min_count=0).as_py():
        fixed = parts.cast(pa.binary(8))
        data = np.frombuffer(fixed.buffers()[1], ">u8")[fixed.offset : fixed.offset + len(fixed)]
        return texts(pa.array((data.astype(np.uint64) ^ np.uint64(_SIGN)).view(np.int64)))
    values = [None if data is None else decode_part(data, forms, position) for data in parts.to_pylist()]
    return pa.array(values, pa.binary())


def plain(column: pa.Array | pa.ChunkedArray) -> bool:
    """Whether no byte of a column is to be escaped: nearly always, and found as fast as memory is read."""
    return all(map(_plain, column.chunks if isinstance(column, pa.ChunkedArray) else [column]))


def _all_escaped(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    if not plain(column):
        for old, new in _ESCAPES:
            column = pc.replace_substring(column, old, new)
    return column


def microseconds(time: str) -> int:
    """Microseconds since 1970 of a time, ``2022-07-31T10:00:00.5Z``.

    Raises:
        ValueError: It is no such time.
    """
    if not _TIME.fullmatch(time):
        raise ValueError(f"expected a time like 2022-07-31T10:00:00Z, got {time[:100]!r}")
    return (datetime.fromisoformat(time) - _EPOCH) // timedelta(microseconds=1)


def as_text(value: str | int | bytes) -> bytes:
    """The text of a value."""
    return value if isinstance(value, bytes) else str(value).encode()


def _packed(number: int) -> bytes:
    if not -_SIGN <= number < _SIGN:
        raise ValueError(f"expected an integer of 64 bits, got {number}")
    return struct.pack(">Q", number + _SIGN)


def escape(value: bytes) -> bytes:
    """Write a text as a part that another follows, without what stands behind it."""
    for old, new in _ESCAPES:
        value = value.replace(old, new)
    return value


def _plain(column: pa.Array) -> bool:
    _, offsets, data = column.buffers()
    if data is None or not len(column):
        return True
    edges = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    content = np.frombuffer(data, np.uint8)[edges[0] : edges[-1]]
    return not len(content) or bool(content.min() > 1)


def _int64(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    if isinstance(column, pa.ChunkedArray):
        return pa.chunked_array([_int64(chunk) for chunk in column.chunks], pa.binary())
    if not pa.types.is_integer(column.type):
        column = column.cast(pa.string()).cast(pa.int64())
    numbers = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    data = (numbers.view(np.uint64) ^ np.uint64(_SIGN)).astype(">u8")
    width = data.dtype.itemsize
    validity = column.is_valid().cast(pa.bool_()) if column.null_count else None
    fixed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(numbers), [None, pa.py_buffer(data)])
    keys = fixed.cast(pa.binary())
    return pc.if_else(validity, keys, pa.scalar(None, pa.binary())) if validity is not None else keys
