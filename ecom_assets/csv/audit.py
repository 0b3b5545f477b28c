"""A second reader of raw files, for the check of the first: their rows and checksum, and what is quarantined.

What belongs here: counting and hashing by the contract alone. What does not: anything of the first reader (``blocks``,
``fast``, ``exact``, ``records``): this one shares no code with it, or a mistake would cancel out when the expanded
files are compared with the raw one. It has no reasons and no batches, so it is no use for anything else.

Fields of regular blocks are found by numpy, a whole block at a time, and hashed as Arrow columns. Whatever is unusual
(another number of fields, a null where none may be, an odd integer, bytes that are not ASCII in a block that is not
UTF-8) is judged record by record by one regular expression, which also finds the way through irregular quotes.
"""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from ecom_assets.core import row_hash
from ecom_assets.core.block import ROOM, take
from ecom_assets.core.measure import Measure
from ecom_assets.core.parallel import ordered_map
from ecom_assets.core.quarantine import record_hash
from ecom_assets.csv import contract
from ecom_assets.csv.audit_parts import Part, Quoted, Regular, Walked, fields, parts
from ecom_assets.csv.audit_values import canonical
from ecom_assets.dataset.kind import Kind
from ecom_assets.dataset.model import Column, Table

BLOCK_BYTES = 4 << 20

_QUOTE, _COMMA, _LF, _CR, _MINUS, _ZERO, _NINE = b'",\n\r-09'
_TIME = b"9999-19-39T29:59:59Z"  # the highest digit at each place

_SAFE_DIGITS = {32: 9, 64: 18}  # bits of an integer -> digits that fit, whichever they are

Sample = Callable[[pa.Array], np.ndarray]
"""Which rows to take, by the values of a column."""


@dataclass(frozen=True)
class Audit:
    """What a raw file was found to hold.

    Attributes:
        rows: The good rows, the bytes of the file and the seconds that it took.
        quarantined: The records that are quarantined, by ``core.quarantine``'s checksum.
        sampled: The good rows that a sample takes; all of them where there is none.
    """

    rows: Measure = field(default_factory=Measure)
    quarantined: Measure = field(default_factory=Measure)
    sampled: Measure = field(default_factory=Measure)

    def __add__(self, other: Audit) -> Audit:
        """Add what a further part holds."""
        return Audit(self.rows + other.rows, self.quarantined + other.quarantined, self.sampled + other.sampled)


def audit(
    path: Path,
    table: Table,
    sample: tuple[str, Sample] | None = None,
    *,
    block_bytes: int = BLOCK_BYTES,
    progress: Callable[[int], None] | None = None,
) -> Audit:
    """Read a raw file, every record of it.

    Args:
        path: The file.
        table: What it should hold.
        sample: A column, and which rows to take by its values.
        block_bytes: About how many bytes to read at a time.
        progress: Called with the bytes done since the last call.

    Raises:
        FileNotFoundError: No such file.
        HeaderError: Its first line is not the table's header.
    """
    began = time.perf_counter()
    judge = _Judge(table, sample)
    found = Audit(Measure(bytes=path.stat().st_size))
    with path.open("rb") as file:
        _check_header(file.readline(contract.MAX_RECORD), path, table)
        for part, size in ordered_map(judge, parts(file, block_bytes)):
            found += part
            if progress:
                progress(size)
    return found + Audit(Measure(seconds=time.perf_counter() - began))


def _check_header(line: bytes, path: Path, table: Table) -> None:
    text = line.removeprefix(contract.BOM).rstrip(b"\r\n").decode("utf-8", "backslashreplace")
    found = [name for row in csv.reader([text]) for name in row]
    if found != table.headers:
        raise contract.wrong_header(path, table, text, found)


