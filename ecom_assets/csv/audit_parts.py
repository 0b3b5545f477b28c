"""The second reader's way through a file: runs of regular records, and those that must be read one by one.

What belongs here: where records begin and end, and the fields of a single one. What does not: their verdict
(``audit``). As with that, nothing of the first reader may be used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from ecom_assets.csv import contract

WALK_BYTES = 16 << 10
"""Where quotes are irregular, so many bytes are read record by record before the rest is looked at as a whole again."""

_QUOTE, _COMMA, _LF, _CR = b'",\n\r'
_FIELD = re.compile(rb'"((?:[^"]++|"")*+)"|([^",\n][^,\n]*+)?+')
_RECORD = re.compile(rb"(?:%s)(?:,(?:%s))*+\r?\n" % ((_FIELD.pattern,) * 2))


@dataclass(frozen=True)
class Regular:
    """Whole records with regular quotes, each but the last followed by another.

    Attributes:
        data: Their bytes.
        line: Line of the first one.
        quotes: Where quotes are.
        ends: Where the records' line ends are.
    """

    data: bytes
    line: int
    quotes: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True)
class Walked:
    """One record.

    Attributes:
        data: Its bytes; of one that is not whole, those of its first line.
        line: Its line.
        whole: Whether it is whole.
    """

    data: bytes
    line: int
    whole: bool


Part = list[Regular | Walked]


def parts(file: BinaryIO, block_bytes: int) -> Iterator[Part]:
    """Cut what is left of a file, a list of records for each block read."""
    rest, line, end = b"", 2, False
    while not end:
        new = file.read(block_bytes)
        end = not new
        data = rest + new if new or not rest or rest.endswith(b"\n") else rest + b"\n"
        part: Part = []
        at = 0
        while at < len(data):
            regular, odd = _regular(data, at, line, end=end)
            if len(regular.data):
                part.append(regular)
                at += len(regular.data)
                line += regular.data.count(b"\n")
            if not odd:
                break
            stop = at + WALK_BYTES
            while at < min(stop, len(data)) and (walked := _next(data, at, line, end=end)):
                part.append(walked)
                at += len(walked.data)
                line += walked.data.count(b"\n")
            if at < stop:  # what comes next depends on bytes that are not read yet
                break
        rest = data[at:]
        if len(rest) > contract.MAX_RECORD and b"\n" not in rest:
            # As much of it as counts, and two bytes more, which may be its line end.
            part.append(Walked(rest[: contract.MAX_RECORD + 2] + b"\n", line, whole=False))
            rest, line = _next_line(file, block_bytes), line + 1
        yield part


def _next_line(file: BinaryIO, block_bytes: int) -> bytes:
    """Read on to the next line; returns the bytes of it that have been read."""
    while new := file.read(block_bytes):
        _, found, behind = new.partition(b"\n")
        if found:
            return behind
    return b""


def _regular(data: bytes, at: int, line: int, *, end: bool) -> tuple[Regular, bool]:
    """Find the records from some place up to the first one that is unusual.

    Returns:
        The records; and whether one was found behind them that must be read by itself.
    """
    array = np.frombuffer(data, np.uint8)[at:]
    quotes = np.flatnonzero(array == _QUOTE)
    ends = np.flatnonzero(array == _LF)
    limit = len(array)
    if len(quotes):
        limit = _first_odd(array, quotes)
        ends = ends[np.searchsorted(quotes, ends) & 1 == 0]
        ends = ends[: np.searchsorted(ends, limit)]
    long = np.flatnonzero(np.diff(ends, prepend=-1) > contract.MAX_RECORD)
    if len(long):
        ends = ends[: long[0]]
    size = int(ends[-1]) + 1 if len(ends) else 0
    left = len(array) - size
    odd = bool(len(long)) or limit < len(array) or left > contract.MAX_RECORD or (end and left > 0)
    return Regular(data[at : at + size], line, quotes[: np.searchsorted(quotes, size)], ends), odd


def _first_odd(array: np.ndarray, quotes: np.ndarray) -> int:
    """Where the first quote is that neither opens nor closes a field as it must; the array's size if there is none."""
    opening, closing = quotes[0::2], quotes[1::2]
    size = len(array)

    def at(places: np.ndarray) -> np.ndarray:
        """The bytes at some places; line ends before the first and behind the last one."""
        inside = (places >= 0) & (places < size)
        return np.where(inside, array[np.where(inside, places, 0)], _LF)

    before, after = at(opening - 1), at(closing + 1)
    opens = (before == _COMMA) | (before == _LF) | (before == _QUOTE)
    closes = (after == _COMMA) | (after == _LF) | (after == _QUOTE) | ((after == _CR) & (at(closing + 2) == _LF))
    odd = [*opening[~opens][:1].tolist(), *closing[~closes][:1].tolist()]
    return min(odd, default=size)


def _next(data: bytes, at: int, line: int, *, end: bool) -> Walked | None:
    """Read one record; ``None`` if that takes more bytes."""
    window = at + contract.MAX_RECORD
    if found := _RECORD.match(data, at, min(window, len(data))):
        return Walked(found[0], line, whole=True)
    if not end and len(data) <= window:
        return None
    stop = data.find(b"\n", at) + 1
    return Walked(data[at:stop], line, whole=False) if stop else None


class Quoted(bytes):
    """The text of a quoted field."""


def fields(record: bytes) -> list[bytes | None]:
    """The fields of a whole record; an unquoted empty one is ``None``."""
    fields: list[bytes | None] = []
    at = 0
    while found := _FIELD.match(record, at):
        quoted, bare = found.groups()
        fields.append(bare if quoted is None else Quoted(quoted.replace(b'""', b'"')))
        at = found.end() + 1
        if record[found.end()] != _COMMA:
            break
    if type(fields[-1]) is bytes:
        fields[-1] = fields[-1].removesuffix(b"\r") or None
    return fields
