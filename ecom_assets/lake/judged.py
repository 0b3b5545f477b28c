"""The verdict on new rows, and on those that a merged table has under their keys.

What belongs here: which of them are left out, where each is stored, and by what those ended that did. What does not:
the verdict itself (``core.verdict``), which rows are looked at (``increment``), and what is written (``rewrite``).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import cast

import duckdb
import numpy as np
import pyarrow as pa

from ecom_assets.core.accounts import ENDED
from ecom_assets.core.boundary import LEFT_OUT
from ecom_assets.core.measure import Measure
from ecom_assets.core.row_hash import MODULUS
from ecom_assets.core.verdict import Judge, reader
from ecom_assets.lake.fates import UNTIL, Deliveries
from ecom_assets.lake.target import Left

ORDER = pa.schema(
    [
        ("place", pa.int64()),
        ("held", pa.bool_()),
        ("file", pa.string()),
        ("position", pa.int64()),
        ("delivery", pa.int64()),
        ("number", pa.int64()),
        ("since", pa.int64()),
        ("partition", pa.int64()),
        ("offset", pa.int64()),
    ]
)
"""What is known of a row next to the facts of ``Judge``: the place of its delivery; whether the merged table has it, in
which file, and its position there, or among the new rows; and its place in the order of rows, times in microseconds."""

_ORDERED = """
CREATE TEMP TABLE suspects AS SELECT *, row_number() OVER (
  ORDER BY delivery, number, since, NOT held, "partition", "offset") AS n FROM facts
"""
_LEFT_OUT = """
CREATE TEMP TABLE left_out AS
SELECT s.file, s.position, s.row, v.fate, coalesce(e.delivery, d.sequence) AS _until_delivery,
       coalesce(e.since, d.since) AS _until
FROM verdict v JOIN suspects s USING (n) LEFT JOIN suspects e ON e.n = v.ended_by
LEFT JOIN deliveries d ON v.ended_by IS NULL AND v.fate = 'deleted' AND d.place = v.seen + 1
"""
_BEYOND = """
SELECT EXISTS (FROM left_out WHERE fate = 'conflicts') OR EXISTS (
  FROM (SELECT held, row_number() OVER (PARTITION BY key ORDER BY n) AS rank FROM suspects) WHERE held AND rank > 1)
"""


class Judged:
    """New rows and those under their keys, judged.

    Args:
        connection: Of ``verdict.duckdb_in``; it is used as long as this is.
        judge: That of the table.
        facts: The columns of the judge and ``ORDER``, of all rows of the keys in question.
        deliveries: The table's.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        judge: Judge,
        facts: Iterable[list[pa.Array]],
        deliveries: Deliveries,
    ) -> None:
        self._connection = connection
        found = reader(pa.schema([*judge.schema, *ORDER]), facts)
        connection.execute("CREATE TEMP TABLE facts AS FROM found")
        connection.execute(_ORDERED)
        judge.verdict(connection, deliveries.last if judge.table.write == "replace" else 0)
        sequences = deliveries.sequences
        times = {
            "place": range(len(sequences)),
            "sequence": sequences,
            "since": [deliveries.times.get(n) for n in sequences],
        }
        known = pa.table({name: pa.array(column, pa.int64()) for name, column in times.items()})
        connection.execute("CREATE TEMP TABLE deliveries AS FROM known")
        connection.execute(_LEFT_OUT)
        del found, known  # DuckDB found them by their names

    @cached_property
    def left(self) -> Left:
        """Count and checksum the rows that are left out, by reason."""
        summed = self._connection.execute("SELECT fate, count(*), sum(row) FROM left_out GROUP BY fate").fetchall()
        found = {fate: Measure(rows, int(checksum) % MODULUS) for fate, rows, checksum in summed}
        return {reason: found.get(reason, Measure()) for reason in LEFT_OUT}

    @cached_property
    def is_beyond(self) -> bool:
        """Whether the verdict needs rows that are not among these, or a quarantine that is replaced as a whole.

        A row that came before one that is merged may have been one of several versions before it.
        """
        return bool(self._connection.execute(_BEYOND).fetchall()[0][0])

    @cached_property
    def files(self) -> list[str]:
        """The files of the merged table that have rows which are left out."""
        found = self._connection.execute("SELECT DISTINCT file FROM left_out WHERE file IS NOT NULL ORDER BY file")
        return [file for (file,) in found.fetchall()]

    def left_out(self, file: str | None = None) -> np.ndarray:
        """The positions of a file's rows that are left out, in order; of the new rows if no file is given."""
        found = self._connection.execute(
            "SELECT position FROM left_out WHERE file IS NOT DISTINCT FROM $file ORDER BY position", {"file": file}
        )
        return np.asarray(found.fetchnumpy()["position"])

    def ended(self, file: str | None = None) -> pa.Table:
        """The rows of a file that ended: ``position``, in order, and the columns ``_fate`` and ``UNTIL``."""
        found = self._connection.sql(
            "SELECT position, fate AS _fate, _until_delivery, make_timestamptz(_until) AS _until FROM left_out"
            " WHERE file IS NOT DISTINCT FROM $file AND list_contains($ended, fate) ORDER BY position",
            params={"file": file, "ended": list(ENDED)},
        )
        rows = cast("pa.Table", found.to_arrow_table())
        return rows.cast(pa.schema([("position", pa.int64()), *ENDINGS]))


ENDINGS = pa.schema([("_fate", pa.string()), (UNTIL[0], pa.int64()), (UNTIL[1], pa.timestamp("us", "UTC"))])
"""How a row ended."""
