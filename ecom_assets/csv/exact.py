"""The exact reader: one record after another, slowly, so that each bad one is quarantined with line and reason.

What belongs here: where a record ends whatever its quotes are (``record``), and its verdict (``read``). What does not:
blocks that are clean, which ``fast`` reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from ecom_assets.core import ordered_key, values
from ecom_assets.core.quarantine import Quarantined
from ecom_assets.csv import contract
from ecom_assets.dataset.kind import Kind
from ecom_assets.dataset.model import Column, Table

_QUOTED = re.compile(rb'"([^"]*+(?:""[^"]*+)*+)"')
_UNCLOSED = "expected the opening quote of a field to be closed"
_LONG = "expected a record of at most {} bytes, got a longer one"

Field = tuple[bytes, bool]
"""A field's bytes, and whether it was quoted."""

Row = list[str | None]


class Record(NamedTuple):
    """What begins at some place of a file.

    Attributes:
        end: The offset behind it; behind its first line if it is not whole.
        fields: Its fields; ``None`` if it is not whole.
        reason: Why it is not whole.
        complete: Whether further bytes behind those that are known would change nothing.
    """

    end: int
    fields: list[Field] | None
    reason: str
    complete: bool


def record(data: bytes, position: int, *, eof: bool = True) -> Record:
    """Read what begins at a place.

    Args:
        data: Bytes of a file; at its end with a line end.
        position: Where a record begins.
        eof: Whether nothing follows the bytes.
    """
    fields, end, reason = _fields(data, position)
    whole = fields is not None and end - position <= contract.MAX_RECORD
    if whole and data.endswith(b"\n", position, end):
        return Record(end, fields, "", complete=True)
    end = _line_end(data, position)
    # What stands behind a closed quote is known; whether an open one is closed, only once it is too late for that.
    broken = fields is None and reason != _UNCLOSED and data.endswith(b"\n", position, end)
    complete = eof or broken or len(data) - position > contract.MAX_RECORD
    return Record(end, None, reason or _LONG.format(contract.MAX_RECORD), complete)


def read(data: bytes, line: int, table: Table, source: str) -> tuple[pa.RecordBatch, list[Quarantined]]:
    """Read some bytes record by record.

    Args:
        data: Records from the first byte to the last, the last one with a line end.
        line: Line of the first byte, 1-based, header included.
        table: What they should hold.
        source: Name of the file.

    Returns:
        The good rows, and the other records.
    """
    rows: list[Row] = []
    places: list[tuple[int, int, int]] = []  # of each row: its line, where it begins and ends
    bad: list[Quarantined] = []
    nulls = {text.encode() for text in table.null_values}
    for begin, found in _records(data):
        if found.fields != [(b"", False)]:  # an empty line holds no data
            row, reason = _row(found.fields, table, nulls) if found.fields else (None, found.reason)
            if row is None:
                bad.append(Quarantined(table.name, source, line, _text(data[begin : found.end]), reason))
            else:
                rows.append(row)
                places.append((line, begin, found.end))
        line += data.count(b"\n", begin, found.end)
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(table.columns)
    texts = [pa.array(column, pa.string()) for column in columns]
    batch, reasons = _typed(texts, table)
    bad += [
        Quarantined(table.name, source, places[row][0], _text(data[slice(*places[row][1:])]), reason)
        for row, reason in reasons.items()
    ]
    return batch, sorted(bad, key=lambda each: each.line)


def _typed(texts: list[pa.Array], table: Table) -> tuple[pa.RecordBatch, dict[int, str]]:
    """Give rows of texts their types; returns the good rows, and why each of the others is none."""
    columns, reasons = [], dict[int, str]()
    for column, own in zip(table.columns, texts, strict=True):
        columns.append(values.parse(own, column.kind))
        if columns[-1].null_count > own.null_count:
            for row in pc.indices_nonzero(pc.and_(own.is_valid(), columns[-1].is_null())).to_pylist():
                got = own[row].as_py()[:100]
                reasons.setdefault(row, f"expected {_called(column.kind)} in {column.name}, got {got!r}")
    good = pa.array([row not in reasons for row in range(len(texts[0]))], pa.bool_())
    # Only then the schema, which allows no null where one stood for a wrong value.
    kept = pa.RecordBatch.from_arrays(columns, names=table.names).filter(good)
    return pa.RecordBatch.from_arrays(kept.columns, schema=table.arrow), reasons


