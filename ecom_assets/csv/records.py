"""CSV records: from the bytes of a file to clean Arrow batches, and nothing lost between.

A file is cut into blocks of whole records, each parsed by Arrow. A block with anything
odd in it (a row too short, bytes that are not UTF-8, a stray quote) is parsed again by a
slow, exact reader that sets each bad row aside with its line, text and reason, so that a
bad row costs neither the good ones beside it nor the speed of the clean blocks.

The dialect is RFC 4180 (https://www.rfc-editor.org/rfc/rfc4180): comma, double quote,
quotes doubled inside quotes, LF or CRLF. An unquoted empty field is null, a quoted one is
an empty text.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from ecom_assets.core.errors import CsvError
from ecom_assets.core.location import Location
from ecom_assets.core.parallel import ordered_map
from ecom_assets.core.quarantine import Quarantined
from ecom_assets.dataset.model import Column, Table

BLOCK_BYTES = 4 << 20
MAX_RECORD = 1 << 20
"""Longest record in bytes: Kafka's default limit, and how far an unclosed quote may reach."""
MAX_KEY = 10_000
"""Longest key field in bytes: three of them still fit HBase's limit of 32,767 for a row key."""

_BOM = b"\xef\xbb\xbf"
_INTEGER = re.compile(rb"(?:0|-?[1-9][0-9]{0,18})")
_QUOTED = re.compile(rb'"([^"]*+(?:""[^"]*+)*+)"')
_UNCLOSED = "expected the opening quote of a field to be closed"
_QUOTE, _COMMA, _LF, _CR = b'",\n\r'

Field = tuple[bytes, bool]
"""A field's bytes, and whether it was quoted."""

Place = tuple[np.ndarray, np.ndarray]
"""Where a column's values begin in the text of their rows, and where they end."""


class HeaderError(CsvError):
    """A file whose first line is not the table's header."""


class DamagedError(CsvError):
    """A file of our own making that does not hold what it should."""


@dataclass(frozen=True)
class Block:
    """Whole records of a file.

    Attributes:
        data: Their bytes.
        line: The line of the first byte, 1-based, header included.
        ends: The offset behind each record, by the line ends outside quotes; ``None`` if the
            quotes are irregular, so that only the slow reader can tell.
    """

    data: bytes
    line: int
    ends: np.ndarray | None


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
            # A number is told by the text that it was read from, or it would not have been read.
            end = begin + np.diff(edges(column.cast(pa.string())))
            if not ((text[end] == _COMMA) | (text[end] == _LF)).all():
                break
            if name in names:
                found[name] = begin, end
            begin = end + 1
        return found


def data_start(path: Location, table: Table) -> int:
    """Check a file's header and find where its rows begin.

    Returns:
        Offset of the first row, in bytes.

    Raises:
        FileNotFoundError: No such file.
        HeaderError: The header is not the table's.
    """
    with path.open("rb") as file:
        line = file.readline(MAX_RECORD)
    text = line.removeprefix(_BOM).decode("utf-8", "backslashreplace").rstrip("\r\n")
    got = next(csv.reader([text]), [])
    if got != table.names:
        missing = [n for n in table.names if n not in got]
        surplus = [n for n in got if n not in table.names]
        detail = "; ".join(
            [f"missing: {', '.join(missing)}"] * bool(missing)
            + [f"not expected: {', '.join(surplus[:20])}"] * bool(surplus)
            + ["the order differs"] * (not missing and not surplus)
        )
        raise HeaderError(
            f"{path}, line 1: expected the header {','.join(table.names)!r}, got {text[:500]!r} ({detail});"
            f" mend the file's header, or schemas/{table.name}.avsc if the table has changed"
        )
    return len(line)


def blocks(path: Location, start: int, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """Cut a file into blocks of whole records.

    Args:
        path: The file.
        start: Offset of the first row, as ``data_start`` tells.
        block_bytes: About how many bytes a block shall have.
    """
    line = 2
    carry = b""
    with path.open("rb") as file:
        file.seek(start)
        while True:
            new = file.read(block_bytes)
            data = carry + new if new else _ended(carry)
            if not data:
                return
            block = _cut(data, line, eof=not new)
            if block.data:
                yield block
                line += int(np.count_nonzero(np.frombuffer(block.data, np.uint8) == _LF))
            carry = data[len(block.data) :]


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
    start = data_start(path, table)

    def work(block: Block) -> tuple[Parsed, int]:
        return parse_block(block, table, path.name), len(block.data)

    for parsed, size in ordered_map(work, blocks(path, start, block_bytes)):
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
    return parse_block(_cut(_ended(body), 2, eof=True), table, name)


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


def header_line(table: Table) -> bytes:
    """The table's CSV header with its line end."""
    return (",".join(table.names) + "\n").encode()


def edges(texts: pa.Array) -> np.ndarray:
    """Where each of some texts begins in the array's data, and where the last one ends; a null takes no room."""
    return np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]


