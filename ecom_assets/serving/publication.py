"""Which versions of the tables the pages are to be answered from.

Tables are merged one after the other and HBase is loaded after that, so for a while a home holds new and old side
by side. A publication names one version of every table; it is replaced in a single step once all are proven, and
whoever asks several questions asks them all of one publication.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from ecom_assets.core.files import read_json, write_json
from ecom_assets.core.location import Location, last_commit
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.shop import LAYERS, TABLES
from ecom_assets.lake import merged


class NotPublishedError(RuntimeError):
    """There is nothing to answer from yet; the message says what to do."""


@dataclass(frozen=True)
class Publication:
    """One version of every table.

    Attributes:
        merged: Table -> version of its merged Delta table, ``id@number``; empty if it has none.
        state: Table -> digest of what its layers were made from, HBase's included.
        at: When it was published, ISO 8601, UTC.
    """

    merged: dict[str, str]
    state: dict[str, str]
    at: str = ""

    def key(self, tables: tuple[str, ...]) -> str:
        """Name the versions of some tables, for the cache: equal names, equal rows."""
        return _digest([self.merged[t] for t in tables])

    def same_data(self, other: Publication | None) -> bool:
        """Whether both name the same versions."""
        return other is not None and (self.merged, self.state) == (other.merged, other.state)


def current(settings: Settings) -> Publication:
    """What the home holds at this moment, published or not."""
    return Publication(
        {name: _merged_version(merged.folder(table, settings)) for name, table in TABLES.items()},
        {name: _state(name, settings) for name in TABLES},
    )


def publish(settings: Settings) -> tuple[Publication, bool]:
    """Let pages be answered from what the home holds now.

    Returns:
        The publication, and whether it differs from the one before.
    """
    now = current(settings)
    before = _read(settings)
    if before and now.same_data(before):
        return before, False
    published = Publication(now.merged, now.state, datetime.now(UTC).isoformat(timespec="seconds"))
    write_json(file(settings), asdict(published))
    return published, True


@contextmanager
def kept(settings: Settings) -> Generator[None]:
    """Do something that changes versions but no row, such as upkeep, and publish again what was published before."""
    before = _read(settings)
    fresh = current(settings).same_data(before)
    yield
    if fresh:
        publish(settings)


def latest(settings: Settings) -> Publication:
    """The publication that counts.

    Raises:
        NotPublishedError: There is none.
    """
    found = _read(settings)
    if found is None:
        raise NotPublishedError(
            f"nothing is published in {settings.home} yet; `ecom run` loads the data, proves it and publishes it"
        )
    return found


def file(settings: Settings) -> Path:
    """Where the publication is kept."""
    return settings.manifests / "publication.json"


def _read(settings: Settings) -> Publication | None:
    data = read_json(file(settings))
    return Publication(**data) if data else None


def _merged_version(folder: Location) -> str:
    """As ``merged.version``, but a look at a folder when nothing has changed."""
    commit = last_commit(folder)
    return _version_of(folder, commit) if commit else ""


@lru_cache(maxsize=64)
def _version_of(folder: Location, commit: tuple[object, ...]) -> str:  # noqa: ARG001  part of the cache's key
    return merged.version(folder)


def _state(table: str, settings: Settings) -> str:
    told: list[Any] = []
    for layer in LAYERS:
        built = read_json(settings.manifests / layer / f"{table}.build.json") or {}
        proof = read_json(settings.manifests / layer / f"{table}.proof.json") or {}
        told.append((built.get("inputs"), built.get("route"), proof.get("measure", {}).get("checksum")))
        told.append(bool(proof.get("faults")))
    return _digest(told)


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
