"""Checks of data quality that need no server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from ecom_assets.core.engine import Engine
from ecom_assets.core.layer import Measurement
from ecom_assets.core.location import remove
from ecom_assets.core.measure import Measure
from ecom_assets.core.settings import Settings, load
from ecom_assets.dataset.kind import INSTANT
from ecom_assets.dataset.model import Dataset, Reference, Table
from ecom_assets.lake import fates, merge
from ecom_assets.paths import engine, open_home
from ecom_assets.reconcile import content, dangling, quality, since
from ecom_assets.reconcile.finding import Finding
from ecom_assets_tests.tables import CUSTOMER, PRODUCT


def test_a_key_that_is_not_unique_is_seen_on_the_bulk_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a primary key that is too narrow drops nine rows of ten on that path, and all passes."""
    (check,) = (c for c in quality.CHECKS if (c.layer, c.name) == ("hbase", "conflicts"))
    with open_home(load(home=tmp_path)) as at:
        bulk = engine(at, "bulk")
        left = {"duplicates": Measure(), "conflicts": Measure(90)}
        found = Measurement("product", "hbase", Measure(10), left)
        monkeypatch.setattr(bulk, "look_up", lambda *_: found)
        file = at.settings.quarantine / "product.conflicts.jsonl"
        file.parent.mkdir()
        file.write_text(json.dumps({"table": "product", "key": 7, "row": {"id": 7}, "reason": "other values"}) + "\n")
        seen = check.run(bulk, PRODUCT)
        assert not seen.ok
        assert not seen.warn
        assert seen.figures["finding"] == "the key is not unique: 90 of 100 rows share one with another, different row"
        assert [sample["key"] for sample in seen.samples] == ["7"]
        assert check.run(bulk, replace(PRODUCT, conflicts_tolerated=0.9)).ok
        found = Measurement("product", "hbase", Measure(10))
        assert check.run(bulk, PRODUCT).ok, "behind a merged layer nothing is left out"


@pytest.mark.parametrize("name", ["home", "a *b?", "100% 'tüte'"])
def test_a_table_is_read_wherever_its_home_is(tmp_path: Path, name: str) -> None:
    """If this fails, checks fail, or look at other files, in a folder whose name looks like a pattern or an address."""
    settings = load(home=tmp_path / name)
    columns = {c.name: (range(100, 103) if c.kind.is_integer else ["x", "y", "z"]) for c in CUSTOMER.columns}
    rows = pa.table({n: pa.array(v) for n, v in columns.items()})
    folder = merge.folder(CUSTOMER, settings)
    write_deltalake(str(folder), rows)
    write_deltalake(str(folder), rows.slice(2), mode="append")
    with open_home(settings) as at:
        found = quality.primary_key(engine(at, "stream"), CUSTOMER)
    assert not found.ok
    assert found.figures["rows"] == 4
    assert found.figures["keys that come more than once"] == 1
    write_deltalake(str(folder), rows, mode="overwrite")
    with open_home(settings) as at:
        assert quality.primary_key(engine(at, "stream"), CUSTOMER).ok, "files of earlier versions do not count"


def test_a_key_of_any_name_is_counted(tmp_path: Path) -> None:
    """If this fails, a table with a column called like one of the query's own cannot be checked."""
    names = ("rows", "n")
    fields = [{"name": name, "type": "string"} for name in names]
    table = replace(CUSTOMER, name="t", avsc={"fields": fields}, primary_key=names, references=())
    with open_home(load(home=tmp_path), Dataset.of("own", table)) as at:
        write_deltalake(
            str(merge.folder(table, at.settings)), pa.table({"rows": ["1", "1", "2"], "n": ["x", "x", "x"]})
        )
        found = quality.primary_key(engine(at, "stream"), table)
    assert not found.ok
    assert (found.figures["rows"], found.figures["keys that come more than once"]) == (3, 1)
    assert found.samples == [{"rows": "1", "n": "x", "_rows": 2}]


