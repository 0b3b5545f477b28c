"""Commands of the pipeline: ``run``, ``reconcile``, ``check`` and ``reset``.

What belongs here: their options, which lock each holds, and what is printed. The work is the engine's and Dagster's.
"""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table as Grid

from ecom_assets.cli import job
from ecom_assets.cli.console import console, failed, inform, right, succeeded
from ecom_assets.cli.deliveries import await_files, require_delivery, require_folder, settle, waiting, waiting_bytes
from ecom_assets.cli.options import (
    AsJson,
    CsvEngine,
    HBaseLoader,
    Home,
    LayerName,
    PipelinePath,
    Tables,
    configure,
    configure_existing,
    dagster_home,
    known_tables,
)
from ecom_assets.core import locks
from ecom_assets.core.errors import ServiceError
from ecom_assets.core.home import hint
from ecom_assets.core.settings import DATASET

INTERRUPTED = 130
RETRY_SECONDS = 60.0
"""Time after which a run that failed is repeated while files are watched, if none comes before."""

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ecom_assets.core.settings import Settings
    from ecom_assets.reconcile.report import Verdict
    from ecom_assets.servers.stack import Stack


def run(
    *,
    scale: Annotated[
        float | None,
        typer.Option(min=1e-6, help="Size of the synthetic data; 1.0 is 13.8 million rows.", show_default="0.01"),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Name of a data set that comes along, or a folder with dataset.yaml.", show_default=DATASET),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="synthetic, kaggle, or a folder or bucket (s3://bucket/folder) with the CSV files.",
            show_default="synthetic",
        ),
    ] = None,
    expand: Annotated[
        str | None,
        typer.Option(help="none, a size per table (500MB), a total size (3GB), or a factor.", show_default="none"),
    ] = None,
    home: Home = None,
    path: Annotated[
        PipelinePath | None,
        typer.Option(help="stream: through Kafka and Spark; bulk: without them.", show_default="stream"),
    ] = None,
    csv_engine: Annotated[
        CsvEngine | None,
        typer.Option(
            help="Who expands and splits CSV files: local, this process, in the home; spark, its tasks, in the lake.",
            show_default="local",
        ),
    ] = None,
    hbase_loader: Annotated[
        HBaseLoader | None,
        typer.Option(
            help="How rows enter HBase: hfile, bulk load of files written here; spark and importtsv, of files written"
            " by their tasks; thrift, row by row.",
            show_default="hfile",
        ),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Rebuild layers that are known to be damaged or whose declaration has changed, and swap."
        ),
    ] = False,
    through: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Submit the run to a remote Dagster webserver.")
    ] = None,
    delivery: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Accept the files of this delivery alone.", show_default="all that wait"),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Run again whenever further files are complete in the source; Ctrl-C ends it."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the full pipeline, verify every layer and print the reconciliation report.

    A home remembers its source and size: run it again without options, also after a crash or Ctrl-C, and it resumes.
    """
    settings = configure(
        scale=scale,
        dataset=dataset,
        source=source,
        expand=expand,
        home=home,
        path=path,
        csv_engine=csv_engine,
        hbase_loader=hbase_loader,
        delivery=delivery,
    )
    if watch:
        require_folder(settings)
    if delivery:
        require_delivery(settings)
    dagster_home(settings)
    code = run_once(settings, through, repair=repair, as_json=as_json)
    while watch and code != INTERRUPTED:
        await_files(settings, None if code == 0 else RETRY_SECONDS)
        code = run_once(settings, through, repair=False, as_json=as_json)
    raise typer.Exit(code)


def run_once(settings: Settings, through: str | None, *, repair: bool, as_json: bool) -> int:
    """Run it once; returns the exit code."""
    began = time.perf_counter()
    from ecom_assets.cli.display import start
    from ecom_assets.servers.stack import HBASE_ALONE, Stack

    name = "bulk_load" if settings.path == "bulk" else "pipeline"
    stack, needed = Stack(settings), HBASE_ALONE if settings.path == "bulk" else None
    if through:
        start(settings, console, needed=needed)
        settle(settings)
        dashboard = job.meanwhile(lambda: _dashboard(stack) if settings.dashboard else (None, ""))
        outcome = job.submit(name, settings, through, repair=repair)
    else:
        with (
            locks.exclusive(settings, "ecom run --repair", log=inform)
            if repair
            else locks.shared(settings, "ecom run", log=inform)
        ):
            # Dagster and the definitions take seconds to import, and the servers take longer to start.
            definitions = job.meanwhile(job.definitions)
            addresses = start(settings, console, needed=needed)
            # Nobody looks at the dashboard before there are data, so the run does not wait for it.
            dashboard = job.meanwhile(lambda: _dashboard(stack) if settings.dashboard else (None, ""))
            if settings.path == "stream" and not (settings.lake / "streamed").exists() and not settings.spark:
                # Two threads must not import PySpark at once: its packages import one another in a circle, and Python
                # breaks such a deadlock by an ImportError.
                definitions()
                from ecom_assets.dataset.loader import named
                from ecom_assets.lake import warmup

                warmup.begin(settings, next(iter(named(settings.dataset).tables.values())), addresses.spark)
            settle(settings)
            outcome = job.execute(name, settings, definitions, path=settings.path, repair=repair)
    seconds = time.perf_counter() - began
    from ecom_assets.reconcile import report

    verdicts = outcome.verdicts
    ok = outcome.success and _equal(verdicts)
    print_report(verdicts)
    for error in outcome.errors:
        failed(error)
    for remedy in _remedies(verdicts, settings, settings.path):
        inform(remedy)
    if ok:
        same = "nothing changed; " if outcome.unchanged else ""
        succeeded(f"{same}every layer reconciles ({seconds:.0f} s, home {settings.home})")
    else:
        what = "every layer reconciles, but the run failed" if _equal(verdicts) else "not reconciled"
        failed(f"{what} ({seconds:.0f} s); `{hint('run', settings)}` resumes, `{hint('dev', settings)}` shows the runs")
    if left := waiting(settings):
        inform(left)
    address, message = dashboard()
    if message:
        console.print(message, highlight=False, soft_wrap=True)
    if as_json:
        found = {
            "ok": ok,
            "dashboard": address,
            "seconds": round(seconds, 3),
            "unchanged": outcome.unchanged,
            "errors": outcome.errors,
        }
        print(json.dumps(found | {"tables": report.to_json(verdicts)}))
    return 0 if ok else INTERRUPTED if outcome.interrupted else 1


def _equal(verdicts: Mapping[str, Verdict]) -> bool:
    return bool(verdicts) and all(v.ok for v in verdicts.values())


def _remedies(verdicts: Mapping[str, Verdict], settings: Settings, path: str) -> Iterator[str]:
    """What to do about each layer at fault, a sentence each; one that is only missing needs no more than a run."""
    from ecom_assets.dataset.loader import named
    from ecom_assets.paths import PATHS

    layers, tables = {layer.name: layer for layer in PATHS[path]}, named(settings.dataset).tables
    for table, verdict in verdicts.items():
        for layer in verdict.mismatches.keys() - verdict.missing:
            yield f"{layer}/{table}: {layers[layer].remedy(settings, tables[table])}"


def plan(
    *,
    home: Home = None,
    table: Tables = None,
    as_json: AsJson = False,
) -> None:
    """Show what a run would build and why, and about how long that takes. Reads no data, and changes nothing."""
    settings = configure_existing(home=home)
    from ecom_assets.core import forecast
    from ecom_assets.paths import engine, open_home

    names = known_tables(table, settings)
    with open_home(settings) as at:
        tables = [at.dataset.tables[name] for name in names]
        steps = forecast.steps(engine(at, settings.path), tables, waiting_bytes(settings))
    grid = Grid("table", "layer", right("rows"), right("about"), "why", title="Plan", title_justify="left")
    for number, step in enumerate(steps):
        first = not number or steps[number - 1].table != step.table
        last = number + 1 == len(steps) or steps[number + 1].table != step.table
        grid.add_row(
            step.table if first else "",
            step.layer,
            "" if step.rows is None else f"{step.rows:,}",
            "" if not step.why else "?" if step.seconds is None else f"{step.seconds:.1f} s",
            f"[red]{escape(step.blocked)}[/red]" if step.blocked else escape(step.why) or "[dim]unchanged[/dim]",
            end_section=last,
        )
    console.print(grid)
    due = [step for step in steps if step.why]
    known = sum(step.seconds or 0 for step in due)
    unknown = "" if all(step.seconds is not None for step in due) else ", and what has never been built"
    inform(f"{len(due)} of {len(steps)} layers to build, about {known:.0f} s{unknown}" if due else "nothing to build")
    if any(step.blocked for step in steps):
        inform(f"the declaration has changed: `{hint('run --repair', settings)}` builds these layers again")
    if as_json:
        print(json.dumps({"home": str(settings.home), "steps": [asdict(step) for step in steps]}))


def reconcile(
    *,
    home: Home = None,
    table: Tables = None,
    as_json: AsJson = False,
) -> None:
    """Read every layer back, every row of it, and verify that all hold the same rows."""
    settings = configure_existing(home=home)
    from ecom_assets.core.progress import bars
    from ecom_assets.paths import engine, open_home, path_used
    from ecom_assets.reconcile import report

    names = known_tables(table, settings)
    with locks.shared(settings, "ecom reconcile", log=inform), bars(console), open_home(settings) as at:
        path = path_used(at)
        verdicts = dict(report.reconcile(engine(at, path), [at.dataset.tables[name] for name in names]))
    ok = _equal(verdicts)
    print_report(verdicts)
    for remedy in _remedies(verdicts, settings, path):
        inform(remedy)
    if ok:
        succeeded("every layer reconciles")
    else:
        failed("not reconciled")
    if as_json:
        print(json.dumps({"ok": ok, "tables": report.to_json(verdicts)}))
    raise typer.Exit(0 if ok else 1)


def check(
    *,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate all asset checks: parity, keys, types, references, freshness, health. Exit code 1 if one fails.

    Checks of severity WARN are reported but do not affect the exit code.
    """
    settings = configure_existing(home=home)
    dagster_home(settings)
    with locks.shared(settings, "ecom check", log=inform):
        outcome = job.execute("reconcile", settings)
    grid = Grid("asset", "checks", title="Checks", title_justify="left")
    marks = {"passed": "[green]✓[/green]", "warns": "[yellow]![/yellow]", "failed": "[red]✗[/red]"}
    for asset, evaluations in itertools.groupby(outcome.checks, lambda c: c["asset"]):
        grid.add_row(asset, "  ".join(f"{marks[c['state']]} {c['check']}" for c in evaluations))
    console.print(grid)
    for each in outcome.checks:
        if each["state"] != "passed":
            console.print(f"{marks[each['state']]} {each['asset']} {each['check']}: {escape(each['found'])}")
    for error in outcome.errors:
        failed(error)
    bad = sum(c["state"] == "failed" for c in outcome.checks)
    ok = not bad and not outcome.errors and bool(outcome.checks)
    (succeeded if ok else failed)(f"{len(outcome.checks)} checks, {bad} failed")
    if as_json:
        print(json.dumps({"ok": ok, "errors": outcome.errors, "checks": outcome.checks}))
    raise typer.Exit(0 if ok else 1)


