"""Which rows of a table's expanded files are left out, and why: what ``lake.fates`` is on the other path.

What belongs here: the verdict on each row whose key comes more than once, or is deleted, by DuckDB, which spills to
disk. What does not: the rows themselves (``unique``), and what the write modes mean (``lake.fates``).
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecom_assets.core import ordered_key, row_hash, values
from ecom_assets.core.boundary import LEFT_OUT
from ecom_assets.core.settings import Settings
from ecom_assets.csv import expand, records
from ecom_assets.csv.parts import FIRST
from ecom_assets.dataset.kind import Kind, named
from ecom_assets.dataset.model import Column, Table

MEMORY = "512MB"
"""Memory of DuckDB; what needs more goes to disk."""

_KEYS = pa.schema([("h", pa.uint64()), ("deletes", pa.bool_())])

_APPENDED = """
SELECT n, CASE WHEN row = first THEN 'duplicates' ELSE 'conflicts' END AS fate FROM (
  SELECT n, row, row_number() OVER own AS place, first_value(row) OVER own AS first
  FROM suspects WINDOW own AS (PARTITION BY key ORDER BY n))
WHERE place > 1 ORDER BY n
"""
_MERGED = """
WITH timed AS (
  SELECT *, max(version) OVER (PARTITION BY key ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS newest
  FROM suspects),
marked AS (
  SELECT *, coalesce(version < newest, false) OR (version IS NULL AND newest IS NOT NULL AND NOT deletes) AS stale
  FROM timed),
compared AS (
  SELECT *, coalesce(row = lag(row) OVER own AND NOT lag(deletes) OVER own AND NOT deletes
                     AND lag(place) OVER own + 1 >= place, false) AS repeats
  FROM marked WHERE NOT stale WINDOW own AS (PARTITION BY key ORDER BY n)),
grouped AS (
  SELECT *, count(*) FILTER (NOT repeats) OVER (PARTITION BY key ORDER BY n) AS of FROM compared),
seen AS (
  SELECT *, max(place) OVER (PARTITION BY key, of) AS seen FROM grouped),
kept AS (
  SELECT *, lead(deletes) OVER own AS next_deletes, lead(place) OVER own AS next_place
  FROM seen WHERE NOT repeats WINDOW own AS (PARTITION BY key ORDER BY n)),
ended AS (
  SELECT n, CASE WHEN deletes THEN 'deletions'
                 WHEN seen < $last AND coalesce(next_place > seen + 1, true) THEN 'deleted'
                 WHEN next_deletes THEN 'deleted'
                 WHEN next_deletes IS NOT NULL THEN 'superseded' END AS fate FROM kept)
SELECT n, fate FROM ended WHERE fate IS NOT NULL
UNION ALL SELECT n, 'duplicates' FROM seen WHERE repeats
UNION ALL SELECT n, 'stale' FROM marked WHERE stale
ORDER BY n
"""
"""As ``lake.fates.judged``. ``place`` is that of a row's delivery among those of the whole table, 0 in other modes."""


class Excluded:
    """The rows to leave out, as they come, each by its number from 0 in the order of the files.

    Args:
        table: The table.
        settings: The home.
        connection: Of ``duckdb_in``.
    """

    def __init__(self, table: Table, settings: Settings, connection: duckdb.DuckDBPyConnection) -> None:
        self._left: pa.RecordBatchReader | None = None
        self._numbers, self._fates = np.empty(0, np.int64), np.empty(0, np.int8)
        whole = table.write == "replace" and bool(expand.delivered(table, settings))
        if not whole:
            keys = ([pa.array(key_hashes(batch, table)), _deletes(batch, table)] for batch in batches(table, settings))
            reader = _reader(_KEYS, keys)  # noqa: F841  DuckDB finds it by name
            connection.execute(
                "CREATE TEMP TABLE several AS SELECT h FROM reader GROUP BY h HAVING count(*) > 1 OR bool_or(deletes)"
            )
            (several,) = connection.execute("SELECT count(*) FROM several").fetchall()[0]
            if not several:  # few tables have any, and those that have none are not read twice
                return
        rows = _numbered(table, settings)  # noqa: F841  as above
        among = "" if whole else "SEMI JOIN several USING (h)"
        connection.execute(f"CREATE TEMP TABLE suspects AS SELECT * FROM rows {among}")  # noqa: S608  a constant
        last = len(expand.delivered(table, settings)) if whole else 0
        found = (
            connection.execute(_APPENDED) if table.write == "append" else connection.execute(_MERGED, {"last": last})
        )
        self._left = found.to_arrow_reader(100_000)

    def between(self, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows to leave out of those from ``first`` to ``end``.

        Returns:
            Their places, and why each is left out: its index in ``LEFT_OUT``.
        """
        while self._left is not None and (not len(self._numbers) or self._numbers[-1] < end):
            batch = next(self._left, None)
            if batch is None:
                self._left = None
                break
            fates = pc.index_in(batch.column("fate"), pa.array(LEFT_OUT)).cast(pa.int8())
            self._numbers = np.append(self._numbers, batch.column("n").to_numpy())
            self._fates = np.append(self._fates, fates.to_numpy())
        count = int(np.searchsorted(self._numbers, end))
        places, fates = self._numbers[:count] - first, self._fates[:count]
        self._numbers, self._fates = self._numbers[count:], self._fates[count:]
        return places, fates


def batches(table: Table, settings: Settings) -> Iterator[pa.RecordBatch]:
    """All rows of a table's expanded files, in order."""
    for batch, _ in _with_sequences(table, settings):
        yield batch


def key_hashes(batch: pa.RecordBatch, table: Table) -> np.ndarray:
    """The hash of each row's primary key."""
    return row_hash.batch_hashes(batch, {name: table.ids[name] for name in table.primary_key})


@contextmanager
def duckdb_in(home: Path) -> Generator[duckdb.DuckDBPyConnection]:
    """A database in memory that spills to a folder of its own in a home."""
    with (
        tempfile.TemporaryDirectory(dir=home) as spill,
        duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": spill, "threads": 2}) as connection,
    ):
        yield connection


def _with_sequences(table: Table, settings: Settings) -> Iterator[tuple[pa.RecordBatch, int]]:
    for path in expand.files(table, settings):
        for parsed in records.parse(path, table):
            yield parsed.batch, expand.place_of(path.name)[1]


def _numbered(table: Table, settings: Settings) -> pa.RecordBatchReader:
    """What the verdict on each row needs."""
    delivered = [expand.place_of(path.name)[1] for path in expand.delivered(table, settings)]
    places = {sequence: place for place, sequence in enumerate((FIRST, *delivered))}
    version = _version(table)
    schema = pa.schema(
        [
            ("h", pa.uint64()),
            ("key", pa.binary()),
            ("row", pa.uint64()),
            ("n", pa.int64()),
            ("deletes", pa.bool_()),
            ("version", version[1].arrow if version else pa.int64()),
            ("place", pa.int64()),
        ]
    )

    def columns() -> Iterator[list[pa.Array]]:
        first = 0
        for batch, sequence in _with_sequences(table, settings):
            keys = [batch.column(name) for name in table.primary_key]
            place = places[sequence] if table.write == "replace" else 0
            yield [
                pa.array(key_hashes(batch, table)),
                ordered_key.encode(keys, ["text"] * len(keys)),
                pa.array(row_hash.batch_hashes(batch, table.ids)),
                pa.array(np.arange(first, first + len(batch))),
                _deletes(batch, table),
                _versions(batch, table, version),
                pa.array(np.full(len(batch), place)),
            ]
            first += len(batch)

    return _reader(schema, columns())


def _deletes(batch: pa.RecordBatch, table: Table) -> pa.Array:
    """Which rows ask for the deletion of their key's row."""
    if not table.deleted_if:
        return pa.array(np.zeros(len(batch), bool))
    column, flags = table.deleted_if
    return pc.is_in(values.texts(batch.column(column)), pa.array([flag.encode() for flag in flags], pa.binary()))


def _version(table: Table) -> tuple[Column, Kind] | None:
    """The column whose values are the versions of rows, and the type they are compared as."""
    for column in table.columns:
        if column.name == table.version:
            return column, column.kind
        if column.parsed_as and column.parsed_as[0] == table.version and (kind := named(column.parsed_as[1])):
            return column, kind
    return None


def _versions(batch: pa.RecordBatch, table: Table, version: tuple[Column, Kind] | None) -> pa.Array:
    if not version:
        return pa.nulls(len(batch), pa.int64())
    column, kind = version
    held = batch.column(column.name)
    return held if column.name == table.version else values.parse(held, kind)


def _reader(schema: pa.Schema, columns: Iterable[list[pa.Array]]) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_batches(
        schema, (pa.RecordBatch.from_arrays(each, schema=schema) for each in columns)
    )
