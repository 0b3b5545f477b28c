"""CSV records: from the bytes of a file to clean Arrow batches, and nothing lost between.

What belongs here: what others need of a CSV file, reading (``parse``) and writing (``to_csv``) in whole blocks. What
does not: where a block ends (``blocks``) and how one is read: by Arrow if it is clean (``fast``); if there is anything
odd in it (a row too short, bytes that are not UTF-8, a stray quote) record by record (``exact``), so that a bad row
costs neither the good ones next to it nor the speed of the clean blocks. The dialect is that of ``contract``.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl
import pyarrow as pa

from ecom_assets.core import values
from ecom_assets.core.location import Location
from ecom_assets.core.parallel import ordered_map
from ecom_assets.core.quarantine import Quarantined
from ecom_assets.csv import blocks as cutting
from ecom_assets.csv import exact, fast
from ecom_assets.csv.blocks import BLOCK_BYTES, Block
from ecom_assets.csv.contract import DamagedError, header_line
from ecom_assets.dataset.model import Table

_QUOTE, _COMMA, _LF = b'",\n'

Place = tuple[np.ndarray, np.ndarray]
"""Where a column's values begin in the text of their rows, and where they end."""


@dataclass(frozen=True)
class Parsed:
    """The rows of a block.

    Attributes:
        batch: The good rows, schema ``table.arrow``.
        bad: The others.
        text: The good rows as CSV without a header; the block's own bytes where they are clean.
        ends: The offset in the text behind each row.
    """

    batch: pa.RecordBatch
    bad: list[Quarantined]
    text: bytes
    ends: np.ndarray

    def filter(self, mask: pa.Array) -> Parsed:
        """Take the rows for which a mask is true."""
        offsets = pa.py_buffer(np.append(0, self.ends).astype(np.int32))
        lines = pa.BinaryArray.from_buffers(pa.binary(), len(self.ends), [None, offsets, pa.py_buffer(self.text)])
        taken = lines.filter(mask)
        return Parsed(self.batch.filter(mask), self.bad, taken.buffers()[2].to_pybytes(), edges(taken)[1:])

    def places(self, names: Collection[str]) -> dict[str, Place]:
        """Find columns in the text, up to the first one with a quote, or a text for null, in some row."""
        text = np.frombuffer(self.text, np.uint8)
        found: dict[str, Place] = {}
        begin = np.append(0, self.ends)[:-1]
        for name, column in zip(self.batch.schema.names, self.batch.columns, strict=True):
            if len(found) == len(names) or (text[begin] == _QUOTE).any():
                break
            # A number has the text that it was read from, or it would not have been read.
            end = begin + np.diff(edges(column.cast(pa.string())))
            if not ((text[end] == _COMMA) | (text[end] == _LF)).all():
                break
            if name in names:
                found[name] = begin, end
            begin = end + 1
        return found


def parse(
    path: Location, table: Table, block_bytes: int = BLOCK_BYTES, progress: Callable[[int], None] | None = None
) -> Iterator[Parsed]:
    """Read a file of the table in order, block by block, with flat memory.

    Args:
        path: The file, header included.
        table: What it should hold.
        block_bytes: About how many bytes a block shall have.
        progress: Called with the bytes done since the last call.

    Raises:
        FileNotFoundError: No such file.
        HeaderError: The header is not the table's.
    """
    start = cutting.data_start(path, table)

    def work(block: Block) -> tuple[Parsed, int]:
        return parse_block(block, table, path.name), len(block.data)

    for parsed, size in ordered_map(work, cutting.blocks(path, start, block_bytes)):
        yield parsed
        if progress:
            progress(size)


def read_rows(data: bytes, table: Table, name: str) -> Parsed:
    """Parse a small file of our own making, held in memory, header included.

    Args:
        data: The file's bytes.
        table: What it should hold.
        name: What to call it in an error.

    Raises:
        DamagedError: The header is not the table's.
    """
    header = header_line(table)
    if not data.startswith(header):
        raise DamagedError(f"{name}: expected the header {header!r}, got {data[: len(header)]!r}; build it again")
    body = data[len(header) :]
    if not body:
        return Parsed(pa.RecordBatch.from_pylist([], schema=table.arrow), [], b"", np.empty(0, np.int64))
    return parse_block(cutting.cut(cutting.ended(body), 2, eof=True), table, name)


def read_clean(data: bytes, table: Table, name: str = "chunk") -> pa.RecordBatch:
    """Parse a small file that must hold good rows only.

    Raises:
        DamagedError: It holds anything but the header and good rows.
    """
    parsed = read_rows(data, table, name)
    if parsed.bad:
        where = parsed.bad[0]
        raise DamagedError(f"{name}, line {where.line}: {where.reason}; build it again")
    return parsed.batch


def joined(files: list[bytes], table: Table) -> bytes | None:
    """Small files of our own making as one, for a parser's start costs as much as a small file.

    Returns:
        One file; ``None`` if one of them could not be read alone: its header is not the table's, or its last row
        ends in the next file.
    """
    header = header_line(table)
    if all(f.startswith(header) and f.endswith(b"\n") and not f.count(b'"') % 2 for f in files):
        return header + b"".join(f[len(header) :] for f in files)
    return None


def edges(texts: pa.Array) -> np.ndarray:
    """Where each of some texts begins in the array's data, and where the last one ends; a null takes no room."""
    return np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]


def to_csv(batch: pa.RecordBatch, table: Table) -> bytes:
    """Write good rows as CSV without a header, such that ``parse`` reads the same rows again."""
    buffer = io.BytesIO()
    # Where a bare text can mean null, every text is quoted.
    style = "necessary" if len(table.null_values) == 1 else "non_numeric"
    pl.DataFrame(pl.from_arrow(values.as_fields(batch))).write_csv(buffer, include_header=False, quote_style=style)
    return buffer.getvalue()


def parse_block(block: Block, table: Table, source: str) -> Parsed:
    """Parse one block: by Arrow if it is clean, else by the exact reader."""
    if block.ends is not None and (batch := fast.read(block.data, len(block.ends), table)) is not None:
        if b"\r" not in block.data:
            return Parsed(batch, [], block.data, block.ends)
        return _written(batch, [], table)
    return _written(*exact.read(block.data, block.line, table, source), table)


def _written(batch: pa.RecordBatch, bad: list[Quarantined], table: Table) -> Parsed:
    """Rows whose own text is not clean, with one that is."""
    text = to_csv(batch, table)
    return Parsed(batch, bad, text, cast("np.ndarray", cutting.record_ends(text)))  # quotes of our own are regular