def test_a_compound_reference_is_followed_whatever_columns_are_called(tmp_path: Path) -> None:
    """If this fails, rows that refer to nothing pass, or a column called like one of the query's stops the check."""
    names = ("value", "key0")
    fields = [{"name": name, "type": ["null", "string"]} for name in names]
    there = replace(CUSTOMER, name="there", avsc={"fields": fields}, primary_key=names, references=())
    here = replace(there, name="here", references=(Reference(names, "there", names),))
    with open_home(load(home=tmp_path), Dataset.of("own", here, there)) as at:
        write_deltalake(str(merge.folder(there, at.settings)), pa.table({"value": ["a", "b"], "key0": ["x", "y"]}))
        rows = {"value": ["a", "a", None, "b"], "key0": ["x", "y", "z", "y"]}
        write_deltalake(str(merge.folder(here, at.settings)), pa.table(rows))
        found = quality.references(engine(at, "stream"), here)
    assert not found.ok
    assert found.figures == {"value, key0 -> there.(value, key0)": "1 of 3 dangle"}
    assert [(sample["value"], sample["key0"]) for sample in found.samples] == [("a", "y")]


# What is new since a check passed

ID = {"name": "id", "type": "long"}
TO = {"name": "to", "type": ["null", "long"]}
AT = {"name": "at", "type": ["null", "string"], "parsed_as": {"name": "at_date", "type": "date"}}
STRICT = Reference(("to",), "there", ("id",))
THERE = replace(CUSTOMER, name="there", avsc={"fields": [ID]}, primary_key=("id",), references=())
HERE = replace(THERE, name="here", avsc={"fields": [ID, TO, AT]}, references=(STRICT,))
TOLERANT = replace(HERE, references=(replace(STRICT, tolerated=0.5),))
OF_ROWS = {check.name: check for check in quality.CHECKS if check.layer == "merged" and check.whole}
ALL = set(OF_ROWS)


def placed(columns: dict[str, tuple[list[Any], pa.DataType]]) -> pa.Table:
    """Rows with the columns that merging adds."""
    rows = pa.table({name: pa.array(values, kind) for name, (values, kind) in columns.items()})
    for name, (kind, _) in fates.PLACED.items():
        rows = rows.append_column(name, pa.nulls(len(rows), pa.int64() if kind == "long" else INSTANT))
    return rows


def targets(ids: Iterable[int]) -> pa.Table:
    """Rows of the table ``there``."""
    return placed({"id": (list(ids), pa.int64())})


def rows_of(ids: Iterable[int | None], to: int | None = 100, at: str = "2022-07-31") -> pa.Table:
    """Rows of the table ``here``; without a companion if ``at`` is no date."""
    own = list(ids)
    typed = date.fromisoformat(at) if at[0].isdigit() else None
    columns = {"id": (own, pa.int64()), "to": ([to] * len(own), pa.int64()), "at": ([at] * len(own), pa.string())}
    return placed(columns | {"at_date": ([typed] * len(own), pa.date32())})


