"""Delta tables without Spark: what they hold, at which version, read in flat memory.

What belongs here: what can be read from any Delta table of the lake. What does not: how a table is written, and what
its rows mean; see ``query`` and ``merge``.

Versions are named ``id@number``: the table's own id, new for each table, and the last version that changed rows.
Maintenance changes files and no row, so it changes no name.
"""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Self
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from ecom_assets.core import row_hash
from ecom_assets.core.errors import LakeError
from ecom_assets.core.location import Location, exists, location, stamp
from ecom_assets.core.measure import Measure
from ecom_assets.core.parallel import ordered_map
from ecom_assets.dataset.model import Table
from ecom_assets.lake import vectors

BATCH_ROWS = 32_768
"""Rows of a batch."""

MAINTENANCE = ("OPTIMIZE", "VACUUM START", "VACUUM END")
"""Operations in a Delta log that change files but no row."""

Rows = Mapping[str, np.ndarray | None]
"""Rows of a table's files, by their names: their positions, in order; ``None`` for all that the version has."""

LOOK_BACK = 8
"""Commits looked at first for one that changed rows."""


@dataclass(frozen=True)
class Version:
    """A version of a Delta table.

    Attributes:
        id: The table's id.
        number: The version's number.
    """

    id: str
    number: int

    def __str__(self) -> str:
        return f"{self.id}@{self.number}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` writes."""
        table, _, number = text.rpartition("@")
        return cls(table, int(number))


def rows_version(path: Location) -> Version | None:
    """The version that changed a table's rows last; ``None`` if there is no table.

    Reads the last few commits, however long the log is.
    """
    return _rows_version(str(path), *_named(latest(path))) if exists(path) else None


def at_version(path: Location, version: Version) -> DeltaTable:
    """A table with the rows of a version, at the newest version that has them: its files are deleted last.

    Raises:
        LakeError: There is no such table any more, or its log does not reach back that far.
    """
    remedy = "materialize what was built from it again"
    now = latest(path)
    id_, last = _named(now)
    if id_ != version.id:
        raise LakeError(f"{path}: expected the Delta table {version.id}, got {id_}: it was rebuilt", remedy)
    behind = last - version.number
    later = sorted(now.history(behind) if behind > 0 else [], key=lambda c: c["version"])
    same = itertools.takewhile(lambda c: c.get("operation") in MAINTENANCE, later)
    newest = max((c["version"] for c in same), default=version.number)
    try:
        return pinned(str(path), version.id, newest)
    except DeltaError as error:
        raise LakeError(f"{path}: expected its version {newest}, got: {error}", remedy) from error


def latest(path: Location) -> DeltaTable:
    """A table as it is now; others get the same one, so it must stay at its version.

    To open a table takes longer the more commits there are since its last checkpoint, and to list its log the more
    there are at all. A look at two files tells whether there is a new one.

    Raises:
        LakeError: There is no Delta table.
    """
    if not isinstance(path, Path):
        return opened(path)
    known = _newest.get(str(path))
    if known is None or known[0] != _last_commit(path, known[1]):
        table = opened(path)
        known = _newest[str(path)] = _last_commit(path, table), table
        _keep((str(path), *_named(table)), table)
    return known[1]


def _last_commit(path: Path, table: DeltaTable) -> tuple[int, ...] | None:
    """The last commit of a table, as a file; ``None`` if there is a newer one, or another table in its place."""
    log, number = path / "_delta_log", table.version()
    try:
        return None if (log / f"{number + 1:020}.json").exists() else stamp(log / f"{number:020}.json")
    except FileNotFoundError:
        return None


def pinned(path: str, id_: str, number: int) -> DeltaTable:
    """A table at a version, which others get too."""
    with _keeping:
        table = _versions.get((path, id_, number))
    return table or _keep((path, id_, number), DeltaTable(path, version=number))


def _keep(key: tuple[str, str, int], table: DeltaTable) -> DeltaTable:
    with _keeping:
        _versions[key] = table
        if len(_versions) > KEPT_VERSIONS:
            _versions.popitem(last=False)
    return table


def _named(table: DeltaTable) -> tuple[str, int]:
    """A table's id and version."""
    return str(table.metadata().id), table.version()


def transaction(table: DeltaTable, app_id: str) -> int | None:
    """The version of a transaction identifier in a version of a table; ``None`` if it has none.

    delta-rs looks through the log for it, which is longer for each commit.
    """
    key = (table.table_uri, *_named(table), app_id)
    with _keeping:
        if key in _transactions:
            return _transactions[key]
    found = table.transaction_version(app_id)
    with _keeping:
        _transactions[key] = found
        if len(_transactions) > KEPT_TRANSACTIONS:
            _transactions.popitem(last=False)
    return found


@lru_cache(maxsize=256)
def _rows_version(path: str, id_: str, number: int) -> Version:
    delta, limit = pinned(path, id_, number), LOOK_BACK
    while True:
        commits = delta.history(limit)
        for commit in commits:
            if commit.get("operation") not in MAINTENANCE:
                return Version(id_, commit["version"])
        if len(commits) < limit:
            return Version(id_, number)  # the log of what came before was cleaned up
        limit *= 4


