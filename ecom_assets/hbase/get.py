"""Single rows from HBase, through Thrift: one by its key, a few by the beginning of their keys.

What belongs here: reads for people, and what Thrift reports about a table. What does not: scans of a whole table (see
``scan``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import happybase
from thriftpy2.thrift import TException

from ecom_assets.core.errors import HBaseError
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.hbase import thrift
from ecom_assets.hbase.layout import Layout

if TYPE_CHECKING:
    from ecom_assets.core.addresses import Addresses

T = TypeVar("T")

GONE = ("TableNotFound", "TableNotEnabled", "is disabled")
"""How HBase reports, of a table that is being swapped, that it is not there."""


SWAP_SECONDS = 20.0
"""How long a reader waits for a table that is being swapped; a swap takes one or two."""
SWAP_POLL = 0.05
"""Seconds between two looks whether it is there again."""


class SwapError(HBaseError):
    """A table was being replaced by its rebuilt one for longer than that takes; the next build finishes it."""


def staged_name(name: str) -> str:
    """HBase's name of the table that is built next to one; also that of its snapshot."""
    return f"{name}.next"


def reading(
    name: str, address: tuple[str, int], read: Callable[[happybase.Table], T], seconds: float = SWAP_SECONDS
) -> T:
    """Read from a table; while it is being swapped, wait for the new one.

    Args:
        name: HBase's name of the table.
        address: Host and port of the Thrift server.
        read: What to read.
        seconds: How long to wait at most.

    Raises:
        SwapError: The table was not there again in time.
        ThriftIOError: The server could not read.
        OSError: The connection broke.
    """
    end = time.monotonic() + seconds
    with thrift.Connection(address) as connection:
        while True:
            try:
                return read(connection.happybase.table(name))
            except TException as error:
                text, there = thrift.message(error), connection.happybase.tables()
                swapped = "TableNotFound" in text and name.encode() in there  # between the error and this look
                swapping = any(kind in text for kind in GONE) and staged_name(name).encode() in there
                if not (swapped or swapping):
                    raise
                if time.monotonic() > end:
                    raise SwapError(
                        f"HBase table {name}: expected its rebuilt one within {seconds:.0f} s, got none",
                        "wait for the build that replaces it, or build it again",
                        transient=True,
                    ) from error
            time.sleep(SWAP_POLL)


def exists(table: Table, settings: Settings, addresses: Addresses) -> bool:
    """Whether the table is there.

    Raises:
        HBaseError: HBase did not respond after several tries.
    """
    name = table.hbase_table(settings.namespace)

    def attempt() -> bool:
        with thrift.Connection(addresses.hbase_thrift) as connection:
            return name.encode() in connection.happybase.tables()

    return thrift.retry(attempt, f"HBase table {name}, whether it exists")


def get(
    table: Table, values: Sequence[str], settings: Settings, addresses: Addresses, before: int | None = None
) -> dict[str, str | None] | None:
    """Read one row.

    Args:
        table: The table.
        values: The values of the columns of its row key.
        settings: For the namespace.
        addresses: Where HBase is.
        before: Read as of this time, milliseconds since the epoch: only earlier loads count.

    Returns:
        Column -> text (``None`` is null); ``None`` if there is no such row.

    Raises:
        HBaseError: There is no such table, the row is damaged, or HBase did not respond.
    """

    def read(source: happybase.Table) -> dict[str, str | None] | None:
        cells = source.row(key, timestamp=before)
        return layout.record(key, cells) if cells else None

    layout, name = Layout(table), table.hbase_table(settings.namespace)
    key = layout.key(values)
    return thrift.retry(lambda: reading(name, addresses.hbase_thrift, read), f"HBase table {name}, row key {key!r}")


def prefix(
    table: Table,
    values: Sequence[str],
    settings: Settings,
    addresses: Addresses,
    limit: int = 1000,
    *,
    before: int | None = None,
) -> list[dict[str, str | None]]:
    """Read the rows with some values in the first columns of their row key, in the order of their keys.

    Args:
        table: The table.
        values: The values; none for all rows.
        settings: For the namespace.
        addresses: Where HBase is.
        limit: Most rows to read.
        before: As of ``get``.

    Returns:
        The rows as ``get`` returns them.

    Raises:
        HBaseError: There is no such table, a row is damaged, or HBase did not respond.
    """

    def read(source: happybase.Table) -> list[dict[str, str | None]]:
        found = source.scan(row_prefix=start, limit=limit, timestamp=before)
        return [layout.record(key, cells) for key, cells in found]

    layout, name = Layout(table), table.hbase_table(settings.namespace)
    start = layout.key(values)
    return thrift.retry(
        lambda: reading(name, addresses.hbase_thrift, read), f"HBase table {name}, row keys that begin with {start!r}"
    )
