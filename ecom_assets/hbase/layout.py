"""How rows are stored in HBase: the map between a row and its cells, row keys, and the split keys of regions.

What belongs here: what follows from a table's declaration, without any server. What does not: reading and writing
(see ``scan``, ``get`` and ``write``).

A null is an absent cell, an empty text a cell with an empty value, any other value its canonical text
(``core.values``). A row key is made of its columns as ``core.ordered_key`` defines it, behind a byte of salt where that
is declared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ecom_assets.core import ordered_key, row_hash
from ecom_assets.core.errors import HBaseError
from ecom_assets.core.home import hint
from ecom_assets.core.settings import Settings
from ecom_assets.core.values import texts
from ecom_assets.dataset.model import MAX_ROW_KEY, Table
from ecom_assets.hbase.rpc import Cells as CellColumns
from ecom_assets.hbase.thrift import Cells


@dataclass(frozen=True)
class Target:
    """An HBase table that rows are loaded into.

    Attributes:
        table: What is loaded.
        name: HBase's name of the table: that which people read, or the one that is built next to it.
        timestamp: Of every cell, milliseconds since the epoch: one per build, so that a repeated step writes the same
            cells again and not newer versions of them. A change by hand is newer and so wins, and a measurement shows
            it; a rebuild undoes it.
    """

    table: Table
    name: str
    timestamp: int

    @classmethod
    def public(cls, table: Table, settings: Settings, timestamp: int) -> Self:
        """The table that people read."""
        return cls(table, table.hbase_table(settings.namespace), timestamp)


class Layout:
    """How the rows of a table are stored in HBase.

    Attributes:
        cells: ``b"family:column"`` -> column.
        families: Family -> its columns.
        derived: The column that is stored in the row key alone, if there is one.
    """

    def __init__(self, table: Table) -> None:
        """Check and keep the layout of a table.

        Raises:
            ValueError: A column has no place in HBase, or could not be recovered from the row key.
        """
        self.table = table
        self.families = table.hbase.families
        self.cells = {f"{f}:{c}".encode(): c for f, columns in table.hbase.families.items() for c in columns}
        cell_of = {column: cell for cell, column in self.cells.items()}
        derived = [c for c in table.hbase.row_key if c not in cell_of]
        if sorted([*self.cells.values(), *derived]) != sorted(table.names) or len(derived) > 1:
            raise ValueError(
                f"{table.name}: expected each column in one family, or at most one of them in the row key alone;"
                f" got {sorted(self.cells.values())} in families and {derived} in the row key alone; correct its"
                " declaration"
            )
        self.derived = derived[0] if derived else None
        self.forms = table.hbase.forms
        self.salt = table.hbase.salt
        self._parts = [cell_of.get(name) for name in table.hbase.row_key]
        self._derived_at = table.hbase.row_key.index(self.derived) if self.derived else -1
        self._order = [cell_of.get(name) for name in table.names]
        self._known = self.cells.keys()

    def keys(self, rows: pa.RecordBatch | pa.Table) -> pa.Array | pa.ChunkedArray:
        """Make the row keys, as binary; of a table, a chunked array.

        Args:
            rows: Rows that have at least the columns of the row key.

        Raises:
            HBaseError: A row would get no key, an empty one, or one that is too long; names the row.
        """
        columns = [rows.column(c) for c in self.table.hbase.row_key]
        keys = self._salted(ordered_key.encode(columns, self.forms), columns[0])
        sizes = pc.fill_null(pc.binary_length(keys), 0)
        bad = pc.indices_nonzero(pc.or_(pc.equal(sizes, 0), pc.greater(sizes, MAX_ROW_KEY)))
        if len(bad):
            row = bad[0].as_py()
            raise HBaseError(
                f"{self.table.name}: expected row keys of 1 to {MAX_ROW_KEY} bytes, got {len(bad)} others in"
                f" {len(rows)} rows; the first has {sizes[row].as_py()} bytes (0: empty or null), and its row is"
                f" {str(rows.slice(row, 1).to_pylist()[0])[:500]}; quarantine such rows before they are loaded"
            )
        return keys

    def key(self, values: Sequence[str | int | bytes]) -> bytes:
        """Make one row key of its columns' values, or of the first of them what row keys begin with.

        Raises:
            ValueError: A value is no integer where the form wants one.
        """
        key = ordered_key.encode_one(values, self.forms)
        if not self.salt or not values:
            return key
        return bytes([(xxhash.xxh64_intdigest(ordered_key.as_text(values[0]), row_hash.SEED) >> 1) % self.salt]) + key

    def _salted(self, keys: pa.Array, first: pa.Array) -> pa.Array:
        """Put the salt before keys: a bucket by the hash of the first column, whose last bit Spark does not have."""
        if not self.salt:
            return keys
        known = pc.fill_null(texts(first), b"")
        buckets = ((row_hash.value_hashes(known) >> np.uint64(1)) % np.uint64(self.salt)).astype(np.uint8)
        salts = pa.FixedSizeBinaryArray.from_buffers(pa.binary(1), len(buckets), [None, pa.py_buffer(buckets)])
        return pc.binary_join_element_wise(salts.cast(pa.binary()), keys, b"")

    def columns(self, rows: pa.RecordBatch) -> list[tuple[bytes, pa.Array]]:
        """The cells as ``(b"family:column", values)``, the values binary.

        Raises:
            HBaseError: A row has no cell at all, so HBase would not hold it.
        """
        values = self.values(rows)
        return [(cell, values[column]) for cell, column in self.cells.items()]

    def values(self, rows: pa.RecordBatch) -> dict[str, pa.Array]:
        """The cells as column -> values, the values binary.

        Raises:
            HBaseError: A row has no cell at all, so HBase would not hold it.
        """
        columns = {column: texts(rows.column(column)) for column in self.cells.values()}
        if all(values.null_count for values in columns.values()):
            empty = pc.indices_nonzero(pc.coalesce(*columns.values()).is_null())
            if len(empty):
                row = rows.slice(empty[0].as_py(), 1).to_pylist()[0]
                raise HBaseError(
                    f"{self.table.name}: expected a value next to the row key, got nulls alone in {len(empty)} of"
                    f" {len(rows)} rows, the first of which is {row}; HBase cannot hold such rows, quarantine them"
                )
        return columns

    def fields(self, key: bytes, cells: Cells) -> list[bytes | None]:
        """Make a row from its cells.

        Args:
            key: Row key.
            cells: ``b"family:column"`` -> value.

        Returns:
            The fields in schema order; ``None`` is null.

        Raises:
            HBaseError: A cell is not of the layout, or the row key is not made of the cells.
        """
        if not cells.keys() <= self._known:
            raise self._damaged(key, "cells of the layout", f"also {sorted(cells.keys() - self._known)}")
        missing = [cell for cell in self._parts if cell and cell not in cells]
        if missing:
            raise self._damaged(key, f"the cell {missing[0]}, a part of the key", "none")
        values = [cells[cell] if cell else None for cell in self._parts]
        derived = self._derived(key, values)
        whole = [derived if value is None else value for value in values]
        if None in whole or self._key_of([value for value in whole if value is not None]) != key:
            raise self._damaged(key, f"a row key of {values} as the cells say", "another")
        return [cells.get(c) if c else derived for c in self._order]

    def _derived(self, key: bytes, values: list[bytes | None]) -> bytes | None:
        """The value that is in the row key alone; ``None`` if no key of the other values is like that."""
        if not self.derived:
            return None
        at, forms = self._derived_at, self.forms
        try:
            sizes = [
                0 if value is None else len(ordered_key.one_part(value, forms, n)) + ordered_key.ended(forms, n)
                for n, value in enumerate(values)
            ]
        except ValueError:
            return None
        end = len(key) - sum(sizes[at + 1 :]) - ordered_key.ended(forms, at)
        return ordered_key.decode_part(key[bool(self.salt) + sum(sizes[:at]) : end], forms, at)

    def _key_of(self, values: list[bytes]) -> bytes | None:
        """The row key of some values; ``None`` if there can be none."""
        try:
            return self.key(values)
        except ValueError:
            return None

    def rows(self, cells: CellColumns) -> tuple[pa.RecordBatch, np.ndarray]:
        """Make rows of cells, all at once.

        Args:
            cells: The cells of rows, taken apart for the columns of ``cells``.

        Returns:
            The rows, all columns binary, and which of them ``fields`` would make as well; shape ``(rows,)``.
        """
        at, forms, derived, fits = self._derived_at, self.forms, None, ~cells.odd
        try:
            parts = [ordered_key.part(cells.values[c], forms, n) if c else None for n, c in enumerate(self._parts)]
            if self.derived:
                sizes = [_sizes(p) + ordered_key.ended(forms, n) if p is not None else 0 for n, p in enumerate(parts)]
                end = ordered_key.ended(forms, at)
                parts[at] = derived = cells.within_keys(bool(self.salt) + sum(sizes[:at]), sum(sizes[at + 1 :]) + end)
                if forms[at] == "int64" or (end and not ordered_key.plain(derived)):
                    derived = ordered_key.decode_parts(derived, forms, at)
            whole = ordered_key.joined([p for p in parts if p is not None], forms)
            whole = self._salted(whole, cells.values[first] if (first := self._parts[0]) else derived)
            if derived is not None:
                fits &= derived.is_valid().to_numpy(zero_copy_only=False)
            fits &= pc.fill_null(pc.equal(whole, cells.keys), fill_value=False).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:  # a cell that should hold an integer; each row is looked at by itself
            fits[:] = False
        columns = [cells.values[c] if c else derived for c in self._order]
        columns = [cells.keys if column is None else column for column in columns]  # where no row fits
        return pa.RecordBatch.from_arrays(columns, names=self.table.names), fits

    def record(self, key: bytes, cells: Cells) -> dict[str, str | None]:
        """Make a row from its cells, for people: column -> text; ``None`` is null.

        Raises:
            HBaseError: As ``fields``.
        """
        fields = zip(self.table.columns, self.fields(key, cells), strict=True)
        return {c.name: None if f is None else c.kind.shown(f) for c, f in fields}

    def _damaged(self, key: bytes, expected: str, got: str) -> HBaseError:
        return HBaseError(
            f"{self.table.name}, row key {key!r}: expected {expected}, got {got};"
            f" something else wrote to the table, `{hint('run --repair')}` loads it again"
        )


def _sizes(values: pa.Array) -> np.ndarray:
    return pc.fill_null(pc.binary_length(values), 0).to_numpy(zero_copy_only=False).astype(np.int64)


def row_keys(rows: pa.RecordBatch | pa.Table, table: Table) -> pa.Array | pa.ChunkedArray:
    """Make the row keys of rows that have at least the columns of the row key (see ``Layout.keys``)."""
    return Layout(table).keys(rows)


def split_keys(keys: Iterable[bytes] | pa.Array | pa.ChunkedArray, regions: int) -> list[bytes]:
    """Choose the boundaries of regions of equal size.

    Args:
        keys: Row keys, or a fair sample of them, in any order.
        regions: Regions wanted.

    Returns:
        The first key of each region but the first, strictly increasing; fewer than wanted if there are too few keys.
    """
    unique = sorted(set(keys.to_pylist() if isinstance(keys, pa.Array | pa.ChunkedArray) else keys))
    return sorted({unique[at] for i in range(1, regions) if (at := i * len(unique) // regions)})