class Lake:
    """Two tables of three files each, the checks of one of them, and which read all of its rows."""

    def __init__(self, used: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine = used
        self._read: list[str] = []
        for first in (0, 100, 200):
            self.append(HERE, rows_of(range(first, first + 50), to=first))
            self.append(THERE, targets(range(first, first + 50)))

        def noted(settings: Settings, **views: Any) -> Any:
            self._read += [name for name, view in views.items() if name == "rows" and view.files is None]
            return since.query(settings, **views)

        monkeypatch.setattr(content, "query", noted)
        monkeypatch.setattr(dangling, "query", noted)

    def folder(self, table: Table) -> Path:
        """Where a table is."""
        return Path(str(merge.folder(table, self.engine.at.settings)))

    def delta(self, table: Table) -> DeltaTable:
        """A table as it is now."""
        return DeltaTable(str(self.folder(table)))

    def append(self, table: Table, rows: pa.Table) -> None:
        """Add a file to a table."""
        write_deltalake(str(self.folder(table)), rows, mode="append")

    def check(self, table: Table = HERE) -> tuple[dict[str, Finding], set[str]]:
        """Run the checks as a run does, and see that they find, and record, what they do by everything.

        Returns:
            What they found, and the names of those that read all rows.
        """
        books, found, whole = self.engine.at.books, {}, set()
        for name, check in OF_ROWS.items():
            self._read.clear()
            found[name] = check.run(self.engine, table)
            whole |= {name} if self._read else set()
            assert check.whole
            key = f"merged/{table.name}/passed/{name}"
            kept = books.state(key)
            again = check.whole(self.engine, table)
            assert (found[name].ok, found[name].warn, found[name].figures) == (again.ok, again.warn, again.figures)
            assert kept == books.state(key)
            books.set_state(key, kept)
        return found, whole


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    with open_home(load(home=tmp_path), Dataset.of("own", HERE, THERE)) as at:
        yield Lake(engine(at, "stream"), monkeypatch)


def rebuilt(lake: Lake) -> None:
    """Write a table as another one with the same rows."""
    rows = lake.delta(HERE).to_pyarrow_table()
    remove(lake.folder(HERE))
    lake.append(HERE, rows)


def renewed(table: Table, condition: str, rows: pa.Table) -> Callable[[Lake], None]:
    """Write a file again without some rows, and others next to it."""

    def change(lake: Lake) -> None:
        lake.delta(table).delete(condition)
        lake.append(table, rows)

    return change


def vacuumed(change: Callable[[Lake], object]) -> Callable[[Lake], None]:
    """A change, and no file of an earlier version is left."""

    def both(lake: Lake) -> None:
        change(lake)
        lake.delta(HERE).vacuum(0, dry_run=False, enforce_retention_duration=False)

    return both


CHANGES: dict[str, tuple[Callable[[Lake], object], set[str], set[str]]] = {
    "nothing": (lambda _: None, set(), set()),
    "appended file": (lambda lake: lake.append(HERE, rows_of(range(300, 310))), set(), set()),
    "appended with what it refers to": (
        lambda lake: (lake.append(THERE, targets([500])), lake.append(HERE, rows_of([300], to=500))),
        set(),
        set(),
    ),
    "what is referred to grows": (lambda lake: lake.append(THERE, targets([500])), set(), set()),
    "null refers to nothing": (lambda lake: lake.append(HERE, rows_of([300], to=None)), set(), set()),
    "rewritten file": (renewed(HERE, "id = 105", rows_of([105], to=5)), set(), set()),
    "rewritten file of the other table": (renewed(THERE, "id = 100", targets([100])), set(), set()),
    "deleted rows": (lambda lake: lake.delta(HERE).delete("id < 3"), set(), set()),
    "deleted file": (lambda lake: lake.delta(HERE).delete("id < 100"), set(), set()),
    "files compacted": (vacuumed(lambda lake: lake.delta(HERE).optimize.compact()), set(), set()),
    "few texts untyped": (lambda lake: lake.append(HERE, rows_of([300, 301], at="soon")), set(), set()),
    "many texts untyped": (
        lambda lake: lake.append(HERE, rows_of(range(300, 320), at="soon")),
        {"schema"},
        {"schema"},
    ),
    "key of an old file": (
        lambda lake: lake.append(HERE, rows_of([120], to=0)),
        {"primary_key"},
        {"primary_key"},
    ),
    "key twice in a new file": (
        lambda lake: lake.append(HERE, rows_of([300, 300])),
        {"primary_key"},
        {"primary_key"},
    ),
    "null key": (lambda lake: lake.append(HERE, rows_of([None])), {"primary_key"}, {"primary_key"}),
    "dangling row": (lambda lake: lake.append(HERE, rows_of([300], to=999)), {"references"}, {"references"}),
    "referenced row goes": (lambda lake: lake.delta(THERE).delete("id = 100"), {"references"}, {"references"}),
    "another row goes": (lambda lake: lake.delta(THERE).delete("id = 110"), {"references"}, set()),
    "row and what it refers to go": (
        lambda lake: (lake.delta(THERE).delete("id = 100"), lake.delta(HERE).delete("to = 100")),
        {"references"},
        set(),
    ),
    "files of that time vacuumed": (vacuumed(lambda lake: lake.delta(HERE).delete("id < 3")), ALL, set()),
    "written as a whole": (
        lambda lake: write_deltalake(str(lake.folder(HERE)), lake.delta(HERE).to_pyarrow_table(), mode="overwrite"),
        {"schema", "primary_key"},
        set(),
    ),
    "rebuilt": (rebuilt, ALL, set()),
}
"""Change -> what it does, the checks that read all rows then, and those that fail."""


@pytest.mark.parametrize(("change", "whole", "fails"), CHANGES.values(), ids=CHANGES)
def test_checks_find_by_what_is_new_what_they_find_by_everything(
    lake: Lake, change: Callable[[Lake], object], whole: set[str], fails: set[str]
) -> None:
    """If this fails, a run misses what is wrong, reports what is not, or reads whole tables for a few rows."""
    assert lake.check()[1] == ALL, "nothing is known of them"
    change(lake)
    found, read = lake.check()
    assert {name for name, each in found.items() if not each.ok} == fails
    assert read == whole
    assert all(found[name].samples for name in fails)
    lake.append(HERE, rows_of([400, 401], to=7))
    assert lake.check()[1] == fails, "what failed is read as a whole until it passes, and nothing else"


def test_old_files_are_not_opened(lake: Lake) -> None:
    """If this fails, the cost of checks follows the size of a table, not what is new."""
    old = [lake.folder(HERE) / name for name in lake.delta(HERE).get_add_actions(flatten=True)["path"].to_pylist()]
    lake.check()
    lake.append(HERE, rows_of([300]))
    lake.check()  # keys of old files are hashed once
    lake.append(HERE, rows_of([301], to=5))
    for file in old:
        file.rename(file.with_suffix(".away"))
    assert all(check.run(lake.engine, HERE).ok for check in OF_ROWS.values())
    for check in OF_ROWS.values():
        with pytest.raises(Exception, match="No files found"):
            (check.whole or check.run)(lake.engine, HERE)


def test_all_rows_are_read_where_that_is_asked_for(lake: Lake) -> None:
    """If this fails, a file that was damaged on disk passes for ever, the jobs that read everything included."""
    lake.check()
    damaged = lake.folder(HERE) / lake.delta(HERE).get_add_actions(flatten=True)["path"].to_pylist()[0]
    sound = damaged.read_bytes()
    donor = Path(lake.engine.at.settings.home / "donor")
    write_deltalake(str(donor), rows_of([7, 7, 8], to=999, at="soon"))
    damaged.write_bytes(next(donor.glob("*.parquet")).read_bytes())
    for name in ("primary_key", "references"):
        check = OF_ROWS[name]
        assert check.whole
        assert check.run(lake.engine, HERE).ok, "nothing came"
        assert not check.whole(lake.engine, HERE).ok
        assert not check.run(lake.engine, HERE).ok, "what failed is read as a whole until it passes"
    damaged.write_bytes(sound)
    assert lake.check()[1] == {"primary_key", "references"}
    assert lake.check()[1] == set()


def test_another_declaration_asks_anew(lake: Lake) -> None:
    """If this fails, a column that must be filled now, or a reference declared now, is looked at in new rows alone."""
    lake.append(HERE, rows_of([300], to=None))
    found, _ = lake.check()
    assert all(each.ok for each in found.values())
    found, whole = lake.check(replace(HERE, references=(STRICT, Reference(("id",), "there", ("id",)))))
    assert whole == {"references"}
    assert found["references"].figures["id -> there.id"] == "1 of 151 dangle"
    filled = replace(HERE, avsc={"fields": [ID, {"name": "to", "type": "long"}, AT]})
    found, whole = lake.check(filled)
    assert whole == {"primary_key"}
    assert found["primary_key"].figures["nulls where there must be none"] == {"to": 1}


def test_values_that_may_dangle_are_counted_on(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, values that led nowhere count for ever, or every run reads everything because of a few."""

    def dangle() -> str:
        found, whole = lake.check(TOLERANT)
        assert found["references"].ok
        assert "references" not in whole
        return found["references"].figures["to -> there.id"]

    lake.append(HERE, rows_of(range(300, 303), to=900))
    lake.append(HERE, rows_of([310], to=901))
    found, _ = lake.check(TOLERANT)
    assert found["references"].figures == {"to -> there.id": "4 of 154 dangle"}
    lake.append(HERE, rows_of([311, 312], to=901))
    assert dangle() == "6 of 156 dangle"
    lake.delta(HERE).delete("id IN (300, 310)")
    assert dangle() == "4 of 154 dangle"
    lake.append(THERE, targets([900]))
    assert dangle() == "2 of 154 dangle", "what they refer to came later"
    lake.append(HERE, rows_of([313], to=900))
    lake.append(HERE, rows_of([314], to=902))
    lake.append(THERE, targets([901, 902]))
    assert dangle() == "0 of 156 dangle"
    monkeypatch.setattr(dangling, "KEPT", 3)
    lake.append(HERE, rows_of(range(320, 323), to=903))
    assert dangle() == "3 of 159 dangle"
    lake.append(HERE, rows_of([330], to=904))
    lake.check(TOLERANT)
    assert lake.engine.at.books.state("merged/here/passed/references") is None, "the books stay small"
    assert lake.check(TOLERANT)[1] == {"references"}
    lake.delta(HERE).delete("id >= 330")
    lake.check(TOLERANT)
    lake.append(HERE, rows_of(range(340, 345), to=905))
    assert lake.check(TOLERANT)[0]["references"].figures == {"to -> there.id": "8 of 164 dangle"}


def test_values_of_any_form_are_followed(tmp_path: Path) -> None:
    """If this fails, references by several columns, or out of arrays, are wrong when they are looked up by new rows."""
    lines = {"name": "lines", "type": "string", "parsed_as": {"name": "line", "type": "array<struct<item:int>>"}}
    time, names = {"type": "long", "logicalType": "timestamp-micros"}, ("at", "item")
    fields = [{"name": "at", "type": time}, {"name": "item", "type": "long"}]
    there = replace(THERE, avsc={"fields": fields}, primary_key=names)
    to = (Reference(names, "there", names, 0.9), Reference(("line.item",), "there", ("item",), 0.9))
    here = replace(HERE, avsc={"fields": [*fields, lines]}, primary_key=names, references=to)
    check = OF_ROWS["references"]

    def rows(*pairs: tuple[int, int]) -> pa.Table:
        line = pa.array([[{"item": item}, {"item": 3}] for _, item in pairs], pa.list_(pa.struct({"item": pa.int32()})))
        at = pa.array([at for at, _ in pairs], INSTANT)
        return pa.table({"at": at, "item": pa.array([item for _, item in pairs], pa.int64()), "line": line})

    with open_home(load(home=tmp_path), Dataset.of("own", here, there)) as at:
        used = engine(at, "stream")

        def append(table: Table, *pairs: tuple[int, int]) -> None:
            write_deltalake(str(merge.folder(table, at.settings)), rows(*pairs), mode="append")

        def dangle() -> list[str]:
            found = check.run(used, here)
            kept = at.books.state("merged/here/passed/references")
            assert check.whole
            assert check.whole(used, here).figures == found.figures
            at.books.set_state("merged/here/passed/references", kept)
            return [found.figures[each.label] for each in to]

        append(there, *((second, second % 3) for second in range(9)))
        append(here, *((second, second % 4) for second in range(5)))
        assert dangle() == ["2 of 5 dangle", "6 of 10 dangle"]
        append(here, (8, 2), (8, 3))
        assert dangle() == ["3 of 7 dangle", "9 of 14 dangle"]
        DeltaTable(str(merge.folder(here, at.settings))).delete("item = 0")
        assert dangle() == ["2 of 5 dangle", "7 of 10 dangle"]
        append(there, (3, 3))
        assert dangle() == ["1 of 5 dangle", "0 of 10 dangle"]


def test_what_checks_found_is_forgotten_with_the_layer(lake: Lake) -> None:
    """If this fails, a table that was reset is compared with one that is gone."""
    lake.check()
    lake.engine.at.books.forget("merged", "here")
    assert lake.check()[1] == ALL
