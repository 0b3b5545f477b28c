"""Which rows of a table's expanded files are left out, and why.

What belongs here: which rows are looked at, those whose key comes more than once or is deleted, and their order. What
does not: the verdict on them (``core.verdict``), and the rows themselves (``unique``).
"""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecom_assets.core.boundary import LEFT_OUT
from ecom_assets.core.settings import Settings
from ecom_assets.core.verdict import Judge, deletes, key_hashes, reader
from ecom_assets.csv import expand, records
from ecom_assets.csv.parts import FIRST
from ecom_assets.dataset.model import Table

_KEYS = pa.schema([("h", pa.uint64()), ("deletes", pa.bool_())])


class Excluded:
    """The rows to leave out, as they come, each by its number from 0 in the order of the files.

    Args:
        table: The table.
        settings: The home.
        connection: Of ``verdict.duckdb_in``.
    """

    def __init__(self, table: Table, settings: Settings, connection: duckdb.DuckDBPyConnection) -> None:
        self._left: pa.RecordBatchReader | None = None
        self._numbers, self._fates = np.empty(0, np.int64), np.empty(0, np.int8)
        whole = table.write == "replace" and bool(expand.delivered(table, settings))
        if not whole:
            keys = ([pa.array(key_hashes(batch, table)), deletes(batch, table)] for batch in batches(table, settings))
            found = reader(_KEYS, keys)  # noqa: F841  DuckDB finds it by name
            connection.execute(
                "CREATE TEMP TABLE several AS SELECT h FROM found GROUP BY h HAVING count(*) > 1 OR bool_or(deletes)"
            )
            (several,) = connection.execute("SELECT count(*) FROM several").fetchall()[0]
            if not several:  # few tables have any, and those that have none are not read twice
                return
        judge = Judge(table)
        rows = _numbered(judge, settings)  # noqa: F841  as above
        among = "" if whole else "SEMI JOIN several USING (h)"
        connection.execute(f"CREATE TEMP TABLE suspects AS SELECT * FROM rows {among}")  # noqa: S608  a constant
        judge.verdict(connection, len(expand.delivered(table, settings)) if whole else 0)
        self._left = connection.execute("SELECT n, fate FROM verdict ORDER BY n").to_arrow_reader(100_000)

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


def _with_sequences(table: Table, settings: Settings) -> Iterator[tuple[pa.RecordBatch, int]]:
    for path in expand.files(table, settings):
        for parsed in records.parse(path, table):
            yield parsed.batch, expand.place_of(path.name)[1]


def _numbered(judge: Judge, settings: Settings) -> pa.RecordBatchReader:
    """What the verdict on each row needs."""
    table = judge.table
    delivered = [expand.place_of(path.name)[1] for path in expand.delivered(table, settings)]
    places = {sequence: place for place, sequence in enumerate((FIRST, *delivered))}
    ordered = [pa.field("n", pa.int64()), pa.field("place", pa.int64())]

    def columns() -> Iterator[list[pa.Array]]:
        first = 0
        for batch, sequence in _with_sequences(table, settings):
            place = places[sequence] if table.write == "replace" else 0
            numbers = np.arange(first, first + len(batch))
            yield [*judge.facts(batch), pa.array(numbers), pa.array(np.full(len(batch), place))]
            first += len(batch)

    return reader(pa.schema([*judge.schema, *ordered]), columns())
