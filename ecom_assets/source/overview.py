"""What a home has loaded of its source, and what waits there.

What belongs here: comparing the files of the source with those that the home has accepted. What does not: which file is
of which table (``arrival``), and accepting it (``acceptance``).
"""

from __future__ import annotations

from dataclasses import dataclass

from ecom_assets.core import delivery
from ecom_assets.core.delivery import Origin
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Dataset
from ecom_assets.source import acceptance, arrival, first_files, places, receives_files
from ecom_assets.source.acceptance import Known
from ecom_assets.source.arrival import Arrived

LOADED = "loaded"
REPEATED = "loaded before, under another name"
CHANGED = "changed since it was loaded"
NEW = "not loaded yet"
LATER = "not loaded: tables that grow (--expand) have one file each"
INCOMPLETE = "waits for the marker of a complete folder"
REFUSED = "refused"
FOREIGN = "of no table"

WAITING = (CHANGED, NEW)
"""What the next run loads, or at least looks at."""


@dataclass(frozen=True)
class Listed:
    """A file of the source.

    Attributes:
        file: The file.
        state: One of the texts above.
        sequence: The delivery that it was last accepted with; 0 for the first files; ``None`` if it was not.
        detail: Which file it repeats, or why it was refused; empty for others.
    """

    file: Arrived
    state: str
    sequence: int | None = None
    detail: str = ""

    @property
    def is_loaded(self) -> bool:
        """Whether the home holds its content."""
        return self.state in (LOADED, REPEATED)


def of(settings: Settings, dataset: Dataset) -> list[Listed]:
    """The files of a home's source; none where it gets no further ones.

    Raises:
        OSError: The folder cannot be read.
        SourceAwayError: The store of a bucket does not answer.
    """
    if not receives_files(settings):
        return []
    first = first_files(settings)
    known = Known.of(settings, first)
    sequences = {file.origin.path: 0 for file in first}
    sequences |= {f.origin.path: each.sequence for each in delivery.deliveries(settings) for f in each.files}
    found = []
    for file in arrival.scan(places.place(settings), dataset):
        place = acceptance.origin(file)
        state, detail = _state(file, place, known)
        if state in WAITING and acceptance.grows(settings):
            state = LATER
        found.append(Listed(file, state, sequences.get(place.path), detail))
    return found


def _state(file: Arrived, place: Origin, known: Known) -> tuple[str, str]:
    """Its state, and what is to be said of it."""
    if not file.table:
        return FOREIGN, ""
    accepted, refused = known.accepted.get(place.path), known.refused.get(place.path)
    if refused and refused[0] == place:
        return REFUSED, refused[1]
    if accepted and accepted.origin == place:
        return (REPEATED, accepted.same_as) if accepted.same_as not in ("", place.path) else (LOADED, "")
    if not file.is_complete:
        return INCOMPLETE, ""
    return (CHANGED if accepted else NEW), ""