def to_csv(batch: pa.RecordBatch, table: Table) -> bytes:
    """Write good rows as CSV without a header, such that ``parse`` reads the same rows again."""
    buffer = io.BytesIO()
    # Where a bare text can mean null, every text is quoted.
    style = "necessary" if len(table.null_values) == 1 else "non_numeric"
    pl.DataFrame(pl.from_arrow(batch)).write_csv(buffer, include_header=False, quote_style=style)
    return buffer.getvalue()


def parse_block(block: Block, table: Table, source: str) -> Parsed:
    """Parse one block: by Arrow if it is clean, else by the slow reader."""
    if block.ends is not None and (batch := _fast(block.data, len(block.ends), table)) is not None:
        if b"\r" not in block.data:
            return Parsed(batch, [], block.data, block.ends)
        return _written(batch, [], table)
    return _written(*_slow(block, table, source), table)


def _written(batch: pa.RecordBatch, bad: list[Quarantined], table: Table) -> Parsed:
    """Rows whose own text is not clean, with one that is."""
    text = to_csv(batch, table)
    return Parsed(batch, bad, text, cast("np.ndarray", record_ends(text)))  # quotes of our own are regular


def _ended(data: bytes) -> bytes:
    """The end of a file with the line end that may be missing there."""
    return data if not data or data.endswith(b"\n") else data + b"\n"


def _cut(data: bytes, line: int, *, eof: bool) -> Block:
    """Take the whole records at the beginning of some bytes; at the end of a file, all of them."""
    ends = record_ends(data)
    if ends is None or (eof and data.count(b'"') % 2):
        return Block(data[: _slow_end(data, eof=eof)], line, None)
    last = int(ends[-1]) if len(ends) else 0
    longest = int(np.diff(ends, prepend=0).max()) if len(ends) else 0
    if max(longest, len(data) - last) > MAX_RECORD:
        return Block(data[: _slow_end(data, eof=eof)], line, None)
    return Block(data[:last], line, ends)


def record_ends(data: bytes) -> np.ndarray | None:
    """The offset behind each record that ends in a line end; ``None`` if quotes are irregular.

    Quotes are regular if each opens right after a comma or line end and closes right
    before one; then a line end is a record's end just if an even number of quotes
    stands before it. A quoted ``""`` reads as two quoted texts side by side, which
    changes nothing in that count.
    """
    array = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(array == _LF)
    if b'"' in data:
        quotes = np.flatnonzero(array == _QUOTE)
        opening, closing = quotes[0::2], quotes[1::2]
        before = np.where(opening == 0, _LF, array[opening - 1])
        after = np.where(closing + 1 == len(array), _LF, array[np.minimum(closing + 1, len(array) - 1)])
        if not (np.isin(before, (_COMMA, _LF, _QUOTE)).all() and np.isin(after, (_COMMA, _LF, _CR, _QUOTE)).all()):
            return None
        ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
    return ends + 1