class _Judge:
    """The verdict on records of one table; called with a part of its file.

    Args:
        table: The table.
        sample: A column, and which rows to take by its values.
    """

    def __init__(self, table: Table, sample: tuple[str, Sample] | None) -> None:
        self.table = table
        self.sample = sample
        self.nulls = [text.encode() for text in table.null_values]

    def __call__(self, part: Part) -> tuple[Audit, int]:
        """Judge records; returns what they hold, and their bytes."""
        found, size = Audit(), 0
        for records in part:
            found += self._regular(records) if isinstance(records, Regular) else self._single(records)
            size += len(records.data)
        return found, size

    def _single(self, record: Walked) -> Audit:
        """Judge one record."""
        content = record.data[: -2 if record.data.endswith(b"\r\n") else -1]
        found = fields(record.data) if record.whole else None
        if found == [None]:
            return Audit()
        values = self._row(found) if found else None
        if values is None:
            text = content[: contract.MAX_RECORD].decode("utf-8", "backslashreplace")
            return Audit(quarantined=Measure(1, record_hash(record.line, text)))
        own = Measure(1, row_hash.row_hash(zip(self.table.ids.values(), values, strict=True)))
        if self.sample is None:
            return Audit(own, sampled=own)
        name, taken = self.sample
        value = values[self.table.names.index(name)]
        return Audit(own, sampled=own if taken(pa.array([value], pa.binary()))[0] else Measure())

    def _row(self, read: list[bytes | None]) -> list[bytes | None] | None:
        """The values of a record, as they are hashed; ``None`` if it is no row."""
        columns = self.table.columns
        if self.table.overflow and len(read) > len(columns):
            last = read[len(columns) - 1 :]
            if any(isinstance(value, Quoted) for value in last):
                return None
            read = [*read[: len(columns) - 1], b",".join(value or b"" for value in last)]
        if len(read) != len(columns):
            return None
        null = [value is None or (value in self.nulls and not isinstance(value, Quoted)) for value in read]
        texts = [None if missing else bytes(value or b"") for value, missing in zip(read, null, strict=True)]
        values = [self._value(column, text) for column, text in zip(columns, texts, strict=True)]
        # A null in place of a text: it is no value.
        lost = any(v is None and not (t is None and c.nullable) for c, t, v in zip(columns, texts, values, strict=True))
        return None if lost else values

    def _value(self, column: Column, text: bytes | None) -> bytes | None:
        """A value as it is hashed; ``None`` if it breaks the contract, or there is none."""
        if text is None or not column.kind.is_plain:
            return None if text is None else canonical(text, column.kind)
        return text if self._keeps(column, text) else None

    def _keeps(self, column: Column, value: bytes) -> bool:
        """Whether a text keeps the contract."""
        least, most = self.table.key_sizes.get(column.name, (0, len(value)))
        if column.name in self.table.key_times and not _is_time(value):
            return False
        return least <= len(value) <= most and _is_utf8(value)

    def _regular(self, records: Regular) -> Audit:
        """Judge records whose quotes are regular: most of them at once, the unusual ones by themselves."""
        data, table = records.data, self.table
        count = len(table.columns)
        array = np.frombuffer(data, np.uint8)
        starts = np.concatenate(([0], records.ends[:-1] + 1))
        commas = array == _COMMA
        if len(records.quotes):
            commas &= np.bitwise_xor.accumulate(array == _QUOTE) == 0
        places = np.flatnonzero(commas)
        last = np.searchsorted(places, records.ends)
        usual = np.diff(last, prepend=0) == count - 1
        if count == 1:  # an empty line is no row of one null
            usual &= (records.ends > starts) & (array[starts] != _CR)
        if not usual.all():
            places = places[np.repeat(usual, np.diff(last, prepend=0))]
        stops = records.ends[usual]
        stops = stops - ((array[stops - 1] == _CR) & (stops > starts[usual]))
        begins = np.column_stack((starts[usual], places.reshape(len(stops), count - 1) + 1))
        ends = np.column_stack((places.reshape(len(stops), count - 1), stops))
        cells = _Cells(data, array, records.quotes, begins, ends)
        good = self._good(cells)
        if not data.isascii() and not _is_utf8(data):
            high = np.flatnonzero(array >= 0x80)
            doubtful = np.zeros(len(starts), bool)
            doubtful[np.searchsorted(records.ends, high)] = True
            good &= ~doubtful[usual]
        found = self._hashed(cells, good)
        usual[usual] = good
        line, at = records.line, 0
        for row in np.flatnonzero(~usual).tolist():
            start = int(starts[row])
            line, at = line + data.count(b"\n", at, start), start
            found += self._single(Walked(data[start : int(records.ends[row]) + 1], line, whole=True))
        return found

    def _good(self, cells: _Cells) -> np.ndarray:
        """Which rows keep the contract for sure, but for bytes that are not UTF-8."""
        good = np.ones(len(cells.sizes), bool)
        for at, column in enumerate(self.table.columns):
            null = cells.mark_nulls(at, self.nulls)
            if not column.nullable:
                good &= ~null
            if column.kind.is_integer:
                good &= null | cells.integers(at, _SAFE_DIGITS[column.kind.arrow.bit_width])
            elif not column.kind.is_plain:
                good &= null | cells.canonize(at, column.kind)
            elif column.name in self.table.key_sizes:
                least, most = self.table.key_sizes[column.name]
                if column.name in self.table.key_times:
                    good &= null | cells.times(at)
                good &= null | ((cells.sizes[:, at] >= least) & (cells.sizes[:, at] <= most))
        return good

    def _hashed(self, cells: _Cells, good: np.ndarray) -> Audit:
        """Hash some rows."""
        if not good.any():
            return Audit()
        names = self.table.names
        batch = pa.RecordBatch.from_arrays([cells.column(at, good) for at in range(len(names))], names=names)
        hashes = row_hash.batch_hashes(batch, self.table.ids)
        found = Measure(len(hashes), row_hash.total(hashes))
        if self.sample is None:
            return Audit(found, sampled=found)
        name, taken = self.sample
        hashes = hashes[taken(batch.column(name))]
        return Audit(found, sampled=Measure(len(hashes), row_hash.total(hashes)))


