r"""HBase's own files, written straight from Arrow columns.

What belongs here: cells of files, one per column family, from rows that are sorted by key. What does not: the form of a
file around its cells (``hfile_format``), where rows come from, regions, and how HBase loads the files (see
``bulk_load``).

**Cell.** int32 size of key, int32 size of value, key, value. Key: int16 size of row key, row key, int8 size of family,
family, qualifier, int64 timestamp, int8 4 for "put" or 14 for "delete family", a marker with an empty qualifier and an
empty value that hides all cells of row and family up to its timestamp. Cells are sorted by row key, family and
qualifier, so a marker comes before the cells of its row. Tags and sequence numbers may follow a cell; files that do
not announce them have none.

The same rows always make the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecom_assets.core.errors import HBaseError
from ecom_assets.core.location import Location
from ecom_assets.hbase.hfile_format import Blocks, Bytes, Totals

BLOCK_BYTES = 64 * 1024
"""Size of a data block before compression, HBase's default; a row is never cut."""
SLICE_BYTES = 16 * 1024 * 1024
"""Bytes of cells made at once; bounds memory."""
MAX_KEY = 32767
"""Longest row key."""

_PUT, _DELETE_FAMILY = b"\x04", b"\x0e"

Cells = Mapping[str, pa.Array]
"""Qualifier -> values, binary or text; a null makes no cell."""


class UnsortedError(HBaseError):
    """Row keys are not strictly increasing."""


class Keys:
    """Checked row keys of a batch, with what the cells of all families share.

    Args:
        keys: Row keys, binary, strictly increasing, without nulls.

    Attributes:
        sizes: Their sizes.
        first: The first of them.
        last: The last of them.

    Raises:
        UnsortedError: A key is not greater than the one before it; names both.
        ValueError: A key is empty, null or too long.
    """

    def __init__(self, keys: pa.Array) -> None:
        if keys.null_count:
            raise ValueError(f"expected row keys, got {keys.null_count} nulls among {len(keys)}")
        self.keys = keys.cast(pa.binary())
        self.sizes = pc.binary_length(self.keys).to_numpy(zero_copy_only=False)
        bad = np.flatnonzero((self.sizes == 0) | (self.sizes > MAX_KEY))
        if len(bad):
            raise ValueError(
                f"expected row keys of 1 to {MAX_KEY} bytes, got {len(bad)} others; the first has"
                f" {self.sizes[bad[0]]} bytes, {self.keys[bad[0]].as_py()[:100]!r}"
            )
        unsorted = pc.index(pc.less(self.keys[:-1], self.keys[1:]), value=False).as_py()
        if unsorted >= 0:
            raise _unsorted(self.keys[unsorted].as_py(), self.keys[unsorted + 1].as_py())
        self.first, self.last = self.keys[0].as_py(), self.keys[-1].as_py()

    def __len__(self) -> int:
        return len(self.keys)

    def slice(self, start: int, rows: int) -> Keys:
        """Some of them, without checking them again."""
        part = object.__new__(Keys)
        part.keys, part.sizes = self.keys[start : start + rows], self.sizes[start : start + rows]
        part.first, part.last = part.keys[0].as_py(), part.keys[-1].as_py()
        return part


def _unsorted(before: bytes, after: bytes) -> UnsortedError:
    what = "comes twice" if before == after else f"comes before {before!r}"
    return UnsortedError(f"expected strictly increasing row keys, but {after!r} {what}; sort rows, drop equal keys")