_newest: dict[str, tuple[tuple[int, ...] | None, DeltaTable]] = {}
"""Path -> the last commit of its log, as a file, and the table."""
KEPT_VERSIONS = 64
"""Versions of tables that are kept open; a version never changes."""
_versions: OrderedDict[tuple[str, str, int], DeltaTable] = OrderedDict()
"""Path, id and version of a table -> the table."""
KEPT_TRANSACTIONS = 1024
_transactions: OrderedDict[tuple[str, str, int, str], int | None] = OrderedDict()
"""URI, id and version of a table, and a transaction identifier -> its version."""
FEW_ROWS = 10_000
"""Rows of a file that are kept in memory together, once they are read."""
KEPT_ROWS = 40_000
"""Rows that are kept at a time."""
_kept: OrderedDict[tuple[str, bytes], list[pa.RecordBatch]] = OrderedDict()
"""File and positions -> the rows there, with all columns; a file never changes."""
_keeping = Lock()
"""Held while one of these changes."""


def opened(path: Location) -> DeltaTable:
    """A table as it is now.

    Raises:
        LakeError: There is no Delta table.
    """
    if not exists(path):
        raise LakeError(f"expected a Delta table in {path}, got none", "materialize it first")
    try:
        return DeltaTable(str(path))
    except (DeltaError, OSError) as error:
        raise LakeError(f"{path}: expected a Delta table, got one whose log cannot be read: {error}") from error


def added(path: Location, old: Version, new: Version) -> set[str] | None:
    """Files that a table got between two versions; ``None`` where it has not only grown, or nobody knows."""
    try:
        gone, came = difference(at_version(path, old), at_version(path, new))
    except LakeError:
        return None  # another table, or the log of that time was cleaned up
    return None if gone else set(came)  # maintenance moves rows to other files


def difference(
    before: DeltaTable, now: DeltaTable
) -> tuple[dict[str, np.ndarray | None], dict[str, np.ndarray | None]]:
    """The rows that the first of two versions alone has, and those that the second alone has.

    A file that only one of them has counts as a whole, so both may have rows in common.
    """
    was, there = (set(files(each)["path"].to_pylist()) for each in (before, now))
    gone: dict[str, np.ndarray | None] = dict.fromkeys(was - there)
    came: dict[str, np.ndarray | None] = dict.fromkeys(there - was)
    without, with_ = vectors.deleted(before), vectors.deleted(now)
    none = np.empty(0, np.int64)
    for name in (without.keys() | with_.keys()) & was & there:
        earlier, later = (of.get(name, none) for of in (without, with_))
        if len(ended := np.setdiff1d(later, earlier, assume_unique=True)):
            gone[name] = ended
        if len(back := np.setdiff1d(earlier, later, assume_unique=True)):
            came[name] = back
    return gone, came


def files(delta: DeltaTable) -> pa.Table:
    """A table's files, as its log describes them; columns as in ``DeltaTable.get_add_actions`` (flattened)."""
    return pa.table(delta.get_add_actions(flatten=True))


def size(delta: DeltaTable, names: Collection[str] | None = None) -> int:
    """The bytes of a table's files, or of some of them, from its log."""
    known = files(delta)
    if names is not None:
        known = known.filter(pc.is_in(known["path"], pa.array(names, pa.string())))
    return int(pc.sum(known["size_bytes"]).as_py() or 0)


def records(path: Location) -> int:
    """The number of rows of a table, from its log; no data are read. A missing table has none."""
    return count(latest(path)) if exists(path) else 0


def count(delta: DeltaTable, names: Collection[str] | Rows | None = None) -> int:
    """The number of rows of a table at its version, or of some of its files, from its log."""
    gone, rows = vectors.deleted(delta), 0
    for file in files(delta).select(["path", "num_records"]).to_pylist():
        name = file["path"]
        if names is None or name in names:
            only = names[name] if isinstance(names, Mapping) else None
            rows += (file["num_records"] or 0) - len(gone.get(name, ())) if only is None else len(only)
    return rows


def measure(
    table: Table, delta: DeltaTable, null: str | None = None, names: Collection[str] | Rows | None = None
) -> Measure:
    """Count and checksum a table as it is stored.

    Not by Spark, which writes the merged table and reads the streamed one for it: two independent
    readers of the same rows verify more than one, and this one takes a third of the time.

    Args:
        table: Whose columns to hash.
        delta: The Delta table, at the version wanted.
        null: A column; only rows where it is null count.
        names: As in ``batches``.

    Returns:
        Rows, checksum, bytes of the files and seconds.
    """
    began = time.monotonic()

    def hashed(batch: pa.RecordBatch) -> Measure:
        return Measure(batch.num_rows, row_hash.total(row_hash.batch_hashes(batch, table.ids)))

    found = sum(ordered_map(hashed, batches(delta, table.names, null, names)), Measure())
    return found + Measure(bytes=size(delta, names), seconds=time.monotonic() - began)


