"""Checks of what the data is: each seen green on a sound shop and red on a damaged one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, write_deltalake

from ecom_assets.core.measure import Measure
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.dataset.shop import CLICK_STREAM, CUSTOMER, PRODUCT, TABLES, TRANSACTIONS
from ecom_assets.flow import Flow, Standing
from ecom_assets.hbase import table as hbase
from ecom_assets.kafka.topic import Position
from ecom_assets.lake import maintenance, merged
from ecom_assets.reconcile import quality
from ecom_assets.reconcile.report import Proof


@pytest.fixture(scope="module")
def flow(shop: Settings) -> Iterator[Flow]:
    with Flow(shop) as flow:
        yield flow


@contextmanager
def changed(flow: Flow, table: Table, change: Callable[[DeltaTable], object]) -> Generator[None]:
    """A merged table, changed behind everybody's back, and mended after."""
    delta = DeltaTable(str(merged.folder(table, flow.settings)))
    before = delta.version()
    change(delta)
    try:
        yield
    finally:
        DeltaTable(str(merged.folder(table, flow.settings))).restore(before)


@pytest.mark.parametrize("check", [c for c in quality.CHECKS if c.layer == "merged"], ids=lambda c: c.name)
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_sound_shop_passes(flow: Flow, check: quality.Check, table: Table) -> None:
    """If this fails, good data stop the flow."""
    found = check.run(flow, table)
    assert found.ok, found


def test_a_doubled_key_and_a_null_are_seen(flow: Flow) -> None:
    """If this fails, two rows of one key overwrite one another in HBase, and nobody knows."""

    def double(delta: DeltaTable) -> None:
        write_deltalake(delta, delta.to_pyarrow_table().slice(3, 2), mode="append")
        DeltaTable(delta.table_uri).update({"first_name": "NULL"}, predicate="customer_id < 1000000 AND gender = 'F'")

    somebody = DeltaTable(str(merged.folder(CUSTOMER, flow.settings))).to_pyarrow_table().slice(3, 2)
    with changed(flow, CUSTOMER, double):
        found = quality.primary_key(flow, CUSTOMER)
    assert not found.ok
    assert not found.warn
    assert found.told["keys that come more than once"] == 2
    assert set(found.told["nulls where there must be none"]) == {"first_name"}
    keys = set(somebody["customer_id"].to_pylist())
    assert {s["customer_id"] for s in found.samples[:2]} == keys


def test_another_type_and_an_unparsable_text_are_seen(flow: Flow) -> None:
    """If this fails, the contract is broken in the lake and found out by whoever reads it."""

    def retype(delta: DeltaTable) -> None:
        rows = delta.to_pyarrow_table()
        at = rows.schema.get_field_index("year")
        text = rows.set_column(at, "year", pc.cast(rows["year"], pa.int64()).cast(pa.float64()))
        write_deltalake(delta, text, mode="overwrite", schema_mode="overwrite")

    with changed(flow, PRODUCT, retype):
        found = quality.schema(flow, PRODUCT)
    assert not found.ok
    assert "year" in str(found.told["wrong"])
    assert "double" in str(found.told["wrong"])

    change = {"created_at": "'yesterday'", "created_at_ts": "NULL"}
    with changed(flow, TRANSACTIONS, lambda d: d.update(change, predicate="payment_method = 'OVO'")):
        found = quality.schema(flow, TRANSACTIONS)
    assert not found.ok
    assert found.told["untyped created_at"] > 0
    assert found.samples[0]["created_at"] == "yesterday"


def test_a_reference_that_leads_nowhere_is_seen(flow: Flow) -> None:
    """If this fails, bookings of nobody, or of no product, reach the dashboard."""
    booked = DeltaTable(str(merged.folder(TRANSACTIONS, flow.settings))).to_pyarrow_table(columns=["customer_id"])
    somebody = booked["customer_id"][0].as_py()
    with changed(flow, CUSTOMER, lambda d: d.delete(f"customer_id = {somebody}")):
        found = quality.references(flow, TRANSACTIONS)
    assert not found.ok
    assert not found.warn
    assert {s["value"] for s in found.samples if s["reference"].startswith("customer_id")} == {somebody}
    with changed(flow, PRODUCT, lambda d: d.delete("id > 0")):
        assert not quality.references(flow, CLICK_STREAM).ok
        assert not quality.references(flow, TRANSACTIONS).ok


def test_too_much_quarantine_is_seen(flow: Flow) -> None:
    """If this fails, a source that turned to garbage passes as a small shop."""
    settings = flow.settings.model_copy(update={"home": flow.settings.home / "garbage"})
    garbage = Flow(settings)
    for bad, ok in ((5, True), (50, False)):
        aside = {"quarantined": Measure(bad)}
        garbage.remember(Proof("product", "raw", Measure(100), aside), [])
        garbage.remember(Proof("product", "expanded", Measure(100), aside), [])
        assert quality.quarantine_share(garbage, PRODUCT).ok is ok


def test_an_old_topic_is_seen(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a feed that died last month still looks well."""
    standing = Standing("product", Position({0: 5}, 3, 0, last=1_600_000_000), due=3, streamed=3, unread=0)
    monkeypatch.setattr(flow, "standings", lambda: {"product": standing})
    found = quality.freshness(flow, PRODUCT)
    assert not found.ok
    assert found.warn, "old, but not wrong"
    fresh = replace(standing, position=Position({0: 5}, 3, 0, last=4_000_000_000))
    monkeypatch.setattr(flow, "standings", lambda: {"product": fresh})
    assert quality.freshness(flow, PRODUCT).ok


def test_a_lopsided_and_a_missing_table_are_seen(flow: Flow) -> None:
    """If this fails, one region server does all the work, or a table is gone until somebody asks for it."""
    settings = flow.settings.model_copy(update={"namespace": "lopsided"})
    path = merged.folder(CUSTOMER, settings)
    with Flow(settings) as other:
        assert not quality.health(other, CUSTOMER).ok
        keys = hbase.row_keys(merged.sample_keys(path, ["customer_id"]), CUSTOMER)
        hbase.create(CUSTOMER, settings, other.admin, hbase.split_keys(keys, 4))
        assert quality.health(other, CUSTOMER).ok
        hbase.create(CUSTOMER, settings, other.admin, [b"a", b"b", b"c"])
        found = quality.health(other, CUSTOMER)
    assert not found.ok
    assert found.told["rows of the fullest region, in those of the average"] == 4


def test_upkeep_changes_files_but_no_row(flow: Flow) -> None:
    """If this fails, upkeep loses rows, or makes the layers after it be made anew."""
    path = merged.folder(CUSTOMER, flow.settings)
    write = DeltaTable(str(path)).to_pyarrow_table()
    with changed(flow, CUSTOMER, lambda d: write_deltalake(d, write.slice(0, 50), mode="overwrite")):
        write_deltalake(str(path), write.slice(50), mode="append")
        before = merged.version(path), merged.measure(CUSTOMER, flow.settings).checksum
        told = maintenance.compact_lake(flow.settings)
        assert told["merged/customer"]["compacted"] >= 2
        assert (merged.version(path), merged.measure(CUSTOMER, flow.settings).checksum) == before
    assert not merged.due(CLICK_STREAM, flow.settings)
