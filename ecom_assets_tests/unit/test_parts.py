"""Views by file: what was computed of each file, put together, is what all rows give."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from ecom_assets.core.settings import Settings
from ecom_assets.dataset.query import View
from ecom_assets.lake import delta, vectors
from ecom_assets.serving import tables

SQL = "SELECT kind, count(*) AS n, min(id) AS least, max(seen) AS latest FROM events GROUP BY kind"
QUESTION = "SELECT kind, CAST(sum(n) AS BIGINT), min(least), max(latest) FROM by_kind GROUP BY 1 ORDER BY 1"
BY_FILE = View("by_kind", {"duckdb": SQL}, ("events",), by_file=True)
WHOLE = dataclasses.replace(BY_FILE, by_file=False)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A table of three files."""
    for file in range(3):
        add(tmp_path / "events", file)
    return tmp_path / "events"


def add(folder: Path, file: int) -> None:
    """Add 50 rows, a file."""
    ids = np.arange(50) + 50 * file
    rows = {"id": ids, "kind": [f"k{n % 7}" for n in ids], "seen": pa.array(ids * 10**6, pa.timestamp("us", "UTC"))}
    write_deltalake(str(folder), pa.table(rows), mode="append")


def ask(view: View, folder: Path, settings: Settings) -> list[tuple[object, ...]]:
    found = DeltaTable(str(folder))
    with tables.connect(settings) as connection:
        tables.give_table(connection, "events", folder, found)
        tables.give_view(connection, view, settings, {"events": (folder, found)})
        return connection.execute(QUESTION).fetchall()


def kept(settings: Settings) -> dict[str, int]:
    """The parts that are kept, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in (settings.home / "cache" / "parts" / "by_kind").iterdir()}


def test_only_what_is_new_is_computed(folder: Path, settings: Settings) -> None:
    """If this fails, a chart is wrong after the second delivery, or all events are read for each one."""
    assert ask(BY_FILE, folder, settings) == ask(WHOLE, folder, settings)
    before = kept(settings)
    assert len(before) == 3
    add(folder, 3)
    assert ask(BY_FILE, folder, settings) == ask(WHOLE, folder, settings)
    after = kept(settings)
    assert before.items() <= after.items()
    assert len(after) == 4
    other = dataclasses.replace(BY_FILE, sql={"duckdb": SQL.replace("min(id)", "min(id + 1)")})
    assert ask(other, folder, settings) != ask(BY_FILE, folder, settings), "another text has parts of its own"


def test_rows_that_do_not_count_any_more(folder: Path, settings: Settings) -> None:
    """If this fails, a booking that was canceled stays in the charts."""
    before = ask(BY_FILE, folder, settings)
    found = DeltaTable(str(folder))
    file = delta.files(found).to_pylist()[0]
    vector = vectors.added(file["path"], file["size_bytes"], file["num_records"], np.array([0, 7, 14]))
    vectors.commit(found, folder, [vectors.removed(file["path"], None), vector], "MERGE", ("streamed/x", 1))
    assert ask(BY_FILE, folder, settings) == ask(WHOLE, folder, settings) != before


def test_parts_of_files_that_are_gone_are_forgotten_after_a_day(folder: Path, settings: Settings) -> None:
    """If this fails, a home grows with each rewritten file, or a page that shows the last version finds no part."""
    ask(BY_FILE, folder, settings)
    DeltaTable(str(folder)).optimize.compact()
    assert ask(BY_FILE, folder, settings) == ask(WHOLE, folder, settings)
    assert len(kept(settings)) == 4
    long_ago = time.time() - tables.KEPT_SECONDS - 60
    for path in (settings.home / "cache" / "parts" / "by_kind").iterdir():
        os.utime(path, (long_ago, long_ago))
    assert ask(BY_FILE, folder, settings) == ask(WHOLE, folder, settings)
    assert len(kept(settings)) == 1


def test_a_part_that_was_not_finished_does_not_count(
    folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, a process that is killed leaves half of a file's rows in the charts for ever."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        ask(BY_FILE, folder, settings)
    monkeypatch.undo()
    assert ask(BY_FILE, folder, settings) == ask(WHOLE, folder, settings)
