"""Maintenance of HBase: one file per region and family. No row is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecom_assets.core.progress import note, track
from ecom_assets.dataset.shop import TABLES
from ecom_assets.hbase import table as hbase

if TYPE_CHECKING:
    from ecom_assets.flow import Flow


def compact(flow: Flow) -> list[str]:
    """Merge the files of every region of every table into one per family.

    Returns:
        The tables.

    Raises:
        ServiceError: HBase does not answer, or a compaction does not end.
    """
    done = []
    with track("maintenance of HBase", len(TABLES), "tables") as advance:
        for table in TABLES.values():
            if hbase.exists(table, flow.settings, flow.addresses):
                name = table.hbase_table(flow.settings.namespace)
                flow.admin.flush(name)
                flow.admin.major_compact(name)
                done.append(name)
                note(f"  {name}: compacted")
            advance(1)
    return done
