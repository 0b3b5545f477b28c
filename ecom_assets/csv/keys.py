"""Keys of a copy: how a key is renewed, one to one, as a value and in the text that holds it.

An integer grows by a step. A text that begins with eight hexadecimal digits (a UUID) gets
these combined (XOR) with a number made of the step, so it stays a UUID; any other text
gets ``~step`` at its end. A negative step takes that back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecom_assets.csv import records

_MIX = 0x9E3779B1  # odd, so that k * _MIX modulo 2^32 differs for every k (Knuth's multiplicative hash)
_DIGITS = 8  # hexadecimal digits of a UUID that carry the step: 32 bits
_UUID = re.compile(rf"[0-9a-f]{{{_DIGITS}}}")
# Eight digits are the bytes of one integer, and what is computed of it, is computed of each.
_ONES = np.uint64(0x0101010101010101)
_LOW = np.uint64(0x0F0F0F0F0F0F0F0F)


def renewed(column: pa.Array, step: int) -> pa.Array:
    """Renew a column of keys.

    Args:
        column: Integers or texts; a null stays one.
        step: How far.
    """
    if step == 0:
        return column
    if pa.types.is_integer(column.type):
        return pc.add_checked(column, step)
    _, offsets, data = column.buffers()
    edges = records.edges(column)
    text = bytearray(data or b"")
    if heads := Heads.find(text, edges[:-1], edges[1:]):
        heads.renew(text, step)
        return pa.StringArray.from_buffers(len(column), offsets, pa.py_buffer(text), offset=column.offset)
    return pa.array([None if key is None else _renewed(key, step) for key in column.to_pylist()], pa.string())


@dataclass(frozen=True)
class Heads:
    """The digits that some keys in a text begin with.

    Attributes:
        at: Where they stand.
        digits: Eight of 0 .. 15 for each key, in the bytes of one integer.
    """

    at: np.ndarray
    digits: np.ndarray

    @classmethod
    def find(cls, text: bytes | bytearray, begins: np.ndarray, ends: np.ndarray) -> Heads | None:
        """Read the digits of the keys at some positions; ``None`` if a key does not begin with eight."""
        if (ends - begins < _DIGITS).any():
            return None
        found = _words(text)[begins]
        digits = (found & _LOW) + (found >> 6 & _ONES) * 9 & _LOW
        return cls(begins, digits) if np.array_equal(_hexadecimal(digits), found) else None

    def renew(self, text: bytearray, step: int) -> None:
        """Renew the keys in their text, in place."""
        digits = bytes(int(digit, 16) for digit in f"{_mask(step):0{_DIGITS}x}")
        _words(text)[self.at] = _hexadecimal(self.digits ^ np.frombuffer(digits, "<u8"))


def _renewed(key: str, step: int) -> str:
    if _UUID.match(key):
        return f"{int(key[:_DIGITS], 16) ^ _mask(step):0{_DIGITS}x}{key[_DIGITS:]}"
    return key.removesuffix(f"~{-step}") if step < 0 else f"{key}~{step}"


def _mask(step: int) -> int:
    return abs(step) * _MIX % (1 << 4 * _DIGITS)


def _words(text: bytes | bytearray) -> np.ndarray:
    """The eight bytes that begin at each byte of a text."""
    return np.ndarray((max(len(text) - _DIGITS + 1, 0),), "<u8", text, strides=(1,))


def _hexadecimal(digits: np.ndarray) -> np.ndarray:
    """Write each 0 .. 15 as a hexadecimal digit."""
    letters = digits + 6 * _ONES >> 4 & _ONES
    return digits + ord("0") * _ONES + letters * (ord("a") - 10 - ord("0"))
