"""Text of whole columns at once, as byte matrices, and how they become CSV lines.

A column is a matrix with one row per record, padded with NUL bytes on either
side; a block of lines is its columns side by side with the NULs squeezed out.
Nothing here knows of tables or of chance beyond the bits of a UUID.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Text = NDArray[np.uint8]
Ints = NDArray[np.int64]

SECOND = 1_000_000
"""Microseconds; moments are microseconds since 1970 in UTC."""

_CALENDAR = np.datetime64("1900-01-01", "D"), np.datetime64("2100-01-01", "D")


def vocabulary(words: Iterable[str]) -> Text:
    """The words as a matrix, to be indexed with codes."""
    padded = np.array([word.encode() for word in words], dtype=np.bytes_)
    return padded.view(np.uint8).reshape(len(padded), -1)


def number(values: Ints) -> Text:
    """Integers from 0 up, in decimal."""
    text = digits(values, len(str(int(values.max(initial=0)))))
    for place in range(text.shape[1] - 1):
        text[values < 10 ** (text.shape[1] - 1 - place), place] = 0
    return text


def digits(values: Ints, width: int) -> Text:
    """Integers from 0 up, in decimal, with leading zeros to ``width``."""
    text = np.empty((len(values), width), np.uint8)
    for place in range(width):
        text[:, place] = values // 10 ** (width - 1 - place) % 10 + ord("0")
    return text


def degrees(values: Ints, decimals: int) -> Text:
    """Angles given in units of 10**-decimals degrees."""
    size = np.abs(values)
    sign = np.where(values < 0, np.uint8(ord("-")), np.uint8(0))[:, None]
    return concat(sign, number(size // 10**decimals), ".", digits(size % 10**decimals, decimals))


def uuids(rng: np.random.Generator, count: int) -> Text:
    """Random UUIDs of version 4, lower case with hyphens."""
    raw = np.frombuffer(rng.bytes(16 * count), np.uint8).reshape(count, 16).copy()
    raw[:, 6] = raw[:, 6] & 0x0F | 0x40
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80
    hexed = _hexadecimal()[raw].view(np.uint8)
    text = np.full((count, 36), ord("-"), np.uint8)
    for start, end, group in ((0, 8, 0), (8, 12, 1), (12, 16, 2), (16, 20, 3), (20, 32, 4)):
        text[:, start + group : end + group] = hexed[:, start:end]
    return text


def day(days: Ints) -> Text:
    """Days since 1970 as ``YYYY-MM-DD``."""
    return _days()[days - int(_CALENDAR[0].astype(np.int64))]


def moment(micros: Ints) -> Text:
    """Moments as ``YYYY-MM-DDTHH:MM:SS.ffffffZ``."""
    seconds, fraction = np.divmod(micros, SECOND)
    days, seconds = np.divmod(seconds, 86_400)
    return concat(day(days), "T", _clock()[seconds], ".", digits(fraction, 6), "Z")


def concat(*columns: Text | str) -> Text:
    """Columns side by side; a ``str`` is the same in each row."""
    rows = next(len(c) for c in columns if not isinstance(c, str))
    parts = [np.frombuffer(c.encode(), np.uint8)[None] if isinstance(c, str) else c for c in columns]
    text = np.empty((rows, sum(part.shape[1] for part in parts)), np.uint8)
    start = 0
    for part in parts:
        text[:, start : start + part.shape[1]] = part
        start += part.shape[1]
    return text


def scatter(count: int, pieces: Sequence[tuple[Ints, Text]]) -> Text:
    """A matrix of ``count`` rows with each piece's rows at its positions, and nothing elsewhere."""
    text = np.zeros((count, max(piece.shape[1] for _, piece in pieces)), np.uint8)
    for at, piece in pieces:
        text[at, : piece.shape[1]] = piece
    return text


def squeeze(text: Text) -> bytes:
    """The matrix as bytes without its padding."""
    return text[text != 0].tobytes()


@cache
def _hexadecimal() -> NDArray[np.uint16]:
    return np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint16)


@cache
def _days() -> Text:
    return vocabulary(np.datetime_as_string(np.arange(*_CALENDAR)).tolist())


@cache
def _clock() -> Text:
    return vocabulary(f"{s // 3600:02}:{s // 60 % 60:02}:{s % 60:02}" for s in range(86_400))
