"""The index that leads from a customer to their bookings: a table of its own in HBase, built and checked here.

What belongs here: what is done with the whole index. What does not: reading it for a page (see ``lookup``).

It is built like the layer hbase: rows stream through sorted files, so memory stays flat, and the new index is swapped
in while people read the old one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from ecom_assets.core import locks, row_hash
from ecom_assets.core.context import Context
from ecom_assets.core.layer import Built, Cut
from ecom_assets.core.measure import Measure
from ecom_assets.hbase import descriptor, rebuild, scan
from ecom_assets.hbase.layer import HBaseLayer
from ecom_assets.hbase.layout import row_keys
from ecom_assets.serving.lookup import ORDERS

STATE = f"hbase/{ORDERS.of}/index"
"""Key of what the books keep of it; so it is forgotten with the table that it is an index of."""


def build_index(at: Context, hbase: HBaseLayer) -> Built:
    """Build the index of the bookings that HBase holds, if these have changed or its last check failed.

    Args:
        at: Connections and settings.
        hbase: The layer that the bookings were loaded by.

    Raises:
        HomeError: Another process deletes or repairs in the home.
        NotBuiltError: The bookings are not in HBase yet.
        HBaseError: HBase refused, or did not respond.
    """
    with locks.shared(at.settings, f"the build of serving/{ORDERS.name}"):
        return _build_index(at, hbase)


def _build_index(at: Context, hbase: HBaseLayer) -> Built:
    table = at.dataset.tables[ORDERS.of]
    cut, position = hbase.extend(at, table, Cut()), hbase.position(at, table, Cut())
    last = at.books.state(STATE)
    if last and last["position"] == position and not last["mismatches"] and rebuild.complete(at, ORDERS):
        return Built(last["rows"], unchanged=True)
    rows = rebuild.Rows(
        lambda: _entries(hbase.source.batches(at, table, cut)),
        row_keys(hbase.source.sample(at, table, list(ORDERS.hbase.row_key)), ORDERS),
    )
    loaded, _ = rebuild.rebuild(at, ORDERS, hbase.loader(at.settings), rows)
    at.books.set_state(STATE, {"position": position, "rows": loaded, "mismatches": []})
    return Built(loaded)


def check_index(at: Context, hbase: HBaseLayer) -> list[str]:
    """Read the index back, every row of it, and compare it with the bookings; one that fails is built again next time.

    Args:
        at: Connections and settings.
        hbase: The layer that the bookings were loaded by.

    Returns:
        What differs, a sentence each; empty if it holds the same rows.

    Raises:
        NotBuiltError: The bookings are not in HBase yet.
        HBaseError: HBase did not respond.
    """
    last = at.books.state(STATE)
    if last is None:
        return [f"serving/{ORDERS.name}: expected it to be built, got nothing; materialize it first"]
    table = at.dataset.tables[ORDERS.of]
    due = Measure()
    for batch in _entries(hbase.source.batches(at, table, hbase.extend(at, table, Cut()))):
        due += Measure(batch.num_rows, row_hash.total(row_hash.batch_hashes(batch, ORDERS.names)))
    found = scan.measure(ORDERS, at.settings, at.addresses)
    mismatches = [*descriptor.problems(ORDERS, at.settings, at.addresses), *found.problems]
    if not found.measure.same_rows(due):
        mismatches.append(
            f"{ORDERS.name}: expected {due.rows:,} rows with checksum {due.hex},"
            f" got {found.measure.rows:,} with {found.measure.hex}; the next build replaces the index"
        )
    at.books.set_state(STATE, last | {"mismatches": mismatches})
    return mismatches


def _entries(bookings: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The index's rows of some bookings."""
    for batch in bookings:
        yield pa.RecordBatch.from_arrays(batch.select(ORDERS.names).columns, schema=ORDERS.arrow)
