"""Maintenance of the lake: fewer, larger files, and none that nobody can need. No row is changed.

What belongs here: Delta's OPTIMIZE and VACUUM, for all tables.
"""

from __future__ import annotations

from typing import Any

from deltalake import DeltaTable

from ecom_assets.core.location import Location
from ecom_assets.core.progress import note, track
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.shop import TABLES
from ecom_assets.lake import merged, streamed

KEEP_HOURS = 168
"""Files that a table no longer has are kept for so long: readers and proofs of older versions need them."""


def compact_lake(settings: Settings) -> dict[str, dict[str, int]]:
    """Compact every Delta table of the lake, and delete files that no version of the last week has.

    Returns:
        Table -> files compacted, files made of them, files deleted.
    """
    done = {}
    places: dict[str, Location] = {}
    for name, table in TABLES.items():
        places |= {
            f"streamed/{name}": streamed.folder(table, settings),
            f"merged/{name}": merged.folder(table, settings),
            f"quarantine/{name}": streamed.quarantine(table, settings),
        }
    with track("maintenance of the lake", len(places), "tables") as advance:
        for name, path in places.items():
            if streamed.exists(path):
                delta = DeltaTable(str(path))
                told: dict[str, Any] = delta.optimize.compact()
                deleted = delta.vacuum(KEEP_HOURS, dry_run=False)
                done[name] = {
                    "compacted": told["numFilesRemoved"],
                    "into": told["numFilesAdded"],
                    "deleted": len(deleted),
                }
                note(f"  {name}: {told['numFilesRemoved']} files compacted, {len(deleted)} deleted")
            advance(1)
    return done
