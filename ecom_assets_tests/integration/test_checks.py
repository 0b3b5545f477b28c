"""Checks of data quality: each seen to pass on a sound shop and to fail on a damaged one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, write_deltalake

from ecom_assets.core.engine import Engine
from ecom_assets.core.layer import Measurement, Offsets
from ecom_assets.core.measure import Measure
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table, WriteMode
from ecom_assets.hbase import write
from ecom_assets.hbase.admin import HBaseAdmin
from ecom_assets.hbase.layout import Target, row_keys, split_keys
from ecom_assets.lake import delta, maintenance, merge
from ecom_assets.paths import MERGED, TOPIC, engine, open_home
from ecom_assets.reconcile import quality
from ecom_assets_tests.tables import CLICK_STREAM, CUSTOMER, PRODUCT, TABLES, TRANSACTIONS


@pytest.fixture(scope="module")
def stream(shop: Settings) -> Iterator[Engine]:
    with open_home(shop) as at:
        yield engine(at, "stream")


@contextmanager
def changed(stream: Engine, table: Table, change: Callable[[DeltaTable], object]) -> Generator[None]:
    """A merged table, changed behind everybody's back, and restored after."""
    found = DeltaTable(str(merge.folder(table, stream.at.settings)))
    before = found.version()
    change(found)
    try:
        yield
    finally:
        DeltaTable(str(merge.folder(table, stream.at.settings))).restore(before)


@pytest.mark.parametrize("check", [c for c in quality.CHECKS if c.layer == "merged"], ids=lambda c: c.name)
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_sound_shop_passes(stream: Engine, check: quality.Check, table: Table) -> None:
    """If this fails, good data stop the pipeline."""
    found = check.run(stream, table)
    assert found.ok, found


def test_a_doubled_key_and_a_null_are_seen(stream: Engine) -> None:
    """If this fails, two rows of one key overwrite one another in HBase, and nobody knows."""

    def double(delta: DeltaTable) -> None:
        write_deltalake(delta, delta.to_pyarrow_table().slice(3, 2), mode="append")
        DeltaTable(delta.table_uri).update({"first_name": "NULL"}, predicate="customer_id < 1000000 AND gender = 'F'")

    somebody = DeltaTable(str(merge.folder(CUSTOMER, stream.at.settings))).to_pyarrow_table().slice(3, 2)
    with changed(stream, CUSTOMER, double):
        found = quality.primary_key(stream, CUSTOMER)
    assert not found.ok
    assert not found.warn
    assert found.figures["keys that come more than once"] == 2
    assert set(found.figures["nulls where there must be none"]) == {"first_name"}
    keys = set(somebody["customer_id"].to_pylist())
    assert {s["customer_id"] for s in found.samples[:2]} == keys


def test_another_type_and_an_unparsable_text_are_seen(stream: Engine) -> None:
    """If this fails, the contract is broken in the lake and found out by whoever reads it."""

    def retype(delta: DeltaTable) -> None:
        rows = delta.to_pyarrow_table()
        at = rows.schema.get_field_index("year")
        text = rows.set_column(at, "year", pc.cast(rows["year"], pa.int64()).cast(pa.float64()))
        write_deltalake(delta, text, mode="overwrite", schema_mode="overwrite")

    with changed(stream, PRODUCT, retype):
        found = quality.schema(stream, PRODUCT)
    assert not found.ok
    assert "year" in str(found.figures["wrong"])
    assert "double" in str(found.figures["wrong"])

    change = {"created_at": "'yesterday'", "created_at_ts": "NULL"}
    with changed(stream, TRANSACTIONS, lambda d: d.update(change, predicate="payment_method = 'OVO'")):
        found = quality.schema(stream, TRANSACTIONS)
    assert not found.ok
    assert found.figures["untyped created_at"] > 0
    assert found.samples[0]["created_at"] == "yesterday"


def test_a_reference_that_leads_nowhere_is_seen(stream: Engine) -> None:
    """If this fails, bookings of nobody, or of no product, reach the dashboard."""
    booked = DeltaTable(str(merge.folder(TRANSACTIONS, stream.at.settings))).to_pyarrow_table(columns=["customer_id"])
    somebody = booked["customer_id"][0].as_py()
    with changed(stream, CUSTOMER, lambda d: d.delete(f"customer_id = {somebody}")):
        found = quality.references(stream, TRANSACTIONS)
    assert not found.ok
    assert not found.warn
    assert {s["_value"] for s in found.samples if s["reference"].startswith("customer_id")} == {somebody}
    with changed(stream, PRODUCT, lambda d: d.delete("id > 1")):
        assert not quality.references(stream, CLICK_STREAM).ok
        assert not quality.references(stream, TRANSACTIONS).ok
    with changed(stream, PRODUCT, lambda d: d.delete("id > 0")):
        found = quality.references(stream, CLICK_STREAM)
    assert not found.ok
    assert found.warn, "a table that is empty is a reason to look, not to stop (A9)"
    assert found.figures["metadata.product_id -> product.id"] == "merged/product is empty"


