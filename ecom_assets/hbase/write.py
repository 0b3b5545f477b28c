"""Tables created, and rows written and removed through Thrift: a few, or all of them where HBase takes no files.

What belongs here: an empty table with its regions, puts and delete markers in large calls. What does not: files (see
``bulk_load``), and the bytes of a call (see ``thrift``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pyarrow as pa

from ecom_assets.core.progress import Advance
from ecom_assets.core.settings import Settings
from ecom_assets.hbase import thrift
from ecom_assets.hbase.admin import HBaseAdmin
from ecom_assets.hbase.layout import Layout, Target
from ecom_assets.hbase.thrift import CONNECTIONS

if TYPE_CHECKING:
    from ecom_assets.core.addresses import Addresses

CALL_BYTES = 512 * 1024
"""Bytes of a call that writes."""
SLICE_ROWS = 16384
"""Rows made into calls at once; bounds memory."""


def create(
    target: Target,
    settings: Settings,
    admin: HBaseAdmin,
    splits: list[bytes],
    values: Mapping[str, str] | None = None,
) -> None:
    """Create an empty table with its regions, in place of one that is there.

    Args:
        target: The table.
        settings: For the compression.
        admin: HBase's Admin, open.
        splits: First key of each region but the first (see ``split_keys``).
        values: What its descriptor carries besides, such as its owner.

    Raises:
        HBaseError: HBase refused.
    """
    admin.delete_table(target.name)
    admin.create_table(target.name, list(target.table.hbase.families), splits, settings.hbase_compression, values or {})


def load(
    target: Target,
    batches: Iterable[pa.RecordBatch],
    addresses: Addresses,
    progress: Advance | None = None,
) -> int:
    """Write rows; safe to repeat.

    Args:
        target: The table; it must exist. Rows that are there and not in ``batches`` stay.
        batches: Clean rows in schema order, in any order of rows.
        addresses: Where HBase is.
        progress: Called with the rows written since the last call.

    Returns:
        Rows written.

    Raises:
        HBaseError: HBase cannot hold a row (see ``Layout``), refused rows, or did not respond after several tries.
    """
    layout = Layout(target.table)
    calls = _calls(batches, lambda rows: thrift.calls(layout.keys(rows), layout.columns(rows), CALL_BYTES))
    return _send(target.name, calls, target.timestamp, addresses, progress)


def remove(
    target: Target,
    batches: Iterable[pa.RecordBatch],
    addresses: Addresses,
    progress: Advance | None = None,
) -> int:
    """Hide all that HBase holds under the row keys of rows, one millisecond before the target's timestamp.

    So what is written under the same keys at that timestamp stays, and readers of an earlier time see what was there.
    Safe to repeat.

    Args:
        target: The table; it must exist.
        batches: The rows as they were.
        addresses: Where HBase is.
        progress: Called with the rows removed since the last call.

    Returns:
        Rows removed.

    Raises:
        HBaseError: As of ``load``.
    """
    layout = Layout(target.table)
    calls = _calls(batches, lambda rows: thrift.removals(layout.keys(rows), list(layout.families), CALL_BYTES))
    return _send(target.name, calls, target.timestamp - 1, addresses, progress)


def _send(
    name: str, calls: Iterable[thrift.Call], timestamp: int, addresses: Addresses, progress: Advance | None
) -> int:
    """Send calls over several connections; returns their rows."""
    total = 0

    def done(future: Future[int]) -> None:
        nonlocal total
        total += (rows := future.result())
        if progress:
            progress(rows)

    with thrift.connections(addresses.hbase_thrift) as lend, ThreadPoolExecutor(CONNECTIONS) as pool:

        def send(call: thrift.Call) -> int:
            def attempt() -> int:
                with lend() as connection:
                    connection.mutate(name, call, timestamp)
                return call.rows

            return thrift.retry(attempt, f"HBase table {name}, {call.rows} rows from key {call.first!r}")

        running: deque[Future[int]] = deque()
        for call in calls:
            running.append(pool.submit(send, call))
            if len(running) > 2 * CONNECTIONS:
                done(running.popleft())
        while running:
            done(running.popleft())
    return total


def _calls(
    batches: Iterable[pa.RecordBatch], make: Callable[[pa.RecordBatch], Iterator[thrift.Call]]
) -> Iterator[thrift.Call]:
    for batch in batches:
        for start in range(0, batch.num_rows, SLICE_ROWS):
            yield from make(batch.slice(start, SLICE_ROWS))
