"""A table that is rebuilt next to the one that people read, and swapped in.

What belongs here: the steps of a swap, and how the next build picks up after a crash between any two of them. What
does not: what the new table is loaded from (see ``rebuild``).

HBase cannot rename a table. So the new one is loaded as ``<name>.next``, a snapshot of it is cloned under the public
name, which copies no row, and the staged table is deleted; the clone then owns its files. Between the deletion of the
old table and its clone there is none, for as long as HBase takes for these two steps; readers wait for it while they
see the staged table (see ``get.reading``).
"""

from __future__ import annotations

from ecom_assets.hbase.admin import HBaseAdmin
from ecom_assets.hbase.get import staged_name


def publish(admin: HBaseAdmin, name: str) -> None:
    """Swap the staged table in.

    Args:
        admin: HBase's Admin, open.
        name: The public name; the staged table must be loaded.

    Raises:
        HBaseError: HBase refused, or did not respond; ``recover`` then brings the table back.
    """
    staged = staged_name(name)
    admin.disable(staged)  # so its snapshot waits for no region server, and its deletion later neither
    admin.take_snapshot(staged, staged)
    admin.delete_table(name)
    admin.clone_snapshot(staged, name)
    admin.delete_snapshot(staged)
    admin.delete_table(staged)


def recover(admin: HBaseAdmin, name: str) -> bool:
    """Clear away what a swap that broke off has left; a swap that had deleted the old table is finished.

    Args:
        admin: HBase's Admin, open.
        name: The public name.

    Returns:
        Whether the table is there now, readable.

    Raises:
        HBaseError: HBase refused, or did not respond.
    """
    staged = staged_name(name)
    there = admin.table_exists(name)
    if there:
        admin.enable(name)  # it had been about to be deleted
    elif staged in admin.snapshots():  # there is one only after all rows were loaded
        admin.clone_snapshot(staged, name)
        there = True
    discard(admin, name)
    return there


def discard(admin: HBaseAdmin, name: str) -> None:
    """Delete what belongs to a swap, but not the table that people read."""
    staged = staged_name(name)
    admin.delete_snapshot(staged)
    admin.delete_table(staged)