class HFile:
    """One file of one column family; a context manager, which completes it, or deletes it after an error.

        with HFile(path, "info", 1) as file:
            file.write(Keys(keys), {"name": names, "age": ages})

    Args:
        path: The file; its folder must be there.
        family: The column family.
        timestamp: Of every cell, in milliseconds since the epoch, unless ``write`` is given others.
        compression: ``none``, ``gz`` or ``snappy``.
    """

    def __init__(self, path: Location, family: str, timestamp: int, compression: str = "none") -> None:
        self.path = path
        self.family = family.encode()
        if not 0 < len(self.family) < 128:
            raise ValueError(f"expected a family of 1 to 127 bytes, got {family!r}")
        self.timestamp = timestamp
        self._file: BinaryIO = path.open("wb", buffering=1 << 20)
        self._blocks = Blocks(self._file, compression)
        self._pending: list[Bytes] = []
        self._pending_size = 0
        self._last_key = b""
        self._last_row = b""
        self._totals = Totals()

    @property
    def cells(self) -> int:
        """Cells written so far; a file without any is deleted when it is closed."""
        return self._totals.cells

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._file.close()
            self.path.unlink(missing_ok=True)

    def write(
        self, keys: Keys, columns: Cells, timestamps: pa.Array | None = None, gone: pa.Array | None = None
    ) -> None:
        """Append rows.

        Args:
            keys: Row keys, all greater than those written before.
            columns: The family's cells of these rows, columns in any order.
            timestamps: Of the cells of each row, int64 without nulls, in place of the file's.
            gone: Whether all that HBase holds of the row's family is to be hidden, by a marker one millisecond before
                the file's timestamp; boolean without nulls.

        Raises:
            UnsortedError: The first key is not greater than the last one written.
            ValueError: A column without a name would come before its row's marker.
        """
        if self._last_key >= keys.first:
            raise _unsorted(self._last_key, keys.first)
        values = [(name.encode(), column.cast(pa.binary())) for name, column in sorted(columns.items(), key=_encoded)]
        if gone is not None and pc.any(gone).as_py():
            if "" in columns:
                raise ValueError(f"expected columns with names next to markers, got {sorted(columns)}")
            # A column of empty values, without a name, so that it comes first.
            values.insert(0, (b"", pc.if_else(gone, pa.scalar(b""), pa.scalar(None, pa.binary()))))
            self._totals.span(self.timestamp - 1, self.timestamp - 1)
        for start, rows in _slices(keys, [v for _, v in values]):
            part = [(name, column[start : start + rows]) for name, column in values]
            times = None if timestamps is None else timestamps[start : start + rows].to_numpy()
            self._append(keys.slice(start, rows), part, times, marked=len(values) > len(columns))
        self._last_key = keys.last

    def close(self) -> bool:
        """Complete the file.

        Returns:
            Whether there is one; without cells there is not.
        """
        if self._file.closed:
            return self.cells > 0
        if not self.cells:
            self._file.close()
            self.path.unlink()
            return False
        self._flush()
        self._blocks.finish(self._totals, self._last_row)
        self._file.close()
        return True

    def _append(
        self, keys: Keys, columns: list[tuple[bytes, pa.Array]], times: np.ndarray | None, *, marked: bool
    ) -> None:
        """Make the cells of some rows, one join for all of them, and cut it into blocks; the first may be markers."""
        row_key = pc.binary_join_element_wise(_fixed(keys.sizes.astype(">i2")), keys.keys, b"")
        if times is None:
            stamp: bytes | pa.Array = struct.pack(">q", self.timestamp) + _PUT
            self._totals.span(self.timestamp, self.timestamp)
        else:
            stamps = np.full((len(keys), 9), _PUT[0], np.uint8)
            stamps[:, :8] = times.astype(">i8").view(np.uint8).reshape(-1, 8)
            stamp = _fixed(stamps)
            self._totals.span(int(times.min()), int(times.max()))
        parts: list[bytes | pa.Array] = []
        stamps_of = [stamp] * len(columns)
        if marked:
            stamps_of[0] = struct.pack(">q", self.timestamp - 1) + _DELETE_FAMILY
        for (name, values), stamp_of in zip(columns, stamps_of, strict=True):
            column = bytes([len(self.family)]) + self.family + name
            key_sizes = keys.sizes + (2 + len(column) + 9)
            sizes = np.empty((len(keys), 2), ">i4")
            sizes[:, 0] = key_sizes
            sizes[:, 1] = pc.fill_null(pc.binary_length(values), 0).to_numpy(zero_copy_only=False)
            cell = (_fixed(sizes), row_key, *_scalars(column, stamp_of), values)
            if values.null_count:
                there = values.is_valid().to_numpy(zero_copy_only=False)
                self._totals.cells += int(there.sum())
                self._totals.key_bytes += int(key_sizes[there].sum())
                parts.append(pc.binary_join_element_wise(*cell, b""))
            else:
                self._totals.cells += len(keys)
                self._totals.key_bytes += int(key_sizes.sum())
                parts.extend(cell)
            self._totals.value_bytes += int(sizes[:, 1].sum())
        body = pc.binary_join_element_wise(*parts, b"", null_handling="replace", null_replacement=b"")
        if not isinstance(body, pa.Array):
            raise TypeError(f"expected one array of rows, got {type(body).__name__}")
        offsets = np.frombuffer(body.buffers()[1], np.int32)[body.offset : body.offset + len(body) + 1]
        data = memoryview(body.buffers()[2])
        filled = np.flatnonzero(np.diff(offsets))
        if len(filled):
            self._last_row = bytes(data[offsets[filled[-1]] : offsets[-1]])
            self._cut(offsets, data)

    def _cut(self, offsets: np.ndarray, data: memoryview) -> None:
        """Write full blocks and keep the rest."""
        start, end = int(offsets[0]), int(offsets[-1])
        while start < end:
            # The last row border within the block; a row that is larger makes a block of its own.
            room = min(end, start + max(0, BLOCK_BYTES - self._pending_size))
            stop = int(offsets[_behind(offsets, room) - 1])
            if stop <= start:
                if self._pending:
                    self._flush()
                    continue
                stop = int(offsets[_behind(offsets, start)])
            if stop == end:
                self._pending.append(bytes(data[start:stop]))  # a copy, for the view would keep the whole batch
                self._pending_size += stop - start
                return
            self._pending.append(data[start:stop])
            self._flush()
            start = stop

    def _flush(self) -> None:
        """Write the data block that was kept."""
        if not self._pending:
            return
        data = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
        self._pending, self._pending_size = [], 0
        self._blocks.add(data)