def reset(
    layer: Annotated[LayerName, typer.Argument(help="The first layer to delete.")],
    *,
    home: Home = None,
    table: Tables = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete a layer and everything downstream; the next run rebuilds it. Raw files stay."""
    settings = configure_existing(home=home)
    from ecom_assets.paths import engine, open_home

    names = known_tables(table, settings)
    if not yes:
        downstream = f"{layer.value} and everything downstream"
        typer.confirm(f"Delete {downstream}, of {', '.join(names)}, in {settings.home}?", abort=True)
    with locks.exclusive(settings, "ecom reset", log=inform), open_home(settings) as at:
        stream = engine(at, "stream")  # it passes all layers
        for name in names:
            for gone in stream.reset(layer.value, at.dataset.tables[name]):
                console.print(f"deleted {gone}")


def books(
    *,
    home: Home = None,
    table: Tables = None,
    as_json: AsJson = False,
) -> None:
    """Print what was built, measured and verified, by layer and table."""
    settings = configure_existing(home=home)
    from ecom_assets.core.books import Books

    names = set(known_tables(table, settings))
    with Books.open(settings) as found:
        lines = [
            (build, found.last_measurement(build.layer, build.table), found.verification(build.layer, build.table))
            for build in found.builds()
            if build.table in names
        ]
    figures = map(right, ("rows", "built", "build time", "measured rows", "checksum", "verified"))
    grid = Grid("layer", "table", "path", *figures, title=f"Books of {settings.home}", title_justify="left")
    for build, measured, verified in lines:
        grid.add_row(
            build.layer,
            build.table,
            build.path,
            f"{build.rows:,}",
            f"{build.at:%Y-%m-%d %H:%M:%S}",
            f"{build.seconds:.1f} s",
            f"{measured.measure.rows:,}" if measured else "",
            measured.measure.hex if measured else "",
            "" if verified is None else "[red]✗[/red]" if verified.mismatches else "[green]✓[/green]",
        )
    console.print(grid)
    for build, _, verified in lines:
        for sentence in verified.mismatches if verified else ():
            failed(f"{build.layer}: {sentence}")
    if as_json:
        found_json = [
            {
                "layer": build.layer,
                "table": build.table,
                "path": build.path,
                "built_at": build.at.isoformat(),
                "rows": build.rows,
                "seconds": build.seconds,
                "fingerprint": build.fingerprint,
                "declaration": dict(build.declaration),
                "notes": dict(build.notes),
                "measurement": measured.to_json() if measured else None,
                "mismatches": list(verified.mismatches) if verified else None,
            }
            for build, measured, verified in lines
        ]
        print(json.dumps({"home": str(settings.home), "builds": found_json}))


def _dashboard(stack: Stack) -> tuple[str | None, str]:
    """Start the dashboard: its address, and what to print about it."""
    try:
        stack.up(also=("dashboard",), needed=())
    except ServiceError as error:
        return None, f"[red]✗[/red] {escape(str(error))}"
    address = stack.address("dashboard")
    return address, f"Dashboard: {address}"


def print_report(verdicts: dict[str, Any]) -> None:
    """Print the reconciliation report for people."""
    from ecom_assets.reconcile import report

    figures = map(right, ("rows", "excluded", "checksum", "build time", "verification time", ""))
    grid = Grid("table", "layer", *figures, title="Reconciliation report", title_justify="left")
    for name, verdict in verdicts.items():
        for number, found in enumerate(verdict.measurements):
            grid.add_row(
                name if not number else "",
                found.layer,
                f"{report.rows(found):,}",
                ", ".join(f"{count:,} {reason}" for reason, count in report.excluded(found).items()),
                found.measure.hex,
                f"{found.build_seconds:.1f} s",
                f"{found.measure.seconds:.1f} s",
                "[red]✗[/red]" if found.layer in verdict.mismatches else "[green]✓[/green]",
                end_section=number == len(verdict.measurements) - 1,
            )
    console.print(grid)
    for verdict in verdicts.values():
        for layer, sentences in verdict.mismatches.items():
            for sentence in sentences:
                failed(f"{layer}: {sentence}")
