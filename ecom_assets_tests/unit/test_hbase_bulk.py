"""Sorting rows on disk, and the progress of a bulk load; what HBase makes of it is in ``integration/test_hfile.py``."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest

from ecom_assets.dataset.model import Table
from ecom_assets.hbase import bulk_load
from ecom_assets.hbase.hfile import Files, UnsortedError
from ecom_assets.hbase.layout import Layout, split_keys
from ecom_assets_tests.tables import CLICK_STREAM, PRODUCT
from ecom_assets_tests.unit.test_hfile import MARKER, read


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


@pytest.mark.parametrize("limit", [1 << 30, 20_000], ids=["parts fit", "parts are parted again"])
def test_rows_that_are_gone_are_sorted_in(limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a row keeps what it has lost, stays though it was deleted, or is hidden though it is new."""
    monkeypatch.setattr(bulk_load, "PART_BYTES", limit)
    monkeypatch.setattr(bulk_load, "WRITE_ROWS", 70)
    rows, layout = shuffled(PRODUCT, 1000), Layout(PRODUCT)
    new, old = rows.slice(0, 600), rows.slice(400)  # 200 are both
    schema = PRODUCT.arrow.append(bulk_load.GONE)
    marked = [*bulk_load._marked([new], schema, gone=False), *bulk_load._marked([old], schema, gone=True)]
    cuts = split_keys(layout.keys(rows), 5)
    reported: list[int] = []
    steps = bulk_load.Steps(reported.append)
    with Files(tmp_path, "rows", layout.families, 7) as files:
        parts = bulk_load._sorted(layout, steps.reading(marked), cuts, tmp_path / "spill", schema)
        for keys, part in parts:
            bulk_load._write(files, layout, keys, part, steps)
    assert steps.total == 1200
    for family, names in layout.families.items():
        found = read(tmp_path / family / "rows").cells
        assert {cell[0] for cell in found if cell[4] == MARKER} == set(layout.keys(old).to_pylist())
        values = {(cell[0], cell[2].decode()): cell[4] for cell in found if cell[4] != MARKER}
        assert values == {
            (key, name): str(row[name]).encode()
            for key, row in zip(layout.keys(new).to_pylist(), new.to_pylist(), strict=True)
            for name in names
        }
        assert {cell[3] for cell in found if cell[4] == MARKER} == {6}


def test_a_key_that_comes_twice_among_changes_is_refused(tmp_path: Path) -> None:
    """Broken: of two rows under one key one is lost without a word, because markers are sorted in as well."""
    rows, layout = shuffled(PRODUCT, 10), Layout(PRODUCT)
    schema = PRODUCT.arrow.append(bulk_load.GONE)
    twice = [*bulk_load._marked([rows, rows.slice(3, 1)], schema, gone=False)]
    twice += bulk_load._marked([rows.slice(5, 1)], schema, gone=True)
    (part,) = bulk_load._sorted(layout, twice, [], tmp_path / "spill", schema)
    with pytest.raises(UnsortedError, match="comes twice"), Files(tmp_path, "rows", layout.families, 7) as files:
        bulk_load._write(files, layout, *part, bulk_load.Steps(None))


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
