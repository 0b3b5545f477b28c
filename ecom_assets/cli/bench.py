"""``ecom bench``: the benchmarks, from the command line.

What belongs here: the command. What is measured is defined in the folder ``benchmarks``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from ecom_assets.cli.console import console
from ecom_assets.cli.interrupts import repeated_interrupts, sigterm_interrupts
from ecom_assets.cli.options import AsJson
from ecom_assets.core.settings import ROOT


def bench(
    *,
    rows: Annotated[
        int, typer.Option(min=1000, help="Rows of the largest table, and of the larger end-to-end run.")
    ] = 1_000_000,
    repeats: Annotated[
        int, typer.Option(min=1, help="Rounds that count; a median of fewer than three means little.")
    ] = 3,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="STEP", help="Only this step; may be repeated.", show_default="all but many_deliveries"),
    ] = None,
    deliveries: Annotated[
        int,
        typer.Option(min=20, help="Deliveries of `--only many_deliveries`, which takes one to three seconds for each."),
    ] = 1000,
    home: Annotated[
        Path, typer.Option(help="Folder for the servers and all data, deleted at the end if created here.")
    ] = (Path(".bench")),
    as_json: AsJson = False,
) -> None:
    """Benchmark each step against standard tools on the same servers, and compare with the last time.

    The stack is started for it, and stopped at the end. Other work on the machine spoils all figures. A run of all
    steps adds a line to benchmarks/history.jsonl and draws the README's chart.
    """
    load = os.getloadavg()[0]
    try:
        import benchmarks
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"expected the folder benchmarks in {ROOT}, got none ({error}); only the project's source has it"
        ) from error
    from benchmarks import report, stage
    from ecom_assets.core.progress import bars

    if unknown := set(only or ()) - benchmarks.STEPS.keys():
        raise typer.BadParameter(f"expected one of {', '.join(benchmarks.STEPS)}, got {', '.join(sorted(unknown))}")
    names = benchmarks.chosen(only or ())
    last = report.last_like(rows)
    try:
        with (
            sigterm_interrupts(),
            stage.opened(home, rows, deliveries, console) as at,
            bars(console),
            repeated_interrupts(),
        ):
            results = benchmarks.run(at, names, repeats)
    except KeyboardInterrupt:
        console.print("[red]✗[/red] interrupted; what was created for it is deleted")
        raise typer.Exit(130) from None
    found = report.to_json(results, rows, repeats, report.machine(load))
    report.show(console, results, last)
    if not only:
        report.remember(found)
        console.print(f"Added a line to {report.HISTORY}.", highlight=False)
        try:
            report.draw(results, found["machine"])
        except ModuleNotFoundError as error:
            console.print(f"[yellow]![/yellow] no chart: {error}; `uv sync` installs what draws it")
        else:
            console.print(f"Drew {report.CHART}.", highlight=False)
    if as_json:
        print(json.dumps(found))
