"""Maintenance of HBase: one file per region and family. No row is changed."""

from __future__ import annotations

from ecom_assets.core import locks
from ecom_assets.core.context import Context
from ecom_assets.core.progress import note, track
from ecom_assets.hbase.admin import admin_of
from ecom_assets.hbase.get import exists


def compact(at: Context) -> list[str]:
    """Merge the files of every region of every table into one per family.

    Returns:
        The tables.

    Raises:
        HomeError: Another process deletes or repairs in the home.
        HBaseError: HBase does not respond, or a compaction does not end.
    """
    done = []
    with (
        locks.shared(at.settings, "maintenance of HBase"),
        track("maintenance of HBase", len(at.dataset.tables), "tables") as advance,
    ):
        for table in at.dataset.tables.values():
            if exists(table, at.settings, at.addresses):
                name = table.hbase_table(at.settings.namespace)
                admin_of(at).flush(name)
                admin_of(at).major_compact(name)
                done.append(name)
                note(f"  {name}: compacted")
            advance(1)
    return done
