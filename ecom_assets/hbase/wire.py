"""Protobuf's wire format, as much of it as HBase's files and calls need.

What belongs here: integers and byte strings under numbered fields, made and taken apart
(https://protobuf.dev/programming-guides/encoding/). What does not: what any message means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

Value = int | bytes


def varint(number: int) -> bytes:
    """An integer of variable length, not negative."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def message(fields: Mapping[int, Value]) -> bytes:
    """A message of integers and byte strings; messages within it are byte strings."""
    out = []
    for tag, value in fields.items():
        if isinstance(value, int):
            out.append(varint(tag << 3) + varint(value))
        else:
            out.append(varint(tag << 3 | 2) + varint(len(value)) + value)
    return b"".join(out)


def delimited(data: bytes) -> bytes:
    """A message with its size before it."""
    return varint(len(data)) + data


def read_varint(data: bytes | bytearray | memoryview, at: int) -> tuple[int, int]:
    """An integer, and the position behind it.

    Raises:
        IndexError: The data ends before.
    """
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7


def read_message(data: bytes | memoryview) -> Iterator[tuple[int, Value]]:
    """The fields of a message in their order, as ``(number, value)``.

    Raises:
        IndexError: The data ends before.
        ValueError: A field is of a kind that HBase does not use.
    """
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        number, at = read_varint(data, at)
        match tag & 7:
            case 0:
                yield tag >> 3, number
            case 2:
                yield tag >> 3, bytes(data[at : at + number])
                at += number
            case kind:
                raise ValueError(f"expected a protobuf integer or byte string, got kind {kind} in {bytes(data[:64])!r}")