def _fast(data: bytes, records: int, table: Table) -> pa.RecordBatch | None:
    """Parse some records by Arrow; ``None`` if anything in them is not as it should be."""
    odd = False

    def on_invalid(_: object) -> str:
        nonlocal odd
        odd = True
        return "skip"

    try:
        parsed = pa.csv.read_csv(
            pa.py_buffer(data),
            read_options=pa.csv.ReadOptions(
                column_names=table.names, use_threads=False, block_size=max(len(data) + 1, 1024)
            ),
            parse_options=pa.csv.ParseOptions(newlines_in_values=b'"' in data, invalid_row_handler=on_invalid),
            convert_options=pa.csv.ConvertOptions(
                column_types={name: pa.string() for name in table.names},
                null_values=table.null_values,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    if odd or parsed.num_rows != records:
        return None
    columns = []
    for column, values in zip(table.columns, parsed.combine_chunks().columns, strict=True):
        array = _checked(values.chunk(0) if values.num_chunks else pa.array([], pa.string()), column, table)
        if array is None:
            return None
        columns.append(array)
    return pa.RecordBatch.from_arrays(columns, schema=table.arrow)


def _checked(texts: pa.Array, column: Column, table: Table) -> pa.Array | None:
    """Give a column its type; ``None`` if any value breaks the contract."""
    if texts.null_count and not column.nullable:
        return None
    if column.avro == "long":
        try:
            numbers = texts.cast(pa.int64())
        except pa.ArrowInvalid:
            return None
        # "+1" and "007" are numbers that would not come back as they were.
        return numbers if numbers.cast(pa.string()).equals(texts) else None
    if column.name in table.keys and len(texts):
        span = pc.min_max(pc.binary_length(texts))
        if span["min"].as_py() == 0 or span["max"].as_py() > MAX_KEY:
            return None
    return texts


def _slow(block: Block, table: Table, source: str) -> tuple[pa.RecordBatch, list[Quarantined]]:
    """Parse a block record by record."""
    data, position, line = block.data, 0, block.line
    rows: list[list[str | int | None]] = []
    bad: list[Quarantined] = []
    nulls = {text.encode() for text in table.null_values}
    while position < len(data):
        first_end = _line_end(data, position)
        fields, end, reason = _record(data, position)
        row, problem = None, reason
        if fields == [(b"", False)]:  # an empty line holds no data
            position, line = end, line + 1
            continue
        if fields is not None:
            row, problem = _row(fields, table, nulls)
            if end - position > MAX_RECORD:
                row, problem = None, f"expected a record of at most {MAX_RECORD} bytes, got {end - position}"
        if row is None:
            # A bad record costs one line: a stray quote must not swallow the good rows behind it.
            raw = data[position:first_end].rstrip(b"\r\n").decode("utf-8", "backslashreplace")
            bad.append(Quarantined(table.name, source, line, raw, problem))
            end = first_end
        else:
            rows.append(row)
        line += data.count(b"\n", position, end)
        position = end
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(table.columns)
    arrays = [pa.array(values, column.arrow) for column, values in zip(table.columns, columns, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=table.arrow), bad


def _row(fields: list[Field], table: Table, nulls: set[bytes]) -> tuple[list[str | int | None] | None, str]:
    """Check one record against the table; returns the row, or ``None`` and the reason."""
    count = len(table.columns)
    if len(fields) > count and table.overflow:
        # Joined from the raw bytes: a quoted piece in the overflow would need its quotes back.
        if any(quoted for _, quoted in fields[count - 1 :]):
            return None, f"expected {count} fields, got {len(fields)}, and the surplus holds quotes"
        fields = [*fields[: count - 1], (b",".join(text for text, _ in fields[count - 1 :]), False)]
    if len(fields) != count:
        return None, f"expected {count} fields, got {len(fields)}"
    row: list[str | int | None] = []
    for column, (value, quoted) in zip(table.columns, fields, strict=True):
        if not quoted and value in nulls:
            if not column.nullable:
                return None, f"expected a value in {column.name}, got null"
            row.append(None)
            continue
        item, reason = _value(value, column, is_key=column.name in table.keys)
        if reason:
            return None, reason
        row.append(item)
    return row, ""


def _value(value: bytes, column: Column, *, is_key: bool) -> tuple[str | int, str]:
    """Give one field its type; returns it and, if it breaks the contract, the reason."""
    if column.avro == "long":
        if not _INTEGER.fullmatch(value) or not -(1 << 63) <= int(value) < 1 << 63:
            return 0, f"expected an integer in {column.name}, got {value[:100].decode('utf-8', 'backslashreplace')!r}"
        return int(value), ""
    if is_key and not 0 < len(value) <= MAX_KEY:
        return "", f"expected 1 to {MAX_KEY} bytes in the key {column.name}, got {len(value)}"
    try:
        return value.decode("utf-8"), ""
    except UnicodeDecodeError as error:
        return "", f"expected UTF-8 in {column.name}, got byte {value[error.start]:#04x} at {error.start}"


def _record(data: bytes, position: int) -> tuple[list[Field] | None, int, str]:
    """Read one record; returns its fields, the offset behind it, and the reason if there are no fields."""
    first_end = _line_end(data, position)
    line = data[position:first_end]
    if b'"' not in line:
        return [(text, False) for text in line.rstrip(b"\n").removesuffix(b"\r").split(b",")], first_end, ""
    fields: list[Field] = []
    while True:
        if data[position : position + 1] == b'"':
            match = _QUOTED.match(data, position, min(len(data), position + MAX_RECORD))
            if match is None:
                return None, first_end, _UNCLOSED
            fields.append((match[1].replace(b'""', b'"'), True))
            position = match.end()
            rest = data[position : position + 2]
            if rest[:1] not in (b",", b"\n", b"") and rest not in (b"\r\n", b"\r"):
                return None, first_end, f"expected a comma or line end behind the quoted field {len(fields)}"
        else:
            comma, end = data.find(b",", position), _line_end(data, position)
            stop = comma if 0 <= comma < end else end
            text = data[position:stop]
            fields.append((text if stop == comma else text.rstrip(b"\n").removesuffix(b"\r"), False))
            position = stop if stop == comma else stop - text.endswith(b"\n")
        if data[position : position + 1] == b",":
            position += 1
            continue
        return fields, _line_end(data, position), ""


def _line_end(data: bytes, position: int) -> int:
    """The offset behind the line that holds ``position``."""
    found = data.find(b"\n", position)
    return len(data) if found < 0 else found + 1


def _slow_end(data: bytes, *, eof: bool) -> int:
    """The end of the last whole record where quotes are irregular, or a record is too long."""
    position = 0
    while not eof and position < len(data):
        _, end, reason = _record(data, position)
        more_may_come = reason == _UNCLOSED or (end == len(data) and not data.endswith(b"\n"))
        if more_may_come and len(data) - position <= MAX_RECORD:
            return position
        position = end
    return len(data)
