"""Expanded files without the rows that the merged layer would leave out: what the bulk path loads.

What belongs here: the rows of a table as it is now, and counts of the others. What does not: which rows these are
(``excluded``), and any store that is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from ecom_assets.core import row_hash, values
from ecom_assets.core.boundary import LEFT_OUT
from ecom_assets.core.files import temporary
from ecom_assets.core.measure import Measure
from ecom_assets.core.settings import Settings
from ecom_assets.core.verdict import duckdb_in
from ecom_assets.csv import expand
from ecom_assets.csv.excluded import Excluded, batches
from ecom_assets.dataset.model import Table

SAMPLE = 100_000
"""Rows that a sample aims at."""


class Deduplicated:
    """The rows of a table's expanded files, each primary key once; iterate it to get Arrow batches.

    Memory does not grow with the table, however many keys are repeated: DuckDB finds the keys that come more than once
    and, if there are any, which of their rows to leave out, in order; it spills to disk. Then the files are read once
    more.

    Attributes:
        left: Rows that were left out, by reason, all of ``boundary.LEFT_OUT``; conflicts are kept in
            ``quarantine/<table>.conflicts.jsonl``.
    """

    def __init__(self, table: Table, settings: Settings) -> None:
        self.table = table
        self.settings = settings
        self.left = dict.fromkeys(LEFT_OUT, Measure())

    def drain(self) -> None:
        """Read to the end, for the counts alone."""
        for _ in self:
            pass

    def __iter__(self) -> Generator[pa.RecordBatch]:
        """Yield the rows in the order of the files."""
        self.left = dict.fromkeys(LEFT_OUT, Measure())
        with (
            temporary(conflicts_file(self.table, self.settings)) as (file, place),
            duckdb_in(self.settings.home) as connection,
        ):
            excluded = Excluded(self.table, self.settings, connection)
            first = 0
            for batch in batches(self.table, self.settings):
                yield self._sift(batch, *excluded.between(first, first + batch.num_rows), file)
                first += batch.num_rows
            place()

    def _sift(self, batch: pa.RecordBatch, places: np.ndarray, fates: np.ndarray, file: BinaryIO) -> pa.RecordBatch:
        """Leave out some rows."""
        if not len(places):
            return batch
        keep = np.ones(batch.num_rows, bool)
        keep[places] = False
        left = batch.take(pa.array(places))
        hashes = row_hash.batch_hashes(left, self.table.ids)
        for number, reason in enumerate(LEFT_OUT):
            of = fates == number
            self.left[reason] += Measure(int(of.sum()), row_hash.total(hashes[of]))
        conflicts = left.filter(pa.array(fates == LEFT_OUT.index("conflicts")))
        for row in values.as_fields(conflicts).to_pylist():
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
    parts = [batch.select(names).take(pa.array(range(0, batch.num_rows, step))) for batch in batches(table, settings)]
    return pa.Table.from_batches(parts, schema=pa.schema([table.arrow.field(name) for name in names]))
