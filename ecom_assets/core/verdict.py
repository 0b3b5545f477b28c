"""What becomes of each row of some keys, by DuckDB, which spills to disk: what ``lake.fates`` is in Spark.

What belongs here: the facts of a row that the verdict needs, and the verdict. What does not: which rows are looked at
(``csv.excluded``, ``lake.increment``), and what the write modes mean (``lake.fates``).
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecom_assets.core import ordered_key, row_hash, values
from ecom_assets.dataset.kind import Kind, named
from ecom_assets.dataset.model import Column, Table

MEMORY = "512MB"
"""Memory of DuckDB; what needs more goes to disk."""

_APPENDED = """
SELECT n, CASE WHEN row = first THEN 'duplicates' ELSE 'conflicts' END AS fate, NULL AS ended_by, NULL AS seen FROM (
  SELECT n, row, row_number() OVER own AS rank, first_value(row) OVER own AS first
  FROM suspects WINDOW own AS (PARTITION BY key ORDER BY n))
WHERE rank > 1
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
last_seen AS (
  SELECT *, max(place) OVER (PARTITION BY key, of) AS seen FROM grouped),
kept AS (
  SELECT *, lead(deletes) OVER own AS next_deletes, lead(place) OVER own AS next_place, lead(n) OVER own AS next_n
  FROM last_seen WHERE NOT repeats WINDOW own AS (PARTITION BY key ORDER BY n)),
followed AS (
  SELECT *, seen < $last AND coalesce(next_place > seen + 1, true) AS absent FROM kept),
ended AS (
  SELECT n, CASE WHEN deletes THEN 'deletions'
                 WHEN absent OR next_deletes THEN 'deleted'
                 WHEN next_n IS NOT NULL THEN 'superseded' END AS fate,
         CASE WHEN NOT absent THEN next_n END AS ended_by, seen FROM followed)
SELECT * FROM ended WHERE fate IS NOT NULL
UNION ALL SELECT n, 'duplicates', NULL, NULL FROM last_seen WHERE repeats
UNION ALL SELECT n, 'stale', NULL, NULL FROM marked WHERE stale
"""


class Judge:
    """Gives the verdict on rows of one table.

    Args:
        table: The table.

    Attributes:
        schema: The columns of ``facts``.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self._version = _version(table)
        self.schema = pa.schema(
            [
                ("h", pa.uint64()),
                ("key", pa.binary()),
                ("row", pa.uint64()),
                ("deletes", pa.bool_()),
                ("version", self._version[1].arrow if self._version else pa.int64()),
            ]
        )

    def facts(self, batch: pa.RecordBatch) -> list[pa.Array]:
        """What the verdict needs of rows, but for their order: the hash of the key, the key, the hash of the row..."""
        keys = [batch.column(name) for name in self.table.primary_key]
        return [
            pa.array(key_hashes(batch, self.table)),
            ordered_key.encode(keys, ["text"] * len(keys)),
            pa.array(row_hash.batch_hashes(batch, self.table.ids)),
            deletes(batch, self.table),
            self._versions(batch),
        ]

    def verdict(self, connection: duckdb.DuckDBPyConnection, last: int) -> None:
        """Make a table ``verdict`` of the rows that do not stay.

        Args:
            connection: Has a table ``suspects``, all rows of the keys in question: ``facts``, ``n``, the order of rows,
                and ``place``, that of a row's delivery among those of the whole table, 0 where absence does not count.
            last: The place of the last delivery.

        The verdict's columns are ``n``; ``fate``, one of ``boundary.LEFT_OUT``; ``ended_by``, the ``n`` of the row that
        superseded or deleted it, null where it ended by absence; and ``seen``, the place of the last delivery that had
        it.
        """
        if self.table.write == "append":
            connection.execute(f"CREATE TEMP TABLE verdict AS {_APPENDED}")
        else:
            connection.execute(f"CREATE TEMP TABLE verdict AS {_MERGED}", {"last": last})

    def _versions(self, batch: pa.RecordBatch) -> pa.Array:
        if not self._version:
            return pa.nulls(len(batch), pa.int64())
        column, kind = self._version
        held = batch.column(column.name)
        return held if column.name == self.table.version else values.parse(held, kind)


def key_hashes(batch: pa.RecordBatch, table: Table) -> np.ndarray:
    """The hash of each row's primary key."""
    return row_hash.batch_hashes(batch, {name: table.ids[name] for name in table.primary_key})


def deletes(batch: pa.RecordBatch, table: Table) -> pa.Array:
    """Which rows ask for the deletion of their key's row by the column that says so."""
    if not table.deleted_if:
        return pa.array(np.zeros(len(batch), bool))
    column, flags = table.deleted_if
    return pc.is_in(values.texts(batch.column(column)), pa.array([flag.encode() for flag in flags], pa.binary()))


def reader(schema: pa.Schema, columns: Iterable[list[pa.Array]]) -> pa.RecordBatchReader:
    """Columns of one batch after the other, as DuckDB reads them."""
    return pa.RecordBatchReader.from_batches(
        schema, (pa.RecordBatch.from_arrays(each, schema=schema) for each in columns)
    )


@contextmanager
def duckdb_in(home: Path) -> Generator[duckdb.DuckDBPyConnection]:
    """A database in memory that spills to a folder of its own in a home."""
    with (
        tempfile.TemporaryDirectory(dir=home) as spill,
        duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": spill, "threads": 2}) as connection,
    ):
        yield connection


def _version(table: Table) -> tuple[Column, Kind] | None:
    """The column whose values are the versions of rows, and the type they are compared as."""
    for column in table.columns:
        if column.name == table.version:
            return column, column.kind
        if column.parsed_as and column.parsed_as[0] == table.version and (kind := named(column.parsed_as[1])):
            return column, kind
    return None
