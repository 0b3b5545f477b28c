"""Deletion vectors and the rows that every reader finds behind them."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from ecom_assets.core.errors import LakeError
from ecom_assets.lake import delta, vectors, views

ROWS = 300_000
POSITIONS = {
    "none": np.empty(0, np.int64),
    "few": np.array([0, 7, 65_535, 65_536, ROWS - 1]),
    "dense": np.arange(5, 100_000),
    "scattered": np.arange(0, ROWS, 7),
}


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A table of two files."""
    folder = tmp_path / "it's a lake"
    for half in (0, 1):
        ids = range(half * ROWS, (half + 1) * ROWS)
        rows = pa.table({"id": pa.array(ids, pa.int64()), "filename": [f"row {n}" for n in ids]})
        write_deltalake(str(folder), rows, mode="append")
    return folder


def first_file(folder: Path) -> str:
    """The name of the file whose rows begin with 0."""
    found = DeltaTable(str(folder))
    for name in delta.files(found)["path"].to_pylist():
        if next(delta.batches(found, ["id"], names=[name]))["id"][0].as_py() == 0:
            return name
    raise AssertionError


def mark(folder: Path, name: str, positions: np.ndarray, number: int) -> None:
    """Let some rows of a file go."""
    found = DeltaTable(str(folder))
    file = next(file for file in delta.files(found).to_pylist() if file["path"] == name)
    before = vectors.descriptors(found, folder, [name])
    actions = [
        vectors.removed(name, before[name]),
        vectors.added(name, file["size_bytes"], file["num_records"], positions),
    ]
    vectors.commit(found, folder, actions, "MERGE", ("streamed/x", number))


def by_delta(folder: Path) -> list[int]:
    found = DeltaTable(str(folder))
    return [n for batch in delta.batches(found, ["id"]) for n in batch["id"].to_pylist()]


def by_duckdb(folder: Path, names: delta.Rows | None = None) -> list[int]:
    with duckdb.connect() as connection:
        views.create(connection, "rows", folder, DeltaTable(str(folder)), names=names)
        found = connection.execute('SELECT id, "filename" FROM rows').fetchall()
    assert all(text == f"row {n}" for n, text in found)
    return [n for n, _ in found]


def positions_of(difference: tuple[delta.Rows, delta.Rows]) -> list[dict[str, np.ndarray]]:
    """The rows in which two versions differ, where no file came or went."""
    return [{name: at for name, at in rows.items() if at is not None} for rows in difference]


@pytest.mark.parametrize("positions", POSITIONS.values(), ids=POSITIONS)
def test_every_reader_leaves_out_what_a_vector_names(lake: Path, positions: np.ndarray) -> None:
    """A chart, a check or HBase would have rows that are gone, or lack rows that are there."""
    mark(lake, first_file(lake), positions, 1)
    due = sorted(set(range(2 * ROWS)) - set(positions.tolist()))
    assert sorted(by_delta(lake)) == due
    assert sorted(by_duckdb(lake)) == due
    assert by_duckdb(lake, {}) == []
    plain = shutil.copytree(lake, lake.with_name("plain"))  # Polars does not find files behind a blank
    assert sorted(pl.scan_delta(str(plain)).collect()["id"].to_list()) == due, "a reader of others"
    found = DeltaTable(str(lake))
    assert delta.count(found) == len(due)
    assert found.transaction_version("streamed/x") == 1


def test_one_vector_follows_another(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The difference of two versions would not be the rows that went, or a file would count twice."""
    monkeypatch.setattr(vectors, "CHECKPOINT", 10)
    name, id_ = first_file(lake), str(DeltaTable(str(lake)).metadata().id)
    gone = np.empty(0, np.int64)
    for number in range(1, 25):  # checkpoints come in between
        before = delta.at_version(lake, delta.Version(id_, DeltaTable(str(lake)).version()))
        more = np.arange(number, ROWS, 1000)
        gone = np.union1d(gone, more)
        mark(lake, name, gone, number)
        now = DeltaTable(str(lake))
        went, came = positions_of(delta.difference(before, now))
        assert came == {}
        assert went.keys() == {name}
        assert went[name].tolist() == more.tolist()
        assert delta.count(before, went) == len(more)
        rows = [n for batch in delta.batches(before, ["id"], names=went) for n in batch["id"].to_pylist()]
        assert rows == more.tolist()
        assert by_duckdb(lake, went) == more.tolist()
    back, came = positions_of(delta.difference(now, before))
    assert back == {}
    assert came[name].tolist() == more.tolist()
    assert len(by_delta(lake)) == 2 * ROWS - len(gone)
    assert (lake / "_delta_log" / "_last_checkpoint").exists()


def test_a_table_whose_rows_all_count_needs_no_new_reader(lake: Path) -> None:
    """Who reads a table of events with an old program could not any more, for nothing."""
    vectors.commit(DeltaTable(str(lake)), lake, [], "WRITE", ("streamed/x", 1))
    found = DeltaTable(str(lake))
    assert found.transaction_version("streamed/x") == 1
    assert found.to_pyarrow_table().num_rows == 2 * ROWS


def test_nobody_else_may_have_changed_it(lake: Path) -> None:
    """Of two commits at once, the later one would undo the other without a word."""
    found = DeltaTable(str(lake))
    write_deltalake(str(lake), pa.table({"id": pa.array([-1]), "filename": ["row -1"]}), mode="append")
    with pytest.raises(LakeError, match="got another commit 2 in between"):
        vectors.commit(found, lake, [], "MERGE", ("streamed/x", 1))
    assert -1 in by_delta(lake)
    assert not list((lake / "_delta_log").glob(".*"))


def test_maintenance_brings_no_row_back(lake: Path) -> None:
    """What a customer deleted would be there again after a night."""
    mark(lake, first_file(lake), POSITIONS["scattered"], 1)
    before = sorted(by_delta(lake))
    done = DeltaTable(str(lake)).optimize.compact()
    assert done["numFilesRemoved"] == 2
    assert sorted(by_delta(lake)) == before
    assert vectors.deleted(DeltaTable(str(lake))) == {}
