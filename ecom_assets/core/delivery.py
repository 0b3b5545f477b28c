"""The deliveries that a home has accepted after its first files: their order, their files, and where these are stored.

What belongs here: their record on disk. What does not: what is accepted, and copying it (``source.acceptance``).

A delivery is a folder ``raw/deliveries/<sequence>`` with a file per table and ``delivery.json``. It appears as a whole,
by one renaming, and never changes: it is the record of what came, whatever becomes of the source. The first files of a
home, ``raw/<table>.csv``, come before all of them; their sequence is 0.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ecom_assets.core.errors import HomeError
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table

RECORD = "delivery.json"
SMALL_BYTES = 32 << 20
"""Deliveries are small up to so many bytes together."""
DIGITS = 6
"""Of a delivery's number in names of files and folders, so that these sort by it."""


@dataclass(frozen=True)
class Origin:
    """A file of a source, as it was when it was looked at.

    Attributes:
        path: Its path within the source, ``/`` between folders.
        bytes: Its size there.
        mtime_ns: When it was last written, nanoseconds since 1970.
    """

    path: str
    bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Accepted:
    """A file that was accepted.

    Attributes:
        table: Name of the table whose rows it has.
        origin: The file.
        bytes: Size of its content, unpacked.
        sha256: SHA-256 of that content, as hexadecimal digits.
        begin: Bytes of that content which came with an earlier delivery; what follows them is new.
        same_as: The file whose content it repeats; it is part of no delivery then. Empty for content that is new.
    """

    table: str
    origin: Origin
    bytes: int
    sha256: str
    begin: int = 0
    same_as: str = ""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Accepted:
        """Read what ``dataclasses.asdict`` made of one."""
        fields = dict(data)
        return cls(origin=Origin(**fields.pop("origin")), **fields)


@dataclass(frozen=True)
class Delivery:
    """Files that were accepted together.

    Attributes:
        sequence: Its number in the home, from 1: the order in which deliveries count.
        name: What the source calls it.
        at: When it was accepted, ISO 8601 in UTC.
        files: Its files.
    """

    sequence: int
    name: str
    at: str
    files: tuple[Accepted, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object that ``from_json`` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Delivery:
        """Read what ``to_json`` wrote."""
        files = tuple(map(Accepted.from_json, data["files"]))
        return cls(data["sequence"], data["name"], data["at"], files)


def folder(settings: Settings, sequence: int | None = None) -> Path:
    """Where all deliveries are stored, or one of them."""
    whole = settings.raw / "deliveries"
    return whole if sequence is None else whole / f"{sequence:0{DIGITS}d}"


def deliveries(settings: Settings) -> list[Delivery]:
    """All deliveries in order.

    Raises:
        HomeError: The record of one is damaged.
    """
    where = folder(settings)
    return list(_all(str(where), tuple(_names(where))))


def are_small(settings: Settings, after: int | None = None) -> bool:
    """Whether there are deliveries after one, and they are small; without one, whether the last one is.

    Of small ones, tables are worked on next to one another: most of the time somebody waits for an answer then. Of
    others, one table keeps the cores busy, and two would need twice the memory.
    """
    found = deliveries(settings)
    new = found[-1:] if after is None else [each for each in found if each.sequence > after]
    return bool(new) and sum(file.bytes - file.begin for each in new for file in each.files) <= SMALL_BYTES


def files(table: Table, settings: Settings) -> dict[int, Path]:
    """The files of a table by the sequence of their deliveries, in order; without those of the first."""
    where = folder(settings)
    found = ((name, f"{where}/{name}/{table.csv}") for name in _names(where))
    return {int(name): Path(path) for name, path in found if os.path.exists(path)}  # noqa: PTH110  as below


def states(table: Table, settings: Settings) -> dict[int, os.stat_result]:
    """The state of a table's files, as ``files`` lists them."""
    where, found = folder(settings), {}
    for name in _names(where):
        with suppress(FileNotFoundError):
            found[int(name)] = os.stat(f"{where}/{name}/{table.csv}")  # noqa: PTH116  as below
    return found


# These are asked for many times in a run, and about every delivery that there ever was: on paths as texts, that takes
# a tenth of the time.


def _names(where: str | Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(where) if name.isdecimal())  # noqa: PTH208
    except FileNotFoundError:
        return []


def _touched(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116
    except FileNotFoundError:
        return 0


@lru_cache(16)
def _all(where: str, names: tuple[str, ...]) -> tuple[Delivery, ...]:
    """A delivery comes into the folder as a whole, and never changes."""
    return tuple(_read(record, _touched(record)) for record in (f"{where}/{name}/{RECORD}" for name in names))


@lru_cache(4096)
def _read(record: str, _: int) -> Delivery:
    """A delivery never changes, so each is read once."""
    try:
        return Delivery.from_json(json.loads(Path(record).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HomeError(
            f"{record}: expected the record of a delivery, got none that can be read ({error})",
            "bring it back from a backup, or load the source into a new home: `ecom run --home NEW_FOLDER`",
        ) from error
