"""``ecom lookup``: rows straight from HBase, as published or as of an earlier delivery.

What belongs here: the command, and how rows are printed. How they are read is defined in ``serving``.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table as Grid

from ecom_assets.cli.console import inform, results
from ecom_assets.cli.options import AsJson, Home, configure_existing


def lookup(
    place: Annotated[str, typer.Argument(metavar="TABLE", help="A table or an index.")],
    value: Annotated[str, typer.Argument(help="A value of the first column of its row key.")],
    *,
    as_of: Annotated[
        int | None,
        typer.Option(min=0, metavar="DELIVERY", help="As this delivery left the rows.", show_default="as published"),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Look up rows in HBase."""
    settings = configure_existing(home=home)
    from ecom_assets.core.home import hint
    from ecom_assets.serving.queries import Queries

    service = Queries(settings)
    try:
        places = {**service.dataset.tables, **service.dataset.indexes}
        if place not in places:
            raise typer.BadParameter(f"expected one of {', '.join(places)}, got {place}", param_hint="TABLE")
        rows = service.snapshot(as_of).find(places[place], value).table.to_pylist()
    finally:
        service.close()
    if as_json:
        print(json.dumps({"table": place, "value": value, "as_of": as_of, "rows": rows}, ensure_ascii=False))
        return
    if not rows:
        inform(f"no row; `{hint('deliveries', settings)}` lists what is loaded")
    for row in rows:
        grid = Grid(show_header=False)
        for name, text in row.items():
            grid.add_row(name, "[dim]null[/dim]" if text is None else escape(text))
        results.print(grid)
