"""Deliveries through the layers of files: what is new is added, and nothing else is written or read again."""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ecom_assets.core.context import Context
from ecom_assets.core.engine import Engine
from ecom_assets.core.errors import CsvError
from ecom_assets.core.layer import Cut, Measurement
from ecom_assets.core.location import local
from ecom_assets.core.settings import load
from ecom_assets.csv import chunk, expand, raw
from ecom_assets.dataset.model import Table
from ecom_assets.paths import CHUNKED, EXPANDED, RAW
from ecom_assets.reconcile import quality
from ecom_assets_tests.exports import Shop
from ecom_assets_tests.offline import nowhere
from ecom_assets_tests.tables import CLICK_STREAM, CUSTOMER, PRODUCT, SHOP

BAD = b"broken,row\n"


class Home:
    """A home whose source is a folder that gets ever more files."""

    def __init__(self, folder: Path) -> None:
        (folder / "shop").mkdir()
        self.exports = Shop(folder / "shop", day="day-{}")
        source = str(self.exports.folder)
        self.at = Context(load(home=folder / "home", source=source, chunk_bytes=5000), SHOP, nowhere)
        self.engine = Engine(self.at, "stream", [RAW, EXPANDED, CHUNKED])

    def deliver(self, *tables: str, rows: int = 50, bad: bytes = b"") -> None:
        """A further day, whose files have not changed for a while."""
        for path in self.exports.deliver(rows, *tables, further=bad).iterdir():
            os.utime(path, (time.time() - 60, time.time() - 60))

    def run(self) -> dict[str, bool]:
        """Build and check all, as a run does; layer and table -> whether there was something to build."""
        built = {}
        for layer in self.engine.layers:
            for table in SHOP.tables.values():
                built[f"{layer.name}/{table.name}"] = not self.engine.build(layer.name, table).unchanged
        for layer in self.engine.layers:
            for table in SHOP.tables.values():
                assert self.engine.verify(layer.name, table).mismatches == (), (layer.name, table.name)
        return built

    def counts(self, table: str) -> dict[str, tuple[int, int]]:
        """Layer -> rows, and quarantined records."""
        found = {layer.name: layer.measure(self.at, SHOP.tables[table], Cut()) for layer in self.engine.layers}
        return {name: (m.measure.rows, sum(e.rows for e in m.excluded.values())) for name, m in found.items()}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.at.close()


def files(shop: Home, table: str) -> dict[str, int]:
    """Every file of the layers behind raw -> when it was written."""
    found = [expand.folder(SHOP.tables[table], shop.at.settings), chunk.folder(SHOP.tables[table], shop.at.settings)]
    return {str(path): path.stat().st_mtime_ns for folder in found for path in local(folder).iterdir()}


def test_a_delivery_passes_the_tables_that_it_does_not_touch(shop: Home) -> None:
    """If this fails, a table seems to lack a delivery that has nothing for it, and nothing is published of the day."""
    shop.run()
    shop.deliver(list(SHOP.tables)[-1])
    shop.run()
    reached = {
        (layer.name, name): shop.engine.reached(layer.name, table)
        for layer in shop.engine.layers
        for name, table in SHOP.tables.items()
    }
    assert set(reached.values()) == {1}, reached


