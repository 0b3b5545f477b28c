"""Live days: rows of other producers are counted once, by day, from new files alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from ecom_assets.core import avro
from ecom_assets.core.books import Build
from ecom_assets.core.context import Context
from ecom_assets.core.settings import load, remember
from ecom_assets.defs import deliveries
from ecom_assets.defs import live_days as partitions
from ecom_assets.defs.names import Names
from ecom_assets.lake import delta, live_days, query
from ecom_assets.lake.query import Place
from ecom_assets.lake.sink import Writer
from ecom_assets.paths import engine
from ecom_assets.reconcile import deliveries as listed
from ecom_assets_tests.offline import nowhere
from ecom_assets_tests.runs import ecom
from ecom_assets_tests.tables import PRODUCT, SHOP
from ecom_assets_tests.topics import product

NAMES = Names()
NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
TODAY, TOMORROW = "2026-11-28", "2026-11-29"
RECORDS = pa.schema(
    {
        "key": pa.binary(),
        "value": pa.binary(),
        "partition": pa.int32(),
        "offset": pa.int64(),
        "timestamp": pa.timestamp("us", "UTC"),
    }
)


def _encoded(count: int, *, placed: bool) -> list[bytes]:
    """Records with the number of a delivery, or without one."""
    rows = pa.RecordBatch.from_pylist([product(n) for n in range(count)], PRODUCT.arrow)
    places = pa.RecordBatch.from_pylist([{"_delivery": 0, "_row": n} for n in range(count)], avro.PLACE)
    return avro.encode(rows, PRODUCT, places if placed else None) if count else []


class Stream:
    """A streamed table, and what it gets."""

    def __init__(self, at: Context) -> None:
        self.at, self.place, self.batch, self.offset = at, Place.of(PRODUCT, at.settings), 0, 0
        self.create()

    def create(self) -> None:
        """An empty table in place of the one there."""
        self.place.remove()
        query.create(PRODUCT, self.place.table)
        self.place.checkpoint.mkdir(parents=True)
        Path(str(self.place.checkpoint), "metadata").write_text(json.dumps({"id": f"query from {self.batch}"}))

    def get(self, *when: datetime, delivered: int = 0, bad: int = 0) -> None:
        """A micro-batch: rows of another producer at some times, rows of a delivery, and records that are no rows."""
        values = [*_encoded(len(when), placed=False), *_encoded(delivered, placed=True), *[b"bad"] * bad]
        times = [*when, *[NOON] * (delivered + bad)]
        made = [
            {"key": b"k", "value": value, "partition": 0, "offset": self.offset + n, "timestamp": time}
            for n, (value, time) in enumerate(zip(values, times, strict=True))
        ]
        writer = Writer(PRODUCT, "topic", str(self.place.table), str(self.place.checkpoint))
        writer.commit([writer.write(iter([pa.RecordBatch.from_pylist(made, RECORDS)]))], self.batch)
        self.batch, self.offset = self.batch + 1, self.offset + len(values)

    def record(self) -> dict[str, tuple[int, int]]:
        """Look, and return rows and windows by day."""
        live_days.record(self.at, PRODUCT)
        return {day: (its.rows, its.windows) for day, its in live_days.days(self.at.books, "product").items()}

    def merge(self) -> None:
        """What the books say after a merge of all that is there."""
        version = str(delta.rows_version(self.place.table))
        self.at.books.record_build(Build("merged", "product", version))


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Stream]:
    with Context(load(home=tmp_path / "home"), SHOP, nowhere) as at:
        yield Stream(at)


def test_rows_of_other_producers_are_counted_once(stream: Stream) -> None:
    """If this fails, a look that is repeated doubles a day, or rows of deliveries and bad records are part of one."""
    stream.get(delivered=2)
    assert stream.record() == {}
    stream.get(NOON, NOON + timedelta(hours=2), NOON + timedelta(hours=12), delivered=3, bad=2)
    stream.get(delivered=1, bad=1)
    for _ in range(2):
        assert stream.record() == {TODAY: (2, 1), TOMORROW: (1, 1)}
    stream.get(NOON - timedelta(hours=1))
    assert stream.record() == {TODAY: (3, 2), TOMORROW: (1, 1)}
    today = live_days.days(stream.at.books, "product")[TODAY]
    assert (today.first, today.last) == ("2026-11-28T11:00:00+00:00", "2026-11-28T14:00:00+00:00")


def test_only_new_files_with_live_rows_are_read(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, each look reads the whole table, or at least all that deliveries have brought."""
    read: list[set[str] | None] = []
    batches = delta.batches

    def noted(found: DeltaTable, columns: list[str], null: str | None, names: set[str]) -> Iterator[pa.RecordBatch]:
        read.append(names)
        return batches(found, columns, null, names)

    monkeypatch.setattr(delta, "batches", noted)
    stream.get(NOON)
    stream.record()
    before = set(delta.files(DeltaTable(str(stream.place.table)))["path"].to_pylist())
    stream.get(delivered=1, bad=1)
    stream.get(NOON)
    stream.get(delivered=1)
    assert stream.record() == {TODAY: (2, 2)}
    first, second = read
    assert first == before
    assert second
    assert len(second) == 1
    assert not second & before


