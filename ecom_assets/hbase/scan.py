"""Whole tables read back from HBase, through the region servers or, where they are out of reach, through Thrift.

What belongs here: scans of ranges of keys, page by page, or of many rows, and the measure of a table. What does not:
single rows (see ``get``), and what a measure is compared with.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

import happybase
import numpy as np
import pyarrow as pa

from ecom_assets.core.errors import HBaseError
from ecom_assets.core.measure import Measure
from ecom_assets.core.progress import Advance
from ecom_assets.core.row_hash import batch_hashes, row_hash, total
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.hbase import thrift
from ecom_assets.hbase.layout import Layout
from ecom_assets.hbase.rpc import FOREVER, Region
from ecom_assets.hbase.rpc import Cells as CellColumns
from ecom_assets.hbase.rpc import Connection as RegionConnection
from ecom_assets.hbase.thrift import CONNECTIONS, Cells, Lend

if TYPE_CHECKING:
    from ecom_assets.core.addresses import Addresses

PAGE_ROWS = 1000
"""Rows of a page of a scan."""
MAX_PROBLEMS = 10
"""Problems named by a scan; the rest is counted."""


class OutOfReachError(HBaseError):
    """The region servers cannot be read directly."""


@dataclass(frozen=True)
class Scan:
    """What a table in HBase was found to hold.

    Attributes:
        measure: Rows and checksum.
        damaged: Rows that are not of the table's layout. They count as rows, with a hash of all that was found,
            so that the measure differs from that of sound rows.
        problems: The first of them: row key, what was expected, what came.
    """

    measure: Measure = field(default_factory=Measure)
    damaged: int = 0
    problems: tuple[str, ...] = ()

    def __add__(self, other: Scan) -> Scan:
        """Add what a further part holds."""
        return Scan(
            self.measure + other.measure,
            self.damaged + other.damaged,
            (*self.problems, *other.problems)[:MAX_PROBLEMS],
        )


@dataclass(frozen=True)
class Page:
    """Rows that a scan has found.

    Attributes:
        keys: Their row keys, binary.
        hashes: Their hashes; of a damaged row a hash of all that was found; shape ``(rows,)``.
        last: The last row key.
        problems: What is wrong with each damaged row.
    """

    keys: pa.Array
    hashes: np.ndarray
    last: bytes
    problems: tuple[str, ...] = ()


def measure(
    table: Table, settings: Settings, addresses: Addresses, progress: Advance | None = None, since: int = 0
) -> Scan:
    """Read back every cell, and count and hash the rows they make.

    Args:
        table: The table; one that does not exist has no rows.
        settings: For the namespace.
        addresses: Where HBase is.
        progress: Called with the rows read since the last call.
        since: Only of cells with this timestamp or a later one, milliseconds since the epoch.

    Returns:
        The measure, its ``bytes`` 0, and what was wrong with the table, if anything.

    Raises:
        OutOfReachError: Only some cells are wanted, and the region servers are out of reach.
        HBaseError: HBase did not respond after several tries.
    """
    began = time.monotonic()
    found = Scan()

    def visit(page: Page) -> None:
        nonlocal found
        measured = Measure(len(page.hashes), total(page.hashes))
        found += Scan(measured, len(page.problems), page.problems[:MAX_PROBLEMS])
        if progress:
            progress(len(page.hashes))

    scan(table, settings, addresses, visit, since=since)
    return found + Scan(Measure(seconds=time.monotonic() - began))


def scan(
    table: Table,
    settings: Settings,
    addresses: Addresses,
    visit: Callable[[Page], object],
    ranges: Sequence[tuple[bytes, bytes]] | None = None,
    *,
    since: int = 0,
) -> list[tuple[bytes, bytes]]:
    """Read ranges of keys at once, page by page.

    Rows come from the region servers or, where they cannot be reached, from the Thrift server. On one machine, with
    one million rows of six columns and other work running, a row took 11 us of processor time from region servers,
    32 us in HBase's own ``HashTable`` job (whose hashes also depend on the order of rows), and three times as long
    through Thrift; ``ecom bench --only read_back`` measures it again.

    Args:
        table: The table; one that does not exist has no rows.
        settings: For the namespace.
        addresses: Where HBase is.
        visit: Called with each page, by one thread at a time; the pages of a range come in order.
        ranges: First key and the key to stop before, empty for no boundary; all regions if not given.
        since: Only cells with this timestamp or a later one, milliseconds since the epoch.

    Returns:
        First key and end of each region.

    Raises:
        OutOfReachError: ``since`` is given, and the region servers are out of reach.
        HBaseError: HBase did not respond after several tries.
    """
    layout = Layout(table)
    name = table.hbase_table(settings.namespace)
    visiting = Lock()
    with thrift.connections(addresses.hbase_thrift) as lend, ThreadPoolExecutor(CONNECTIONS) as pool:
        regions = thrift.retry(lambda: _regions(name, lend), f"HBase table {name}, its regions")
        by_rpc = bool(regions) and RegionConnection.reaches(regions[0])
        if since and regions and not by_rpc:
            raise OutOfReachError(f"HBase table {name}: expected region servers that can be read, got Thrift alone")
        read = partial(partial(_scan_by_rpc, since=since) if by_rpc else _scan_by_thrift, layout, name, lend)

        def one(limits: tuple[bytes, bytes]) -> None:
            start, stop = limits
            for page in _resuming(partial(read, stop), start, f"HBase table {name}"):
                with visiting:
                    visit(page)

        boundaries = [(region.start, region.stop) for region in regions]
        list(pool.map(one, boundaries if ranges is None else ranges))
    return boundaries


def rows(table: Table, settings: Settings, addresses: Addresses, keys: pa.Array, before: int) -> Page:
    """Read some rows from the region servers, as they were at a time.

    Args:
        table: The table; it must exist.
        settings: For the namespace.
        addresses: Where HBase is.
        keys: Their row keys, binary, strictly increasing.
        before: Only cells with an earlier timestamp count, milliseconds since the epoch.

    Returns:
        Those that were there, in the order of their keys, but damaged ones behind.

    Raises:
        OutOfReachError: The region servers are out of reach.
        HBaseError: HBase did not respond after several tries.
    """
    layout, name, wanted = Layout(table), table.hbase_table(settings.namespace), keys.to_pylist()

    def attempt() -> list[Page]:
        found = _regions(name, lend)
        if not RegionConnection.reaches(found[0]):
            raise OutOfReachError(f"HBase table {name}: expected region servers that can be read, got Thrift alone")
        return [page for pages in pool.map(of_region, found) for page in pages]

    def of_region(region: Region) -> list[Page]:
        end = bisect_left(wanted, region.stop) if region.stop else None
        own = wanted[bisect_left(wanted, region.start) : end]
        if not own:
            return []
        with RegionConnection(region.server) as connection:
            pages = connection.pages(region, own[0], region.stop, (0, before), own)
            return [_hash_cells(layout, CellColumns(page, list(layout.cells))) for page in pages]

    with thrift.connections(addresses.hbase_thrift) as lend, ThreadPoolExecutor(CONNECTIONS) as pool:
        found = thrift.retry(attempt, f"HBase table {name}, {len(keys)} rows")
    return Page(
        pa.concat_arrays([pa.array([], pa.binary()), *(page.keys for page in found)]),
        np.concatenate([np.empty(0, np.uint64), *(page.hashes for page in found)]),
        found[-1].last if found else b"",
        tuple(problem for page in found for problem in page.problems),
    )


def _regions(name: str, lend: Lend) -> list[Region]:
    with lend() as connection:
        return regions(name, connection.happybase)


def regions(name: str, connection: happybase.Connection) -> list[Region]:
    """The regions of a table, by its full name, and where each is served now."""
    found = connection.table(name).regions()
    return [Region(r["name"], r["start_key"], r["end_key"], (r["server_name"].decode(), int(r["port"]))) for r in found]


def _resuming(read: Callable[[bytes], Iterator[Page]], start: bytes, what: str) -> Iterator[Page]:
    """Scan from a key; where a scan breaks off, another one resumes behind its last page."""
    pages: Iterator[Page] | None = None

    def attempt() -> Page | None:
        nonlocal pages
        try:
            pages = pages or read(start)
            return next(pages, None)
        except BaseException:
            pages = None
            raise

    while page := thrift.retry(attempt, f"{what}, scan from key {start!r}"):
        start = page.last + b"\0"
        yield page


def _scan_by_rpc(layout: Layout, name: str, lend: Lend, stop: bytes, start: bytes, *, since: int) -> Iterator[Page]:
    """Read a range of keys through its region servers."""
    for region in _regions(name, lend):  # they may have moved, or been split, since the last try
        first, behind = max(start, region.start), min(filter(None, (stop, region.stop)), default=b"")
        if behind and first >= behind:
            continue
        with RegionConnection(region.server) as connection:
            for page in connection.pages(region, first, behind, (since, FOREVER) if since else None):
                yield _hash_cells(layout, CellColumns(page, list(layout.cells)))


def _hash_cells(layout: Layout, cells: CellColumns) -> Page:
    rows, sound = layout.rows(cells)
    last = cells.keys[-1].as_py()
    if sound.all():
        return Page(cells.keys, batch_hashes(rows, layout.table.ids), last)
    mask = pa.array(sound)
    odd = _hash_page(layout, [(cells.keys[n].as_py(), cells.row(n)) for n in np.flatnonzero(~sound).tolist()])
    hashes = np.concatenate([batch_hashes(rows.filter(mask), layout.table.ids), odd.hashes])
    return Page(pa.concat_arrays([cells.keys.filter(mask), odd.keys]), hashes, last, odd.problems)


def _scan_by_thrift(layout: Layout, name: str, lend: Lend, stop: bytes, start: bytes) -> Iterator[Page]:
    """Read a range of keys through the Thrift server."""
    with lend() as connection:
        for page in connection.pages(name, start, stop, PAGE_ROWS):
            yield _hash_page(layout, page)


def _hash_page(layout: Layout, page: list[tuple[bytes, Cells]]) -> Page:
    hashes, problems = [], []
    for key, cells in page:
        try:
            hashes.append(row_hash(zip(layout.table.ids.values(), layout.fields(key, cells), strict=True)))
        except HBaseError as error:
            problems.append(str(error))
            hashes.append(row_hash(enumerate([key, *(part for cell in sorted(cells.items()) for part in cell)])))
    keys = pa.array([key for key, _ in page], pa.binary())
    return Page(keys, np.array(hashes, np.uint64), page[-1][0], tuple(problems))
