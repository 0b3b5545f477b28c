"""How rows come into a table: all of them into a new one, which is swapped in, or changes into the one there.

What belongs here: the order of an entire load, the owner of a namespace, and what a load that broke off leaves behind.
What does not: the loaders (``bulk_load``, ``spark_load``, ``importtsv``, ``write``) and the swap (``swap``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import pyarrow as pa

from ecom_assets.core.context import Context
from ecom_assets.core.layer import Changes
from ecom_assets.core.ownership import Owner
from ecom_assets.core.progress import Advance, track
from ecom_assets.dataset.model import Table
from ecom_assets.hbase import bulk_load, importtsv, loads, spark_load, swap, write
from ecom_assets.hbase.admin import HBaseAdmin, admin_of
from ecom_assets.hbase.get import exists, staged_name
from ecom_assets.hbase.layout import Target, row_keys, split_keys

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

FILE_ROWS = 20_000
"""Rows, new and old, from which on they are brought in as files: fewer are sent sooner than files are loaded.

Into a million rows, half of them markers, 5,000 took 1.2 s by puts and 3.5 s as files, 20,000 took 3.6 s and 2.9 s.
"""


@dataclass(frozen=True)
class Rows:
    """What a table is loaded from.

    Attributes:
        batches: Clean rows in schema order, in any order of rows, each row key once.
        keys: Row keys of a sample of them, spread evenly.
        frame: The same rows as a Spark frame, for the loader ``spark``.
        count: How many there are, if that is known.
    """

    batches: Callable[[], Iterable[pa.RecordBatch]]
    keys: pa.Array | pa.ChunkedArray
    frame: Callable[[], DataFrame] | None = None
    count: int | None = None


def rebuild(at: Context, table: Table, loader: str, rows: Rows) -> tuple[int, int]:
    """Load a table as a whole; people who read it see the old rows or the new ones.

    Args:
        at: Connections and settings.
        table: The table.
        loader: ``hfile``, ``spark``, ``importtsv`` or ``thrift``.
        rows: What it is loaded from.

    Returns:
        Rows loaded, and regions.

    Raises:
        ServiceError: The loader is ``spark``, and there is no frame.
        OwnedError: Another home owns the namespace.
        HBaseError: HBase cannot hold a row, a row key comes twice, or HBase refused or did not respond. The next call
            clears away what is left.
    """
    frame = rows.frame() if loader == "spark" and rows.frame else None  # some sources have none: before anything else
    admin, name = admin_of(at), table.hbase_table(at.settings.namespace)
    check_owner(at, admin)
    replaced = swap.recover(admin, name) and not _broke_off(at, table)
    splits = split_keys(rows.keys, at.settings.regions)
    # Each attempt begins with an empty table, so cells of two attempts never meet.
    target = Target(table, staged_name(name) if replaced else name, loads.begin_whole(at.books, table))
    if not replaced:
        at.books.set_state(_loading(table), value=True)
    write.create(target, at.settings, admin, splits, {owner_key(at): at.owner.to_text()})
    with track(f"hbase/{table.name}", rows.count) as advance:
        if frame is not None:
            loaded = spark_load.load(target, frame, at.settings, admin, progress=advance)
        else:
            loaded = _load(at, target, loader, rows, advance)
    loads.forget_past(at.books, table)
    if replaced:
        swap.publish(admin, name)
    else:
        at.books.set_state(_loading(table), None)
    return loaded, len(splits) + 1


def change(at: Context, table: Table, changes: Changes, timestamp: int) -> int:
    """Bring changes into a table that people read; safe to repeat.

    Those who read up to an earlier timestamp see the table as it was, before, meanwhile and after; see ``loads``.

    Args:
        at: Connections and settings.
        table: The table; it must be complete.
        changes: Clean rows in schema order, in any order of rows, each row key once.
        timestamp: Of the cells of new rows, milliseconds since the epoch; old ones are hidden one before it.

    Returns:
        Rows written and hidden; an update is both.

    Raises:
        OwnedError: Another home owns the namespace.
        HBaseError: As of ``rebuild``.
    """
    admin = admin_of(at)
    check_owner(at, admin)
    target = Target.public(table, at.settings, timestamp)
    new, old = iter(changes.new()), iter(changes.old())
    some, gone = list(_few(new)), list(_few(old))
    with track(f"hbase/{table.name}", None) as advance:
        if sum(len(batch) for batch in (*some, *gone)) < FILE_ROWS:
            removed = write.remove(target, gone, at.addresses, advance)
            return removed + write.load(target, some, at.addresses, advance)
        names = list(table.hbase.row_key)
        keys = row_keys(pa.Table.from_batches([batch.select(names) for batch in (some or gone)]), table)
        hidden = chain(gone, old) if gone else None
        rows = chain(some, new)
        return bulk_load.load(target, rows, keys, at.settings, admin, gone=hidden, progress=advance)


def _few(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The first batches, up to ``FILE_ROWS`` rows."""
    rows = 0
    while rows < FILE_ROWS and (batch := next(batches, None)) is not None:
        rows += len(batch)
        yield batch


def _load(at: Context, target: Target, loader: str, rows: Rows, advance: Advance) -> int:
    admin = admin_of(at)
    match loader:
        case "importtsv":
            return importtsv.load(target, rows.batches(), at.settings, admin, at.addresses, progress=advance)
        case "thrift":
            return write.load(target, rows.batches(), at.addresses, advance)
        case _:
            return bulk_load.load(target, rows.batches(), rows.keys, at.settings, admin, progress=advance)


def complete(at: Context, table: Table) -> bool:
    """Whether a table is there, and not just the beginning of its first load.

    Raises:
        HBaseError: HBase did not respond after several tries.
    """
    return not _broke_off(at, table) and exists(table, at.settings, at.addresses)


def remove(at: Context, table: Table) -> None:
    """Delete a table and all that loads of it have left.

    Raises:
        OwnedError: Another home owns the namespace.
        HBaseError: HBase refused, or did not respond.
    """
    admin, name = admin_of(at), table.hbase_table(at.settings.namespace)
    check_owner(at, admin)
    swap.discard(admin, name)  # before the table itself, or a crash between the two would bring it back
    admin.delete_table(name)
    for each in (name, staged_name(name)):
        bulk_load.clear(each, at.settings)
    at.books.set_state(_loading(table), None)


def owner_key(at: Context) -> str:
    """Name of the value in the descriptors of a namespace's tables that holds its owner."""
    return f"ecom.owner.{at.settings.namespace}"


def check_owner(at: Context, admin: HBaseAdmin) -> None:
    """Refuse to write tables of a namespace that another home owns; of one without tables, nobody is the owner.

    Raises:
        OwnedError: It is another home's.
    """
    namespace = at.settings.namespace
    for text in admin.values(f"{namespace}_", owner_key(at)).values():
        at.owner.check(Owner.from_text(text) if text else None, f"HBase tables {namespace}_*")


def _loading(table: Table) -> str:
    """Key of the books' note that the first load of a table, into the one that people read, has begun."""
    return f"hbase/{table.name}/loading"


def _broke_off(at: Context, table: Table) -> bool:
    return at.books.state(_loading(table)) is not None
