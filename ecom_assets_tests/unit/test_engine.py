"""The engine over layers that are files: when it builds, what it compares, and what it never deletes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ecom_assets.core import engine as engine_module
from ecom_assets.core import forecast
from ecom_assets.core.context import Context
from ecom_assets.core.engine import Engine, RepairNeededError
from ecom_assets.core.errors import NotBuiltError, ServiceError
from ecom_assets.core.layer import Built, Cut, Layer, Measurement, Row
from ecom_assets.core.measure import Measure
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.reconcile import report
from ecom_assets_tests.tables import PRODUCT, SHOP


class Numbers(Layer):
    """A layer that is a file of numbers, copied from the one before."""

    pool = "files"
    kinds = frozenset({"file"})
    description = "Numbers."

    def __init__(self, name: str, upstream: Numbers | None = None, *, replaceable: bool = True) -> None:
        self.name, self.upstream, self.replaceable = name, upstream, replaceable
        self._before = upstream
        self.builds: list[bool] = []
        self.measured = 0
        self.declared: dict[str, Any] = {"key": "id"}
        self.away = False

    def file(self, at: Context) -> Path:
        return at.settings.home / f"{self.name}.json"

    def numbers(self, at: Context) -> list[int]:
        return json.loads(self.file(at).read_text())

    def fingerprint(self, at: Context, table: Table) -> str:
        if self._before is None:
            return "source"
        if at.books.build(self._before.name, table.name) is None:
            raise NotBuiltError(self._before.name, table.name)
        return self._before.position(at, table, Cut())

    def declaration(self, at: Context, table: Table) -> Mapping[str, Any]:
        return self.declared

    def exists(self, at: Context, table: Table) -> bool:
        return self.file(at).exists()

    def build(self, at: Context, table: Table, *, repair: bool = False) -> Built:
        self.builds.append(repair)
        numbers = self._before.numbers(at) if self._before else [1, 2, 3]
        self.file(at).write_text(json.dumps(numbers))
        return Built(len(numbers))

    def position(self, at: Context, table: Table, cut: Cut) -> str:
        return hashlib.sha256(self.file(at).read_bytes()).hexdigest() if self.file(at).exists() else ""

    def measure(self, at: Context, table: Table, cut: Cut) -> Measurement:
        if self.away:
            raise ServiceError("away", transient=True)
        self.measured += 1
        numbers = self.numbers(at)
        return Measurement(table.name, self.name, Measure(len(numbers), sum(numbers)))

    def delete(self, at: Context, table: Table) -> None:
        self.file(at).unlink(missing_ok=True)

    def preview(self, at: Context, table: Table, rows: int) -> Sequence[Row]:
        return [{"n": n} for n in self.numbers(at)[:rows]]

    def stored_as(self, settings: Settings, table: Table) -> str:
        return str(settings.home / f"{self.name}.json")


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Context]:
    with Context(Settings(home=tmp_path), SHOP, lambda: pytest.fail("no server is needed")) as at:
        yield at


@pytest.fixture
def engine(at: Context) -> Engine:
    first = Numbers("first", replaceable=False)
    second = Numbers("second", first)
    return Engine(at, "path", [first, second, Numbers("third", second)])


def layers(engine: Engine) -> list[Numbers]:
    return [layer for layer in engine.layers if isinstance(layer, Numbers)]


def build_all(engine: Engine, *, repair: bool = False) -> list[bool]:
    return [engine.build(layer.name, PRODUCT, repair=repair).unchanged for layer in engine.layers]


def test_a_layer_is_built_once_and_again_only_if_its_input_changes(engine: Engine, at: Context) -> None:
    """If it failed, every run would do all the work again, or a change would never arrive."""
    with pytest.raises(NotBuiltError, match="first/product"):
        engine.build("second", PRODUCT)
    assert build_all(engine) == [False, False, False]
    assert build_all(engine) == [True, True, True]
    layers(engine)[0].file(at).write_text("[1, 2, 3, 4]")
    assert build_all(engine) == [True, False, False]
    layers(engine)[2].file(at).unlink()
    assert engine.due("third", PRODUCT) == "it is gone"
    assert build_all(engine) == [True, True, False]


def test_a_failed_check_deletes_and_rebuilds_nothing(engine: Engine, at: Context) -> None:
    """If it failed, one wrong check would throw a sound layer away."""
    build_all(engine)
    second = layers(engine)[1]
    second.file(at).write_text("[1, 2, 4]")
    verified = engine.verify("second", PRODUCT)
    assert "not by content" in verified.mismatches[0]
    assert engine.due("second", PRODUCT) == ""
    assert build_all(engine) == [True, True, False], "the last layer follows what is there"
    assert second.numbers(at) == [1, 2, 4]
    assert build_all(engine, repair=True) == [True, False, False]
    assert second.builds == [False, True]
    assert engine.verify("second", PRODUCT).mismatches == ()
    assert engine.verify("third", PRODUCT).mismatches == ()
    assert build_all(engine, repair=True) == [True, True, True], "nothing is damaged any more"


def test_a_plan_says_what_a_run_would_do(engine: Engine, at: Context) -> None:
    """If it failed, people would start a run of hours for what is there already, or wait for one that stops at once."""

    def planned() -> list[tuple[str, str, int | None]]:
        return [(step.layer, step.why, step.rows) for step in forecast.steps(engine, [PRODUCT])]

    assert planned() == [
        ("first", "it has not been built", None),
        ("second", "first is built before it", None),
        ("third", "second is built before it", None),
    ]
    build_all(engine)
    assert planned() == [("first", "", 3), ("second", "", 3), ("third", "", 3)]
    layers(engine)[0].file(at).write_text("[1, 2, 3, 4]")
    assert planned()[1:] == [
        ("second", "what it is built from has changed", 3),
        ("third", "second is built before it", 3),
    ]
    layers(engine)[1].declared = {"key": "other"}
    assert [step.blocked for step in forecast.steps(engine, [PRODUCT])] == [
        "", "the declaration has changed since it was built (key)", "",
    ]  # fmt: skip
    assert [layer.builds for layer in layers(engine)] == [[False]] * 3, "nothing is built for a plan"


def test_times_are_estimated_by_what_was_built(engine: Engine, at: Context) -> None:
    """If it failed, a plan would promise seconds for hours."""
    build_all(engine)
    own = at.books.build("second", "product")
    assert own
    at.books.record_build(replace(own, rows=2_000, seconds=4.0))
    other = replace(own, table="customer", rows=10_000, seconds=100.0)
    at.books.record_build(other)
    layers(engine)[0].file(at).write_text("[1, 2, 3, 4]")
    (step,) = [step for step in forecast.steps(engine, [PRODUCT]) if step.layer == "second"]
    assert step.seconds == pytest.approx(4.0 * 3 / 2_000), "its own rate"
    at.books.forget("second", "product")
    (step,) = [step for step in forecast.steps(engine, [PRODUCT]) if step.layer == "second"]
    assert step.seconds == pytest.approx(100.0 * 3 / 10_000), "that of others"


def test_a_plan_counts_the_rows_that_wait(engine: Engine, at: Context) -> None:
    """If it failed, a plan would promise the time of a first load for a delivery of ten rows."""
    build_all(engine)
    for layer in layers(engine):
        at.books.record_measurement(Measurement("product", layer.name, Measure(1000, 7, 50_000), position="p"))
    found = forecast.steps(engine, [PRODUCT], {"product": 500})
    assert found[0].why == "about 10 rows wait in the source"
    assert [step.rows for step in found] == [10, 10, 10]
    assert [step.why for step in found[1:]] == ["first is built before it", "second is built before it"]


def test_a_layer_that_others_read_is_never_replaced(at: Context) -> None:
    """If it failed, `--repair` would delete a topic under its other readers."""
    first = Numbers("first")
    topic = Numbers("topic", first, replaceable=False)
    engine = Engine(at, "path", [first, topic])
    build_all(engine)
    topic.file(at).write_text("[1]")
    assert engine.verify("topic", PRODUCT).mismatches
    with pytest.raises(RepairNeededError, match="ecom reset topic --table product --home"):
        engine.build("topic", PRODUCT, repair=True)
    assert topic.numbers(at) == [1]


def test_a_changed_declaration_is_named_and_asked_for(engine: Engine) -> None:
    """If it failed, a corrected key would change nothing, or blame the data."""
    build_all(engine)
    layers(engine)[1].declared = {"key": "other", "new": 1}
    with pytest.raises(RepairNeededError, match=r"second/product: the declaration has changed.*\(key, new\)"):
        engine.build("second", PRODUCT)
    assert engine.build("second", PRODUCT, repair=True).unchanged is False
    assert engine.build("second", PRODUCT).unchanged
    layers(engine)[1].replaceable = False
    layers(engine)[1].declared = {"key": "third", "new": 1}
    with pytest.raises(RepairNeededError, match="ecom reset second --table product --home"):
        engine.build("second", PRODUCT)


def test_the_layer_before_is_looked_up_where_it_was_measured(engine: Engine) -> None:
    """If it failed, each check would read two layers, or compare with what was measured before a change."""
    build_all(engine)
    first, second, third = layers(engine)
    for name in ("first", "second", "third"):
        assert engine.verify(name, PRODUCT).mismatches == ()
    assert (first.measured, second.measured, third.measured) == (1, 1, 1)
    second.file(engine.at).write_text("[1, 2, 3, 4]")
    assert "+1" not in engine.verify("third", PRODUCT).mismatches[0]
    assert second.measured == 2, "at a position without a measurement it is measured"


def test_the_first_layer_is_compared_with_what_it_first_held(engine: Engine, at: Context) -> None:
    """If it failed, a changed source file would become the measure of all layers."""
    build_all(engine)
    assert engine.verify("first", PRODUCT).mismatches == ()
    layers(engine)[0].file(at).write_text("[1, 2]")
    for _ in range(2):
        assert "when it was first measured" in engine.verify("first", PRODUCT).mismatches[0]


def test_a_layer_that_cannot_be_read_is_a_measurement_with_a_problem(engine: Engine, at: Context) -> None:
    """If it failed, a damaged file would end a reconciliation without a report."""
    build_all(engine)
    layers(engine)[1].file(at).write_text("[1,")
    assert "second/product cannot be read" in engine.verify("second", PRODUCT).mismatches[0]
    layers(engine)[1].away = True
    with pytest.raises(ServiceError, match="away"):
        engine.verify("second", PRODUCT)


def test_a_layer_is_measured_while_it_holds_still(engine: Engine, at: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it failed, rows of one build would be recorded, and compared, as those of another."""
    build_all(engine)
    second, rebuilds = layers(engine)[1], 1
    measure = second.measure

    def rebuilt(at: Context, table: Table, cut: Cut) -> Measurement:
        nonlocal rebuilds
        found = measure(at, table, cut)
        if rebuilds:
            rebuilds -= 1
            second.file(at).write_text(json.dumps([*second.numbers(at), 0]))
        return found

    monkeypatch.setattr(second, "measure", rebuilt)
    assert engine.measure("second", PRODUCT, Cut()).measure.rows == 4
    rebuilds = 3
    found = engine.measure("second", PRODUCT, Cut())
    assert found.problems == ("second/product was rebuilt during each of 3 attempts to read it",)
    assert found.position == ""


