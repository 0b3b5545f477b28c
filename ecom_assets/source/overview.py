"""What a home has loaded of its source, and what waits there.

What belongs here: comparing the files of the source with those that the home was built from. What does not: which file
is of which table (``arrival``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Dataset
from ecom_assets.source import arrival, recorded
from ecom_assets.source.arrival import Arrived

LOADED = "loaded"
CHANGED = "changed since it was loaded"
NEW = "not loaded yet"
LATER = "not loaded: a home holds one file of each table"
FOREIGN = "of no table"


@dataclass(frozen=True)
class Listed:
    """A file of the source.

    Attributes:
        file: The file.
        state: One of the texts above.
    """

    file: Arrived
    state: str


def of(settings: Settings, dataset: Dataset) -> list[Listed]:
    """The files of a home's source; none where that is no folder.

    Raises:
        OSError: The folder cannot be read.
    """
    if settings.source in ("synthetic", "kaggle"):
        return []
    known = recorded(settings)
    chosen: set[str] = set()
    found = []
    for file in arrival.scan(Path(settings.source).expanduser().resolve(), dataset):
        found.append(Listed(file, _state(file, known, chosen)))
        chosen.add(file.table)
    return found


def _state(file: Arrived, known: dict[str, dict[str, int]], chosen: set[str]) -> str:
    if not file.table:
        return FOREIGN
    if file.delivery or file.table in chosen:
        return LATER
    if file.table not in known:
        return NEW
    # Of a packed file the size is not that of the raw one.
    packed = file.path.suffix.lower() == ".gz"
    return LOADED if packed or file.bytes == known[file.table]["bytes"] else CHANGED
