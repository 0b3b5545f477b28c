"""The first files of a home, in a folder or bucket of the user's.

What belongs here: finding the files and placing them elsewhere without touching
them. What they contain is not looked at.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ecom_assets.dataset.model import Dataset
from ecom_assets.source import SourceNotFoundError, arrival
from ecom_assets.source.arrival import Arrived
from ecom_assets.source.places import Place


def locate(place: Place, dataset: Dataset) -> dict[str, Arrived]:
    """Find the first file of every table: ``<table>.csv``, ``<table>.csv.gz``, or that of its earliest delivery.

    Args:
        place: The folder or bucket.
        dataset: Its tables.

    Returns:
        Table -> file; where both are there, the one that is not packed.

    Raises:
        SourceNotFoundError: The folder or one of the files is missing.
        SourceAwayError: The store of a bucket does not answer.
    """
    if instead := place.lacks():
        raise SourceNotFoundError(
            f"{place}: expected a folder with {_expected(dataset)}, found {instead}; "
            "set --source (ECOM_SOURCE) to that folder, to kaggle, or to synthetic"
        )
    arrived = arrival.scan(place, dataset)
    # Plain files sort after .gz, and so take their place.
    present = sorted(
        (each for each in arrived if len(each.path.parts) == 1),
        key=lambda each: (each.path.suffix.lower() != ".gz", each.path.name),
    )
    by_name = {each.path.name.lower().removesuffix(".gz"): each for each in present}
    found = {t.name: by_name[t.csv.lower()] for t in dataset.tables.values() if t.csv.lower() in by_name}
    for file in arrived:
        found.setdefault(file.table, file)
    missing = [t.csv for t in dataset.tables.values() if t.name not in found]
    if missing:
        names = sorted({each.path.parts[0] for each in arrived})
        there = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "") or "no file"
        raise SourceNotFoundError(
            f"{place}: expected {_expected(dataset)}, each plain or as .csv.gz; {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing, found {there}; "
            "put the missing files there, or set --source (ECOM_SOURCE) to another folder, to kaggle, or to synthetic"
        )
    return {name: found[name] for name in dataset.tables}


def link(file: Path, at: Path) -> None:
    """Put a file at another path: a link where the system allows it, otherwise a copy.

    Args:
        file: The user's file; it is only read.
        at: The new path; what is there is replaced once the new one is complete.

    Raises:
        OSError: The file can't be read, or the target can't be written.
    """
    partial = at.with_name(f".{at.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        _link(file.resolve(), partial)
        partial.replace(at)
    finally:
        partial.unlink(missing_ok=True)


def _link(file: Path, at: Path) -> None:
    for way in (Path.symlink_to, Path.hardlink_to):
        try:
            way(at, file)
        except OSError:  # no such links on this file system, or not allowed
            continue
        return
    shutil.copyfile(file, at)
    shutil.copystat(file, at)


def _expected(dataset: Dataset) -> str:
    return ", ".join(t.csv for t in dataset.tables.values())
