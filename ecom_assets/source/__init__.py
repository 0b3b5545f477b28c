"""Where the raw files come from: Kaggle, a folder, a bucket, or the generator.

What belongs here: putting the first CSV files under the home's ``raw`` folder and
remembering whose they are. Each source has a module of its own; files that come later
are deliveries (``acceptance``); what the files contain is checked elsewhere.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecom_assets.core.delivery import Accepted
from ecom_assets.core.errors import SourceError
from ecom_assets.core.settings import Settings, remember
from ecom_assets.dataset.model import Dataset, Table
from ecom_assets.source.places import SourceAwayError, place

if TYPE_CHECKING:
    from ecom_assets.source.arrival import Arrived

__all__ = [
    "KaggleError",
    "SourceAwayError",
    "SourceChangedError",
    "SourceMismatchError",
    "SourceNotFoundError",
    "acquire",
    "recorded",
]

log = logging.getLogger(__name__)

RECORD = "source.json"
"""Next to the raw files: which source they came from, their sizes and times, and what they were copied from."""


class SourceMismatchError(SourceError):
    """The home holds data of another source, scale or seed than the one requested."""


class SourceNotFoundError(SourceError):
    """The source lacks a file, or is not there at all."""


class KaggleError(SourceError):
    """Kaggle did not provide the data set; the message names the cause and the remedy."""


class SourceChangedError(SourceError):
    """The source no longer provides the files the home was built from."""


def acquire(
    settings: Settings, dataset: Dataset, progress: Callable[[str, int, int], None] | None = None
) -> dict[str, Path]:
    """Put the raw files under ``settings.raw``, or find that they are there already; then accept what else came.

    Files of Kaggle are linked where the file system allows it, all others copied: what becomes of them there
    does not matter any more.

    Args:
        settings: Source, scale, seed and home.
        dataset: The tables whose files are expected.
        progress: Called with table, rows done and rows in all while rows are generated.

    Returns:
        Table -> raw file.

    Raises:
        SourceMismatchError: The home holds data of another source, scale or seed, or of none that is known.
        SourceChangedError: A file of the source has another size than when the home was built.
        SourceNotFoundError: The folder or one of its files is missing.
        SourceAwayError: The store of a bucket does not answer.
        KaggleError: Kaggle did not provide the data set.
        ValueError: The scale is too small, or the seed negative.
        OSError: The home can't be written.
    """
    files = _acquire_first(settings, dataset, progress)
    if receives_files(settings):
        from ecom_assets.source import acceptance

        acceptance.accept(settings, dataset, first_files(settings))
    return files


def receives_files(settings: Settings) -> bool:
    """Whether further files may come into a home's source: it is a folder or a bucket."""
    return settings.source not in ("synthetic", "kaggle")


def _acquire_first(
    settings: Settings, dataset: Dataset, progress: Callable[[str, int, int], None] | None
) -> dict[str, Path]:
    raw, requested = settings.raw, _requested(settings)
    _refuse_unknown(settings, dataset)
    files = {name: raw / table.csv for name, table in dataset.tables.items()}
    held = _read(raw / RECORD)
    _refuse_other(settings, held, requested, files)
    known: dict[str, dict[str, int]] = held.get("files", {})
    changes = {table: change for table, file in files.items() if (change := _change(file, known.get(table)))}
    if known and receives_files(settings):
        copied = held.get("copied", {})
        changes |= {t: f"{f}: not copied" for t, f in files.items() if t in known and t not in copied}
    if known and not changes:
        log.info("%s: already complete, %s; nothing to do", raw, _described(requested))
        return files
    for table, change in changes.items() if known else ():
        again = f"{change}; fetching it from the source again"
        log.warning("%s", again if table in known else f"{table}: a new table; fetching it from the source")

    wanted = {name: table for name, table in dataset.tables.items() if not known or name in changes}
    extra = _take(settings, dataset, wanted, held, progress)
    if missing := [str(file) for file in files.values() if not file.exists()]:
        raise SourceNotFoundError(
            f"{_described(requested)}: expected {', '.join(missing)}, got none;"
            " set --source (ECOM_SOURCE) to a folder with all files, in a home of its own"
        )
    now = {table: _measure(file) for table, file in files.items()}
    for table, file in files.items():
        if table in known and now[table]["bytes"] != known[table]["bytes"]:
            raise SourceChangedError(
                f"{file}: expected {known[table]['bytes']} bytes as when this home was built, "
                f"found {now[table]['bytes']} in {_described(requested)}; "
                "bring the old file back, or build the new data in another home (--home, ECOM_HOME)"
            )
    _write(raw / RECORD, requested | {"files": now} | extra)
    return files


