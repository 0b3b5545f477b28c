"""Loading HBase and reading it back, against the real servers."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import socket
import threading
from collections.abc import Callable, Iterator

import happybase
import pyarrow as pa
import pytest

from ecom_assets.core import row_hash
from ecom_assets.core.addresses import Addresses
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.kind import Kind
from ecom_assets.dataset.model import Table
from ecom_assets.hbase import get, scan, write
from ecom_assets.hbase.admin import HBaseAdmin
from ecom_assets.hbase.layout import Layout, Target, split_keys
from ecom_assets.hbase.thrift import Connection
from ecom_assets.servers.stack import Stack
from ecom_assets_tests.tables import CLICK_STREAM, PRODUCT, TABLES, TRANSACTIONS

REGIONS = 4
Make = Callable[[Table, str, pa.RecordBatch, list[bytes]], Settings]
TEXTS = ["", "|", "a|b", 'ü, "x"\n', "日本\r\n", "\0", "NA", "null", "x" * 3000]


STAMP = 1_600_000_000_000
"""Of the cells that these tests load."""


def target(table: Table, here: Settings) -> Target:
    """The table that people read, for a load at ``STAMP``."""
    return Target.public(table, here, STAMP)


def random_rows(table: Table, rows: int) -> pa.RecordBatch:
    """Rows that the schema allows, hard texts and nulls among them; the primary key counts up."""
    rng = random.Random(f"{table.name} {rows}")

    def value(column: str, kind: Kind, nullable: bool, row: int) -> str | int | None:
        if (column,) == table.primary_key:
            return row if kind.is_integer else f"{rng.randrange(16):x}-{row}"
        if nullable and rng.random() < 0.3:
            return None
        return rng.randint(-(2**63), 2**63 - 1) if kind.is_integer else rng.choice([*TEXTS, str(rng.random())])

    columns = [[value(c.name, c.kind, c.nullable, row) for row in range(rows)] for c in table.columns]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, table.arrow, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=table.arrow)


def expected(table: Table, batch: pa.RecordBatch) -> tuple[int, int]:
    """Rows and checksum of a batch, without HBase."""
    return batch.num_rows, row_hash.total(row_hash.batch_hashes(batch, table.ids))


def found(result: scan.Scan) -> tuple[int, int]:
    """Rows and checksum of a scan that found nothing wrong."""
    assert result.problems == ()
    assert result.damaged == 0
    return result.measure.rows, result.measure.checksum


@pytest.fixture(scope="module")
def addresses(stack: Stack) -> Addresses:
    """Where the servers are; asked once, since the tables of these tests outlive one test."""
    return stack.addresses()


@pytest.fixture(scope="module")
def admin(addresses: Addresses) -> Iterator[HBaseAdmin]:
    """One Admin for all tests: each one is a JVM."""
    with HBaseAdmin(addresses.hbase_zookeeper) as admin:
        yield admin


@pytest.fixture(scope="module")
def make(settings: Settings, addresses: Addresses, admin: HBaseAdmin) -> Iterator[Make]:
    """Makes a table of a namespace of its own with these rows; it is deleted after the tests."""
    names = []

    def make(table: Table, namespace: str, rows: pa.RecordBatch, splits: list[bytes]) -> Settings:
        here = settings.model_copy(update={"namespace": f"test_hbase_{namespace}"})
        names.append(table.hbase_table(here.namespace))
        admin.delete_table(names[-1])
        admin.create_table(names[-1], list(table.hbase.families), splits)
        assert write.load(target(table, here), [rows.slice(0, 700), rows.slice(700)], addresses) == rows.num_rows
        return here

    yield make
    for name in names:
        admin.delete_table(name)


@dataclasses.dataclass(frozen=True)
class Stored:
    """A table in HBase, the rows that were loaded into it, and the settings that name it."""

    table: Table
    rows: pa.RecordBatch
    here: Settings


@pytest.fixture(scope="module", params=TABLES.values(), ids=list(TABLES))
def stored(request: pytest.FixtureRequest, make: Make) -> Stored:
    """Each table, with rows in all of its regions."""
    table = request.param
    rows = random_rows(table, 2000)
    splits = split_keys(Layout(table).keys(rows), REGIONS)
    assert len(splits) == REGIONS - 1
    return Stored(table, rows, make(table, "stored", rows, splits))


def test_every_row_comes_back(stored: Stored, addresses: Addresses) -> None:
    """Broken: rows or cells are lost, doubled or mangled on their way into HBase, out of it, or by a second load."""
    reported: list[int] = []
    first = scan.measure(stored.table, stored.here, addresses, reported.append)
    assert found(first) == expected(stored.table, stored.rows)
    assert sum(reported) == stored.rows.num_rows
    reported.clear()
    here = target(stored.table, stored.here)
    assert write.load(here, [stored.rows], addresses, reported.append) == stored.rows.num_rows
    assert sum(reported) == stored.rows.num_rows
    assert found(scan.measure(stored.table, stored.here, addresses)) == expected(stored.table, stored.rows)


def test_replay_writes_no_newer_cells(stored: Stored, addresses: Addresses) -> None:
    """Broken: a replay makes versions of cells that differ from the first ones in time."""
    (key,) = Layout(stored.table).keys(stored.rows.slice(0, 1)).to_pylist()
    with Connection(addresses.hbase_thrift) as connection:
        name = stored.table.hbase_table(stored.here.namespace)
        cells = connection.happybase.table(name).row(key, include_timestamp=True)
    assert {stamp for _, stamp in cells.values()} == {STAMP}


def test_create_and_delete(settings: Settings, addresses: Addresses, admin: HBaseAdmin) -> None:
    """Broken: all rows go to one region, rows of another run are left in a new table, or a table cannot be deleted."""
    here = settings.model_copy(update={"namespace": "test_hbase_create"})
    name = PRODUCT.hbase_table(here.namespace)
    try:
        admin.create_table(name, PRODUCT.hbase.families)
        write.load(target(PRODUCT, here), [random_rows(PRODUCT, 5)], addresses)
        write.create(target(PRODUCT, here), here, admin, [b"3", b"6"])
        assert admin.regions(name) == [(b"", b"3"), (b"3", b"6"), (b"6", b"")]
        assert found(scan.measure(PRODUCT, here, addresses)) == (0, 0)
        assert get.exists(PRODUCT, here, addresses)
        admin.delete_table(name)
        assert not get.exists(PRODUCT, here, addresses)
        assert not admin.table_exists(name)
        admin.delete_table(name)
    finally:
        admin.delete_table(name)


@pytest.fixture(scope="module")
def by_hand(make: Make, addresses: Addresses) -> Iterator[tuple[Settings, happybase.Table]]:
    """A small table of transactions to be changed by hand, and the settings that name it."""
    here = make(TRANSACTIONS, "by_hand", random_rows(TRANSACTIONS, 100), [b"8"])
    with Connection(addresses.hbase_thrift) as connection:
        yield here, connection.happybase.table(TRANSACTIONS.hbase_table(here.namespace))


def key_of(row: int) -> bytes:
    """Row key of a row of ``random_rows(TRANSACTIONS, 100)``."""
    return random_rows(TRANSACTIONS, 100)["booking_id"][row].as_py().encode()


def test_missing_row_is_seen(by_hand: tuple[Settings, happybase.Table], addresses: Addresses) -> None:
    """Broken: a lost row goes unnoticed."""
    here, table = by_hand
    before = scan.measure(TRANSACTIONS, here, addresses).measure
    lost = expected(TRANSACTIONS, random_rows(TRANSACTIONS, 100).slice(3, 1))
    table.delete(key_of(3))
    after = scan.measure(TRANSACTIONS, here, addresses).measure
    assert (after.rows, after.checksum) == (before.rows - 1, (before.checksum - lost[1]) % row_hash.MODULUS)


@pytest.mark.parametrize(
    ("row", "cells"),
    [
        (10, {b"payment_info:payment_method": b"changed"}),
        (11, {b"transaction_summary:total_amount": b"0"}),
        (12, {b"payment_info:promo_code": b"changed"}),
    ],
    ids=["text", "number", "nullable"],
)
def test_changed_cell_is_seen(
    row: int, cells: dict[bytes, bytes], by_hand: tuple[Settings, happybase.Table], addresses: Addresses
) -> None:
    """Broken: a changed value goes unnoticed."""
    here, table = by_hand
    before = scan.measure(TRANSACTIONS, here, addresses).measure
    table.put(key_of(row), cells)
    after = scan.measure(TRANSACTIONS, here, addresses).measure
    assert after.rows == before.rows
    assert after.checksum != before.checksum


def test_absent_cell_is_seen(by_hand: tuple[Settings, happybase.Table], addresses: Addresses) -> None:
    """Broken: a value that turned into a null goes unnoticed."""
    here, table = by_hand
    before = scan.measure(TRANSACTIONS, here, addresses).measure
    table.delete(key_of(20), [b"shipment_info:shipment_fee"])
    after = scan.measure(TRANSACTIONS, here, addresses).measure
    assert after.rows == before.rows
    assert after.checksum != before.checksum


def test_extra_row_is_seen(by_hand: tuple[Settings, happybase.Table], addresses: Addresses) -> None:
    """Broken: a row too many goes unnoticed."""
    here, table = by_hand
    before = scan.measure(TRANSACTIONS, here, addresses).measure
    table.put(b"ffff", {b"transaction_summary:total_amount": b"1"})
    after = scan.measure(TRANSACTIONS, here, addresses).measure
    assert after.rows == before.rows + 1
    assert after.checksum != before.checksum


def test_extra_cell_is_seen_and_named(by_hand: tuple[Settings, happybase.Table], addresses: Addresses) -> None:
    """Broken: a cell of no column goes unnoticed, or one cannot find it."""
    here, table = by_hand
    before = scan.measure(TRANSACTIONS, here, addresses)
    table.put(key_of(30), {b"payment_info:extra": b""})
    after = scan.measure(TRANSACTIONS, here, addresses)
    assert after.measure.rows == before.measure.rows
    assert after.measure.checksum != before.measure.checksum
    assert after.damaged == before.damaged + 1
    assert any(repr(key_of(30)) in p and "payment_info:extra" in p for p in after.problems)


SESSIONS = [
    # The second session's id begins with the first's; the first's events are out of order, as in the source.
    ("s1", "CLICK", "2022-01-02T00:00:00.000000Z", "e3", "WEB", None),
    ("s1", "SEARCH", "2022-01-01T00:00:00.000000Z", "e9", "WEB", "{'search_keywords': 'ü|'}"),
    ("s1", "SCROLL", "2022-01-01T00:00:00.500000Z", "e1", "", None),
    ("s10", "CLICK", "2022-01-01T12:00:00.000000Z", "e4", "MOBILE", None),
    ("s|1", "CLICK", "2022-01-01T12:00:00.000000Z", "e5", "MOBILE", ""),
]


@pytest.fixture(scope="module")
def sessions(make: Make) -> Settings:
    """Settings of a table that holds ``SESSIONS``; one of them lies in two regions."""
    rows = [dict(zip(CLICK_STREAM.names, row, strict=True)) for row in SESSIONS]
    return make(CLICK_STREAM, "sessions", pa.RecordBatch.from_pylist(rows, CLICK_STREAM.arrow), [b"s1\0002022-01-02"])


def test_session_is_read_in_time_order(sessions: Settings, addresses: Addresses) -> None:
    """Broken: a session's page shows its events out of order, those of another session, or not all of them."""
    rows = get.prefix(CLICK_STREAM, ["s1"], sessions, addresses)
    assert [tuple(row.values()) for row in rows] == [SESSIONS[1], SESSIONS[2], SESSIONS[0]]
    assert get.prefix(CLICK_STREAM, ["s1"], sessions, addresses, limit=2) == rows[:2]
    assert len(get.prefix(CLICK_STREAM, [], sessions, addresses)) == len(SESSIONS)
    assert get.prefix(CLICK_STREAM, ["s2"], sessions, addresses) == []


