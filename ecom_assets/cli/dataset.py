"""``ecom dataset``: declarations, before anything is run with them.

What belongs here: the commands. How a declaration is read and checked is defined in ``dataset``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table as Grid

from ecom_assets.cli.console import console, failed, succeeded
from ecom_assets.core.settings import DATASET

if TYPE_CHECKING:
    from ecom_assets.dataset.model import Dataset

app = typer.Typer(help="Check and show data sets.", no_args_is_help=True)

Folder = Annotated[
    Path | None,
    typer.Argument(
        help="Folder with dataset.yaml and the Avro schemas.",
        show_default=DATASET,
        exists=True,
        file_okay=False,
    ),
]


@app.callback()
def root() -> None:
    """Check and show data sets."""


@app.command("check")
def check(folder: Folder = None) -> None:
    """Check a declaration; lists every fault with its file and line."""
    found = _load(folder, queries=True)
    grid = Grid("table", "columns", "primary key", "topic key", "refers to", "HBase table", box=None)
    for table in found.tables.values():
        refers = ", ".join(dict.fromkeys(reference.table for reference in table.references))
        grid.add_row(
            table.name, str(len(table.columns)), table.key, ", ".join(table.topic_key), refers, table.hbase.table
        )
    console.print(grid)
    count = len(found.tables)
    succeeded(f"data set {found.name}: {count} table{'s' * (count != 1)}, no fault")


@app.command("show")
def show(folder: Folder = None) -> None:
    """Print tables, keys and references as a Mermaid diagram."""
    from ecom_assets.dataset.picture import mermaid

    typer.echo(mermaid(_load(folder)))


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of dataset.yaml, for editors."""
    from ecom_assets.dataset import declaration

    typer.echo(json.dumps(declaration.json_schema(), indent=2))


def _load(folder: Path | None, *, queries: bool = False) -> Dataset:
    """The data set of a folder; where asked for, its queries are planned too."""
    from ecom_assets.dataset.document import DatasetError
    from ecom_assets.dataset.loader import bundled, load

    folder = folder or bundled() / DATASET
    try:
        found = load(folder)
        if queries:
            from ecom_assets.serving import declared

            declared.check(found, folder)
    except DatasetError as error:
        failed(error)
        raise typer.Exit(1) from error
    return found
