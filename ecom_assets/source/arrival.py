"""What a source holds: files by table and delivery, and files that are of no table.

What belongs here: recognizing a file by its name and place, without a look into it. What does not: which files a home
has loaded, and copying them.

A table ``loan`` can be delivered as ``loan.csv``, as ``loan/NAME.csv``, ``loan-NAME.csv`` or ``loan_NAME.csv``, and as
``NAME/loan.csv``, each also as ``.csv.gz``. ``NAME`` is the delivery's; it has a digit, as a date has, so that
``loan_backup.csv`` is of no table. Upper and lower case do not matter. A table that declares patterns of its files
(``files``) is delivered by these alone.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath

from ecom_assets.dataset.model import Dataset
from ecom_assets.source.places import Entry, Place, is_hidden

QUIET_SECONDS = 5.0
"""Seconds without a change after which a file counts as complete."""

_ENDS = (".csv.gz", ".csv")
_DEPTH = 2
"""Parts of a path with a usual name, at most."""
_DIGIT = re.compile(r"[0-9]")


@dataclass(frozen=True)
class Arrived:
    """A file of a source.

    Attributes:
        path: Where it is in the source.
        table: Whose rows it has; empty if it is not recognized.
        delivery: Name of its delivery; empty for a file that is named as the table alone.
        bytes: Its size.
        modified_ns: When it was last written, nanoseconds since 1970.
        is_complete: Whether the marker of a complete folder is next to it, where the data set declares one.
        is_whole: Whether it appeared as a whole, as the objects of a bucket do.
    """

    path: PurePosixPath
    table: str
    delivery: str
    bytes: int
    modified_ns: int
    is_complete: bool = True
    is_whole: bool = False

    @property
    def modified(self) -> float:
        """When it was last written, seconds since 1970."""
        return self.modified_ns / 1e9

    @property
    def is_settled(self) -> bool:
        """Whether it is whole, or has not been written to for ``QUIET_SECONDS``."""
        return self.is_whole or time.time() - self.modified >= QUIET_SECONDS


def scan(place: Place, dataset: Dataset, wanted: Callable[[Entry], bool] | None = None) -> list[Arrived]:
    """All files of a source and its folders, as deep as patterns go, hidden ones left out.

    Args:
        place: The source.
        dataset: Whose tables are looked for.
        wanted: Whether a file is wanted; all are, if it is not given.

    Returns:
        The files in the order of deliveries and tables; those that are not recognized last.

    Raises:
        OSError: The folder cannot be read.
        SourceAwayError: The store of a bucket does not answer.
    """
    depth = max([1, *(pattern.count("/") for table in dataset.tables.values() for pattern in table.files)])
    entries = list(place.entries(depth))
    marked = {each.path.parent for each in entries if each.path.name == dataset.marker}
    found = []
    for each in entries:
        if is_hidden(each.path.name) or (wanted and not wanted(each)):
            continue
        table, delivery = recognized(each.path, dataset)
        complete = not dataset.marker or each.path.parent in marked
        found.append(
            Arrived(each.path, table, delivery, each.bytes, each.modified_ns, complete, is_whole=place.appears_whole)
        )
    order = list(dataset.tables)
    return sorted(
        found,
        key=lambda each: (
            not each.table,
            _natural(each.delivery),
            order.index(each.table) if each.table else 0,
            str(each.path),
        ),
    )


def recognized(path: PurePosixPath, dataset: Dataset) -> tuple[str, str]:
    """Table and delivery that a file is of by its path within the source; two empty texts if it is of none."""
    for table in dataset.tables.values():
        for pattern in table.files:
            if matched := _pattern(pattern).fullmatch(path.as_posix()):
                return table.name, matched.groupdict().get("delivery", "")
    return _by_usual_name(path, dataset)


def _by_usual_name(path: PurePosixPath, dataset: Dataset) -> tuple[str, str]:
    end = next((end for end in _ENDS if path.name.lower().endswith(end)), None)
    if end is None or len(path.parts) > _DEPTH:
        return "", ""
    name, parent = path.name[: -len(end)], path.parent.name
    usual = [table for table in dataset.tables.values() if not table.files]
    stems = {table.csv.lower().removesuffix(".csv"): table.name for table in usual}
    if not parent:
        return _by_name(name, stems)
    if (table := stems.get(name.lower())) and _DIGIT.search(parent):
        return table, parent
    if (table := stems.get(parent.lower())) and _DIGIT.search(name):
        return table, name
    return "", ""


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    """What the path of a file must be to fit a declared pattern."""
    parts = {"{delivery}": "(?P<delivery>[^/]+?)", "*": "[^/]*"}
    pieces = re.split(r"([{]delivery[}]|[*])", pattern)
    return re.compile("".join(parts.get(piece, re.escape(piece)) for piece in pieces) + "([.]gz)?", re.IGNORECASE)


def _by_name(name: str, stems: dict[str, str]) -> tuple[str, str]:
    if table := stems.get(name.lower()):
        return table, ""
    # The longest first: loan-items-1 is of loan-items, and not of loan.
    for stem in sorted(stems, key=len, reverse=True):
        rest = name[len(stem) + 1 :]
        if name.lower().startswith((f"{stem}-", f"{stem}_")) and _DIGIT.search(rest):
            return stems[stem], rest
    return "", ""


def _natural(text: str) -> list[tuple[int, int, str]]:
    """A key by which ``day 9`` comes before ``day 10``."""
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]