def test_a_reconciliation_needs_every_layer(engine: Engine, at: Context) -> None:
    """If it failed, the report on an empty home, or after a reset, would pass."""
    verdict = dict(report.reconcile(engine, [PRODUCT]))["product"]
    assert not verdict.ok
    assert list(verdict.mismatches) == ["first", "second", "third"]
    build_all(engine)
    assert dict(report.reconcile(engine, [PRODUCT]))["product"].ok
    measured = [layer.measured for layer in layers(engine)]
    assert dict(report.reconcile(engine, [PRODUCT], fresh=False))["product"].ok
    assert [layer.measured for layer in layers(engine)] == measured
    assert dict(report.reconcile(engine, [PRODUCT]))["product"].ok
    assert [layer.measured for layer in layers(engine)] == [n + 1 for n in measured]
    assert report.recorded(at.books, ["first", "second", "third"], ["product"])["product"].ok
    assert engine.reset("second", PRODUCT) == ["third/product", "second/product"]
    for verdicts in (
        dict(report.reconcile(engine, [PRODUCT])),
        report.recorded(at.books, ["first", "second", "third"], ["product"]),
    ):
        assert list(verdicts["product"].mismatches) == ["second", "third"]
        assert "materialize second/product first" in verdicts["product"].mismatches["second"][0]


def test_a_build_looks_at_the_disks_of_servers_and_lake_too(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it failed, people would be advised to free the home's disk when the broker's or the lake's is full."""
    asked: list[Path] = []
    monkeypatch.setattr(engine_module, "room_for", lambda _, *folders: nullcontext(asked.extend(folders)))
    engine.build("first", PRODUCT)
    home = engine.at.settings.home
    assert asked == [home, home / "stack", home / "lake", home / "staging"]