def test_a_check_does_not_read_tables_that_a_delivery_does_not_touch(
    shop: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, ten new customers cost a look at all events, or a run without news looks at nothing."""
    shop.run()
    read: list[str] = []
    measure = shop.engine.measure

    def spy(name: str, table: Table, cut: Cut) -> Measurement:
        read.append(f"{name}/{table.name}")
        return measure(name, table, cut)

    monkeypatch.setattr(shop.engine, "measure", spy)
    shop.deliver("product")
    shop.run()
    assert read == []
    shop.run()
    assert len(read) == len(shop.engine.layers) * len(SHOP.tables)


def test_a_delivery_is_added(shop: Home) -> None:
    """If this fails, a second file is lost, or a small one costs as much as all that is there."""
    assert all(shop.run().values())
    before, first = files(shop, "click_stream"), shop.counts("click_stream")
    shop.deliver("click_stream", rows=500, bad=BAD)
    shop.deliver("click_stream", "customer")
    built = shop.run()
    assert {name for name, done in built.items() if done} == {
        f"{layer}/{table}" for layer in ("raw", "expanded", "chunked") for table in ("click_stream", "customer")
    }
    after = files(shop, "click_stream")
    assert {path: after[path] for path in before} == before, "what was there is as it was"
    rows, bad = first["raw"][0] + 550, first["raw"][1] + 1
    assert shop.counts("click_stream") == {"raw": (rows, bad), "expanded": (rows, bad), "chunked": (rows, 0)}
    (line,) = expand.quarantine_file(CLICK_STREAM, shop.at.settings, 1).read_bytes().splitlines()
    assert json.loads(line) | {"reason": ""} == {
        "table": "click_stream", "source": "day-1/click_stream.csv", "line": 502, "raw": "broken,row", "reason": ""
    }  # fmt: skip
    assert not any(shop.run().values())


def test_chunks_of_a_delivery_come_behind_the_others(shop: Home) -> None:
    """If this fails, the topic takes chunks of an older state for missing, or new ones for known."""
    shop.run()
    before = CHUNKED.chunks(shop.at.settings, CUSTOMER)
    shop.deliver("customer")
    shop.run()
    after = CHUNKED.chunks(shop.at.settings, CUSTOMER)
    assert after[: len(before)] == before
    assert [each.name for each in after[len(before) :]] == [
        f"delivery-000001-{n:06d}.csv" for n in range(len(after) - len(before))
    ]
    data = CHUNKED.read(shop.at.settings, CUSTOMER, after)
    assert CHUNKED.rows(CUSTOMER, after, data).num_rows == sum(each.rows for each in after)


def test_only_what_is_new_is_read(shop: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, looking up what a layer holds costs as much as all that is there, or gives another sum."""
    shop.run()
    shop.deliver("customer")
    for layer in shop.engine.layers:
        shop.engine.build(layer.name, CUSTOMER)
    read: list[str] = []
    real = raw.audit
    monkeypatch.setattr(raw, "audit", lambda path, *args, **kw: read.append(str(path)) or real(path, *args, **kw))
    for layer in shop.engine.layers:
        found = shop.engine.look_up(layer.name, CUSTOMER, Cut())
        whole = layer.measure(shop.at, CUSTOMER, Cut())
        assert found.measure.same_rows(whole.measure)
        assert {r: (m.rows, m.checksum) for r, m in found.excluded.items()} == {
            r: (m.rows, m.checksum) for r, m in whole.excluded.items()
        }
        assert [c.rows for c in found.copies] == [c.rows for c in whole.copies]
        assert found.position == whole.position
        known = shop.at.books.measurement(layer.name, "customer", found.position)
        assert known
        assert known.measure.same_rows(found.measure)
    assert len(read) == 1 + 2, "the new one for the look, and both for the whole"
    assert "deliveries/000001" in read[0]


@pytest.mark.parametrize("layer", [EXPANDED, CHUNKED], ids=lambda layer: layer.name)
def test_an_older_file_that_changed_is_read_again(shop: Home, layer: Any) -> None:
    """If this fails, damage among the old rows hides behind a sum that was measured before it."""
    shop.run()
    known = layer.measure(shop.at, CUSTOMER, Cut())
    shop.deliver("customer")
    for each in shop.engine.layers:
        shop.engine.build(each.name, CUSTOMER)
    assert layer.derive(shop.at, CUSTOMER, known, Cut()) is not None
    oldest = {
        "expanded": local(expand.files(CUSTOMER, shop.at.settings)[0]),
        "chunked": local(chunk.files(CUSTOMER, shop.at.settings)[0]),
    }[layer.name]
    os.utime(oldest, (1, 1))
    assert layer.derive(shop.at, CUSTOMER, known, Cut()) is None


def test_a_first_file_that_changes_next_to_a_delivery(shop: Home) -> None:
    """If this fails, damage to the first file hides behind what a delivery added; or touching a file is damage."""
    shop.run()
    shop.deliver("customer")
    path = shop.at.settings.raw / CUSTOMER.csv
    shop.engine.build("raw", CUSTOMER)
    os.utime(path, (1, 1))
    assert shop.engine.verify("raw", CUSTOMER).mismatches == ()
    shop.deliver("customer")
    shop.engine.build("raw", CUSTOMER)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40] + whole[-40:].replace(b"0", b"1").replace(b"2", b"3"))
    (wrong,) = shop.engine.verify("raw", CUSTOMER).mismatches
    assert "when it was first measured; restore the old files" in wrong
    path.write_bytes(whole)
    assert shop.engine.verify("raw", CUSTOMER).mismatches == ()