@pytest.mark.parametrize("counted", [True, False], ids=["before", "between"])
def test_maintenance_between_two_looks(stream: Stream, counted: bool) -> None:
    """If this fails, rows that maintenance has moved are counted again, or all of a table is."""
    stream.get(NOON)
    stream.record()
    stream.get(NOON)
    if counted:
        assert stream.record() == {TODAY: (2, 2)}
    assert DeltaTable(str(stream.place.table)).optimize.compact()["numFilesRemoved"] == 2
    stream.get(NOON, NOON)
    assert stream.record() == {TODAY: (4, 3 if counted else 2)}


def test_a_table_that_was_rebuilt_is_counted_anew(stream: Stream) -> None:
    """If this fails, a repair of the streamed layer doubles each day, or days stay that are in no table."""
    stream.get(NOON, NOON + timedelta(days=1))
    assert stream.record() == {TODAY: (1, 1), TOMORROW: (1, 1)}
    stream.create()
    stream.get(NOON, NOON)
    assert stream.record() == {TODAY: (2, 1)}
    stream.at.books.forget("streamed", "product")
    assert live_days.days(stream.at.books, "product") == {}
    assert stream.record() == {TODAY: (2, 1)}


def test_the_books_keep_a_bounded_number_of_windows(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, the books grow with each micro-batch; or a day's sum is that of the last windows alone."""
    monkeypatch.setattr(live_days, "KEPT", 3)
    for _ in range(5):
        stream.get(NOON)
        stream.record()
    assert len(live_days.windows(stream.at.books, "product")) == 3
    assert stream.record() == {TODAY: (5, 5)}
    now = delta.rows_version(stream.place.table)
    assert now
    for behind, known in ((0, {TODAY: (5, 5)}), (2, {TODAY: (3, 3)}), (3, {})):
        assert live_days.changed(stream.at.books, "product", None, replace(now, number=now.number - behind)) == known
    assert live_days.changed(stream.at.books, "product", now, now) == {}


class Reported:
    """What Dagster has of live days."""

    def __init__(self, instance: dg.DagsterInstance, at: Context) -> None:
        self.instance, self.at = instance, at

    def look(self) -> list[str]:
        """Announce, and return the live days among the partitions."""
        deliveries.announce(self.instance, self.at, NAMES)
        return sorted(partitions.there(self.instance, "deliveries"))

    def rows(self, layer: str, table: str, day: str) -> list[int]:
        """The rows that a layer has reported of a day, the last report first."""
        wanted = dg.AssetRecordsFilter(
            asset_key=NAMES.asset_key(layer, SHOP.tables[table]), asset_partitions=[partitions.partition(day)]
        )
        found = self.instance.fetch_materializations(wanted, limit=100).records
        return [
            int(str(each.asset_materialization.metadata["rows"].value)) for each in found if each.asset_materialization
        ]


def test_a_layer_reports_a_day_when_it_has_got_rows_of_it(stream: Stream) -> None:
    """If this fails, the matrix of partitions shows missing work, or a layer as having rows that it has not."""
    with dg.DagsterInstance.ephemeral() as instance:
        reported = Reported(instance, stream.at)
        assert reported.look() == []
        stream.get(NOON, NOON)
        stream.record()
        for _ in range(2):
            assert reported.look() == ["live 2026-11-28"]
            for layer in deliveries.PARTITIONED:
                assert reported.rows(layer, "customer", TODAY) == [0]
                expected = [2] if layer in ("topic", "streamed") else [] if layer == "merged" else [0]
                assert reported.rows(layer, "product", TODAY) == expected, layer
        stream.merge()
        stream.get(NOON)
        stream.record()
        reported.look()
        assert reported.rows("streamed", "product", TODAY) == [3, 2]
        assert reported.rows("merged", "product", TODAY) == [2], "the merged table does not hold the third one"
        stream.merge()
        reported.look()
        assert reported.rows("merged", "product", TODAY) == [3, 2]
        stream.get(NOON + timedelta(days=1))
        stream.merge()
        reported.look()
        assert reported.rows("merged", "product", TOMORROW) == [], "it is merged, and not counted yet"
        stream.record()
        assert reported.look() == ["live 2026-11-28", "live 2026-11-29"]
        assert reported.rows("merged", "product", TOMORROW) == [1]
        assert reported.rows("merged", "product", TODAY) == [3, 2]
        assert reported.rows("raw", "product", TODAY) == [0]
        assert [instance.get_dynamic_partitions("deliveries")[0], partitions.partition(TODAY)] == sorted(
            [deliveries.partition(0, "first files"), partitions.partition(TODAY)]
        )
    with dg.DagsterInstance.ephemeral() as other:
        reported = Reported(other, stream.at)
        assert len(reported.look()) == 2, "an instance that was created later gets all of it"
        assert reported.rows("merged", "product", TODAY) == [3]


def test_how_far_a_day_has_come(stream: Stream) -> None:
    """If this fails, `ecom deliveries` shows rows in HBase that are still to be merged, or never shows them there."""
    of, books = engine(stream.at, "stream"), stream.at.books

    def layers() -> list[tuple[str, int, str]]:
        return [(each.day, each.tables["product"].rows, each.layer) for each in listed.live(of)]

    assert layers() == []
    stream.get(NOON, NOON + timedelta(days=1))
    stream.record()
    assert layers() == [(TODAY, 1, "streamed"), (TOMORROW, 1, "streamed")]
    stream.merge()
    assert layers() == [(TODAY, 1, "merged"), (TOMORROW, 1, "merged")]
    books.record_build(Build("hbase", "product", "x"))
    assert layers() == [(TODAY, 1, "hbase"), (TOMORROW, 1, "hbase")]
    stream.get(NOON)
    stream.record()
    assert layers() == [(TODAY, 2, "streamed"), (TOMORROW, 1, "hbase")]
    stream.merge()
    assert layers() == [(TODAY, 2, "merged"), (TOMORROW, 1, "merged")]


def test_live_days_are_listed(stream: Stream) -> None:
    """If this fails, `ecom deliveries` passes over the rows that came into the topics from elsewhere."""
    stream.get(NOON, NOON + timedelta(hours=1), delivered=1)
    stream.record()
    remember(stream.at.settings)
    env = os.environ | {"ECOM_HOME": str(stream.at.settings.home)}
    code, found, err = ecom(env, "deliveries", "--json")
    assert code == 0, err
    ends = {"first": "2026-11-28T12:00:00+00:00", "last": "2026-11-28T13:00:00+00:00"}
    tables = {"product": {"rows": 2, "windows": 1, **ends}}
    assert found["live_days"] == [{"day": TODAY, "tables": tables, "layer": "streamed"}]
    assert "product 2" in err, "people see it too"
