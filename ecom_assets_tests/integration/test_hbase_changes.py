"""Updates and deletes in a table of HBase that is there, and readers of each state of it, on real servers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typing_extensions import override

from ecom_assets.core import row_hash
from ecom_assets.core.addresses import Addresses
from ecom_assets.core.books import Build
from ecom_assets.core.context import Context
from ecom_assets.core.errors import HBaseError
from ecom_assets.core.layer import Changes, Cut, Measurement
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Dataset, Table
from ecom_assets.hbase import get, loads, rebuild, scan, verify, write
from ecom_assets.hbase.admin import HBaseAdmin
from ecom_assets.hbase.layer import HBaseLayer
from ecom_assets.hbase.thrift import Connection
from ecom_assets.servers.stack import Stack
from ecom_assets.serving import index, publication
from ecom_assets.serving.queries import Queries
from ecom_assets_tests.integration.test_hbase import random_rows
from ecom_assets_tests.integration.test_hbase_layer import Given
from ecom_assets_tests.tables import CLICK_STREAM, ORDERS, TRANSACTIONS

ROWS = 1200
TABLE = CLICK_STREAM
NAMES = ("updated", "moved", "deleted")
Rows = list[dict[str, str | None]]


class Changing(Given):
    """A merged table in memory, whose versions differ in some rows."""

    asked = 0

    @override
    def changes(self, at: Context, table: Table, since: Cut, cut: Cut) -> Changes | None:
        self.asked += 1
        then, now = (self.versions[int(str(each.merged).partition("@")[2])] for each in (since, cut))
        before, after = (row_hash.batch_hashes(rows, table.ids) for rows in (then, now))
        old = then.filter(pa.array(~np.isin(before, after)))
        new = now.filter(pa.array(~np.isin(after, before)))
        return Changes(lambda: [new], lambda: [old], len(old))


def with_values(rows: pa.RecordBatch, column: str, values: Mapping[int, object]) -> pa.RecordBatch:
    """The rows, some of them with other values of a column; by their numbers."""
    at = rows.schema.get_field_index(column)
    new = [values.get(n, value) for n, value in enumerate(rows.column(at).to_pylist())]
    return rows.set_column(at, rows.schema.field(at), pa.array(new, rows.schema.field(at).type))


def versions(table: Table, nullable: str, in_key: str) -> list[pa.RecordBatch]:
    """Three states of a table: rows; some changed, lost a value, moved to another key or deleted; some come back."""
    whole = with_values(random_rows(table, ROWS), nullable, {n: f"value {n}" for n in range(20)})
    whole = with_values(whole, in_key, {n: f"place {n}" for n in range(ROWS)})
    first = whole.slice(0, ROWS - 100)
    second = with_values(first, nullable, dict.fromkeys(range(10)) | {n: f"other {n}" for n in range(10, 15)})
    second = with_values(second, in_key, {n: f"moved {n}" for n in range(12, 25)})
    second = second.slice(0, ROWS - 120)  # 20 deleted
    third = with_values(whole, nullable, {n: f"again {n}" for n in (0, 1, 2, ROWS - 115, ROWS - 114)})  # all come back
    return [first, second, third]


def texts(rows: pa.RecordBatch) -> Rows:
    """Rows as ``get`` returns them, in some order."""
    shown = [{name: None if value is None else str(value) for name, value in row.items()} for row in rows.to_pylist()]
    return sorted(shown, key=str)


@pytest.fixture(scope="module")
def admin(stack: Stack) -> Iterator[HBaseAdmin]:
    """One Admin for all tests: each one is a JVM."""
    with HBaseAdmin(stack.addresses().hbase_zookeeper) as admin:
        yield admin


@pytest.fixture
def at(
    request: pytest.FixtureRequest, settings: Settings, addresses: Addresses, admin: HBaseAdmin, tmp_path: Path
) -> Iterator[Context]:
    """A home of the test's own namespace."""
    namespace = request.node.name.replace("[", "_").rstrip("]").replace(" ", "_").replace("-", "_").lower()[-60:]
    own = settings.model_copy(update={"home": tmp_path, "namespace": namespace, "regions": 3})
    with Context(own, Dataset.of("two", TRANSACTIONS, CLICK_STREAM), lambda: addresses) as at:
        at.opened(HBaseAdmin, lambda: nullcontext(admin))
        yield at
    for table in (TRANSACTIONS, CLICK_STREAM, ORDERS):
        admin.delete_table(table.hbase_table(namespace))


