"""Which versions of the tables the pages are answered from.

Tables are merged one after the other and HBase is loaded after that, so for a while a home holds new and old next to
each other. A publication names one version of every table, and how far HBase is read; it is replaced in a single step
once all are verified, and all queries of one page are answered from one publication.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from ecom_assets.core.books import Books
from ecom_assets.core.errors import EcomError
from ecom_assets.core.home import hint
from ecom_assets.core.location import Location, last_commit
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Dataset, Table
from ecom_assets.hbase import loads
from ecom_assets.lake import delta, merge

KEY = "publication"
"""Key of the books' state."""


class NotPublishedError(EcomError):
    """There is nothing to answer from yet; the message names the remedy."""


@dataclass(frozen=True)
class Publication:
    """One version of every table.

    Attributes:
        merged: Table -> version of its merged Delta table, ``id@number``; empty if it has none.
        state: Table -> digest of what its layers were built from, HBase's included.
        ingestions: Table -> what its topic was last built from; empty if it has none.
        at: When it was published, ISO 8601, UTC.
        loaded: Table or index -> timestamp of its last load into HBase, milliseconds since the epoch.
        delivery: The sequence of the last delivery that all tables hold; 0 for the first files.
    """

    merged: dict[str, str]
    state: dict[str, str]
    ingestions: dict[str, str] = field(default_factory=dict)
    at: str = ""
    loaded: dict[str, int] = field(default_factory=dict)
    delivery: int = 0

    def key(self, tables: tuple[str, ...]) -> str:
        """Name the versions of some tables, for the cache: equal names, equal rows."""
        return _digest([self.merged[t] for t in tables])

    def same_data(self, other: Publication | None) -> bool:
        """Whether both name the same versions."""
        return other is not None and (self.merged, self.state, self.loaded) == (other.merged, other.state, other.loaded)

    def end(self, place: Table, books: Books) -> int | None:
        """The end of the time range in which HBase holds a table or index as published; ``None``: it never was.

        A load of all rows has no past, so it is seen though it came later.
        """
        last = self.loaded.get(place.name)
        return None if last is None else 1 + max(last, loads.whole_timestamp(books, place) or 0)


def current(settings: Settings, dataset: Dataset, books: Books) -> Publication:
    """What the home holds at this moment, published or not."""
    states: dict[str, list[Any]] = {name: [] for name in dataset.tables}
    ingestions = dict.fromkeys(dataset.tables, "")
    failed = {(v.layer, v.table) for v in books.verifications() if v.mismatches}
    for build in sorted(books.builds(), key=lambda b: b.layer):
        if build.table in states:
            damaged = (build.layer, build.table) in failed
            states[build.table].append([build.layer, build.path, build.fingerprint, damaged])
            if build.layer == "topic":
                ingestions[build.table] = build.fingerprint
    versions = {name: _merged_version(merge.folder(table, settings)) for name, table in dataset.tables.items()}
    places = [*dataset.tables.values(), *dataset.indexes.values()]
    loaded = {place.name: last for place in places if (last := loads.last_timestamp(books, place)) is not None}
    digests = {name: _digest(parts) for name, parts in states.items()}
    held = min(books.state(f"hbase/{name}/reached") or 0 for name in dataset.tables)
    return Publication(versions, digests, ingestions, loaded=loaded, delivery=held)


def publish(settings: Settings, dataset: Dataset, books: Books) -> tuple[Publication, bool]:
    """Let pages be answered from what the home holds now.

    Returns:
        The publication, and whether it differs from the one before.
    """
    now, before = current(settings, dataset, books), last(books)
    if before and now.same_data(before):
        return before, False
    at = datetime.now(UTC).isoformat(timespec="seconds")
    published = replace(now, at=at)
    books.set_state(KEY, asdict(published))
    return published, True


def is_current(settings: Settings, dataset: Dataset, books: Books) -> bool:
    """Whether what the home holds is published."""
    return current(settings, dataset, books).same_data(last(books))


def same_ingestion(books: Books, tables: Iterable[str]) -> bool:
    """Whether the topics of some tables were last built from what was published; live records may have come since."""
    published = last(books)
    builds = {name: books.build("topic", name) for name in tables}
    return published is not None and all(
        build is not None and published.ingestions.get(name) == build.fingerprint for name, build in builds.items()
    )


def latest(settings: Settings, books: Books) -> Publication:
    """The publication that counts.

    Raises:
        NotPublishedError: There is none.
    """
    found = last(books)
    if found is None:
        raise NotPublishedError(
            f"nothing is published in {settings.home} yet;"
            f" `{hint('run', settings)}` loads the data, verifies it and publishes it"
        )
    return found


def last(books: Books) -> Publication | None:
    """The last publication; ``None`` if there was none."""
    data = books.state(KEY)
    return Publication(**data) if data else None


def _merged_version(folder: Location) -> str:
    """The version that changed the rows of a table last; a look at its folder when nothing has changed."""
    commit = last_commit(folder)
    return _version_of(folder, commit) if commit else ""


@lru_cache(maxsize=64)
def _version_of(folder: Location, commit: tuple[object, ...]) -> str:  # noqa: ARG001  part of the cache's key
    return str(delta.rows_version(folder) or "")


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
