"""Tables in HBase: how rows lie there, making a table, loading it, reading it back, and serving from it.

What belongs here: the map between a row and its cells, and all work on a whole table or on a few of its rows.
What does not: the bytes on the wire (see ``thrift``) and when any of it is done.

A null is an absent cell, an empty text a cell with an empty value, an integer its decimal text. Every cell is
written at one timestamp, so that a replay writes the same cells again instead of newer versions of them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING

import happybase
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecom_assets.core.measure import Measure
from ecom_assets.core.row_hash import batch_hashes, row_hash, total
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.hbase import thrift
from ecom_assets.hbase.admin import HBaseAdmin
from ecom_assets.hbase.rpc import Cells as CellColumns
from ecom_assets.hbase.rpc import Connection as RegionConnection
from ecom_assets.hbase.rpc import Region
from ecom_assets.hbase.thrift import Cells

if TYPE_CHECKING:
    from ecom_assets.core.addresses import Addresses

Lend = Callable[[], AbstractContextManager[thrift.Connection]]
Progress = Callable[[int], object]
"""Called with the rows done since the last call, by one thread at a time."""

TIMESTAMP = 1
"""Timestamp of every cell, milliseconds since the epoch.

Thrift takes one timestamp per call, so one per row would cost a call per row. As it is lower than any clock, an
edit or a deletion made by hand wins over a replay, and the measure shows it; ``create`` the table anew to mend that.
"""
KEY_SEPARATOR = b"|"
MAX_KEY = 32767
"""Longest row key HBase takes, in bytes."""

CONNECTIONS = 4
"""Connections that load or scan at once; more only queue up in the server."""
CALL_BYTES = 512 * 1024
"""Bytes of a call that writes."""
SLICE_ROWS = 16384
"""Rows made into calls at once; bounds memory."""
PAGE_ROWS = 1000
"""Rows of a page of a scan."""
MAX_PROBLEMS = 10
"""Problems named by a scan; the rest is counted."""


class Layout:
    """How the rows of a table lie in HBase.

    Attributes:
        cells: ``b"family:column"`` -> column.
        families: Family -> its columns.
        derived: The column that stands in the row key alone, if there is one: what the key holds beside the cells.
    """

    def __init__(self, table: Table) -> None:
        """Check and keep the layout of a table.

        Raises:
            ValueError: A column has no place in HBase, or could not be told from the row key again.
        """
        self.table = table
        self.families = table.hbase.families
        self.cells = {f"{f}:{c}".encode(): c for f, columns in table.hbase.families.items() for c in columns}
        cell_of = {column: cell for cell, column in self.cells.items()}
        derived = [c for c in table.hbase.row_key if c not in cell_of]
        if sorted([*self.cells.values(), *derived]) != sorted(table.names) or len(derived) > 1:
            raise ValueError(
                f"{table.name}: expected each column in one family, or at most one of them in the row key alone;"
                f" got {sorted(self.cells.values())} in families and {derived} in the row key alone; correct its"
                " declaration"
            )
        self.derived = derived[0] if derived else None
        at = table.hbase.row_key.index(self.derived) if self.derived else len(table.hbase.row_key)
        self._before = [cell_of[c] for c in table.hbase.row_key[:at]]
        self._after = [cell_of[c] for c in table.hbase.row_key[at + 1 :]]
        self._order = [cell_of.get(name) for name in table.names]
        self._known = self.cells.keys()

    def keys(self, rows: pa.RecordBatch | pa.Table) -> pa.Array | pa.ChunkedArray:
        """Make the row keys, as binary; of a table, a chunked array.

        Args:
            rows: Rows that have at least the columns of the row key.

        Raises:
            ValueError: A row would get no key, an empty one, or one that is too long; says which.
        """
        parts = [_text(rows.column(c)) for c in self.table.hbase.row_key]
        keys = pc.binary_join_element_wise(*parts, KEY_SEPARATOR)
        sizes = pc.fill_null(pc.binary_length(keys), 0)
        bad = pc.indices_nonzero(pc.or_(pc.equal(sizes, 0), pc.greater(sizes, MAX_KEY)))
        if len(bad):
            row = bad[0].as_py()
            raise ValueError(
                f"{self.table.name}: expected row keys of 1 to {MAX_KEY} bytes, got {len(bad)} others in {len(rows)}"
                f" rows; the first has {sizes[row].as_py()} bytes (0: empty or null), and its row is"
                f" {str(rows.slice(row, 1).to_pylist()[0])[:500]}; set such rows aside before they are loaded"
            )
        return keys

    def columns(self, rows: pa.RecordBatch) -> list[tuple[bytes, pa.Array]]:
        """The cells as ``(b"family:column", values)``, the values binary.

        Raises:
            ValueError: A row has no cell at all, so HBase would not hold it.
        """
        values = self.values(rows)
        return [(cell, values[column]) for cell, column in self.cells.items()]

    def values(self, rows: pa.RecordBatch) -> dict[str, pa.Array]:
        """The cells as column -> values, the values binary.

        Raises:
            ValueError: A row has no cell at all, so HBase would not hold it.
        """
        columns = {column: _text(rows.column(column)) for column in self.cells.values()}
        if all(values.null_count for values in columns.values()):
            empty = pc.indices_nonzero(pc.coalesce(*columns.values()).is_null())
            if len(empty):
                row = rows.slice(empty[0].as_py(), 1).to_pylist()[0]
                raise ValueError(
                    f"{self.table.name}: expected a value beside the row key, got nulls alone in {len(empty)} of"
                    f" {len(rows)} rows, the first of which is {row}; HBase cannot hold such rows, set them aside"
                )
        return columns

    def fields(self, key: bytes, cells: Cells) -> list[bytes | None]:
        """Make a row from its cells.

        Args:
            key: Row key.
            cells: ``b"family:column"`` -> value.

        Returns:
            The fields in schema order; ``None`` is null.

        Raises:
            ValueError: A cell is not of the layout, or the row key is not made of the cells.
        """
        if not cells.keys() <= self._known:
            raise self._damaged(key, "cells of the layout", f"also {sorted(cells.keys() - self._known)}")
        try:
            before = b"".join([cells[c] + KEY_SEPARATOR for c in self._before])
            after = b"".join([KEY_SEPARATOR + cells[c] for c in self._after])
        except KeyError as error:
            raise self._damaged(key, f"the cell {error.args[0]}, a part of the key", "none") from None
        if self.derived:
            derived = key[len(before) : len(key) - len(after)]
        else:
            before, derived = before.removesuffix(KEY_SEPARATOR), b""
        if before + derived + after != key:
            raise self._damaged(key, f"a row key {before!r} … {after!r} as the cells say", "another")
        return [cells.get(c) if c else derived for c in self._order]

    def rows(self, cells: CellColumns) -> tuple[pa.RecordBatch, np.ndarray]:
        """Make rows of cells, all at once.

        Args:
            cells: The cells of rows, taken apart for the columns of ``cells``.

        Returns:
            The rows, all columns binary, and which of them ``fields`` would make as well; shape ``(rows,)``.
        """
        before, after = ([cells.values[c] for c in names] for names in (self._before, self._after))
        parts, derived = [*before], None
        if self.derived:
            derived = cells.within_keys(*(sum(_sizes(v) + len(KEY_SEPARATOR) for v in p) for p in (before, after)))
            parts += [derived, *after]
        made = pc.binary_join_element_wise(*parts, KEY_SEPARATOR)
        fits = pc.fill_null(pc.equal(made, cells.keys), fill_value=False).to_numpy(zero_copy_only=False)
        columns = [cells.values[c] if c else derived for c in self._order]
        return pa.RecordBatch.from_arrays(columns, names=self.table.names), fits & ~cells.odd

    def record(self, key: bytes, cells: Cells) -> dict[str, str | None]:
        """Make a row from its cells, for people: column -> text; ``None`` is null.

        Raises:
            ValueError: As ``fields``.
        """
        fields = self.fields(key, cells)
        return {n: None if f is None else f.decode() for n, f in zip(self.table.names, fields, strict=True)}

    def _damaged(self, key: bytes, expected: str, got: str) -> ValueError:
        return ValueError(
            f"{self.table.name}, row key {key!r}: expected {expected}, got {got};"
            " something else wrote to the table, delete it and load it again"
        )


def _sizes(values: pa.Array) -> np.ndarray:
    return pc.fill_null(pc.binary_length(values), 0).to_numpy(zero_copy_only=False).astype(np.int64)


def row_keys(rows: pa.RecordBatch | pa.Table, table: Table) -> pa.Array | pa.ChunkedArray:
    """Make the row keys of rows that have at least the columns of the row key (see ``Layout.keys``)."""
    return Layout(table).keys(rows)


def _text(column: pa.Array) -> pa.Array:
    return column.cast(pa.string()).cast(pa.binary()) if pa.types.is_integer(column.type) else column.cast(pa.binary())


def split_keys(keys: Iterable[bytes] | pa.Array | pa.ChunkedArray, regions: int) -> list[bytes]:
    """Choose the borders of regions of equal size.

    Args:
        keys: Row keys, or a fair sample of them, in any order.
        regions: Regions wanted.

    Returns:
        The first key of each region but the first, strictly increasing; fewer than wanted if there are too few keys.
    """
    unique = sorted(set(keys.to_pylist() if isinstance(keys, pa.Array | pa.ChunkedArray) else keys))
    return sorted({unique[at] for i in range(1, regions) if (at := i * len(unique) // regions)})


def create(table: Table, settings: Settings, admin: HBaseAdmin, splits: list[bytes]) -> None:
    """Create an empty table with its regions, in place of one that is there.

    Args:
        table: The table.
        settings: For the namespace.
        admin: HBase's Admin, open.
        splits: First key of each region but the first (see ``split_keys``).

    Raises:
        ServiceError: HBase does not answer.
    """
    name = table.hbase_table(settings.namespace)
    admin.delete_table(name)
    admin.create_table(name, list(table.hbase.families), splits, settings.hbase_compression)


def exists(table: Table, settings: Settings, addresses: Addresses) -> bool:
    """Whether the table is there.

    Raises:
        RuntimeError: HBase did not answer after several tries.
    """
    name = table.hbase_table(settings.namespace)

    def attempt() -> bool:
        with thrift.Connection(addresses.hbase_thrift) as connection:
            return name.encode() in connection.happybase.tables()

    return thrift.retry(attempt, f"HBase table {name}, whether it exists")


def delete(table: Table, settings: Settings, addresses: Addresses) -> None:
    """Delete the table, if it is there.

    Raises:
        RuntimeError: HBase refused, or did not answer after several tries.
    """
    name = table.hbase_table(settings.namespace)

    def attempt() -> None:
        with thrift.Connection(addresses.hbase_thrift) as connection:
            client = connection.happybase
            if name.encode() in client.tables():
                client.delete_table(name, disable=client.is_table_enabled(name))

    thrift.retry(attempt, f"HBase table {name}, deletion")


def load(
    table: Table,
    batches: Iterable[pa.RecordBatch],
    settings: Settings,
    addresses: Addresses,
    progress: Progress | None = None,
) -> int:
    """Write rows; safe to repeat.

    Args:
        table: The table; it must exist. Rows that are there and not in ``batches`` stay.
        batches: Clean rows in schema order, in any order of rows.
        settings: For the namespace.
        addresses: Where HBase is.
        progress: Called with the rows written since the last call.

    Returns:
        Rows written.

    Raises:
        ValueError: A row cannot lie in HBase (see ``Layout``).
        RuntimeError: HBase refused rows, or did not answer after several tries.
    """
    layout = Layout(table)
    name = table.hbase_table(settings.namespace)
    total = 0

    def done(future: Future[int]) -> None:
        nonlocal total
        total += (rows := future.result())
        if progress:
            progress(rows)

    with _connections(addresses) as lend, ThreadPoolExecutor(CONNECTIONS) as pool:

        def send(call: thrift.Call) -> int:
            def attempt() -> int:
                with lend() as connection:
                    connection.mutate(name, call, TIMESTAMP)
                return call.rows

            return thrift.retry(attempt, f"HBase table {name}, {call.rows} rows from key {call.first!r}")

        running: deque[Future[int]] = deque()
        for call in _calls(layout, batches):
            running.append(pool.submit(send, call))
            if len(running) > 2 * CONNECTIONS:
                done(running.popleft())
        while running:
            done(running.popleft())
    return total


def _calls(layout: Layout, batches: Iterable[pa.RecordBatch]) -> Iterator[thrift.Call]:
    for batch in batches:
        for start in range(0, batch.num_rows, SLICE_ROWS):
            rows = batch.slice(start, SLICE_ROWS)
            yield from thrift.calls(layout.keys(rows), layout.columns(rows), CALL_BYTES)


@contextmanager
def _connections(addresses: Addresses) -> Generator[Lend]:
    """Lend connections to threads; one that broke is not lent again."""
    idle: SimpleQueue[thrift.Connection] = SimpleQueue()

    @contextmanager
    def lend() -> Generator[thrift.Connection]:
        try:
            connection = idle.get_nowait()
        except Empty:
            connection = thrift.Connection(addresses.hbase_thrift)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        idle.put(connection)

    try:
        yield lend
    finally:
        while not idle.empty():
            idle.get_nowait().close()


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


def measure(table: Table, settings: Settings, addresses: Addresses, progress: Progress | None = None) -> Scan:
    """Read back every cell, and count and hash the rows they make.

    Args:
        table: The table; one that does not exist has no rows.
        settings: For the namespace.
        addresses: Where HBase is.
        progress: Called with the rows read since the last call.

    Returns:
        The measure, its ``bytes`` 0, and what was wrong with the table, if anything.

    Raises:
        RuntimeError: HBase did not answer after several tries.
    """
    began = time.monotonic()
    found = Scan()

    def visit(page: Page) -> None:
        nonlocal found
        measured = Measure(len(page.hashes), total(page.hashes))
        found += Scan(measured, len(page.problems), page.problems[:MAX_PROBLEMS])
        if progress:
            progress(len(page.hashes))

    scan(table, settings, addresses, visit)
    return found + Scan(Measure(seconds=time.monotonic() - began))


def scan(
    table: Table,
    settings: Settings,
    addresses: Addresses,
    visit: Callable[[Page], object],
    ranges: Sequence[tuple[bytes, bytes]] | None = None,
) -> list[tuple[bytes, bytes]]:
    """Read ranges of keys at once, page by page.

    The region servers are asked themselves, or, where they cannot be reached, the Thrift server. On one machine, with
    one million rows of click_stream and other work beside it, a row took 11 us of processor time by region servers,
    32 us by HBase's own ``HashTable`` job (whose hashes depend on the order of rows besides), and three times as long
    by Thrift; ``ecom bench --only read_back`` measures it anew.

    Args:
        table: The table; one that does not exist has no rows.
        settings: For the namespace.
        addresses: Where HBase is.
        visit: Called with each page, by one thread at a time; the pages of a range come in order.
        ranges: First key and the key to stop before, empty for no border; all regions if not given.

    Returns:
        First key and end of each region.

    Raises:
        RuntimeError: HBase did not answer after several tries.
    """
    layout = Layout(table)
    name = table.hbase_table(settings.namespace)
    visiting = Lock()
    with _connections(addresses) as lend, ThreadPoolExecutor(CONNECTIONS) as pool:
        regions = thrift.retry(lambda: _regions(name, lend), f"HBase table {name}, its regions")
        by_rpc = bool(regions) and RegionConnection.reaches(regions[0])
        read = partial(_scan_by_rpc if by_rpc else _scan_by_thrift, layout, name, lend)

        def one(border: tuple[bytes, bytes]) -> None:
            start, stop = border
            for page in _resuming(partial(read, stop), start, f"HBase table {name}"):
                with visiting:
                    visit(page)

        borders = [(region.start, region.stop) for region in regions]
        list(pool.map(one, borders if ranges is None else ranges))
    return borders


def _regions(name: str, lend: Lend) -> list[Region]:
    with lend() as connection:
        return regions(name, connection.happybase)


def regions(name: str, connection: happybase.Connection) -> list[Region]:
    """The regions of a table, by its full name, and where each is served now."""
    told = connection.table(name).regions()
    return [Region(r["name"], r["start_key"], r["end_key"], (r["server_name"].decode(), int(r["port"]))) for r in told]


def _resuming(read: Callable[[bytes], Iterator[Page]], start: bytes, what: str) -> Iterator[Page]:
    """Scan from a key on; where a scan breaks off, another goes on behind its last page."""
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


def _scan_by_rpc(layout: Layout, name: str, lend: Lend, stop: bytes, start: bytes) -> Iterator[Page]:
    """Read a range of keys through its region servers."""
    for region in _regions(name, lend):  # they may have moved, or been split, since the last try
        first, behind = max(start, region.start), min(filter(None, (stop, region.stop)), default=b"")
        if behind and first >= behind:
            continue
        with RegionConnection(region.server) as connection:
            for page in connection.pages(region, first, behind):
                yield _hash_cells(layout, CellColumns(page, list(layout.cells)))


def _hash_cells(layout: Layout, cells: CellColumns) -> Page:
    rows, sound = layout.rows(cells)
    last = cells.keys[-1].as_py()
    if sound.all():
        return Page(cells.keys, batch_hashes(rows, layout.table.names), last)
    mask = pa.array(sound)
    odd = _hash_page(layout, [(cells.keys[n].as_py(), cells.row(n)) for n in np.flatnonzero(~sound).tolist()])
    hashes = np.concatenate([batch_hashes(rows.filter(mask), layout.table.names), odd.hashes])
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
            hashes.append(row_hash(layout.fields(key, cells)))
        except ValueError as error:
            problems.append(str(error))
            hashes.append(row_hash([key, *(part for cell in sorted(cells.items()) for part in cell)]))
    keys = pa.array([key for key, _ in page], pa.binary())
    return Page(keys, np.array(hashes, np.uint64), page[-1][0], tuple(problems))


def get(table: Table, key: str, settings: Settings, addresses: Addresses) -> dict[str, str | None] | None:
    """Read one row.

    Args:
        table: The table.
        key: Its row key.
        settings: For the namespace.
        addresses: Where HBase is.

    Returns:
        Column -> text (``None`` is null); ``None`` if there is no such row.

    Raises:
        RuntimeError: There is no such table, or HBase did not answer.
        ValueError: The row is damaged.
    """

    def attempt() -> dict[str, str | None] | None:
        with thrift.Connection(addresses.hbase_thrift) as connection:
            cells = connection.happybase.table(name).row(key.encode())
        return layout.record(key.encode(), cells) if cells else None

    layout = Layout(table)
    name = table.hbase_table(settings.namespace)
    return thrift.retry(attempt, f"HBase table {name}, row key {key!r}")


def prefix(
    table: Table, start: str, settings: Settings, addresses: Addresses, limit: int = 1000
) -> list[dict[str, str | None]]:
    """Read the rows whose key begins with a text, in the order of their keys.

    For ``click_stream`` a session id and ``|`` give the session's events in time order.

    Args:
        table: The table.
        start: What the row keys begin with.
        settings: For the namespace.
        addresses: Where HBase is.
        limit: Most rows to read.

    Returns:
        The rows as ``get`` gives them.

    Raises:
        RuntimeError: There is no such table, or HBase did not answer.
        ValueError: A row is damaged.
    """

    def attempt() -> list[dict[str, str | None]]:
        with thrift.Connection(addresses.hbase_thrift) as connection:
            rows = connection.happybase.table(name).scan(row_prefix=start.encode(), limit=limit)
            return [layout.record(key, cells) for key, cells in rows]

    layout = Layout(table)
    name = table.hbase_table(settings.namespace)
    return thrift.retry(attempt, f"HBase table {name}, row keys that begin with {start!r}")