@pytest.fixture(autouse=True)
def row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables of these tests are so small that to scan them would be quicker."""
    monkeypatch.setattr(verify, "SHARE", 2)


@pytest.fixture(params=[1, 1 << 30], ids=["as files", "as puts"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How changes are brought in."""
    monkeypatch.setattr(rebuild, "FILE_ROWS", request.param)


def broken(*_: object) -> None:
    """In the place of a step that is not reached."""
    raise HBaseError("broke off", transient=True)


def build(layer: HBaseLayer, at: Context, table: Table = TABLE, *, delivery: int = 0, repair: bool = False) -> int:
    """Build, and record it as the engine does; returns the load's timestamp."""
    at.books.set_state(f"merged/{table.name}/reached", delivery)
    fingerprint = f"{layer.fingerprint(at, table)} {delivery}"
    built = layer.build(at, table, repair=repair)
    at.books.record_build(Build("hbase", table.name, fingerprint, path=layer.path, notes=built.notes))
    at.books.set_state(f"hbase/{table.name}/reached", delivery)
    return built.notes["timestamp"]


def read(at: Context, table: Table = TABLE, before: int | None = None) -> Rows:
    """All rows that a reader sees."""
    return sorted(get.prefix(table, (), at.settings, at.addresses, 10 * ROWS, before=before), key=str)


def measured(layer: HBaseLayer, at: Context, table: Table = TABLE) -> Measurement:
    found = layer.measure(at, table, Cut())
    assert found.problems == ()
    return Measurement(table.name, "hbase", found.measure, position=found.position)


@pytest.mark.usefixtures("way")
def test_each_state_is_read(at: Context, admin: HBaseAdmin) -> None:
    """If this fails, readers see half of a delivery, rows that are gone, or another past after HBase has tidied up."""
    states = versions(TABLE, "event_metadata", "event_time")
    source = Changing(states[0])
    layer, name = HBaseLayer(source, "stream"), TABLE.hbase_table(at.settings.namespace)
    stamps = [build(layer, at)]
    regions = admin._admin.getRegions(admin._name(name)).toString()
    for number, rows in enumerate(states[1:], 1):
        known = measured(layer, at)
        source.versions.append(rows)
        stamps.append(build(layer, at, delivery=number))
        whole = layer.measure(at, TABLE, Cut())
        assert (whole.measure.rows, whole.measure.checksum) == (
            len(rows),
            row_hash.total(row_hash.batch_hashes(rows, TABLE.ids)),
        )
        derived = layer.derive(at, TABLE, known, Cut())
        assert derived
        assert derived.measure.same_rows(whole.measure)
    assert stamps[0] + 2 <= stamps[1] <= stamps[2] - 2
    assert admin._admin.getRegions(admin._name(name)).toString() == regions, "it is the table that was there"

    def look(when: str) -> None:
        assert read(at) == texts(states[2]), when
        for rows, stamp, behind in zip(states, stamps, [*(s - 1 for s in stamps[1:]), None], strict=True):
            assert read(at, before=stamp + 1) == texts(rows), when
            assert read(at, before=behind) == texts(rows), when
        assert read(at, before=stamps[0]) == [], when
        kept = [row for row in texts(states[0]) if row in texts(states[1])]
        assert read(at, before=stamps[1]) == kept, f"{when}: markers are one millisecond before the cells"

    look("as written")
    admin.flush(name)
    look("after a flush")
    admin.major_compact(name)
    look("after a major compaction")
    assert measured(layer, at).measure.same_rows(whole.measure)


