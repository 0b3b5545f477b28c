"""Deliveries: what of a source is accepted, once, and what is not."""

from __future__ import annotations

import gzip
import json
import os
import time
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Literal, Self

import pytest

from ecom_assets.core import delivery
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Dataset
from ecom_assets.source import acceptance, acquire, first_files, overview, waiting
from ecom_assets_tests.tables import CUSTOMER, PRODUCT

SET = Dataset.of("d", replace(CUSTOMER, name="order"), replace(PRODUCT, name="item"))
HEADER = b"a,b\n"


def put(path: Path, data: bytes, age: float = 60.0) -> Path:
    """Write a file that has not changed for a while."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    then = time.time() - age
    os.utime(path, (then, then))
    return path


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A source with the first files."""
    for name in ("order.csv", "item.csv"):
        put(tmp_path / "shop" / name, HEADER + name.encode() + b",1\n")
    return tmp_path / "shop"


@pytest.fixture
def home(tmp_path: Path, shop: Path) -> Settings:
    """A home with the first files of the source."""
    settings = Settings(home=tmp_path / "home", source=str(shop))
    acquire(settings, SET)
    return settings


def accepted(home: Settings, dataset: Dataset = SET) -> list[tuple[int, str, dict[str, bytes]]]:
    """Accept what is new; all deliveries: sequence, name, and the content of each file."""
    acquire(home, dataset)
    assert not waiting(home, dataset), "what was looked at is not looked at again"
    found = []
    for each in delivery.deliveries(home):
        folder = delivery.folder(home, each.sequence)
        assert sorted(p.name for p in folder.iterdir() if p.name != delivery.RECORD) == sorted(
            SET.tables[file.table].csv for file in each.files
        )
        files = {f.table: (folder / SET.tables[f.table].csv).read_bytes() for f in each.files}
        found.append((each.sequence, each.name, files))
    return found


def states(home: Settings, dataset: Dataset = SET) -> dict[str, tuple[str, int | None, str]]:
    """File -> what the overview says of it."""
    return {str(each.file.path): (each.state, each.sequence, each.detail) for each in overview.of(home, dataset)}


def test_files_that_come_later_are_deliveries(home: Settings, shop: Path) -> None:
    """If this fails, a shop's second file is ignored, loaded twice, or loaded in another order."""
    assert accepted(home) == []
    put(shop / "order-10.csv", HEADER + b"10,1\n")
    put(shop / "9" / "order.csv", HEADER + b"9,1\n")
    put(shop / "9" / "item.csv.gz", gzip.compress(HEADER + b"9,2\n"))
    put(shop / "notes.txt", b"")
    assert [state for state, *_ in states(home).values()].count(overview.NEW) == 3
    found = [
        (1, "9", {"order": HEADER + b"9,1\n", "item": HEADER + b"9,2\n"}),
        (2, "10", {"order": HEADER + b"10,1\n"}),
    ]
    assert accepted(home) == found
    assert accepted(home) == found
    for file in shop.rglob("*.csv*"):
        file.unlink()  # what becomes of the source does not matter any more
    assert accepted(home) == found


def test_the_overview_says_what_became_of_each_file(home: Settings, shop: Path) -> None:
    """If this fails, an analyst cannot see which of her files is loaded."""
    put(shop / "order-1.csv", HEADER + b"x,1\n")
    put(shop / "order-2.csv", HEADER + b"x,1\n")
    put(shop / "stray.csv", b"")
    accepted(home)
    put(shop / "order-3.csv", HEADER, age=0)
    put(shop / "item.csv", HEADER + b"others,1\n")
    assert states(home) == {
        "order.csv": (overview.LOADED, 0, ""),
        "item.csv": (overview.CHANGED, 0, ""),
        "order-1.csv": (overview.LOADED, 1, ""),
        "order-2.csv": (overview.REPEATED, None, "order-1.csv"),
        "order-3.csv": (overview.NEW, None, ""),
        "stray.csv": (overview.FOREIGN, None, ""),
    }


def test_the_same_content_under_another_name(home: Settings, shop: Path) -> None:
    """If this fails, a file that is sent again counts twice; or what two tables have in common is taken for that."""
    put(shop / "order-1.csv", (shop / "order.csv").read_bytes())
    put(shop / "item-1.csv.gz", gzip.compress((shop / "item.csv").read_bytes()))
    put(shop / "item-2.csv", (shop / "order.csv").read_bytes())
    os.utime(shop / "order.csv")  # touched, not changed
    put(shop / "order.csv", (shop / "order.csv").read_bytes(), age=30)
    assert accepted(home) == [(1, "2", {"item": HEADER + b"order.csv,1\n"})]
    assert states(home)["item-1.csv.gz"][::2] == (overview.REPEATED, "item.csv")
    assert states(home)["order.csv"][0] == overview.LOADED
    put(shop / "order-1.csv", (shop / "order.csv").read_bytes() + b"new,2\n", age=20)  # it may grow like any other
    assert accepted(home)[1] == (2, "1", {"order": HEADER + b"new,2\n"})
    assert states(home)["order-1.csv"] == (overview.LOADED, 2, "")


