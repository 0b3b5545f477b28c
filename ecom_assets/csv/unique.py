"""Expanded files without the rows that the merged layer would leave out: what the bulk path loads.

What belongs here: the deduplication that the merged layer does on the other path. Equal rows of one key collapse, and
a row that contradicts an earlier one of its key is excluded as a conflict. What does not: any store that is loaded.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import duckdb
import numpy as np
import pyarrow as pa

from ecom_assets.core import ordered_key, row_hash, values
from ecom_assets.core.files import temporary
from ecom_assets.core.measure import Measure
from ecom_assets.core.settings import Settings
from ecom_assets.csv import expand, records
from ecom_assets.dataset.model import Table

SAMPLE = 100_000
"""Rows that a sample aims at."""

MEMORY = "512MB"
"""Memory of DuckDB; what needs more goes to disk."""

_HASHES = pa.schema([("h", pa.uint64())])
_ROWS = pa.schema([("h", pa.uint64()), ("key", pa.binary()), ("row", pa.uint64()), ("n", pa.int64())])


class Deduplicated:
    """The rows of a table's expanded files, each primary key once; iterate it to get Arrow batches.

    Memory does not grow with the table, however many keys are repeated: DuckDB finds the keys that come more than once
    and, if there are any, which of their rows to leave out, in order; it spills to disk. Then the files are read once
    more.

    Attributes:
        duplicates: Rows left out because an equal one came before.
        conflicts: Rows left out because a different one of the same key came before; they are kept in
            ``quarantine/<table>.conflicts.jsonl``.
    """

    def __init__(self, table: Table, settings: Settings) -> None:
        self.table = table
        self.settings = settings
        self.duplicates = Measure()
        self.conflicts = Measure()

    def drain(self) -> None:
        """Read to the end, for the counts alone."""
        for _ in self:
            pass

    def __iter__(self) -> Generator[pa.RecordBatch]:
        """Yield the rows in the order of the files."""
        self.duplicates = self.conflicts = Measure()
        with (
            temporary(conflicts_file(self.table, self.settings)) as (file, place),
            _duckdb(self.settings.home) as connection,
        ):
            excluded = _Excluded(self.table, self.settings, connection)
            first = 0
            for batch in _batches(self.table, self.settings):
                yield self._sift(batch, *excluded.between(first, first + batch.num_rows), file)
                first += batch.num_rows
            place()

    def _sift(self, batch: pa.RecordBatch, places: np.ndarray, equal: np.ndarray, file: BinaryIO) -> pa.RecordBatch:
        """Leave out the rows whose key came before."""
        if not len(places):
            return batch
        keep = np.ones(batch.num_rows, bool)
        keep[places] = False
        left = batch.take(pa.array(places))
        hashes = row_hash.batch_hashes(left, self.table.ids)
        self.duplicates += Measure(int(equal.sum()), row_hash.total(hashes[equal]))
        self.conflicts += Measure(int((~equal).sum()), row_hash.total(hashes[~equal]))
        for row in values.as_fields(left.filter(pa.array(~equal))).to_pylist():
            key = self.table.key_of(row)
            reason = f"another row with {self.table.key} {key} came before, with other values"
            entry = {"table": self.table.name, "key": key, "row": row, "reason": reason}
            file.write(json.dumps(entry).encode() + b"\n")
        return batch.filter(pa.array(keep))


def conflicts_file(table: Table, settings: Settings) -> Path:
    """Where the conflicts among a table's expanded rows are stored."""
    return settings.quarantine / f"{table.name}.conflicts.jsonl"


def sample(table: Table, settings: Settings, columns: Iterable[str]) -> pa.Table:
    """Some columns of about ``SAMPLE`` rows, evenly over the files."""
    names = list(columns)
    size = sum(path.stat().st_size for path in expand.files(table, settings))
    # About 100 bytes a row: enough rows for quantiles, whatever the table.
    step = max(1, size // 100 // SAMPLE)
    parts = [batch.select(names).take(pa.array(range(0, batch.num_rows, step))) for batch in _batches(table, settings)]
    return pa.Table.from_batches(parts, schema=pa.schema([table.arrow.field(name) for name in names]))


class _Excluded:
    """The rows to leave out, as they come, each by its number from 0 in the order of the files."""

    def __init__(self, table: Table, settings: Settings, connection: duckdb.DuckDBPyConnection) -> None:
        self._left: pa.RecordBatchReader | None = None
        self._numbers, self._equal = np.empty(0, np.int64), np.empty(0, bool)
        hashes = (_key_hashes(batch, table) for batch in _batches(table, settings))
        reader = _reader(_HASHES, ([pa.array(h)] for h in hashes))  # noqa: F841  DuckDB finds it by name
        connection.execute("CREATE TEMP TABLE repeated AS SELECT h FROM reader GROUP BY h HAVING count(*) > 1")
        (repeated,) = connection.execute("SELECT count(*) FROM repeated").fetchall()[0]
        if repeated:  # few tables have any, and those that have none are not read twice
            rows = _reader(_ROWS, _numbered(table, settings))  # noqa: F841  as above
            connection.execute(
                "CREATE TEMP TABLE suspects AS SELECT key, row, n FROM rows SEMI JOIN repeated USING (h)"
            )
            found = connection.execute(
                "SELECT n, row = first AS equal FROM (SELECT n, row, row_number() OVER own AS place,"
                " first_value(row) OVER own AS first FROM suspects WINDOW own AS (PARTITION BY key ORDER BY n))"
                " WHERE place > 1 ORDER BY n"
            )
            self._left = found.to_arrow_reader(100_000)

    def between(self, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows to leave out of those from ``first`` to ``end``: their places, and whether an equal one came before."""
        while self._left is not None and (not len(self._numbers) or self._numbers[-1] < end):
            batch = next(self._left, None)
            if batch is None:
                self._left = None
                break
            self._numbers = np.append(self._numbers, batch.column("n").to_numpy())
            self._equal = np.append(self._equal, batch.column("equal").to_numpy(zero_copy_only=False))
        count = int(np.searchsorted(self._numbers, end))
        places, equal = self._numbers[:count] - first, self._equal[:count]
        self._numbers, self._equal = self._numbers[count:], self._equal[count:]
        return places, equal


def _numbered(table: Table, settings: Settings) -> Iterator[list[pa.Array]]:
    """Hash of the key, key, hash of the row, and number of each row."""
    first = 0
    for batch in _batches(table, settings):
        keys = ordered_key.encode([batch.column(name) for name in table.primary_key], ["text"] * len(table.primary_key))
        numbers = np.arange(first, first + batch.num_rows)
        rows = row_hash.batch_hashes(batch, table.ids)
        yield [pa.array(_key_hashes(batch, table)), keys, pa.array(rows), pa.array(numbers)]
        first += batch.num_rows


def _reader(schema: pa.Schema, columns: Iterable[list[pa.Array]]) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_batches(
        schema, (pa.RecordBatch.from_arrays(each, schema=schema) for each in columns)
    )


def _batches(table: Table, settings: Settings) -> Iterator[pa.RecordBatch]:
    for path in expand.files(table, settings):
        for parsed in records.parse(path, table):
            yield parsed.batch


def _key_hashes(batch: pa.RecordBatch, table: Table) -> np.ndarray:
    return row_hash.batch_hashes(batch, {name: table.ids[name] for name in table.primary_key})


@contextmanager
def _duckdb(home: Path) -> Generator[duckdb.DuckDBPyConnection]:
    with (
        tempfile.TemporaryDirectory(dir=home) as spill,
        duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": spill, "threads": 2}) as connection,
    ):
        yield connection
