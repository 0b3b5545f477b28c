"""How the rows of a merged table differ between two of its versions.

What belongs here: the difference, found in the files that only one of the two versions has. What does not: why rows
differ; see ``fates``.

A file that is written again without some of its rows holds the others as they were, and so does one that maintenance
made of several. So rows are compared by their 64-bit hashes, eight bytes each in memory. Of n rows in such files, two
different ones share a hash, and would be missed, with a probability of n²/2⁶⁵: 4 in 10⁶ for ten million.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from ecom_assets.core import row_hash
from ecom_assets.core.layer import Changes
from ecom_assets.core.parallel import ordered_map
from ecom_assets.dataset.model import Table
from ecom_assets.lake import delta
from ecom_assets.lake.repeats import among

FEW = 20_000
"""Rows that are kept in memory: a load and its check ask for them several times."""


def between(table: Table, before: DeltaTable, now: DeltaTable) -> Changes:
    """Find the rows of one version that another one has not, in both directions.

    Args:
        table: The table.
        before: Its earlier version.
        now: Its later version.
    """
    gone, came = delta.difference(before, now)
    if not gone:
        return Changes(lambda: delta.batches(now, table.names, names=came))
    new, old = (
        partial(delta.batches, now, table.names, names=came),
        partial(delta.batches, before, table.names, names=gone),
    )
    if delta.count(before, gone) + delta.count(now, came) <= FEW:
        new, old = partial(iter, list(new())), partial(iter, list(old()))
    was, there = _hashes(table, old()), _hashes(table, new())
    ended = ~among(was, there)
    return Changes(lambda: _without(table, new(), was), lambda: _without(table, old(), there), int(ended.sum()))


def _hashes(table: Table, rows: Iterable[pa.RecordBatch]) -> np.ndarray:
    """The sorted hashes of some rows, shape ``(rows,)``."""
    hashed = ordered_map(lambda batch: row_hash.batch_hashes(batch, table.ids), rows)
    return np.sort(np.concatenate([np.empty(0, np.uint64), *hashed]))


def _without(table: Table, batches: Iterable[pa.RecordBatch], known: np.ndarray) -> Iterator[pa.RecordBatch]:
    """Rows whose hash is not a known one."""
    for batch in batches:
        rows = batch.filter(pa.array(~among(row_hash.batch_hashes(batch, table.ids), known)))
        if len(rows):
            yield rows
