"""Single rows straight from HBase: a customer with their orders, a session with its events.

What belongs here: point and prefix reads through Thrift, and the index that leads from a customer to their
bookings. What does not: scans of a table (``hbase.scan``).

The index is a table of its own, keyed by ``customer_id|created_at|booking_id``: one prefix scan gives a customer's
bookings in the order of time. A row of it is made of a row of ``transactions``, so it is a ``Table`` like the
others, with three of its columns, and is written, read and measured by the same functions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
from thriftpy2.thrift import TException

from ecom_assets.core import row_hash
from ecom_assets.core.files import read_json, write_json
from ecom_assets.core.measure import Measure
from ecom_assets.csv import unique
from ecom_assets.dataset.model import Column, HBaseLayout, Table
from ecom_assets.dataset.shop import CLICK_STREAM, CUSTOMER, TABLES, TRANSACTIONS
from ecom_assets.hbase import get, scan, thrift, write
from ecom_assets.hbase.layout import Layout, Target, row_keys, split_keys
from ecom_assets.lake import merged, streamed

if TYPE_CHECKING:
    from ecom_assets.core.addresses import Addresses
    from ecom_assets.core.settings import Settings
    from ecom_assets.flow import Flow

T = TypeVar("T")
Row = dict[str, str | None]

ATTEMPTS = 4
"""Tries per look-up, about three seconds in all: a person is waiting."""

MOST = 1000
"""Most rows that a look-up shows."""


class LookupUnavailableError(RuntimeError):
    """HBase cannot be read now; the message says what to do."""


@dataclass(frozen=True)
class Index(Table):
    """A table in HBase that holds some columns of another, under another key."""

    of: str = ""

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """Those of the row key."""
        return tuple(c for name in self.hbase.row_key for c in TABLES[self.of].columns if c.name == name)


ORDERS = Index(
    name="orders_by_customer",
    primary_key="booking_id",
    entity_key="customer_id",
    keys={},
    references=(),
    hbase=HBaseLayout(
        table="orders_by_customer",
        families={"order": ("created_at", "booking_id")},
        row_key=("customer_id", "created_at", "booking_id"),
    ),
    of="transactions",
)


def build_index(flow: Flow) -> tuple[int, bool]:
    """Make the index of what HBase holds, if that has changed.

    Returns:
        Its rows, and whether there was nothing to do.

    Raises:
        FileNotFoundError: The transactions are not in HBase yet.
    """
    settings = flow.settings
    built = read_json(settings.manifests / "hbase" / f"{ORDERS.of}.build.json")
    if built is None:
        raise FileNotFoundError(f"hbase/{ORDERS.of} has not been made yet; materialise it first")
    path = settings.manifests / "serving" / f"{ORDERS.name}.json"
    last = read_json(path)
    if last and last["inputs"] == built["inputs"] and get.exists(ORDERS, settings, flow.addresses):
        return last["rows"], True
    keys = pa.Table.from_batches(_source(flow, built["route"]), schema=ORDERS.arrow)
    splits = split_keys(row_keys(keys, ORDERS), settings.regions)
    target = Target.public(ORDERS, settings, int(time.time() * 1000))
    write.create(target, settings, flow.admin, splits)
    rows = write.load(target, keys.to_batches(), flow.addresses)
    write_json(path, {"inputs": built["inputs"], "rows": rows, "route": built["route"]})
    return rows, False


def prove_index(flow: Flow) -> list[str]:
    """Read the index back, every row of it, and compare it with the transactions.

    Returns:
        What is wrong, a sentence each; empty if it holds the same rows.
    """
    last = read_json(flow.settings.manifests / "serving" / f"{ORDERS.name}.json")
    if last is None:
        return [f"serving/{ORDERS.name} has not been made yet; materialise it first"]
    due = Measure()
    for batch in _source(flow, last["route"]):
        due += Measure(batch.num_rows, row_hash.total(row_hash.batch_hashes(batch, ORDERS.names)))
    found = scan.measure(ORDERS, flow.settings, flow.addresses)
    wrong = list(found.problems)
    if not found.measure.same_rows(due):
        wrong.append(
            f"{ORDERS.name}: expected {due.rows:,} rows with checksum {due.hex},"
            f" got {found.measure.rows:,} with {found.measure.hex}"
        )
    return wrong


def _source(flow: Flow, route: str) -> Iterator[pa.RecordBatch]:
    table = TABLES[ORDERS.of]
    batches = (
        unique.Deduplicated(table, flow.settings)
        if route == "bulk"
        else streamed.read_batches(merged.folder(table, flow.settings), ORDERS.names)
    )
    for batch in batches:
        yield pa.RecordBatch.from_arrays(batch.select(ORDERS.names).columns, schema=ORDERS.arrow)


def customer(customer_id: str, settings: Settings, addresses: Addresses) -> Row | None:
    """A customer, or ``None`` if there is none of that number."""
    return _get(CUSTOMER, [customer_id], settings, addresses).get(customer_id)


def orders(customer_id: str, settings: Settings, addresses: Addresses) -> list[Row]:
    """The bookings of a customer, the latest first; at most ``MOST`` of them."""
    found = _prefix(ORDERS, f"{customer_id}|", settings, addresses)
    ids = [str(row["booking_id"]) for row in reversed(found)]
    rows = _get(TRANSACTIONS, ids, settings, addresses)
    return [rows[i] for i in ids if i in rows]


def events(session_id: str, settings: Settings, addresses: Addresses) -> list[Row]:
    """The events of a session in the order of time; at most ``MOST`` of them."""
    return _prefix(CLICK_STREAM, f"{session_id}|", settings, addresses)


def examples(settings: Settings, addresses: Addresses) -> dict[str, str]:
    """A customer and a session that are there, to show how a look-up is done: the first of their tables."""
    found = {}
    order = _prefix(ORDERS, "", settings, addresses, 1)
    event = _prefix(CLICK_STREAM, "", settings, addresses, 1)
    if order:
        found["customer"] = str(order[0]["customer_id"])
    if event:
        found["session"] = str(event[0]["session_id"])
    return found


def sample_customers(settings: Settings, addresses: Addresses, count: int = 100) -> list[str]:
    """The first customers that have orders; for trying things out."""
    return sorted({str(row["customer_id"]) for row in _prefix(ORDERS, "", settings, addresses, count)})


def _get(table: Table, keys: list[str], settings: Settings, addresses: Addresses) -> dict[str, Row]:
    """Some rows by their keys, in one call."""
    layout = Layout(table)
    if not keys:
        return {}

    def read(connection: Any, name: str) -> dict[str, Row]:
        rows = connection.table(name).rows([key.encode() for key in keys])
        return {key.decode(): layout.record(key, cells) for key, cells in rows if cells}

    return _read(table, settings, addresses, read)


def _prefix(table: Table, start: str, settings: Settings, addresses: Addresses, limit: int = MOST) -> list[Row]:
    layout = Layout(table)

    def read(connection: Any, name: str) -> list[Row]:
        found = connection.table(name).scan(row_prefix=start.encode(), limit=limit, batch_size=min(limit, 200))
        return [layout.record(key, cells) for key, cells in found]

    return _read(table, settings, addresses, read)


def _read(table: Table, settings: Settings, addresses: Addresses, read: Callable[[Any, str], T]) -> T:
    name = table.hbase_table(settings.namespace)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with thrift.Connection(addresses.hbase_thrift) as connection:
                return read(connection.happybase, name)
        except (OSError, TException) as error:
            text = str(getattr(error, "message", error))
            if "TableNotFound" in text:
                raise LookupUnavailableError(
                    f"HBase holds no table {name}; `ecom run` loads it, `ecom dev` shows what is missing"
                ) from error
            if attempt < ATTEMPTS and thrift.transient(error):
                time.sleep(0.25 * 2**attempt)
                continue
            where = ":".join(map(str, addresses.hbase_thrift))
            raise LookupUnavailableError(
                f"HBase does not answer at {where} ({text.strip().splitlines()[0] if text.strip() else error!r});"
                " `ecom status` shows which servers run, `ecom up` starts them"
            ) from error
    raise AssertionError("unreachable")