def waiting(settings: Settings, dataset: Dataset) -> list[tuple[str, str]]:
    """Table, and name and state, of each file of the source that ``acquire`` would accept as part of a delivery.

    Raises:
        OSError: The source cannot be read.
        SourceAwayError: The store of a bucket does not answer.
    """
    if not receives_files(settings) or not recorded(settings):
        return []
    from ecom_assets.source import acceptance

    found = acceptance.waiting(settings, dataset, first_files(settings))
    return [(file.table, f"{file.path} {file.bytes} {file.modified_ns}") for file in found]


def upcoming(settings: Settings, dataset: Dataset) -> tuple[int, str] | None:
    """Number and name of the delivery that ``acquire`` would begin with; none if no file waits.

    It is not certain: a file whose content is known, or that is refused when it is read, makes no delivery.

    Raises:
        OSError: The source cannot be read.
        SourceAwayError: The store of a bucket does not answer.
    """
    if not receives_files(settings) or not recorded(settings):
        return None
    from ecom_assets.source import acceptance

    return acceptance.upcoming(settings, dataset, first_files(settings))


def first_files(settings: Settings) -> list[Accepted]:
    """The files of a source that a home was begun with, if further ones may come."""
    return list(map(Accepted.from_json, _read(settings.raw / RECORD).get("copied", {}).values()))


def recorded(settings: Settings) -> dict[str, dict[str, int]]:
    """Table -> size (``bytes``) and time (``mtime_ns``) of the raw file, as when it was loaded."""
    return _read(settings.raw / RECORD).get("files", {})


def _refuse_unknown(settings: Settings, dataset: Dataset) -> None:
    known = {"synthetic": dataset.generator, "kaggle": dataset.kaggle}
    if not known.get(settings.source, settings.source):
        raise SourceNotFoundError(
            f"source {settings.source}: expected one that the data set {dataset.name} declares, got none;"
            " set --source (ECOM_SOURCE) to the folder with its CSV files"
        )


def _requested(settings: Settings) -> dict[str, Any]:
    match settings.source:
        case "synthetic":
            return {"source": "synthetic", "scale": settings.scale, "seed": settings.seed}
        case "kaggle":
            return {"source": "kaggle"}
        case _:
            return {"source": str(place(settings))}


def _described(source: dict[str, Any]) -> str:
    if source["source"] == "synthetic":
        return f"synthetic data of scale {source['scale']} and seed {source['seed']}"
    return "the data of Kaggle" if source["source"] == "kaggle" else f"the data of {source['source']}"


def _refuse_other(settings: Settings, held: dict[str, Any], requested: dict[str, Any], files: dict[str, Path]) -> None:
    if not held and (strange := [str(f) for f in files.values() if f.exists() or f.is_symlink()]):
        raise SourceMismatchError(
            f"{settings.home}: expected an empty home or one with {RECORD}, found {', '.join(strange)} of unknown "
            "origin; move them to a folder and set --source (ECOM_SOURCE) to it, or choose another --home (ECOM_HOME)"
        )
    # A home that was never completed may still change its mind.
    if held.get("files") and {k: held.get(k) for k in ("source", "scale", "seed")} != {
        k: requested.get(k) for k in ("source", "scale", "seed")
    }:
        raise SourceMismatchError(
            f"{settings.home}: this home holds {_described(held)}, but {_described(requested)} was requested; "
            "choose another home for it (--home, ECOM_HOME), or request what this one holds"
        )