@pytest.mark.parametrize("victim", ["delivery-000001.csv", "copy-000.csv"])
def test_damage_is_repaired_with_all_deliveries(shop: Home, victim: str) -> None:
    """If this fails, a repair forgets what deliveries have added."""
    shop.run()
    shop.deliver("customer")
    shop.deliver("customer", bad=BAD)
    shop.run()
    before = shop.counts("customer")
    path = local(expand.folder(CUSTOMER, shop.at.settings)) / victim
    path.write_bytes(path.read_bytes()[:-100])
    assert shop.engine.verify("expanded", CUSTOMER).mismatches
    assert shop.engine.build("expanded", CUSTOMER, repair=True).rows == before["expanded"][0]
    shop.run()
    assert shop.counts("customer") == before


def test_any_number_of_deliveries_and_kills(shop: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a kill between two steps leaves rows out, or brings them in twice."""

    class Killed(BaseException):
        pass

    rng = random.Random(3)
    shop.run()
    due = shop.counts("customer")["raw"][0]
    for _ in range(8):
        shop.deliver("customer", "click_stream", rows=5)
        due += 5
        with monkeypatch.context() as patch:
            module, name = rng.choice(
                [(expand, "move_over"), (chunk, "move_over"), (expand, "write_copies"), (chunk, "cut")]
            )
            real, fatal = getattr(module, name), rng.randrange(3)

            def step(*args: Any, _real: Any = real, _left: list[int] = [fatal], **kw: Any) -> Any:  # noqa: B006
                _left[0] -= 1
                if _left[0] < 0:
                    raise Killed
                return _real(*args, **kw)

            patch.setattr(module, name, step)
            with contextlib.suppress(Killed):
                shop.run()
        shop.run()
        assert shop.counts("customer")["chunked"] == (due, 0)


def test_tables_that_grow_and_deliveries_do_not_go_together(shop: Home) -> None:
    """If this fails, rows of a delivery are missing in each copy but the first."""
    shop.run()
    shop.deliver("customer")
    shop.run()
    grown = Context(shop.at.settings.model_copy(update={"expand": "2"}), SHOP, nowhere)
    with grown, pytest.raises(CsvError, match=r"--expand.* got the deliveries day-1"):
        EXPANDED.build(grown, CUSTOMER)


def test_a_delivery_of_an_odd_size_is_named(shop: Home) -> None:
    """If this fails, half of a day is missing and nobody is warned."""
    check = next(each for each in quality.CHECKS if each.name == "volume")
    shop.run()
    for day, rows in enumerate((6, 5, 7, 6, 5), 1):
        shop.deliver("click_stream", rows=rows)
        shop.run()
        found = check.run(shop.engine, CLICK_STREAM)
        assert found.ok
        assert found.figures["deliveries"] == day
    for rows, ok in ((4, True), (2, False), (13, False), (10, True)):
        shop.deliver("click_stream", rows=rows)
        shop.run()
        found = check.run(shop.engine, CLICK_STREAM)
        assert (found.ok, found.warn) == (ok, True), rows
        assert found.figures["rows"] == rows
    shop.deliver("customer")
    shop.run()
    assert check.run(shop.engine, CLICK_STREAM).figures["rows"] == 0, "the table is missing"
    assert not check.run(shop.engine, CLICK_STREAM).ok
    assert check.run(shop.engine, PRODUCT).ok, "it never comes"