def test_one_row_is_read(sessions: Settings, addresses: Addresses) -> None:
    """Broken: a row cannot be looked up by its key, or null and empty are mixed up."""
    row = get.get(CLICK_STREAM, ["s|1", "2022-01-01T12:00:00.000000Z", "e5"], sessions, addresses)
    assert row == dict(zip(CLICK_STREAM.names, SESSIONS[4], strict=True))
    assert get.get(CLICK_STREAM, ["s|1", "2022-01-01T12:00:00.000000Z", "e6"], sessions, addresses) is None


def test_missing_table(settings: Settings, addresses: Addresses) -> None:
    """Broken: a table that is not there stops the comparison of layers, or a load into it seems to succeed."""
    nowhere = settings.model_copy(update={"namespace": "test_hbase_nowhere"})
    assert found(scan.measure(PRODUCT, nowhere, addresses)) == (0, 0)
    with pytest.raises(RuntimeError, match=r"HBase table test_hbase_nowhere_product, 5 rows from key .* after 1 tries"):
        write.load(target(PRODUCT, nowhere), [random_rows(PRODUCT, 5)], addresses)


class Cutter:
    """A proxy that cuts its first connections after some bytes, as a server that restarts would."""

    def __init__(self, target: tuple[str, int], cuts: list[int]) -> None:
        self.target = target
        self.cuts = cuts
        self.used = 0
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.server.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.server.accept()
                left = self.cuts[self.used] if self.used < len(self.cuts) else 1 << 62
                self.used += 1
                server = socket.create_connection(self.target)
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._copy, args=(*pair, left), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket, left: int) -> None:
        with contextlib.suppress(OSError):
            while left > 0 and (data := source.recv(min(left, 65536))):
                sink.sendall(data)
                left -= len(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def test_broken_connections_lose_and_double_nothing(stored: Stored, addresses: Addresses) -> None:
    """Broken: a connection that breaks in the middle of a load or scan ends it, or costs or doubles rows."""
    cutter = Cutter(addresses.hbase_thrift, [40_000, 150_000, 400_000])
    cut = dataclasses.replace(addresses, hbase_thrift=cutter.address)
    assert write.load(target(stored.table, stored.here), [stored.rows], cut) == stored.rows.num_rows
    result = scan.measure(stored.table, stored.here, cut)
    assert cutter.used > len(cutter.cuts)
    cutter.server.close()
    assert found(result) == expected(stored.table, stored.rows)