def test_a_file_that_has_grown(home: Settings, shop: Path) -> None:
    """If this fails, rows that are appended to a file are lost, or its old rows come twice."""
    first = (shop / "order.csv").read_bytes()
    put(shop / "order.csv", first + b"new,2\n", age=50)
    ((sequence, _, files),) = accepted(home)
    assert (sequence, files) == (1, {"order": HEADER + b"new,2\n"})
    put(shop / "order.csv", first + b"new,2\nand,3\n", age=40)
    assert accepted(home)[1][2] == {"order": HEADER + b"and,3\n"}
    assert (home.raw / "order.csv").read_bytes() == first


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (HEADER + b"other.csv,1\n", "expected the 16 bytes that were accepted from it"),
        (HEADER, "expected the 16 bytes that were accepted from it"),
        (b"", "expected the 16 bytes that were accepted from it"),
    ],
)
def test_a_file_that_was_changed_otherwise(home: Settings, shop: Path, content: bytes, why: str) -> None:
    """If this fails, old and new rows are mixed, the others wait for it, or each run reads the file again."""
    put(shop / "order.csv", content, age=50)
    put(shop / "item-1.csv", HEADER + b"x,1\n")
    assert accepted(home) == [(1, "1", {"item": HEADER + b"x,1\n"})]
    state, _, detail = states(home)["order.csv"]
    assert state == overview.REFUSED
    assert why in detail
    put(shop / "order.csv", HEADER + b"order.csv,1\nmore,2\n", age=40)
    assert accepted(home)[1][2] == {"order": HEADER + b"more,2\n"}, "put right, it is accepted"


def test_growth_may_be_declared_a_mistake(home: Settings, shop: Path) -> None:
    """If this fails, on_change: refuse has no effect."""
    strict = replace(SET, tables={n: replace(t, on_change="refuse") for n, t in SET.tables.items()})
    put(shop / "order.csv", (shop / "order.csv").read_bytes() + b"more,2\n", age=40)
    assert accepted(home, strict) == []
    assert "on_change: refuse" in states(home, strict)["order.csv"][2]


def test_growth_behind_a_line_without_end(tmp_path: Path, shop: Path) -> None:
    """If this fails, half of a row that was loaded becomes another row."""
    put(shop / "order.csv", HEADER + b"order,1")
    home = Settings(home=tmp_path / "home", source=str(shop))
    acquire(home, SET)
    put(shop / "order.csv", HEADER + b"order,12\n", age=40)
    assert accepted(home) == []
    assert "expected a line feed at the end" in states(home)["order.csv"][2]


def test_a_file_that_is_still_written(home: Settings, shop: Path) -> None:
    """If this fails, half a file is loaded."""
    file = put(shop / "order-1.csv", HEADER + b"x,1\n", age=0)
    assert accepted(home) == []
    put(file, HEADER + b"x,1\n")
    assert len(accepted(home)) == 1


