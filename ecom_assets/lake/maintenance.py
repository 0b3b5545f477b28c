"""Maintenance of the lake: fewer, larger files, and none that no reader needs. No row is changed.

What belongs here: Delta's OPTIMIZE and VACUUM, for all tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deltalake import DeltaTable

from ecom_assets.core import locks
from ecom_assets.core.location import Location, exists
from ecom_assets.core.progress import note, track
from ecom_assets.dataset.model import Table
from ecom_assets.lake import delta, history, merge, quarantine, streamed
from ecom_assets.lake.delta import Version

if TYPE_CHECKING:
    from ecom_assets.core.context import Context

KEEP_HOURS = 168
"""Files that a table no longer has are kept for so long: readers and checks of older versions need them."""


def compact_lake(at: Context) -> dict[str, dict[str, int]]:
    """Compact every Delta table of the lake, and delete files that no version of the last week has.

    A version that another layer was built from is kept whatever its age: merging and checks still need its files.

    Returns:
        Table -> files compacted, files written for them, files deleted.

    Raises:
        HomeError: Another process deletes or repairs in the home.
    """
    done = {}
    places: dict[str, tuple[Location, list[int]]] = {}
    for name, table in at.dataset.tables.items():
        places |= {
            f"streamed/{name}": (streamed.folder(table, at.settings), _merged_from(at, table)),
            f"merged/{name}": (merge.folder(table, at.settings), _loaded_from(at, table)),
            f"history/{name}": (history.folder(table, at.settings), []),
            f"quarantine/{name}": (quarantine.folder(table, at.settings), []),
        }
    with (
        locks.shared(at.settings, "maintenance of the lake"),
        track("maintenance of the lake", len(places), "tables") as advance,
    ):
        for name, (path, needed) in places.items():
            if exists(path):
                table = DeltaTable(str(path))
                result: dict[str, Any] = table.optimize.compact()
                deleted = table.vacuum(KEEP_HOURS, dry_run=False, keep_versions=needed or None)
                done[name] = {
                    "compacted": result["numFilesRemoved"],
                    "into": result["numFilesAdded"],
                    "deleted": len(deleted),
                }
                note(f"  {name}: {result['numFilesRemoved']} files compacted, {len(deleted)} deleted")
            advance(1)
    return done


def _merged_from(at: Context, table: Table) -> list[int]:
    """The version of the streamed table that the merged one holds."""
    source, target = streamed.folder(table, at.settings), merge.folder(table, at.settings)
    if not (exists(source) and exists(target)):
        return []
    version = merge.merged_version(DeltaTable(str(target)), str(DeltaTable(str(source)).metadata().id))
    return _there(source, version)


def _loaded_from(at: Context, table: Table) -> list[int]:
    """The version of the merged table that HBase holds."""
    build, path = at.books.build("hbase", table.name), merge.folder(table, at.settings)
    loaded = build.notes.get("cut", {}).get("merged") if build else None
    return _there(path, Version.parse(loaded)) if loaded and exists(path) else []


def _there(path: Location, version: Version | None) -> list[int]:
    """The newest version with the rows of a version, if the table still has it."""
    if version is None or version.id != str(DeltaTable(str(path)).metadata().id):
        return []
    return [delta.at_version(path, version).version()]