class _Cells:
    """The fields of some records, without their quotes.

    Args:
        data: The records' bytes.
        array: The same.
        quotes: Where quotes are, all regular.
        begins: Where each field begins, shape ``(rows, columns)``.
        ends: Where it ends.

    Attributes:
        begins: Where the field's text begins, in ``block``.
        sizes: Bytes of its text; -1 for a null.
        block: The records' bytes, doubled quotes halved.
        replaced: Column -> its values, where they are not hashed as they are.
    """

    def __init__(
        self, data: bytes, array: np.ndarray, quotes: np.ndarray, begins: np.ndarray, ends: np.ndarray
    ) -> None:
        self.replaced: dict[int, pa.Array] = {}
        self.quoted = np.zeros(begins.shape, bool)
        self.block = data + bytes(ROOM)
        if len(quotes):
            self.quoted = array[begins] == _QUOTE
            reopened = quotes[2::2]
            halved = reopened[reopened == quotes[1::2][: len(reopened)] + 1]
            if len(halved):
                self.block = np.delete(array, halved).tobytes() + bytes(ROOM)
                begins = begins - np.searchsorted(halved, begins)
                ends = ends - np.searchsorted(halved, ends)
        self.begins = begins + self.quoted
        self.sizes = ends - self.quoted - self.begins
        self._array = np.frombuffer(self.block, np.uint8)

    def mark_nulls(self, column: int, nulls: list[bytes]) -> np.ndarray:
        """Find the nulls of a column and give them the size -1."""
        begins, sizes = self.begins[:, column], self.sizes[:, column]
        null = np.zeros(len(sizes), bool)
        for text in nulls:
            same = (sizes == len(text)) & ~self.quoted[:, column]
            for at, byte in enumerate(text):
                same &= self._array[np.where(same, begins + at, 0)] == byte
            null |= same
        sizes[null] = -1
        return null

    def integers(self, column: int, most: int) -> np.ndarray:
        """Which values of a column are integers for sure, as they have so many digits at most."""
        begins, sizes = self.begins[:, column], self.sizes[:, column]
        first = self._array[begins]
        negative = first == _MINUS
        digits = sizes - negative
        leading = self._array[begins + negative]
        good = (digits > 0) & (digits <= most) & ((leading != _ZERO) | ((digits == 1) & ~negative))
        for at in range(int(np.max(digits, initial=0, where=good))):
            # A place behind a value's end counts as a digit.
            byte = self._array[np.where(at < digits, begins + negative + at, begins + negative)]
            good &= (byte >= _ZERO) & (byte <= _NINE)
        return good

    def canonize(self, column: int, kind: Kind) -> np.ndarray:
        """Replace the values of a column by their canonical texts, and find which are values for sure."""
        found = self.column(column, np.ones(len(self.sizes), bool)).dictionary_encode()
        texts = [None if value is None else canonical(value, kind) for value in found.dictionary.to_pylist()]
        self.replaced[column] = pa.array(texts, pa.binary()).take(found.indices)
        return self.replaced[column].is_valid().to_numpy(zero_copy_only=False)

    def times(self, column: int) -> np.ndarray:
        """Which values of a column are times for sure: ``2022-07-31T10:00:00Z``, no day above the 28th."""
        begins, sizes = self.begins[:, column], self.sizes[:, column]
        good = sizes == len(_TIME)
        for at, pattern in enumerate(_TIME):
            byte = self._array[np.where(good, begins + at, 0)]
            good &= (byte >= _ZERO) & (byte <= pattern) if chr(pattern).isdigit() else byte == pattern
        for at, most in ((5, 12), (8, 28), (11, 23)):
            places = np.where(good, begins + at, 0)
            number = 10 * (self._array[places] - _ZERO).astype(int) + self._array[places + 1] - _ZERO
            good &= (number <= most) & ((number > 0) | (at == 11))
        year = self._array[np.where(good, begins, 0)[:, None] + np.arange(4)]
        return good & (year != _ZERO).any(axis=1)

    def column(self, column: int, rows: np.ndarray) -> pa.Array:
        """The values of a column in some rows."""
        if column in self.replaced:
            return self.replaced[column].filter(pa.array(rows))
        return take(self.block, self.begins[rows, column], self.sizes[rows, column])


def _is_time(value: bytes) -> bool:
    """Whether a value is a time of any day, with a fraction of a second or without."""
    text, found = value.decode("ascii", "replace"), re.fullmatch(rb"[-0-9]{10}T[:0-9]{8}(\.[0-9]{1,6})?Z", value)
    try:
        return bool(found and time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").tm_sec < 60 and text[:4] != "0000")
    except ValueError:
        return False


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