class Files:
    """The files of one region, one per family, written in one pass; a context manager like ``HFile``.

    Args:
        folder: Where they are to lie, ``<folder>/<family>/<name>``, as HBase's bulk load wants them.
        name: Name of each file; letters and digits.
        families: Family -> qualifiers.
        timestamp: Of every cell.
        compression: See ``HFile``.
        pool: Threads that share the families' work; their locks are mostly free.
    """

    def __init__(
        self,
        folder: Location,
        name: str,
        families: Mapping[str, Sequence[str]],
        timestamp: int,
        *,
        compression: str = "none",
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        self._columns = families
        self._map = pool.map if pool else map
        self._files: list[HFile] = []
        for family in families:
            (folder / family).mkdir(parents=True, exist_ok=True)
            self._files.append(HFile(folder / family / name, family, timestamp, compression))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.__exit__(kind, error, trace)

    def write(
        self, keys: pa.Array, rows: Cells, timestamps: pa.Array | None = None, gone: pa.Array | None = None
    ) -> None:
        """Append rows.

        Args:
            keys: Row keys, binary, strictly increasing over all calls.
            rows: Column -> values, of all families.
            timestamps: See ``HFile.write``.
            gone: See ``HFile.write``; of all families.

        Raises:
            UnsortedError: Keys are not strictly increasing.
            ValueError: A key is empty, null or too long.
        """
        if not len(keys):
            return
        checked = Keys(keys)

        def one(file: HFile) -> None:
            file.write(checked, {c: rows[c] for c in self._columns[file.family.decode()]}, timestamps, gone)

        list(self._map(one, self._files))


def _encoded(item: tuple[str, pa.Array]) -> bytes:
    return item[0].encode()


def _slices(keys: Keys, columns: list[pa.Array]) -> Iterator[tuple[int, int]]:
    """Cut rows so that the cells of a part fit ``SLICE_BYTES``, as far as rows allow."""
    total = keys.sizes.astype(np.int64) * len(columns)
    for values in columns:
        total += pc.fill_null(pc.binary_length(values), 0).to_numpy(zero_copy_only=False) + 64
    ends = np.cumsum(total)
    start = done = 0
    while start < len(keys):
        stop = max(start + 1, int(np.searchsorted(ends, done + SLICE_BYTES, "right")))
        yield start, stop - start
        start, done = stop, int(ends[stop - 1])


def _behind(offsets: np.ndarray, at: int) -> int:
    """Index of the first offset behind a position; in the offsets' own type, for another would copy them all."""
    return int(np.searchsorted(offsets, np.int32(at), "right"))


def _fixed(numbers: np.ndarray) -> pa.Array:
    """One binary value per row of an array, of the same size each."""
    size = numbers.nbytes // len(numbers)
    offsets = np.arange(0, size * len(numbers) + 1, size, dtype=np.int32)
    return pa.Array.from_buffers(pa.binary(), len(numbers), [None, pa.py_buffer(offsets), pa.py_buffer(numbers)])


def _scalars(column: bytes, stamp: bytes | pa.Array) -> tuple[bytes | pa.Array, ...]:
    """Column and timestamp as few parts as can be: each part costs time in every row."""
    return (column + stamp,) if isinstance(stamp, bytes) else (column, stamp)