def test_a_file_that_changes_while_it_is_copied(home: Settings, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a mixture of two files is loaded, or one file's trouble keeps the others out."""
    file = put(shop / "1" / "order.csv", HEADER + b"x,1\n")
    put(shop / "1" / "item.csv", HEADER + b"y,1\n")
    real = acceptance._blocks

    def changed(content, *args):
        if content.name == str(file):
            put(file, HEADER + b"z,1\n", age=0)
        yield from real(content, *args)

    monkeypatch.setattr(acceptance, "_blocks", changed)
    assert accepted(home) == [(1, "1", {"item": HEADER + b"y,1\n"})]
    monkeypatch.undo()
    put(file, HEADER + b"z,1\n", age=40)
    assert accepted(home)[1:] == [(2, "1 (2)", {"order": HEADER + b"z,1\n"})]


@pytest.mark.parametrize("packed", [b"\x1f\x8b", gzip.compress(b"a" * 9999)[:-9]], ids=["two bytes", "without its end"])
def test_a_packed_file_that_is_cut(home: Settings, shop: Path, packed: bytes) -> None:
    """If this fails, a file that is not here as a whole is loaded, or stops all others."""
    put(shop / "order-1.csv.gz", packed)
    put(shop / "order-2.csv", HEADER + b"x,1\n")
    acquire(home, SET)
    assert [each.name for each in delivery.deliveries(home)] == ["2"]


def test_a_folder_that_waits_for_its_marker(home: Settings, shop: Path) -> None:
    """If this fails, a day is loaded before all of its files are there."""
    marked = replace(SET, marker="_SUCCESS")
    put(shop / "2026-11-28" / "order.csv", HEADER + b"x,1\n")
    assert accepted(home, marked) == []
    assert states(home, marked)["2026-11-28/order.csv"][0] == overview.INCOMPLETE
    put(shop / "2026-11-28" / "_SUCCESS", b"")
    assert [name for _, name, _ in accepted(home, marked)] == ["2026-11-28"]


def test_two_files_of_a_table_in_one_delivery(home: Settings, shop: Path) -> None:
    """If this fails, the second replaces the first."""
    put(shop / "order-1.csv", HEADER + b"x,1\n")
    put(shop / "1" / "order.csv", HEADER + b"y,1\n")
    assert [(name, files["order"]) for _, name, files in accepted(home)] == [
        ("1", HEADER + b"y,1\n"),
        ("1 (2)", HEADER + b"x,1\n"),
    ]


def test_what_a_crash_leaves(home: Settings, shop: Path) -> None:
    """If this fails, a delivery that was not copied to its end counts, or its number is lost."""
    part = delivery.folder(home, 1).with_name(".000001.part")
    put(part / "order.csv", b"half")
    put(shop / "order-1.csv", HEADER + b"x,1\n")
    assert accepted(home) == [(1, "1", {"order": HEADER + b"x,1\n"})]
    assert not part.exists()


def test_tables_that_grow_take_no_deliveries(tmp_path: Path, shop: Path) -> None:
    """If this fails, copies are renewed by keys that a delivery changes."""
    home = Settings(home=tmp_path / "home", source=str(shop), expand="2")
    acquire(home, SET)
    put(shop / "order-1.csv", HEADER + b"x,1\n")
    assert accepted(home) == []
    assert states(home)["order-1.csv"][0] == overview.LATER


def test_a_source_of_deliveries_alone(tmp_path: Path) -> None:
    """If this fails, a shop that names each file by its day has no first one."""
    for day in (2, 1):
        put(tmp_path / "shop" / f"2026-11-0{day}" / "order.csv", HEADER + b"%d,1\n" % day)
        put(tmp_path / "shop" / f"item_2026110{day}.csv", HEADER + b"%d,1\n" % day)
    home = Settings(home=tmp_path / "home", source=str(tmp_path / "shop"))
    acquire(home, SET)
    assert {file.origin.path for file in first_files(home)} == {"2026-11-01/order.csv", "item_20261101.csv"}
    assert {name: list(files) for _, name, files in accepted(home)} == {"2026-11-02": ["order"], "20261102": ["item"]}


def test_a_record_that_is_damaged(home: Settings, shop: Path) -> None:
    """If this fails, a delivery vanishes from the home without a word."""
    put(shop / "order-1.csv", HEADER + b"x,1\n")
    accepted(home)
    record = delivery.folder(home, 1) / delivery.RECORD
    record.write_text(json.dumps({"sequence": 1}))
    delivery._all.cache_clear()  # another process would read it for the first time
    with pytest.raises(Exception, match="expected the record of a delivery"):
        delivery.deliveries(home)


@pytest.mark.parametrize("write", ["replace", "merge"])
def test_a_file_that_is_written_anew_each_day(write: Literal["replace", "merge"], home: Settings, shop: Path) -> None:
    """If this fails, a list that a shop overwrites is refused, or one that came back to an earlier state is skipped."""
    table = replace(CUSTOMER, name="order", write=write, history=False, on_change="replace")
    dataset = Dataset.of("d", table, replace(PRODUCT, name="item"))
    first = (shop / "order.csv").read_bytes()
    states = [HEADER + b"1,2\n3,4\n", HEADER + b"5,6\n", first]
    for number, state in enumerate(states, 1):
        put(shop / "order.csv", state, 1000.0 - number)
        assert [files["order"] for _, _, files in accepted(home, dataset)] == states[:number]
    put(shop / "order.csv", first, 10.0)  # touched
    put(shop / "2026-12-01" / "order.csv", first)  # the same under another name
    assert len(accepted(home, dataset)) == len(states)


def test_times_of_deliveries_follow_their_order(home: Settings, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, rows of a delivery count before those of an earlier one once the clock was set back."""
    put(shop / "order-1.csv", HEADER + b"1,1\n")
    accepted(home)
    monkeypatch.setattr(acceptance, "datetime", Yesterday)
    put(shop / "order-2.csv", HEADER + b"2,1\n")
    accepted(home)
    before, after = (datetime.fromisoformat(each.at) for each in delivery.deliveries(home))
    assert timedelta() < after - before < timedelta(minutes=1)


class Yesterday(datetime):
    """A clock that was set back."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        """A day ago."""
        return super().now(tz) - timedelta(days=1)


def test_one_delivery_alone(home: Settings, shop: Path) -> None:
    """If this fails, a person who loads one day gets all of them, or that day's rows are never loaded with the rest."""
    for day in ("1", "2"):
        put(shop / f"order-{day}.csv", HEADER + day.encode() + b",1\n")
    found = accepted(home.model_copy(update={"delivery": "2"}))
    assert [(sequence, name) for sequence, name, _ in found] == [(1, "2")]
    assert [(sequence, name) for sequence, name, _ in accepted(home)] == [(1, "2"), (2, "1")]