@pytest.mark.usefixtures("way")
def test_a_load_that_broke_off_is_repeated(at: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, what an attempt has written stays, though the rows have changed once more before the next one."""
    states = versions(TABLE, "event_metadata", "event_time")
    source = Changing(states[0])
    layer = HBaseLayer(source, "stream")
    first = build(layer, at)
    source.versions.append(states[2])
    real = rebuild.change
    with monkeypatch.context() as patch:
        patch.setattr(rebuild, "change", lambda *arguments: (real(*arguments), broken()))
        with pytest.raises(HBaseError, match="broke off"):
            build(layer, at)
    assert read(at) == texts(states[2])
    assert read(at, before=first + 1) == texts(states[0])
    begun = loads.begin(at.books, TABLE, layer.position(at, TABLE, Cut()), "t@1", 0)
    assert len(begun) == 1
    # Rows that the attempt has added are gone by now, and what has changed since the last load does not name them.
    source.versions.append(states[1])
    second = build(layer, at)
    assert second >= begun[0].timestamp + 2
    assert read(at) == texts(states[1])
    assert read(at, before=second - 1) == texts(states[2])
    assert read(at, before=begun[0].timestamp - 1) == texts(states[0])
    source.versions.append(states[0])
    third = build(layer, at)
    assert third >= second + 2
    assert read(at) == texts(states[0])


@pytest.mark.parametrize("damage", ["a row of it is lost", "an old row is back", "an old row is another"])
def test_what_went_wrong_is_found(at: Context, damage: str) -> None:
    """If this fails, HBase holds other rows than it was given, and the check of a delivery passes."""
    states = versions(TABLE, "event_metadata", "event_time")
    source = Changing(states[0])
    layer = HBaseLayer(source, "stream")
    build(layer, at)
    known = measured(layer, at)
    source.versions.append(states[1])
    stamp = build(layer, at)
    assert layer.derive(at, TABLE, known, Cut())
    gone = states[0].slice(ROWS - 110, 1)
    target = rebuild.Target.public(TABLE, at.settings, stamp + (0 if damage == "an old row is back" else 1))
    if damage == "a row of it is lost":
        write.remove(target, [states[1].slice(3, 1)], at.addresses)
    elif damage == "an old row is back":
        write.load(target, [gone], at.addresses)
    else:
        earlier = rebuild.Target.public(TABLE, at.settings, stamp - 2)
        write.load(earlier, [with_values(gone, "event_name", {0: "forged"})], at.addresses)
    assert layer.derive(at, TABLE, known, Cut()) is None
    whole = layer.measure(at, TABLE, Cut())
    assert (whole.measure.rows == len(states[1])) == (damage == "an old row is another")


def test_the_newest_version_alone_is_measured(at: Context, admin: HBaseAdmin) -> None:
    """If this fails, old versions or deleted rows, which HBase keeps by now, count as rows."""
    rows = random_rows(TABLE, 300)
    source = Changing(rows)
    layer, name = HBaseLayer(source, "stream"), TABLE.hbase_table(at.settings.namespace)
    stamp = build(layer, at)
    for later in range(2, 12, 2):
        write.load(rebuild.Target.public(TABLE, at.settings, stamp + later), [rows], at.addresses)
    write.remove(rebuild.Target.public(TABLE, at.settings, stamp + 20), [rows.slice(200)], at.addresses)
    due = row_hash.total(row_hash.batch_hashes(rows.slice(0, 200), TABLE.ids))
    for tidy in (lambda: None, lambda: admin.flush(name), lambda: admin.major_compact(name)):
        tidy()
        found = scan.measure(TABLE, at.settings, at.addresses)
        assert (found.measure.rows, found.measure.checksum, found.damaged) == (200, due, 0)
        with Connection(at.addresses.hbase_thrift) as connection:
            table = connection.happybase.table(name)
            key, cells = next(table.scan(limit=1, timestamp=stamp + 11))
            assert len(table.cells(key, next(iter(cells)), versions=100, timestamp=stamp + 11)) == 6, "they are there"


@pytest.mark.usefixtures("way")
def test_an_index_follows(at: Context) -> None:
    """If this fails, an index leads to rows that are gone, or is built as a whole for each delivery."""
    states = versions(TRANSACTIONS, "promo_code", "created_at")
    source = Changing(states[0])
    layer = HBaseLayer(source, "stream")
    build(layer, at, TRANSACTIONS)
    assert index.build_index(at, ORDERS, layer).rows == len(states[0])
    assert index.check_index(at, ORDERS, layer) == []
    for number, rows in enumerate(states[1:], 1):
        source.versions.append(rows)
        build(layer, at, TRANSACTIONS, delivery=number)
        built = index.build_index(at, ORDERS, layer)
        assert 0 < built.rows < 300
        assert at.books.state(index.state_key(ORDERS))["rows"] == len(rows)
        assert index.check_index(at, ORDERS, layer) == []
        by_what_changed = verified(at)
        assert index.check_index(at, ORDERS, layer, whole=True) == []
        assert verified(at) == by_what_changed
        assert index.build_index(at, ORDERS, layer).unchanged
    for number, rows in enumerate(states):
        before = loads.as_of(at.books, ORDERS, number)
        assert len(read(at, ORDERS, before)) == len(rows)
        assert read(at, TRANSACTIONS, loads.as_of(at.books, TRANSACTIONS, number)) == texts(rows)
    source.versions.append(states[0])
    build(layer, at, TRANSACTIONS, delivery=len(states))
    index.build_index(at, ORDERS, layer)
    changed = source.changes(at, TRANSACTIONS, *(Cut(merged=f"x@{n}") for n in (len(states) - 1, len(states))))
    assert changed
    (rows,) = changed.new()
    lost = next(index._entries(ORDERS, [rows])).slice(0, 1)
    write.remove(
        rebuild.Target.public(ORDERS, at.settings, at.books.state(index.state_key(ORDERS))["timestamp"] + 3),
        [lost],
        at.addresses,
    )
    assert index.check_index(at, ORDERS, layer) != [], "an entry that has come is gone"


def verified(at: Context) -> tuple[int, str]:
    """Rows and checksum that the index was verified to hold."""
    found = at.books.state(index.state_key(ORDERS))["verified"]["measure"]
    return found["rows"], found["checksum"]


def test_people_read_what_is_published(at: Context, addresses: Addresses, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, people see half of a delivery, table and index of two of them, or yesterday's rows as today's."""
    states = versions(TRANSACTIONS, "promo_code", "created_at")
    customer = str(states[0]["customer_id"][12].as_py())
    source = Changing(states[0])
    layer = HBaseLayer(source, "stream")
    dataset = replace(at.dataset, indexes={ORDERS.name: ORDERS})
    settings = at.settings.model_copy(update={"hbase_thrift": "{}:{}".format(*addresses.hbase_thrift)})
    service = Queries(settings, dataset, books=at.books)

    def seen(as_of: int | None = None) -> list[Rows]:
        asked = service.snapshot(as_of)
        keys = [str(states[0]["booking_id"][n].as_py()) for n in (0, 12, ROWS - 110)]
        tables = [asked.row("transactions", key).table for key in keys]
        tables += [asked.under("transactions", key).table for key in keys]
        tables.append(asked.through(ORDERS.name, customer).table)
        return [table.to_pylist() for table in tables]

    def due(rows: pa.RecordBatch) -> list[Rows]:
        whole = [{name: None if v is None else str(v) for name, v in row.items()} for row in rows.to_pylist()]
        keys = [str(states[0]["booking_id"][n].as_py()) for n in (0, 12, ROWS - 110)]
        found = [[row for row in whole if row["booking_id"] == key] for key in keys]
        return [*found, *found, [row for row in whole if row["customer_id"] == customer]]

    build(layer, at, TRANSACTIONS)
    index.build_index(at, ORDERS, layer)
    publication.publish(settings, dataset, at.books)
    assert seen() == due(states[0])

    source.versions.append(states[1])
    with monkeypatch.context() as patch:
        patch.setattr(write, "load", broken)
        with pytest.raises(HBaseError, match="broke off"):
            build(layer, at, TRANSACTIONS, delivery=1)
    assert len(read(at, TRANSACTIONS)) < len(states[1]), "its old rows are hidden, its new ones not there yet"
    assert seen() == due(states[0])
    build(layer, at, TRANSACTIONS, delivery=1)
    assert seen() == due(states[0]), "the table is ahead of its index, and of what is published"
    index.build_index(at, ORDERS, layer)
    assert seen() == due(states[0])
    assert not publication.is_current(settings, dataset, at.books)
    publication.publish(settings, dataset, at.books)
    assert publication.is_current(settings, dataset, at.books)
    assert seen() == due(states[1])
    assert seen(as_of=0) == due(states[0])
    assert seen(as_of=1) == due(states[1])
    with pytest.raises(loads.NotHeldError, match="delivery 1 as the last one that is loaded"):
        seen(as_of=2)

    source.versions.append(states[2])
    build(layer, at, TRANSACTIONS, delivery=2, repair=True)
    assert seen()[:6] == due(states[2])[:6], "a load of all rows is seen, published or not"
    with pytest.raises(loads.NotHeldError, match="as of delivery 1, got that of delivery 2 as the oldest"):
        seen(as_of=1)
    service.close()


def test_many_changes_mean_a_load_of_all_rows(at: Context) -> None:
    """If this fails, half of a table is rewritten row by row, or a reader of a past that is gone gets other rows."""
    rows = random_rows(TABLE, 200)
    source = Changing(rows)
    layer = HBaseLayer(source, "stream")
    first = build(layer, at, delivery=3)
    assert loads.as_of(at.books, TABLE, 3) == first + 1
    source.versions.append(with_values(rows, "event_name", {n: f"new {n}" for n in range(110)}))
    at.books.record_measurement(Measurement(TABLE.name, "merged", measured(layer, at).measure, position="p"))
    second = build(layer, at, delivery=4)
    last = at.books.build("hbase", TABLE.name)
    assert last
    assert "added" not in last.notes
    assert read(at) == read(at, before=first + 1) == texts(source.versions[1])
    with pytest.raises(loads.NotHeldError, match="as of delivery 3, got that of delivery 4"):
        loads.as_of(at.books, TABLE, 3)
    source.versions.append(rows.slice(10))
    at.books.record_measurement(Measurement(TABLE.name, "merged", measured(layer, at).measure, position="q"))
    source.versions[-1] = source.versions[1].slice(10)
    third = build(layer, at, delivery=5)
    assert third >= second + 2
    assert read(at) == texts(source.versions[2])
    assert read(at, before=loads.as_of(at.books, TABLE, 4)) == texts(source.versions[1])


def test_a_table_that_forgets_is_named(at: Context, admin: HBaseAdmin) -> None:
    """If this fails, a table made before this edition passes, and readers of the past get wrong rows."""
    layer = HBaseLayer(Changing(random_rows(TABLE, 50)), "stream")
    build(layer, at)
    client: Any = admin._jvm.org.apache.hadoop.hbase.client
    name = admin._name(TABLE.hbase_table(at.settings.namespace))
    table = admin._admin.getDescriptor(name)
    family = client.ColumnFamilyDescriptorBuilder.newBuilder(table.getColumnFamily(bytearray(b"metadata")))
    family.setKeepDeletedCells(admin._jvm.org.apache.hadoop.hbase.KeepDeletedCells.FALSE).setMaxVersions(1)
    builder = client.TableDescriptorBuilder.newBuilder(table).modifyColumnFamily(family.build())
    admin._admin.modifyTable(builder.build())
    versions, deleted = layer.measure(at, TABLE, Cut()).problems
    assert "{NAME => 'metadata', VERSIONS => 1000}" in versions
    assert "{NAME => 'metadata', KEEP_DELETED_CELLS => 'TRUE'}" in deleted