def batches(
    delta: DeltaTable, columns: list[str], null: str | None = None, names: Collection[str] | Rows | None = None
) -> Iterator[pa.RecordBatch]:
    """Read a table in flat memory.

    Args:
        delta: The Delta table, at the version wanted.
        columns: Which columns, in the order wanted.
        null: A column; only rows where it is null are wanted.
        names: Names of files within its folder; only their rows are wanted, if given, or some of them: rows whose
            positions are given come in their order, also those that the version has no more.

    Yields:
        Arrow batches of at most 32,768 rows.
    """
    # Not by a scan of Arrow's: that decodes whole row groups, which took 600 MB instead of 35.
    whole, gone, folder = pa.schema(delta.schema().to_arrow()), vectors.deleted(delta), _folder(delta)
    wanted = pa.schema([whole.field(c) for c in columns])
    read = [*columns, null] if null else columns
    for name in files(delta)["path"].to_pylist():
        if names is not None and name not in names:
            continue
        only = names[name] if isinstance(names, Mapping) else None
        rows_of = of_file(folder / name, read, gone.get(name)) if only is None else _some(folder / name, read, only)
        for batch in rows_of:
            # The writer of a file chose the layout of its texts, and not every function of Arrow takes each.
            rows = batch.select(columns).cast(wanted)
            yield rows.filter(batch.column(null).is_null()) if null else rows


def of_file(path: Location, columns: list[str], gone: np.ndarray | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a file, without those at some positions."""
    with path.open("rb") as source, pq.ParquetFile(source, buffer_size=1 << 20) as parquet:
        first = 0
        for batch in parquet.iter_batches(BATCH_ROWS, columns=columns):
            yield batch if gone is None else without(batch, within(gone, first, len(batch)))
            first += len(batch)


def _some(path: Location, columns: list[str], only: np.ndarray) -> Iterator[pa.RecordBatch]:
    """Some rows of a file; a few are read once, since each layer and each check asks for those of a delivery."""
    if len(only) > FEW_ROWS:
        yield from _picked(path, columns, only)
        return
    key = (str(path), only.tobytes())
    with _keeping:
        rows = _kept.pop(key, None)
    if rows is None:
        rows = list(_picked(path, None, only))
    with _keeping:
        _kept[key] = rows  # the last one that was used
        while sum(len(batch) for each in _kept.values() for batch in each) > KEPT_ROWS:
            _kept.popitem(last=False)
    yield from (batch.select(columns) for batch in rows)


def _picked(path: Location, columns: list[str] | None, only: np.ndarray) -> Iterator[pa.RecordBatch]:
    """Some rows of a file; row groups that have none of them are not read."""
    with path.open("rb") as source, pq.ParquetFile(source, buffer_size=1 << 20) as parquet:
        end = 0
        for group in range(parquet.num_row_groups):
            first, end = end, end + parquet.metadata.row_group(group).num_rows
            if not len(within(only, first, end - first)):
                continue
            for batch in parquet.iter_batches(BATCH_ROWS, [group], columns):
                if len(at := within(only, first, len(batch))):
                    yield _plain(batch).take(pa.array(at))
                first += len(batch)


def _plain(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Rows whose texts Arrow can take some of; a writer may have chosen another layout for them."""
    kinds = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    return rows.cast(pa.schema([field.with_type(kinds.get(field.type, field.type)) for field in rows.schema]))


def without(batch: pa.RecordBatch, positions: np.ndarray) -> pa.RecordBatch:
    """The rows of a batch but for those at some positions."""
    if not len(positions):
        return batch
    keep = np.ones(len(batch), bool)
    keep[positions] = False
    return batch.filter(pa.array(keep))


def within(positions: np.ndarray, first: int, count: int) -> np.ndarray:
    """Of sorted positions, those of ``count`` rows from ``first`` on, counted from there."""
    low, high = np.searchsorted(positions, [first, first + count])
    return positions[low:high] - first


def _folder(delta: DeltaTable) -> Location:
    """Where a table is; delta-rs has it as a URI."""
    uri = delta.table_uri
    return Path(unquote(uri.removeprefix("file://"))) if uri.startswith("file://") else location(uri)


def sample(
    delta: DeltaTable, columns: list[str], rows: int = 100_000, names: Collection[str] | Rows | None = None
) -> pa.Table:
    """Read some rows, spread evenly over a table, for instance to find quantiles of keys.

    Args:
        delta: The Delta table, at the version wanted.
        columns: Which columns, in the order wanted.
        rows: About how many; all if the table has fewer.
        names: As in ``batches``.

    Returns:
        The rows, always the same ones of the same table.
    """
    step = max(1, count(delta, names) // rows)
    taken, seen = [], 0
    for batch in batches(delta, columns, names=names):
        at = range(-seen % step, batch.num_rows, step)
        taken.append(batch.take(pa.array(at, pa.int64())))
        seen += batch.num_rows
    schema = pa.schema(delta.schema().to_arrow())
    return pa.Table.from_batches(taken, pa.schema([schema.field(c) for c in columns]))


def head(path: Location, columns: list[str], rows: int) -> list[dict[str, Any]]:
    """The first few rows; none where there is no table."""
    if not exists(path):
        return []
    first = next(batches(latest(path), columns), None)
    return first.slice(0, rows).to_pylist() if first else []
