"""The bulk path: expanded files straight to HBase, without Kafka and Spark.

Nothing but the deduplication that the merged layer does on the other path: equal rows of
one key collapse, and a row that contradicts an earlier one of its key is set aside.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from typing import TextIO

import duckdb
import numpy as np
import pyarrow as pa

from ecom_assets.core import row_hash
from ecom_assets.core.measure import Measure
from ecom_assets.core.settings import Settings
from ecom_assets.csv import expand, records
from ecom_assets.dataset.model import Table

SAMPLE = 50_000
"""Keys that a sample aims at."""


class Deduplicated:
    """The rows of a table's expanded files, once each; iterate it to get Arrow batches.

    Two passes with flat memory: DuckDB finds the keys that come more than once (it spills
    to disk), then the files are read again and only rows of these keys are looked at.

    Attributes:
        duplicates: Rows left out because an equal one came before.
        conflicts: Rows left out because a different one of the same key came before; they
            lie in ``quarantine/<table>.conflicts.jsonl``.
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

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows in the order of the files."""
        self.duplicates = self.conflicts = Measure()
        suspects = _repeated(self.table, self.settings)
        first: dict[str | int, int] = {}
        path = self.settings.quarantine / f"{self.table.name}.conflicts.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".part").open("w", encoding="utf-8") as bad:
            for batch in _batches(self.table, self.settings):
                yield self._sift(batch, suspects, first, bad) if len(suspects) else batch
        path.with_suffix(".part").replace(path)

    def _sift(
        self, batch: pa.RecordBatch, suspects: np.ndarray, first: dict[str | int, int], aside: TextIO
    ) -> pa.RecordBatch:
        """Leave out the rows whose key came before."""
        hit = np.flatnonzero(np.isin(_key_hashes(batch, self.table), suspects))
        if not len(hit):
            return batch
        keep = np.ones(batch.num_rows, bool)
        hashes = row_hash.batch_hashes(batch, self.table.names)
        keys = batch.column(self.table.primary_key)
        for row in hit.tolist():
            key, value = keys[row].as_py(), int(hashes[row])
            if key not in first:
                first[key] = value
                continue
            keep[row] = False
            if first[key] == value:
                self.duplicates += Measure(1, value)
            else:
                self.conflicts += Measure(1, value)
                reason = f"another row with {self.table.primary_key} {key} came before, with other values"
                told = {"table": self.table.name, "key": key, "row": batch.slice(row, 1).to_pylist()[0]}
                aside.write(json.dumps(told | {"reason": reason}) + "\n")
        return batch.filter(pa.array(keep))


def sample_keys(table: Table, settings: Settings) -> pa.Table:
    """The row-key columns of some rows, evenly over the files, for the borders of regions."""
    names = list(table.hbase.row_key)
    size = sum(p.stat().st_size for p in expand.files(table, settings))
    # About 100 bytes a row: enough rows for quantiles, whatever the table.
    step = max(1, size // 100 // SAMPLE)
    parts = [batch.select(names).take(pa.array(range(0, batch.num_rows, step))) for batch in _batches(table, settings)]
    return pa.Table.from_batches(parts, schema=pa.schema([table.arrow.field(n) for n in names]))


def _batches(table: Table, settings: Settings) -> Iterator[pa.RecordBatch]:
    for path in expand.files(table, settings):
        for parsed in records.parse(path, table):
            yield parsed.batch


def _key_hashes(batch: pa.RecordBatch, table: Table) -> np.ndarray:
    return row_hash.value_hashes(batch.column(table.primary_key).cast(pa.string()))


def _repeated(table: Table, settings: Settings) -> np.ndarray:
    """The hashes of the keys that come more than once (and, by chance, of a few others: they do no harm)."""
    hashes = (
        pa.RecordBatch.from_arrays([pa.array(_key_hashes(batch, table))], names=["h"])
        for batch in _batches(table, settings)
    )
    reader = pa.RecordBatchReader.from_batches(pa.schema([("h", pa.uint64())]), hashes)  # noqa: F841  DuckDB finds it by name
    with (
        tempfile.TemporaryDirectory(dir=settings.home) as spill,
        duckdb.connect(config={"memory_limit": "512MB", "temp_directory": spill, "threads": 2}) as connection,
    ):
        found = connection.execute("SELECT h FROM reader GROUP BY h HAVING count(*) > 1").fetchnumpy()
    return np.asarray(found["h"], np.uint64)
