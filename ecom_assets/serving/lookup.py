"""Single rows straight from HBase: a customer with their orders, a session with its events.

What belongs here: point and prefix reads through Thrift. What does not: scans of a table (``hbase.scan``), and how the
index from a customer to their bookings is built (``index``).

The index is a table of its own, keyed by ``customer_id|created_at|booking_id``: one prefix scan returns a customer's
bookings in the order of time. A row of it is derived from a row of ``transactions``, so it is a ``Table`` like the
others, with three of its columns, and is written, read and measured by the same functions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import happybase
from thriftpy2.thrift import TException

from ecom_assets.core.errors import EcomError
from ecom_assets.core.home import hint
from ecom_assets.dataset.model import Column, HBaseLayout, Table
from ecom_assets.dataset.shop import CLICK_STREAM, CUSTOMER, TABLES, TRANSACTIONS
from ecom_assets.hbase import get, thrift
from ecom_assets.hbase.get import SwapError
from ecom_assets.hbase.layout import Layout

if TYPE_CHECKING:
    from ecom_assets.core.addresses import Addresses
    from ecom_assets.core.settings import Settings

T = TypeVar("T")
Row = dict[str, str | None]

ATTEMPTS = 4
"""Tries per lookup, about three seconds in all: a person is waiting."""

SWAP_SECONDS = 5.0
"""How long a lookup waits for a table that is being swapped."""

MOST = 1000
"""Most rows that a lookup shows."""


class LookupUnavailableError(EcomError):
    """HBase cannot be read now; the message names the remedy."""


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
    avsc=TRANSACTIONS.avsc,
    schema_file=TRANSACTIONS.schema_file,
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
    """A customer and a session that are there, to show how a lookup is done: the first of their tables."""
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

    def read(source: happybase.Table) -> dict[str, Row]:
        rows = source.rows([key.encode() for key in keys])
        return {key.decode(): layout.record(key, cells) for key, cells in rows if cells}

    return _read(table, settings, addresses, read)


def _prefix(table: Table, start: str, settings: Settings, addresses: Addresses, limit: int = MOST) -> list[Row]:
    layout = Layout(table)

    def read(source: happybase.Table) -> list[Row]:
        found = source.scan(row_prefix=start.encode(), limit=limit, batch_size=min(limit, 200))
        return [layout.record(key, cells) for key, cells in found]

    return _read(table, settings, addresses, read)


def _read(table: Table, settings: Settings, addresses: Addresses, read: Callable[[happybase.Table], T]) -> T:
    name = table.hbase_table(settings.namespace)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return get.reading(name, addresses.hbase_thrift, read, SWAP_SECONDS)
        except SwapError as error:
            raise LookupUnavailableError(str(error).replace("\nRemedy: ", "; ")) from error
        except (OSError, TException) as error:
            text = thrift.message(error)
            if "TableNotFound" in text:
                raise LookupUnavailableError(
                    f"HBase holds no table {name}; `{hint('run', settings)}` loads it,"
                    f" `{hint('dev', settings)}` shows what is missing"
                ) from error
            if attempt < ATTEMPTS and thrift.transient(error):
                time.sleep(0.25 * 2**attempt)
                continue
            where = ":".join(map(str, addresses.hbase_thrift))
            raise LookupUnavailableError(
                f"HBase does not answer at {where} ({text.strip().splitlines()[0] if text.strip() else error!r});"
                f" `{hint('status', settings)}` shows which servers run, `{hint('up', settings)}` starts them"
            ) from error
    raise AssertionError("unreachable")