def test_too_much_quarantine_is_seen(stream: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a source that turned to garbage passes as a small shop."""
    for bad, ok in ((5, True), (50, False)):
        found = Measurement("product", "expanded", Measure(100), {"quarantined": Measure(bad)})
        monkeypatch.setattr(stream, "look_up", lambda *_, found=found: found)
        assert quality.quarantine_share(stream, PRODUCT).ok is ok


@pytest.mark.parametrize(("write", "reason"), [("append", "conflicts"), ("merge", "superseded")])
def test_a_key_that_is_not_unique_is_seen(
    write: WriteMode, reason: str, stream: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, a primary key that is too narrow drops nine rows of ten, and everything passes."""
    left = {"duplicates": Measure(), reason: Measure(90)}
    monkeypatch.setattr(stream, "look_up", lambda *_: Measurement("product", "merged", Measure(10), left))
    table = replace(PRODUCT, write=write, history=False)
    found = quality.conflicts(stream, table)
    assert not found.ok
    assert not found.warn
    assert found.figures["finding"] == "the key is not unique: 90 of 100 rows share one with another, different row"
    assert quality.conflicts(stream, replace(table, conflicts_tolerated=0.9)).ok
    assert not quality.conflicts(stream, replace(table, conflicts_tolerated=0.89)).ok
    assert write == "append" or quality.conflicts(stream, replace(table, version="year")).ok


def test_an_old_topic_is_seen(stream: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a feed that died last month still looks healthy."""
    old = Offsets("id", {0: 0}, {0: 5}, 1_600_000_000)
    monkeypatch.setattr(TOPIC, "offsets", lambda *_: {"product": old})
    found = quality.freshness(stream, PRODUCT)
    assert not found.ok
    assert found.warn, "old, but not wrong"
    monkeypatch.setattr(TOPIC, "offsets", lambda *_: {"product": replace(old, last=4_000_000_000)})
    assert quality.freshness(stream, PRODUCT).ok


def test_a_lopsided_and_a_missing_table_are_seen(stream: Engine) -> None:
    """If this fails, one region server does all the work, or a table is gone until somebody asks for it."""
    settings = stream.at.settings.model_copy(update={"namespace": "lopsided"})
    path = merge.folder(CUSTOMER, settings)
    with open_home(settings) as at:
        other = engine(at, "stream")
        assert not quality.health(other, CUSTOMER).ok
        admin = at.opened(HBaseAdmin, lambda: HBaseAdmin(at.addresses.hbase_zookeeper))
        keys = row_keys(delta.sample(delta.opened(path), ["customer_id"]), CUSTOMER)
        write.create(Target.public(CUSTOMER, settings, 1), settings, admin, split_keys(keys, 4))
        assert quality.health(other, CUSTOMER).ok
        write.create(Target.public(CUSTOMER, settings, 1), settings, admin, [b"a", b"b", b"c"])
        found = quality.health(other, CUSTOMER)
    assert not found.ok
    assert found.figures["rows of the fullest region, in those of the average"] == 4
    assert found.warn, "it is no reason to stop"


def test_maintenance_changes_files_but_no_row(stream: Engine) -> None:
    """If this fails, maintenance loses rows, or has the layers after it built again."""
    path = merge.folder(CUSTOMER, stream.at.settings)
    whole = DeltaTable(str(path)).to_pyarrow_table()

    def seen() -> tuple[delta.Version | None, int]:
        return delta.rows_version(path), delta.measure(CUSTOMER, DeltaTable(str(path))).checksum

    with changed(stream, CUSTOMER, lambda d: write_deltalake(d, whole.slice(0, 50), mode="overwrite")):
        write_deltalake(str(path), whole.slice(50), mode="append")
        before = seen()
        done = maintenance.compact_lake(stream.at)
        assert done["merged/customer"]["compacted"] >= 2
        assert seen() == before
    assert MERGED.build(stream.at, CLICK_STREAM).unchanged
