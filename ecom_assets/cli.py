"""The command line: ``ecom run``, ``reconcile``, ``reset``, ``dev`` and the stack's commands.

Options become settings, work is done elsewhere; here stands only what people type and read.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from ecom_assets.core import settings as settings_module
from ecom_assets.core.errors import ServiceError
from ecom_assets.core.settings import ROOT, Settings

if TYPE_CHECKING:
    from ecom_assets.servers.stack import Stack

T = TypeVar("T")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="An e-commerce lakehouse: CSV to Kafka, Spark, Delta and HBase, with a proof that no row is lost.",
)
console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)
"""What people read goes to standard error; standard output is for results."""


class Route(StrEnum):
    """The ways to HBase."""

    stream = "stream"
    bulk = "bulk"


class CsvRoute(StrEnum):
    """Who expands and cuts CSV files."""

    local = "local"
    spark = "spark"


class HBaseRoute(StrEnum):
    """The ways into HBase."""

    hfile = "hfile"
    spark = "spark"
    importtsv = "importtsv"
    thrift = "thrift"


Home = Annotated[Path | None, typer.Option(help="Folder for all data, logs and state. [default: .ecom]")]
Tables = Annotated[list[str] | None, typer.Option(help="Only this table; may be given more than once.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")]


def configure(**given: Any) -> Settings:
    """Take the options as settings, for this process and those it starts."""
    for name, value in given.items():
        if value is not None:
            text = json.dumps(value) if isinstance(value, dict) else str(getattr(value, "value", value))
            os.environ[f"ECOM_{name.upper()}"] = text
    found = settings_module.load()
    os.environ["ECOM_HOME"] = str(found.home)
    return found


def dagster_home(settings: Settings) -> None:
    """Make the home's own Dagster instance the one that is used."""
    folder = settings.dagster
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "dagster.yaml"
    if not config.exists():
        config.write_text((ROOT / "ecom_assets" / "dagster.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    os.environ["DAGSTER_HOME"] = str(folder)


@app.command()
def run(
    *,
    scale: Annotated[float | None, typer.Option(help="Size of the synthetic data; 1.0 is 13.8 million rows.")] = None,
    source: Annotated[str | None, typer.Option(help="synthetic, kaggle, or a folder with the four CSV files.")] = None,
    expand: Annotated[
        str | None, typer.Option(help="none, a size per table (500MB), a size in all (3GB), or a factor.")
    ] = None,
    home: Home = None,
    route: Annotated[Route | None, typer.Option(help="stream goes through Kafka and Spark, bulk does not.")] = None,
    csv_route: Annotated[
        CsvRoute | None, typer.Option(help="local expands and cuts files in the home; spark in the lake, by its tasks.")
    ] = None,
    hbase_route: Annotated[
        HBaseRoute | None,
        typer.Option(help="hfile writes HBase's files; spark and importtsv let their tasks do so; thrift writes rows."),
    ] = None,
    through: Annotated[
        str | None, typer.Option(help="Let the Dagster at this host:port do it, which may launch it in a container.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Carry the shop's data through every layer, prove it, and print the proof sheet.

    A home remembers its source and size: run it again without options, after a crash or
    Ctrl-C too, and it goes on where it stood.
    """
    began = time.perf_counter()
    settings = configure(
        scale=scale,
        source=source,
        expand=expand,
        home=home,
        route=route,
        csv_route=csv_route,
        hbase_route=hbase_route,
    )
    dagster_home(settings)
    from ecom_assets.servers.commands import start
    from ecom_assets.servers.stack import Stack

    stack = Stack(settings)
    # Dagster and the definitions take seconds to import, and the servers take longer to start.
    definitions = _meanwhile(_definitions) if not through else _definitions
    addresses = start(settings, console)
    # Nobody looks at the dashboard before there are data, so the run does not wait for it.
    dashboard = _meanwhile(lambda: _dashboard(stack) if settings.dashboard else (None, ""))
    if settings.route == "stream" and not (settings.lake / "streamed").exists() and not settings.spark:
        from ecom_assets.lake import warmup

        warmup.begin(settings, addresses.spark)
    job = "bulk_load" if settings.route == "bulk" else "pipeline"
    outcome = _submit(job, settings, through) if through else _execute(job, settings, definitions)
    seconds = time.perf_counter() - began
    from ecom_assets.reconcile import report

    verdicts = outcome.verdicts
    ok = outcome.success and all(v.ok for v in verdicts.values())
    _print_sheet(verdicts)
    for error in outcome.errors:
        console.print(f"[red]✗[/red] {escape(error)}", highlight=False)
    if ok:
        same = "nothing changed, every layer already held these rows; " if outcome.unchanged else ""
        console.print(f"[green]✓ {same}the sheet balances[/green] ({seconds:.0f} s, home {settings.home})")
    else:
        console.print(f"[red]✗ not proven[/red] ({seconds:.0f} s); run again to go on, `ecom dev` shows the runs")
    address, told = dashboard()
    if told:
        console.print(told, highlight=False)
    if as_json:
        said = {
            "ok": ok,
            "dashboard": address,
            "seconds": round(seconds, 3),
            "unchanged": outcome.unchanged,
            "errors": outcome.errors,
        }
        print(json.dumps(said | {"tables": report.to_json(verdicts)}))
    raise typer.Exit(0 if ok else 130 if outcome.interrupted else 1)


@app.command()
def reconcile(
    *,
    home: Home = None,
    table: Tables = None,
    as_json: AsJson = False,
) -> None:
    """Read every layer back, every row of it, and say whether they hold the same rows."""
    settings = configure(home=home)
    from ecom_assets.core.progress import bars
    from ecom_assets.flow import Flow
    from ecom_assets.reconcile import report

    with Flow(settings) as flow, bars(console):
        verdicts = dict(flow.reconcile(flow.route_used(), _known_tables(table)))
    ok = all(v.ok for v in verdicts.values())
    _print_sheet(verdicts)
    console.print("[green]✓ the sheet balances[/green]" if ok else "[red]✗ the sheet does not balance[/red]")
    if as_json:
        print(json.dumps({"ok": ok, "tables": report.to_json(verdicts)}))
    raise typer.Exit(0 if ok else 1)


@app.command()
def check(
    *,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate every asset check: parity, keys, types, references, freshness, health. Exit code 1 if one fails.

    A check that only warns is shown, and does not fail. Meant for CI, and for Monday morning.
    """
    settings = configure(home=home)
    dagster_home(settings)
    outcome = _execute("reconcile", settings)
    grid = Grid(title="Checks", title_justify="left")
    grid.add_column("asset")
    grid.add_column("checks")
    marks = {"passed": "[green]✓[/green]", "warns": "[yellow]![/yellow]", "failed": "[red]✗[/red]"}
    for asset, evaluations in itertools.groupby(outcome.checks, lambda c: c["asset"]):
        grid.add_row(asset, "  ".join(f"{marks[c['state']]} {c['check']}" for c in evaluations))
    console.print(grid)
    for each in outcome.checks:
        if each["state"] != "passed":
            console.print(f"{marks[each['state']]} {each['asset']} {each['check']}: {escape(each['found'])}")
    for error in outcome.errors:
        console.print(f"[red]✗[/red] {escape(error)}", highlight=False)
    failed = sum(c["state"] == "failed" for c in outcome.checks)
    ok = not failed and not outcome.errors and bool(outcome.checks)
    told = f"{len(outcome.checks)} checks, {failed} failed"
    console.print(f"[green]✓ {told}[/green]" if ok else f"[red]✗ {told}[/red]")
    if as_json:
        print(json.dumps({"ok": ok, "errors": outcome.errors, "checks": outcome.checks}))
    raise typer.Exit(0 if ok else 1)


@app.command(name="stream")
def stream_command(
    *,
    home: Home = None,
    table: Tables = None,
    interval: Annotated[float, typer.Option(help="Seconds between the starts of two micro-batches.")] = 5.0,
) -> None:
    """Keep bringing what comes into the topics into Delta, and show it live, until Ctrl-C.

    The bounded way (`ecom run`, the job `stream`) and this one go on where the other stopped.
    """
    settings = configure(home=home)
    from rich.live import Live as Display

    from ecom_assets.dataset.shop import TABLES
    from ecom_assets.flow import Flow
    from ecom_assets.lake import streamed

    chosen = [TABLES[name] for name in _known_tables(table)]
    began = time.monotonic()
    last: dict[str, tuple[float, int]] = {}

    def grid(stands: list[streamed.Live]) -> Grid:
        shown = Grid(title=f"Streaming every {interval:g} s, Ctrl-C stops", title_justify="left")
        for name in ("table", "rows in Delta", "new", "rows/s", "unread offsets"):
            shown.add_column(name, justify="left" if name == "table" else "right")
        now = time.monotonic()
        for each in stands:
            at, rows = last.get(each.table, (began, each.rows - each.new))
            if now - at >= interval or each.table not in last:
                last[each.table] = (now, each.rows)
            rate = (each.rows - rows) / max(now - at, 1e-3)
            shown.add_row(each.table, f"{each.rows:,}", f"{each.new:,}", f"{rate:,.0f}", f"{each.lag:,}")
        return shown

    with Flow(settings) as flow, _stop_on_signal() as stop, Display(console=console, refresh_per_second=2) as display:
        streamed.follow(
            flow.spark,
            chosen,
            settings,
            flow.addresses.kafka,
            interval=interval,
            stop=stop,
            tell=lambda stands: display.update(grid(stands)),
        )
    console.print("[green]✓[/green] stopped; what is still unread is streamed next time")


@app.command()
def simulate(
    *,
    home: Home = None,
    table: Annotated[str, typer.Option(help="The table whose rows are sent.")] = "click_stream",
    rate: Annotated[float, typer.Option(min=1, help="Rows a second.")] = 1000,
    start: Annotated[str, typer.Option("--from", help="Chunk to begin with, such as part-000010.csv.")] = "",
    rows: Annotated[int | None, typer.Option(help="Stop after about so many rows; without it, at Ctrl-C.")] = None,
) -> None:
    """Send a table's rows into its topic at a chosen rate, as a live shop would, until Ctrl-C.

    Rows that are not in the topic yet come first; then all come round again. The ledger counts
    what comes again, and merging collapses it, so the proof still balances.
    """
    settings = configure(home=home)
    from ecom_assets.bridge import CHUNKS
    from ecom_assets.core.progress import bars, track
    from ecom_assets.dataset.shop import TABLES
    from ecom_assets.flow import Flow
    from ecom_assets.kafka.simulate import simulate as send

    (name,) = _known_tables([table])
    with Flow(settings) as flow, bars(console), _stop_on_signal() as stop, track(f"topic/{name}", rows) as advance:
        kafka = flow.addresses.kafka
        done = send(CHUNKS, TABLES[name], settings, kafka, stop, rate=rate, start=start, rows=rows, progress=advance)
    console.print(
        f"[green]✓[/green] {done.rows:,} rows in {done.chunks:,} chunks sent in {done.seconds:.0f} s"
        f" ({done.rows / max(done.seconds, 1e-3):,.0f} rows/s)"
    )


@contextmanager
def _stop_on_signal() -> Generator[Event]:
    """An event that Ctrl-C or a polite kill sets, in place of an interrupt anywhere."""
    stop = Event()
    before = {s: signal.signal(s, lambda *_: stop.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _insistent_interrupts() -> Generator[None]:
    """Send an interrupt again every few seconds, as long as the block lasts.

    It is an exception at a place that chance chooses, and some places swallow it (the garbage collector, the
    clean-up of a driver): the run that people wanted to stop would go on.
    """
    ended = Event()
    heard, tell = socket.socketpair()
    tell.setblocking(False)

    def insist() -> None:
        while number := heard.recv(1):
            while number[0] == signal.SIGINT and not ended.wait(INSIST):
                os.kill(os.getpid(), signal.SIGINT)

    def hook(lost: Any) -> None:
        if lost.exc_type.__name__ not in INTERRUPTS:  # it comes again, so nobody needs to read of it
            usual(lost)

    watch = Thread(target=insist, daemon=True)
    usual, sys.unraisablehook = sys.unraisablehook, hook
    before = signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        sys.unraisablehook = usual
        tell.close()
        watch.join()
        heard.close()


@app.command()
def bench(
    *,
    rows: Annotated[
        int, typer.Option(min=1000, help="Rows of click_stream, and of the whole way's larger run.")
    ] = 1_000_000,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds that count; medians of fewer than three say little.")] = 3,
    only: Annotated[
        list[str] | None, typer.Option(metavar="STEP", help="Only this step; may be given more than once.")
    ] = None,
    home: Annotated[
        Path, typer.Option(help="Folder for the servers and all data, deleted at the end if made here.")
    ] = (Path(".bench")),
    as_json: AsJson = False,
) -> None:
    """Measure each step beside what others would use for it, on the same servers, and compare with the last time.

    The stack is started for it, and stopped when it ends. Other work on the machine spoils all figures. A run of all
    steps adds a line to benchmarks/history.jsonl and draws the README's chart.
    """
    load = os.getloadavg()[0]
    try:
        import benchmarks
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"expected the folder benchmarks in {ROOT}, got none ({error}); it comes with the project's source alone"
        ) from error
    from benchmarks import report, stage
    from ecom_assets.core.progress import bars

    if unknown := set(only or ()) - benchmarks.STEPS.keys():
        raise typer.BadParameter(f"expected one of {', '.join(benchmarks.STEPS)}, got {', '.join(sorted(unknown))}")
    names = [name for name in benchmarks.STEPS if not only or name in only]
    last = report.last_like(rows)
    try:
        with (
            _polite_kill_interrupts(),
            stage.opened(home, rows, console) as at,
            bars(console),
            _insistent_interrupts(),
        ):
            results = benchmarks.run(at, names, repeats)
    except KeyboardInterrupt:
        console.print("[red]✗[/red] interrupted; what was made for it is gone again")
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


@contextmanager
def _polite_kill_interrupts() -> Generator[None]:
    """Take a polite kill for a Ctrl-C, so that it is cleared up after both."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs do not hear it
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _known_tables(asked: list[str] | None) -> list[str]:
    from ecom_assets.dataset.shop import TABLES

    if unknown := set(asked or ()) - set(TABLES):
        raise typer.BadParameter(f"expected one of {', '.join(TABLES)}, got {', '.join(unknown)}")
    return asked or list(TABLES)


@app.command()
def reset(
    layer: Annotated[str, typer.Argument(help="The first layer to delete: expanded, chunked, topic, streamed, ...")],
    *,
    home: Home = None,
    table: Tables = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a layer and all that was made from it; the next run makes them anew. Raw files stay."""
    settings = configure(home=home)
    from ecom_assets.dataset.shop import LAYERS, TABLES
    from ecom_assets.flow import Flow

    if layer not in LAYERS[1:]:
        raise typer.BadParameter(f"expected one of {', '.join(LAYERS[1:])}, got {layer!r}")
    names = _known_tables(table)
    if not yes:
        typer.confirm(f"Delete {layer} and what follows it, of {', '.join(names)}, in {settings.home}?", abort=True)
    with Flow(settings) as flow:
        for name in names:
            for gone in flow.reset(layer, TABLES[name]):
                console.print(f"deleted {gone}")


@app.command()
def dev(
    *,
    home: Home = None,
    port: Annotated[int, typer.Option(help="Port of the UI.")] = 3000,
) -> None:
    """Start the stack and Dagster's UI with its daemon; Ctrl-C stops Dagster, `ecom down` the stack."""
    settings = configure(home=home)
    dagster_home(settings)
    from ecom_assets.servers.commands import start

    start(settings, console)
    console.print(f"Dagster's UI: http://{settings.host}:{port}")
    dagster = Path(sys.executable).with_name("dagster")
    workspace = str(ROOT / "workspace.yaml")
    os.execv(dagster, [str(dagster), "dev", "-w", workspace, "-h", settings.host, "-p", str(port)])  # noqa: S606


INTERRUPTS = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")
"""Names of the exceptions that Ctrl-C raises: Dagster has its own, and imports slowly."""

INSIST = 3.0
"""Seconds that a run is given to stop before it is interrupted again."""


class _Outcome:
    """What a run came to."""

    def __init__(self) -> None:
        self.success = False
        self.interrupted = False
        self.unchanged = False
        self.errors: list[str] = []
        self.checks: list[dict[str, str]] = []
        self.verdicts: dict[str, Any] = {}


def _meanwhile(work: Callable[[], T]) -> Callable[[], T]:
    """Begin some work in a thread that the process does not wait for; what is returned waits for its result."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001  told to who asks for the result
            done.set_exception(error)

    Thread(target=run, daemon=True).start()
    return done.result


def _dashboard(stack: Stack) -> tuple[str | None, str]:
    """Start the dashboard: its address, and what to tell people of it."""
    try:
        stack.up(also=("dashboard",))
    except ServiceError as error:
        return None, f"[red]✗[/red] {escape(str(error))}"
    address = stack.address("dashboard")
    return address, f"Dashboard: {address}"


def _definitions() -> Any:
    from ecom_assets.definitions import defs

    return defs()


def _execute(job_name: str, settings: Settings, definitions: Callable[[], Any] = _definitions) -> _Outcome:
    """Run a job in this process, on the home's own Dagster instance."""
    # First of all: a thread may be importing them, and packages whose modules import one another (pyspark's do) break
    # when two threads begin at different ends.
    loaded = definitions()
    import dagster as dg
    from dagster._core.errors import DagsterExecutionInterruptedError

    from ecom_assets.core.disk import room_for
    from ecom_assets.core.progress import bars
    from ecom_assets.dataset.shop import LAYERS
    from ecom_assets.flow import Flow
    from ecom_assets.serving import history

    # Ctrl-C may fall into the closing of a connection to the event log, which then prints a traceback.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL + 1)
    outcome = _Outcome()
    job = loaded.resolve_job_def(job_name)
    # Dagster's event log lies in the home too.
    with room_for("the run", settings.home), dg.DagsterInstance.get() as instance, bars(console):
        _fail_orphaned_runs(instance)
        tags = {"ecom/source": settings.source, "ecom/route": settings.route, PROCESS_TAG: _process(os.getpid())}
        try:
            with _insistent_interrupts():
                result = job.execute_in_process(
                    instance=instance,
                    raise_on_error=False,
                    run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                    tags=tags,
                )
        except (KeyboardInterrupt, DagsterExecutionInterruptedError):
            outcome.interrupted = True
            outcome.errors.append("interrupted; run again to go on where it stood")
            result = None
    outcome.verdicts = Flow(settings).verdicts(settings.route)
    if result is None:
        return outcome
    outcome.success = result.success
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error and error.cause:
                error = error.cause
            if error and error.cls_name in INTERRUPTS:
                outcome.interrupted = True
                outcome.errors.append(f"{event.step_key}: interrupted; run again to go on where it stood")
                continue
            outcome.errors.append(f"{event.step_key}: {error.message.strip() if error else 'failed'}")
    made = result.get_asset_materialization_events()
    flags = [m.materialization.metadata.get("unchanged") for m in made if m.asset_key and m.asset_key.path[0] in LAYERS]
    outcome.unchanged = outcome.success and all(f is not None and f.value for f in flags)
    layers = [*LAYERS, "proof", "serving"]
    found = [history.told(e) for e in result.get_asset_check_evaluations()]
    outcome.checks = sorted(found, key=lambda c: layers.index(c["asset"].split("/")[0]))
    return outcome


def _submit(job_name: str, settings: Settings, through: str) -> _Outcome:
    """Let another Dagster run a job, and wait for its end; it shares the home."""
    import dagster as dg
    from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError

    from ecom_assets.core.addresses import split
    from ecom_assets.flow import Flow

    host, port = split(through)
    settings_module.remember(settings)
    outcome = _Outcome()
    try:
        client = DagsterGraphQLClient(host, port_number=port)
        run_id = client.submit_job_execution(job_name)
        console.print(f"run {run_id} of {job_name}, at http://{through}/runs/{run_id}", highlight=False)
        try:
            while (status := client.get_run_status(run_id)).value not in FINISHED:
                time.sleep(1)
        except KeyboardInterrupt:
            client.terminate_run(run_id)
            outcome.interrupted = True
            status = dg.DagsterRunStatus.CANCELED
    except DagsterGraphQLClientError as error:
        raise ServiceError(
            f"Dagster at {through}: expected it to run {job_name}, got {error}",
            "see that its webserver, code server and daemon run, and what their logs say",
        ) from error
    outcome.success = status == dg.DagsterRunStatus.SUCCESS
    if not outcome.success:
        outcome.errors.append(f"the run ended as {status.value}; http://{through}/runs/{run_id} tells why")
    outcome.verdicts = Flow(settings).verdicts(settings.route)
    return outcome


FINISHED = ("SUCCESS", "FAILURE", "CANCELED")
"""How a run can have ended."""

PROCESS_TAG = "ecom/process"
"""Run tag that tells which process does the run: its id and the time of its start."""


def _process(pid: int) -> str:
    import psutil

    try:
        return f"{pid}-{psutil.Process(pid).create_time():.0f}"
    except psutil.NoSuchProcess:
        return ""


def _is_alive(process: str) -> bool:
    """Whether the process of a run's tag still runs; a recycled id belongs to another that started later."""
    from ecom_assets.servers.process import running

    pid, _, created = process.partition("-")
    return running(int(pid), float(created)) is not None


def _fail_orphaned_runs(instance: Any) -> None:
    """Mark orphaned runs as failed: their process was killed, and the UI would show them as running for ever."""
    import dagster as dg

    under_way = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=under_way)):
        process = run.tags.get(PROCESS_TAG)
        if process and not _is_alive(process):
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            instance.report_run_failed(run, f"its process {process.split('-')[0]} has ended without a word")


def _print_sheet(verdicts: dict[str, Any]) -> None:
    """Print the proof sheet as people read it."""
    grid = Grid(title="Proof sheet", title_justify="left")
    for name, justify in (("table", "left"), ("layer", "left"), ("rows", "right"), ("set aside", "right")):
        grid.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name in ("checksum", "made in", "proven in", ""):
        grid.add_column(name, justify="right", no_wrap=True)
    for name, verdict in verdicts.items():
        for at, proof in enumerate(verdict.proofs):
            is_raw = proof.layer == "raw"
            aside = "" if is_raw else ", ".join(f"{m.rows:,} {reason}" for reason, m in proof.aside.items() if m.rows)
            grid.add_row(
                name if not at else "",
                proof.layer,
                f"{proof.measure.rows + (proof.aside_rows if is_raw else 0):,}",
                aside,
                proof.measure.hex,
                f"{proof.build_seconds:.1f} s",
                f"{proof.measure.seconds:.1f} s",
                "[red]✗[/red]" if proof.layer in verdict.faults else "[green]✓[/green]",
                end_section=at == len(verdict.proofs) - 1,
            )
    console.print(grid)
    for verdict in verdicts.values():
        for layer, said in verdict.faults.items():
            for sentence in said:
                console.print(f"[red]✗[/red] {layer}: {escape(sentence)}", highlight=False)


def _register() -> None:
    from ecom_assets.servers import commands
    from ecom_assets.source import infer

    commands.register(app)
    infer.register(app)


def main() -> None:
    """Run the command line; errors that people can mend are told in one sentence."""
    _register()
    try:
        app()
    except KeyboardInterrupt:
        console.print("[red]✗[/red] interrupted")
        sys.exit(130)
    except (OSError, ValueError, RuntimeError) as error:
        if os.environ.get("ECOM_TRACEBACK"):
            raise
        console.print(f"[red]✗[/red] {escape(str(error))}", highlight=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
