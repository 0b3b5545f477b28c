"""``ecom schema``: schemas of files that have none yet.

What belongs here: the command. How a schema is inferred is defined in ``dataset.discovery.infer``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ecom_assets.cli.console import failed

app = typer.Typer(help="Work with Avro schemas.", no_args_is_help=True)


@app.callback()
def root() -> None:
    """Work with Avro schemas."""


@app.command("infer")
def infer(
    file: Annotated[Path, typer.Argument(help="CSV file with a header.", exists=True, dir_okay=False)],
    rows: Annotated[int | None, typer.Option(min=1, help="Rows to look at.", show_default="all")] = None,
) -> None:
    """Print an Avro schema for a CSV file, ready for schemas/."""
    from ecom_assets.dataset.discovery import infer as inference

    try:
        typer.echo(inference.render(inference.infer(file, rows)))
    except (OSError, ValueError) as error:
        failed(error)
        raise typer.Exit(1) from error
