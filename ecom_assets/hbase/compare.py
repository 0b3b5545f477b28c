"""Which rows of a table in HBase are not those that it was loaded from.

What belongs here: the search, for after a check has failed. What does not: the check itself, which only compares
sums (see ``scan.measure``). Both sides are read once for sums by range of keys, and then once more where these
differ, so that memory stays flat however large a table is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ecom_assets.core import row_hash
from ecom_assets.core.progress import Advance
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.hbase.layout import Layout, split_keys
from ecom_assets.hbase.scan import scan

if TYPE_CHECKING:
    from ecom_assets.core.addresses import Addresses

RANGES = 1024
"""Ranges of keys that are compared as a whole."""
MAX_RANGES = 4
"""Ranges that are searched for rows; the others are counted."""
MAX_ROWS = 10
"""Rows named in each of them."""


def differences(
    table: Table,
    batches: Callable[[], Iterable[pa.RecordBatch]],
    sample: pa.Array | pa.ChunkedArray,
    settings: Settings,
    addresses: Addresses,
    *,
    progress: Advance | None = None,
) -> list[str]:
    """Find rows that HBase lacks, has too many, or has changed.

    Args:
        table: The table.
        batches: Gives the rows that it was loaded from, once each; called twice.
        sample: Row keys of some of them, for ranges of equal size.
        settings: For the namespace.
        addresses: Where HBase is.
        progress: Called with the rows read since the last call, of both sides.

    Returns:
        Sentences that name table, region, range of keys and row; none if there is no difference.

    Raises:
        HBaseError: HBase did not respond after several tries.
    """
    layout = Layout(table)
    name = table.hbase_table(settings.namespace)
    advance = progress or (lambda _: None)
    cuts = split_keys(sample, RANGES)
    boundaries = pl.Series(cuts, dtype=pl.Binary)
    ours, theirs = (np.zeros((2, len(cuts) + 1), np.uint64) for _ in range(2))

    def ranges(keys: pa.Array) -> np.ndarray:
        return boundaries.search_sorted(pl.Series(keys), side="right").to_numpy()

    def add(sums: np.ndarray, keys: pa.Array, hashes: np.ndarray) -> None:
        at = ranges(keys)
        np.add.at(sums[0], at, np.uint64(1))
        np.add.at(sums[1], at, hashes)  # modulo 2^64, as a checksum is
        advance(len(keys))

    for keys, hashes in _hashed(layout, batches()):
        add(ours, keys, hashes)
    regions = scan(table, settings, addresses, lambda page: add(theirs, page.keys, page.hashes))
    bad = np.flatnonzero((ours != theirs).any(axis=0)).tolist()
    searched = bad[:MAX_RANGES]
    limits = [(cuts[at - 1] if at else b"", cuts[at] if at < len(cuts) else b"") for at in searched]

    expected: list[dict[bytes, int]] = [{} for _ in searched]
    found: list[dict[bytes, int]] = [{} for _ in searched]

    def put(into: list[dict[bytes, int]], keys: pa.Array, hashes: np.ndarray) -> None:
        at = ranges(keys)
        for number, rows in zip(searched, into, strict=True):
            hits = np.flatnonzero(at == number)
            if len(hits):
                rows.update(zip(keys.take(pa.array(hits)).to_pylist(), hashes[hits].tolist(), strict=True))

    if searched:
        for keys, hashes in _hashed(layout, batches()):
            put(expected, keys, hashes)
        scan(table, settings, addresses, lambda page: put(found, page.keys, page.hashes), limits)
    sentences = [
        sentence
        for limit, left, right in zip(limits, expected, found, strict=True)
        for sentence in _named(f"HBase table {name}", regions or [(b"", b"")], limit, left, right)
    ]
    if len(bad) > MAX_RANGES:
        sentences.append(f"HBase table {name}: {len(bad) - MAX_RANGES} more of {len(cuts) + 1} ranges of keys differ")
    return sentences


def _named(
    what: str,
    regions: list[tuple[bytes, bytes]],
    limits: tuple[bytes, bytes],
    expected: dict[bytes, int],
    found: dict[bytes, int],
) -> Iterator[str]:
    """Name the rows of one range that differ, by their hashes."""
    starts = [start for start, _ in regions[1:]]
    keys = f"keys from {limits[0]!r} to {limits[1]!r}"
    rows = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    for key in rows[:MAX_ROWS]:
        first, behind = regions[bisect_right(starts, key)]
        how = "is missing" if key not in found else "should not be there" if key not in expected else "differs"
        yield f"{what}, region from key {first!r} to {behind!r}, {keys}: the row of key {key!r} {how}"
    if len(rows) > MAX_ROWS:
        yield f"{what}, {keys}: {len(rows) - MAX_ROWS} more such rows"


def _hashed(layout: Layout, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[pa.Array, np.ndarray]]:
    for batch in batches:
        yield pc.cast(layout.keys(batch), pa.binary()), row_hash.batch_hashes(batch, layout.table.ids)