def _take(
    settings: Settings,
    dataset: Dataset,
    wanted: dict[str, Table],
    held: dict[str, Any],
    progress: Callable[[str, int, int], None] | None,
) -> dict[str, Any]:
    """Bring the files of the tables wanted; returns what is recorded in addition to their sizes."""
    from ecom_assets.source import folder, kaggle

    requested, before = _requested(settings), held.get("copied", {})
    from_kaggle = requested["source"] == "kaggle"

    def begin() -> None:
        # Written before the first file, so that files of an interrupted run are known as ours, and a run without
        # options continues it; not before the options are known to make sense, or they would stay with the home.
        remember(settings, begun=True)
        settings.raw.mkdir(parents=True, exist_ok=True)
        _write(settings.raw / RECORD, requested | {"files": held.get("files", {}), "copied": before})

    if requested["source"] == "synthetic":
        synthetic = import_module(dataset.generator)
        synthetic.validate(settings.scale, settings.seed)
        begin()
        synthetic.generate(settings.raw, settings.scale, settings.seed, progress)
        return {}
    if not from_kaggle:
        located = folder.locate(place(settings), dataset)
        begin()
        first = {file.table: file for file in first_files(settings)}
        copied = [_copied(located[name], table, settings, first.get(name)) for name, table in wanted.items()]
        return {"copied": before | {file.table: asdict(file) for file in copied}}
    found = kaggle.download(dataset)
    begin()
    for name, table in wanted.items():
        folder.link(found[name], settings.raw / table.csv)
    return {"published": kaggle.recognize({name: settings.raw / t.csv for name, t in dataset.tables.items()}, dataset)}


def _copied(file: Arrived, table: Table, settings: Settings, before: Accepted | None) -> Accepted:
    """Copy the first file of a table, of one that was copied before as much as was there then.

    Raises:
        SourceChangedError: It was copied before, and is another one now; or it was replaced meanwhile (transient).
    """
    from ecom_assets.source import acceptance

    at, source = settings.raw / table.csv, place(settings)
    partial = at.with_name(f".{at.name}.partial")
    try:
        size, sha256 = acceptance.copy(source, file.path, partial, before.bytes if before else None)
        if before and (size, sha256) != (before.bytes, before.sha256):
            raise SourceChangedError(
                f"{source}/{file.path}: expected the {before.bytes:,} bytes with which this home was built (SHA-256"
                f" {before.sha256[:12]}…), got others, and the home's own copy is gone or was changed",
                "bring the old file back, or build the new data in another home (--home, ECOM_HOME)",
            )
        partial.replace(at)
    except acceptance.UnsteadyError as error:
        raise SourceChangedError(
            f"{source}/{file.path}: expected an object that stays while it is copied, got one that does not: {error}",
            "run again when all objects are there",
            transient=True,
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return before or Accepted(table.name, acceptance.origin(file), size, sha256)


def _measure(file: Path) -> dict[str, int]:
    stat = file.stat()
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _change(file: Path, known: dict[str, int] | None) -> str | None:
    """What happened to a file since it was recorded; None if nothing did."""
    if not file.exists():
        return f"{file}: vanished"
    now = _measure(file)
    if known is None or now == known:
        return None
    if now["bytes"] != known["bytes"]:
        return f"{file}: expected {known['bytes']} bytes, found {now['bytes']}"
    return f"{file}: written to since it was recorded (same size)"


def _read(record: Path) -> dict[str, Any]:
    try:
        return json.loads(record.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except json.JSONDecodeError as error:
        raise SourceMismatchError(
            f"{record}: expected JSON that names the source of the raw files, found something else ({error}); "
            "choose another --home (ECOM_HOME), or remove this home"
        ) from error


def _write(record: Path, content: dict[str, Any]) -> None:
    partial = record.with_name(f".{record.name}.partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(record)