def _called(kind: Kind) -> str:
    """A type with its article, as errors name it."""
    if kind.symbols:
        return f"one of {', '.join(kind.symbols)}"
    return {"long": "an integer", "int": "an integer of 32 bits"}.get(kind.name, f"a value of the type {kind.name}")


def _records(data: bytes) -> Iterator[tuple[int, Record]]:
    position = 0
    while position < len(data):
        found = record(data, position)
        yield position, found
        position = found.end


def _text(raw: bytes) -> str:
    """A bad record as people read it."""
    content = raw.removesuffix(b"\n").removesuffix(b"\r")
    return content[: contract.MAX_RECORD].decode("utf-8", "backslashreplace")


def _row(fields: list[Field], table: Table, nulls: set[bytes]) -> tuple[Row | None, str]:
    """Check one record against the table; returns the row, or ``None`` and the reason."""
    count = len(table.columns)
    if len(fields) > count and table.overflow:
        # Joined from the raw bytes: a quoted piece in the overflow would need its quotes back.
        if any(quoted for _, quoted in fields[count - 1 :]):
            return None, f"expected {count} fields, got {len(fields)}, and the surplus holds quotes"
        fields = [*fields[: count - 1], (b",".join(text for text, _ in fields[count - 1 :]), False)]
    if len(fields) != count:
        return None, f"expected {count} fields, got {len(fields)}"
    row: Row = []
    sizes = table.key_sizes
    for column, (value, quoted) in zip(table.columns, fields, strict=True):
        if not quoted and value in nulls:
            if not column.nullable:
                return None, f"expected a value in {column.name}, got null"
            row.append(None)
            continue
        item, reason = _value(value, column, sizes.get(column.name), is_time=column.name in table.key_times)
        if reason:
            return None, reason
        row.append(item)
    return row, ""


def _value(value: bytes, column: Column, sizes: tuple[int, int] | None, *, is_time: bool) -> tuple[str, str]:
    """Read the text of one field; returns it and, if it breaks the contract, the reason. A key has sizes to keep to."""
    if sizes and not sizes[0] <= len(value) <= sizes[1]:
        expected = f"{sizes[0]} to {sizes[1]}" if sizes[0] < sizes[1] else str(sizes[0])
        return "", f"expected {expected} bytes in the key {column.name}, got {len(value)}"
    try:
        text = value.decode("utf-8")
        if is_time:
            ordered_key.microseconds(text)
    except UnicodeDecodeError as error:
        return "", f"expected UTF-8 in {column.name}, got byte {value[error.start]:#04x} at {error.start}"
    except ValueError as error:
        return "", f"{error} in the key {column.name}"
    return text, ""


def _fields(data: bytes, position: int) -> tuple[list[Field] | None, int, str]:
    """Read the fields of a record; returns them, the offset behind it, and the reason if its quotes are irregular."""
    first, first_end = position, _line_end(data, position)
    line = data[position:first_end]
    if b'"' not in line:
        return [(text, False) for text in line.removesuffix(b"\n").removesuffix(b"\r").split(b",")], first_end, ""
    fields: list[Field] = []
    while True:
        if position - first >= contract.MAX_RECORD:
            return None, first_end, _LONG.format(contract.MAX_RECORD)
        if data[position : position + 1] == b'"':
            match = _QUOTED.match(data, position, min(len(data), first + contract.MAX_RECORD))
            if match is None:
                return None, first_end, _UNCLOSED
            fields.append((match[1].replace(b'""', b'"'), True))
            position = match.end()
            rest = data[position : position + 2]
            if rest[:1] not in (b",", b"\n", b"") and rest not in (b"\r\n", b"\r"):
                return None, first_end, f"expected a comma or line end behind the quoted field {len(fields)}"
        else:
            end = _line_end(data, position)
            comma = data.find(b",", position, end)
            stop = end if comma < 0 else comma
            text = data[position:stop]
            fields.append((text if stop == comma else text.removesuffix(b"\n").removesuffix(b"\r"), False))
            position = stop if stop == comma else stop - text.endswith(b"\n")
        if data[position : position + 1] == b",":
            position += 1
            continue
        return fields, _line_end(data, position), ""


def _line_end(data: bytes, position: int) -> int:
    """The offset behind the line that holds ``position``."""
    found = data.find(b"\n", position)
    return len(data) if found < 0 else found + 1
