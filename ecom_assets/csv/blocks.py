"""Cutting a file into blocks of whole records, with memory that does not grow with the file.

What belongs here: where a file's rows begin, and where a block may end. What does not: what is in a record, which
``fast`` and ``exact`` read.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from ecom_assets.core.location import Location
from ecom_assets.csv import contract, exact
from ecom_assets.dataset.model import Table

BLOCK_BYTES = 4 << 20

_QUOTE, _COMMA, _LF, _CR = b'",\n\r'


@dataclass(frozen=True)
class Block:
    """Records of a file.

    Attributes:
        data: Their bytes; of a line longer than ``contract.MAX_RECORD`` only its beginning.
        line: The line of the first byte, 1-based, header included.
        ends: The offset behind each record, by the line ends outside quotes; ``None`` if only the exact reader can
            find them.
    """

    data: bytes
    line: int
    ends: np.ndarray | None


def data_start(path: Location, table: Table) -> int:
    """Check a file's header and find where its rows begin.

    Returns:
        Offset of the first row, in bytes.

    Raises:
        FileNotFoundError: No such file.
        HeaderError: The header is not the table's.
    """
    with path.open("rb") as file:
        line = file.readline(contract.MAX_RECORD)
    text = line.removeprefix(contract.BOM).decode("utf-8", "backslashreplace").rstrip("\r\n")
    found = next(csv.reader([text]), [])
    if found != table.headers:
        raise contract.wrong_header(path, table, text, found)
    return len(line)


def blocks(path: Location, start: int, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """Cut a file into blocks of whole records.

    Args:
        path: The file.
        start: Offset of the first row, as ``data_start`` returns it.
        block_bytes: About how many bytes a block shall have.
    """
    line = 2
    rest = b""
    with path.open("rb") as file:
        file.seek(start)
        while True:
            new = file.read(block_bytes)
            data = rest + new if new else ended(rest)
            if not data:
                return
            block = cut(data, line, eof=not new)
            rest = data[len(block.data) :]
            if block.data:
                yield block
                line += int(np.count_nonzero(np.frombuffer(block.data, np.uint8) == _LF))
            if len(rest) > contract.MAX_RECORD and b"\n" not in rest:
                # Two bytes more than count, for they may be the line's end.
                yield Block(rest[: contract.MAX_RECORD + 2] + b"\n", line, None)
                rest = _behind_line(file, block_bytes)
                line += 1


def ended(data: bytes) -> bytes:
    """The end of a file with the line end that may be missing there."""
    return data if not data or data.endswith(b"\n") else data + b"\n"


def cut(data: bytes, line: int, *, eof: bool) -> Block:
    """Take the whole records at the beginning of some bytes; at the end of a file, all of them."""
    ends = record_ends(data)
    if ends is None or (eof and data.count(b'"') % 2):
        return Block(data[: _exact_end(data, eof=eof)], line, None)
    last = int(ends[-1]) if len(ends) else 0
    longest = int(np.diff(ends, prepend=0).max()) if len(ends) else 0
    if max(longest, len(data) - last) > contract.MAX_RECORD:
        return Block(data[: _exact_end(data, eof=eof)], line, None)
    return Block(data[:last], line, ends)


def record_ends(data: bytes) -> np.ndarray | None:
    """The offset behind each record that ends in a line end; ``None`` if only the exact reader can find them.

    Quotes are regular if each opens right after a comma or line end and closes right before one; then a line end is a
    record's end just if an even number of quotes precedes it. A quoted ``""`` reads as two quoted texts side by side,
    which changes nothing in that count. A CR outside quotes that no LF follows is a byte of its field, which Arrow
    takes for a line end.
    """
    array = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(array == _LF)
    quotes = np.flatnonzero(array == _QUOTE) if b'"' in data else np.empty(0, np.int64)
    if len(quotes):
        opening, closing = quotes[0::2], quotes[1::2]
        before = np.where(opening == 0, _LF, array[opening - 1])
        after = np.where(closing + 1 == len(array), _LF, array[np.minimum(closing + 1, len(array) - 1)])
        if not (np.isin(before, (_COMMA, _LF, _QUOTE)).all() and np.isin(after, (_COMMA, _LF, _CR, _QUOTE)).all()):
            return None
        ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
    if b"\r" in data:
        returns = np.flatnonzero(array[:-1] == _CR)
        alone = returns[array[returns + 1] != _LF]
        if (np.searchsorted(quotes, alone) % 2 == 0).any():
            return None
    return ends + 1


def _exact_end(data: bytes, *, eof: bool) -> int:
    """The end of the last record that further bytes would not change, or where a line begins that is too long."""
    position = 0
    while not eof and position < len(data):
        found = exact.record(data, position, eof=False)
        if not found.complete or not data.endswith(b"\n", position, found.end):
            return position
        position = found.end
    return len(data)


def _behind_line(file: BinaryIO, block_bytes: int) -> bytes:
    """Read to the end of a line; returns what was read behind it."""
    while new := file.read(block_bytes):
        at = new.find(b"\n")
        if at >= 0:
            return new[at + 1 :]
    return b""
