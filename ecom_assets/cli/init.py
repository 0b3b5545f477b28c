"""``ecom init``: a data set from a folder of CSV files.

What belongs here: the command, and how its findings are shown. What is looked for, and what is written, is defined in
``dataset.discovery``.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table as Grid

from ecom_assets.cli.console import console, failed, inform, succeeded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecom_assets.dataset.discovery.discover import Discovery, Found
    from ecom_assets.dataset.discovery.draft import Existing


_MEGABYTE = 1_000_000


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for dataset.yaml and the Avro schemas.")],
    source: Annotated[
        Path, typer.Option("--from", help="Folder with the CSV files: UTF-8, commas, a header.", show_default=False)
    ],
    name: Annotated[
        str | None, typer.Option(help="Name of the data set, if it is a new one.", show_default="the name of DIR")
    ] = None,
) -> None:
    """Declare a data set: find types, keys and references in a folder of CSV files.

    Every key and reference is verified on all rows. Run it again for new files: what is declared stays as it is.
    """
    from ecom_assets.dataset import loader
    from ecom_assets.dataset.discovery import discover, draft
    from ecom_assets.dataset.document import DatasetError

    try:
        existing = draft.Existing.read(folder)
        found = _files(source, existing)
        wanted = existing.wanted(found)
        differences = existing.differences(found)
        discovery = _look(found, existing, wanted) if wanted else discover.Discovery()
        written = draft.write(existing, name or draft.fitting_name(folder), discovery.tables)
    except (DatasetError, draft.DraftError, OSError) as error:
        failed(error)
        raise typer.Exit(1) from error
    if discovery.tables:
        _show(discovery.tables)
    for sentence in (*discovery.refused, *differences):
        failed(sentence)
    for sentence in discovery.hints:
        inform(sentence)
    if not written and not existing.tables:
        failed(f"{source}: expected a file that can be declared, found none; nothing was written")
        raise typer.Exit(1)
    declared = loader.load(folder.resolve())
    count = len(discovery.tables)
    succeeded(
        f"data set {declared.name}: {count} table{'s' * (count != 1)} added to {folder / loader.FILE}, which loads"
        if written
        else f"data set {declared.name}: nothing to add to {folder / loader.FILE}"
    )
    inform(f"Review it, then: ecom run --dataset {_argument(folder)} --source {shlex.quote(str(source))}")


def _files(source: Path, existing: Existing) -> dict[str, Path]:
    from ecom_assets.core.settings import BUCKET
    from ecom_assets.dataset.discovery import discover, draft

    if str(source).startswith(BUCKET.rstrip("/")):
        raise draft.DraftError(
            f"--from: expected a folder of this machine, got a bucket ({source}); copy some of its files to a folder,"
            " and declare these; `ecom run --source` reads the bucket"
        )
    if not source.is_dir():
        what = "a file" if source.exists() else "nothing of that name"
        raise draft.DraftError(f"{source}: expected a folder with CSV files, found {what}; correct --from")
    found = discover.files(source, existing.tables)
    if not found:
        raise draft.DraftError(f"{source}: expected files named *.csv or *.csv.gz, found none; correct --from")
    return found


def _look(found: dict[str, Path], existing: Existing, wanted: Sequence[str]) -> Discovery:
    from ecom_assets.core.progress import bars, track
    from ecom_assets.dataset.discovery import discover

    # A declared table is read as well, since new ones may refer to it; one that was taken out is not.
    read = {name: file for name, file in found.items() if name in wanted or name in existing.tables}
    size = sum(file.stat().st_size for file in read.values())
    done = 0
    with bars(console), track("looking at all rows", size // _MEGABYTE, "MB") as advance:

        def progress(size: int) -> None:
            nonlocal done
            before, done = done, done + size
            advance(done // _MEGABYTE - before // _MEGABYTE)

        return discover.discover(read, existing.tables, wanted, progress)


def _show(tables: Sequence[Found]) -> None:
    grid = Grid("table", "rows", "columns", "primary key", "verified on all rows", "a guess", box=None)
    for table in tables:
        guesses = [*table.key.doubts, *(f"{r.label}, but {r.missing:,} dangle" for r in table.references if r.missing)]
        if table.short:
            guesses.append(f"{table.short:,} further rows with too few fields, which a run quarantines")
        grid.add_row(
            escape(table.name), f"{table.rows:,}", str(len(table.types)), ", ".join(table.key.columns),
            _verified(table), "; ".join(guesses),
        )  # fmt: skip
    console.print(grid)
    inform(
        "Verified: the key differs in every row, and each value that refers to another table is there."
        " That names mean what they say is a guess."
    )


def _verified(table: Found) -> str:
    refers = ", ".join(dict.fromkeys(each.table for each in table.references if not each.missing))
    return f"key; refers to {refers}" if refers else "key"


def _argument(folder: Path) -> str:
    """The folder as ``ecom run`` takes it, to which a bare word may be the name of a data set that comes along."""
    from ecom_assets.dataset.loader import is_bundled

    return shlex.quote(f"./{folder}" if is_bundled(str(folder)) else str(folder))
