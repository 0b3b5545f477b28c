"""The values of columns as 64-bit hashes in files: what keys and references are found by, in bounded memory.

What belongs here: writing hashes, and the two questions that are put to them, whether all differ and whether all are
in another column. What does not: which columns are asked about (``candidates``, ``references``).

Equal values have equal hashes. So hashes that all differ are of values that all differ, for sure. A value that is in
no other column might share its hash with one that is: at 13 million rows each, the odds are one to 100,000.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

_CHUNK = 1 << 20
"""Rows that are read at once."""

_PART = 1 << 23
"""Hashes that are sorted at once, 64 MB."""

_ODD = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)
"""Factors by which the columns of a key are distinguished."""


def of_values(values: pa.Array) -> np.ndarray:
    """Hash each text; a null is 0, and nothing else is."""
    hashes = pl.Series(pl.from_arrow(values)).hash().to_numpy(writable=True)
    hashes[hashes == 0] = 1
    if values.null_count:
        hashes[values.is_null().to_numpy(zero_copy_only=False)] = 0
    return hashes


@dataclass(frozen=True)
class Hashes:
    """The hashes of one or more columns of a table, row by row; 0 where one of them is null.

    Attributes:
        files: A file per column.
        rows: How many there are.
    """

    files: tuple[Path, ...]
    rows: int

    @classmethod
    def joined(cls, columns: Sequence[Hashes]) -> Hashes:
        """The hashes of several columns of a table, taken together."""
        return cls(tuple(file for each in columns for file in each.files), columns[0].rows)

    def sample(self, most: int, blocks: int = 50) -> np.ndarray:
        """Hashes of some rows, in blocks that are spread over the file."""
        if self.rows <= most:
            return self._read(0, self.rows)
        size = most // blocks
        starts = np.linspace(0, self.rows - size, blocks).astype(int)
        return np.concatenate([self._read(int(start), size) for start in starts])

    def repeated(self) -> int:
        """Rows whose values an earlier row has as well."""
        total = 0
        for part in self._parts():
            hashes = self._sorted(part)
            total += int(np.count_nonzero(hashes[1:] == hashes[:-1]))
        return total

    def missing_in(self, key: Hashes) -> tuple[int, int]:
        """Rows without a null, and those of them whose values are nowhere in some other columns."""
        used = missing = 0
        for part in key._parts():
            known = key._sorted(part)
            for chunk in self._chunks(part):
                chunk.sort()
                used += len(chunk)
                at = np.searchsorted(known, chunk)
                at[at == len(known)] = 0
                missing += int(np.count_nonzero(known[at] != chunk)) if len(known) else len(chunk)
        return used, missing

    def _parts(self) -> list[tuple[int, int]]:
        """Equal shares of all hashes, each small enough to be sorted: ``(number, of how many)``."""
        count = max(1, -(-self.rows // _PART))
        return [(number, count) for number in range(count)]

    def _sorted(self, part: tuple[int, int]) -> np.ndarray:
        chunks = list(self._chunks(part))
        hashes = np.concatenate(chunks) if chunks else np.empty(0, np.uint64)
        hashes.sort()
        return hashes

    def _chunks(self, part: tuple[int, int]) -> Iterator[np.ndarray]:
        number, count = part
        for start in range(0, self.rows, _CHUNK):
            hashes = self._read(start, min(_CHUNK, self.rows - start))
            keep = hashes != 0
            if count > 1:
                keep &= hashes % np.uint64(count) == number
            yield hashes[keep]

    def _read(self, start: int, count: int) -> np.ndarray:
        columns = [np.fromfile(file, np.uint64, count, offset=8 * start) for file in self.files]
        if len(columns) == 1:
            return columns[0]
        total = np.zeros(count, np.uint64)
        for column, factor in zip(columns, _ODD, strict=False):
            total += column * np.uint64(factor)
        total[total == 0] = 1
        for column in columns:
            total[column == 0] = 0
        return total
