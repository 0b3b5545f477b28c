"""What a table in HBase holds after a load, from what it held before and the rows that the load has changed alone.

What belongs here: reading those rows as of before and after the load, and comparing them with what they should be. What
does not: the measure of a whole table (see ``scan``), and how a load is written (see ``rebuild``).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecom_assets.core import row_hash
from ecom_assets.core.batches import gathered
from ecom_assets.core.context import Context
from ecom_assets.core.layer import Changes
from ecom_assets.core.measure import Measure
from ecom_assets.core.progress import Advance, track
from ecom_assets.dataset.model import Table
from ecom_assets.hbase import scan
from ecom_assets.hbase.layout import row_keys
from ecom_assets.hbase.rpc import FOREVER

SHARE = 100
"""Rows are read by their keys where fewer than one in so many was replaced. Of a million rows, on a busy machine, the
check of 500 took 0.7 s, that of 2,500 12 s, and that of 10,000 26 s, as long as a scan: each row has its own block."""
ROWS = 10_000
"""Rows read at once."""
BYTES = 16 * 1024 * 1024


def changed(at: Context, table: Table, changes: Changes, timestamp: int, known: Measure) -> Measure | None:
    """Measure a table after a load.

    Where rows were only added, the cells of the load are all that is read. Else each row that it wrote or hid is read:
    a new one must be there, as it should be; an old one must have been there before, as it was, and is there now only
    if it is a new one too.

    Args:
        at: Connections and settings.
        table: The table.
        changes: What the load was to bring in.
        timestamp: Its timestamp.
        known: What the table held before it.

    Returns:
        What the table holds now; ``None`` if a row is not as it should be, or to read the whole table is quicker.

    Raises:
        HBaseError: HBase did not respond after several tries.
    """
    if SHARE * changes.replaced > known.rows:
        return None
    try:
        with track(f"check: hbase/{table.name}", None) as advance:
            if changes.replaced:
                found = _replaced(at, table, changes, timestamp, advance)
            else:
                whole = scan.measure(table, at.settings, at.addresses, advance, since=timestamp)
                found = None if whole.damaged else (Measure(), whole.measure)
    except scan.OutOfReachError:
        return None
    return known - found[0] + found[1] if found else None


def _replaced(
    at: Context, table: Table, changes: Changes, timestamp: int, advance: Advance
) -> tuple[Measure, Measure] | None:
    """What the old rows were and the new ones are; ``None`` if one is not as it should be."""
    began = time.monotonic()
    before = after = Measure()
    new = np.empty(0, np.uint64)
    for keys, hashes in _sorted(table, changes.new()):
        if not _same(scan.rows(table, at.settings, at.addresses, keys, FOREVER), keys, hashes):
            return None
        after += Measure(len(keys), row_hash.total(hashes))
        new = np.append(new, row_hash.value_hashes(keys))
        advance(len(keys))
    for keys, hashes in _sorted(table, changes.old()):
        if not _same(scan.rows(table, at.settings, at.addresses, keys, timestamp - 1), keys, hashes):
            return None
        left = scan.rows(table, at.settings, at.addresses, keys, FOREVER)
        if not np.isin(row_hash.value_hashes(left.keys), new).all():
            return None
        before += Measure(len(keys), row_hash.total(hashes))
        advance(len(keys))
    return before, after + Measure(seconds=time.monotonic() - began)


def _sorted(table: Table, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """Row keys and hashes of rows, some at a time, each time in the order of the keys."""
    for batch in map(pa.concat_batches, gathered(batches, ROWS, BYTES)):
        keys = pc.cast(row_keys(batch, table), pa.binary())
        order = pc.sort_indices(keys)
        yield keys.take(order), row_hash.batch_hashes(batch, table.ids)[order.to_numpy()]


def _same(found: scan.Page, keys: pa.Array, hashes: np.ndarray) -> bool:
    return found.keys.equals(keys) and np.array_equal(found.hashes, hashes)
