"""How the rows of a merged table differ between two of its versions.

What belongs here: the difference, found in the files that only one of the two versions has. What does not: why rows
differ; see ``fates``.

A file that is written again without some of its rows holds the others as they were, and so does one that maintenance
made of several. So rows are compared by their 64-bit hashes, eight bytes each in memory. Of n rows in such files, two
different ones share a hash, and would be missed, with a probability of n²/2⁶⁵: 4 in 10⁶ for ten million.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from ecom_assets.core import row_hash
from ecom_assets.core.layer import Changes
from ecom_assets.core.parallel import ordered_map
from ecom_assets.dataset.model import Table
from ecom_assets.lake import delta
from ecom_assets.lake.delta import Rows
from ecom_assets.lake.repeats import among

FEW = 20_000
"""Rows that are kept in memory."""


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
    if delta.count(before, gone) + delta.count(now, came) <= FEW:
        return _few(table, before, now, (gone, came))
    was, there = _hashes(table, before, gone), _hashes(table, now, came)
    ended = ~among(was, there)
    return Changes(
        lambda: _without(table, now, came, was), lambda: _without(table, before, gone, there), int(ended.sum())
    )


def _few(table: Table, before: DeltaTable, now: DeltaTable, parts: tuple[Rows, Rows]) -> Changes:
    """The same of so few rows that they stay in memory: a load and its check ask for them several times."""
    gone, came = (list(delta.batches(of, table.names, names=p)) for of, p in zip((before, now), parts, strict=True))
    was, there = (
        np.sort(np.concatenate([np.empty(0, np.uint64), *(row_hash.batch_hashes(b, table.ids) for b in part)]))
        for part in (gone, came)
    )
    new, old = list(_unknown(table, came, was)), list(_unknown(table, gone, there))
    return Changes(lambda: new, lambda: old, sum(map(len, old)))


def _hashes(table: Table, found: DeltaTable, names: Rows) -> np.ndarray:
    """The sorted hashes of the rows of some files, shape ``(rows,)``."""
    hashed = ordered_map(
        lambda batch: row_hash.batch_hashes(batch, table.ids), delta.batches(found, table.names, names=names)
    )
    return np.sort(np.concatenate([np.empty(0, np.uint64), *hashed]))


def _without(table: Table, found: DeltaTable, names: Rows, known: np.ndarray) -> Iterator[pa.RecordBatch]:
    """The rows of some files whose hash is not a known one."""
    return _unknown(table, delta.batches(found, table.names, names=names), known)


def _unknown(table: Table, batches: Iterable[pa.RecordBatch], known: np.ndarray) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        rows = batch.filter(pa.array(~among(row_hash.batch_hashes(batch, table.ids), known)))
        if len(rows):
            yield rows
