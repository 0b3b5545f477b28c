"""Sorting rows on disk, and the progress of a bulk load; what HBase makes of it is in ``integration/test_hfile.py``."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest

from ecom_assets.dataset.model import Table
from ecom_assets.hbase import bulk_load
from ecom_assets.hbase.layout import Layout, split_keys
from ecom_assets_tests.tables import CLICK_STREAM, PRODUCT


def shuffled(table: Table, rows: int) -> pa.RecordBatch:
    """Rows with distinct keys in no order."""
    rng = random.Random(rows)
    order = rng.sample(range(rows), rows)
    columns = [
        [
            f"{c}-{n}" if table.columns[at].kind.is_text else n
            for n in (order if (c,) == table.primary_key else [rng.randrange(5) for _ in order])
        ]
        for at, c in enumerate(table.names)
    ]
    return pa.RecordBatch.from_arrays(
        [pa.array(c, f.type) for c, f in zip(columns, table.arrow, strict=True)], schema=table.arrow
    )


@pytest.mark.parametrize("table", [PRODUCT, CLICK_STREAM], ids=lambda t: t.name)
@pytest.mark.parametrize("limit", [1 << 30, 20_000], ids=["parts fit", "parts are parted again"])
@pytest.mark.parametrize("parts", [1, 7])
def test_rows_are_sorted_by_key(
    table: Table, limit: int, parts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken: rows are lost, doubled or out of order, or a part lies on both sides of a region's border."""
    monkeypatch.setattr(bulk_load, "PART_BYTES", limit)
    monkeypatch.setattr(bulk_load, "SPILL_ROWS", 300)
    rows = shuffled(table, 2000)
    layout = Layout(table)
    cuts = split_keys(layout.keys(rows), parts)
    batches = [rows.slice(at, 150) for at in range(0, 2000, 150)]
    found = list(bulk_load._sorted(layout, batches, cuts, tmp_path / "spill"))
    keys = [key for part, _ in found for key in part.to_pylist()]
    assert keys == sorted(layout.keys(rows).to_pylist())
    assert len(found) >= (20 if limit < 1 << 30 else parts)
    for part, _ in found:
        inside = {sum(cut <= key for cut in cuts) for key in part.to_pylist()}
        assert len(inside) == 1
    again = pa.Table.from_batches([batch for _, batch in found])
    assert again.sort_by(table.key) == pa.Table.from_batches([rows]).sort_by(table.key)
    assert layout.keys(again).to_pylist() == keys
    assert not (tmp_path / "spill").exists()


def test_leftovers_of_a_killed_run_are_not_sorted_in(tmp_path: Path) -> None:
    """Broken: rows of a run that was killed turn up in the next one's table."""
    rows = shuffled(PRODUCT, 10)
    for name in ("00000", "00001"):
        (tmp_path / "spill").mkdir(exist_ok=True)
        (tmp_path / "spill" / name).write_bytes(b"old")
    found = list(bulk_load._sorted(Layout(PRODUCT), [rows], [], tmp_path / "spill"))
    assert sum(len(keys) for keys, _ in found) == 10


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 1001])
def test_progress_ends_at_the_number_of_rows(rows: int) -> None:
    """Broken: a bar stops before its end, runs over it, or stands still until all is done."""
    reported: list[int] = []
    steps = bulk_load.Steps(reported.append)
    for _ in steps.reading([shuffled(PRODUCT, rows)]):
        pass
    assert steps.total == rows
    assert sum(reported) == rows // 2
    steps.written(rows)
    assert sum(reported) == 3 * rows // 4
    for part in (rows // 3, rows - rows // 3):
        steps.loaded(part)
    assert sum(reported) == rows


def test_reader_ahead_passes_errors_on() -> None:
    """Broken: an error while the next part is sorted is lost, and with it the rest of the rows."""

    def items():
        yield 1
        raise OSError("disk full")

    ahead = bulk_load._ahead(items())
    assert next(ahead) == 1
    with pytest.raises(OSError, match="disk full"):
        next(ahead)
