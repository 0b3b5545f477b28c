"""The index from a customer to their bookings, without HBase."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from ecom_assets.core.books import Build
from ecom_assets.core.context import Context
from ecom_assets.core.layer import Built
from ecom_assets.core.settings import load
from ecom_assets.hbase import rebuild
from ecom_assets.paths import HBASE, open_home
from ecom_assets.serving import index
from ecom_assets_tests.tables import ORDERS, TRANSACTIONS

BATCHES, ROWS = 50, 2_000


def bookings(number: int) -> pa.RecordBatch:
    """Some bookings of long texts."""
    numbers, texts = pa.array([number] * ROWS), pa.array([f"{number:0500d}"] * ROWS)
    columns = [(numbers if pa.types.is_integer(field.type) else texts).cast(field.type) for field in TRANSACTIONS.arrow]
    return pa.RecordBatch.from_arrays(columns, schema=TRANSACTIONS.arrow)


def test_memory_does_not_grow_with_the_bookings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a shop of some years ends the process that builds the index."""
    layer, most = HBASE["stream"], 0

    def batches(*_: object) -> Iterator[pa.RecordBatch]:
        for number in range(BATCHES):
            yield bookings(number)

    def load_rows(at: Context, table: object, loader: str, rows: rebuild.Rows) -> tuple[int, int]:
        nonlocal most
        before, loaded = pa.total_allocated_bytes(), 0
        for batch in rows.batches():
            loaded += batch.num_rows
            most = max(most, pa.total_allocated_bytes() - before)
            del batch
        return loaded, 1

    monkeypatch.setattr(type(layer.source), "batches", batches)
    monkeypatch.setattr(type(layer.source), "sample", lambda *_: pa.Table.from_batches([bookings(0)]))
    monkeypatch.setattr(rebuild, "rebuild", load_rows)
    with open_home(load(home=tmp_path)) as at:
        at.books.record_build(Build("hbase", TRANSACTIONS.name, "f", notes={"cut": {"merged": "t@0"}}))
        assert index.build_index(at, ORDERS, layer) == Built(BATCHES * ROWS)
    assert most < 3 * bookings(0).nbytes
