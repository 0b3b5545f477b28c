"""The command line of the stack: ``up``, ``down``, ``status``, ``doctor`` and ``dashboard``.

Only talks to people; what is done is done in ``stack.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn, Self

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from ecom_assets.core.addresses import Addresses
from ecom_assets.core.errors import ServiceError
from ecom_assets.core.settings import Settings, load
from ecom_assets.servers.stack import Stack, Step

console = Console()

Home = Annotated[Path | None, typer.Option(help="Folder for all data, logs and state [default: .ecom]")]
Host = Annotated[str | None, typer.Option(help="Interface our own servers listen on [default: 127.0.0.1]")]
Kafka = Annotated[str | None, typer.Option(help="Kafka elsewhere, host:port[,host:port]")]
HBaseThrift = Annotated[str | None, typer.Option(help="HBase Thrift server elsewhere, host:port")]
HBaseZookeeper = Annotated[str | None, typer.Option(help="HBase elsewhere, by its ZooKeeper, host:port")]
Spark = Annotated[str | None, typer.Option(help="Spark Connect server elsewhere, sc://host:port")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs")]


class Profile(StrEnum):
    """What a stack is made of."""

    embedded = "embedded"
    cluster = "cluster"


COLOURS = {
    "running": "green", "external": "green", "ok": "green", "found": "green", "stopped": "dim",
    "starting": "yellow", "warn": "yellow", "crashed": "red", "fail": "red",
}  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    for command in (up, down, status, doctor, serve, dashboard):
        app.command()(command)


def up(  # noqa: PLR0917 - typer gives each as an option, never by position
    home: Home = None,
    host: Host = None,
    kafka: Kafka = None,
    hbase_thrift: HBaseThrift = None,
    hbase_zookeeper: HBaseZookeeper = None,
    spark: Spark = None,
    profile: Annotated[
        Profile | None, typer.Option(help="embedded: one server of each kind; cluster: several, on HDFS.")
    ] = None,
) -> None:
    """Start Kafka, HBase, its Thrift server, Spark, PostgreSQL and Redis; what runs already is found and kept.

    An address given here (or as ECOM_KAFKA, ECOM_SPARK, …) is used instead of a server of our own. Those of
    PostgreSQL and Redis hold passwords, so they are given as ECOM_POSTGRES and ECOM_REDIS alone.
    """
    stack = _stack(
        home=home,
        host=host,
        kafka=kafka,
        hbase_thrift=hbase_thrift,
        hbase_zookeeper=hbase_zookeeper,
        spark=spark,
        profile=profile.value if profile else None,
    )
    try:
        start(stack.settings)
    except ServiceError as e:
        _fail(e)
    _print_status(stack)


def serve(
    role: Annotated[str, typer.Argument(help="What to be: kafka, namenode, regionserver, spark-worker, …")],
    home: Home = None,
    host: Annotated[str | None, typer.Option(help="Interface to listen on [default: 127.0.0.1]")] = None,
) -> None:
    """Be one server of a cluster, in the foreground, until a signal ends it; containers run this.

    Peers, name and ports come from ECOM_* variables; docs/cluster.md tells them.
    """
    from ecom_assets.servers import serve as foreground
    from ecom_assets.servers.kinds import ROLES

    if role not in ROLES:
        raise typer.BadParameter(f"expected one of {', '.join(ROLES)}, got {role!r}")
    try:
        foreground.serve(role, load(home=home, host=host))
    except ServiceError as e:
        _fail(e)


def dashboard(home: Home = None) -> None:
    """Start the dashboard, and the servers behind it, and print its address; `ecom down` stops them."""
    settings = load(home=home)
    try:
        start(settings, also=("dashboard",))
        print(Stack(settings).address("dashboard"))
    except ServiceError as e:
        _fail(e)


def start(settings: Settings, target: Console = console, also: tuple[str, ...] = ()) -> Addresses:
    """Bring the stack up for someone who watches; also for other commands.

    Args:
        settings: The home.
        target: Where to show progress.
        also: Servers that are started only on demand.

    Returns:
        The addresses.

    Raises:
        ServiceError: A server does not start.
    """
    with _Display(target) as display:
        return Stack(settings).up(display.step, display.fetching, also)


def down(home: Home = None) -> None:
    """Stop the servers of this home; their data stays."""
    stack = _stack(home=home)
    try:
        with _Display() as display:
            stack.down(display.step)
    except ServiceError as e:
        _fail(e)


def status(  # noqa: PLR0917 - as above
    home: Home = None,
    kafka: Kafka = None,
    hbase_thrift: HBaseThrift = None,
    hbase_zookeeper: HBaseZookeeper = None,
    spark: Spark = None,
    as_json: Json = False,
) -> None:
    """Show each server: state, address, process, memory. Exit code 1 if one does not answer."""
    stack = _stack(home=home, kafka=kafka, hbase_thrift=hbase_thrift, hbase_zookeeper=hbase_zookeeper, spark=spark)
    try:
        if not _print_status(stack, as_json):
            raise typer.Exit(1)
    except ServiceError as e:
        _fail(e)


def doctor(home: Home = None, host: Host = None, as_json: Json = False) -> None:
    """Look for what keeps the stack from starting. Exit code 1 if something does."""
    findings = _stack(home=home, host=host).doctor()
    if as_json:
        _print_json(findings)
    else:
        table = Table("", "Found", "What to do", box=None)
        for f in findings:
            table.add_row(_coloured(f.level), f.what, f.remedy)
        console.print(table)
    if any(f.level == "fail" for f in findings):
        raise typer.Exit(1)


class _Display:
    """Live lines while servers start or stop: a spinner and the seconds for each, a bar for the jars."""

    def __init__(self, target: Console = console) -> None:
        # The state is a field, so that a server's line can change its words and keep its clock.
        columns = (
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description:8}"),
            TextColumn("{task.fields[state]}"),
        )
        self._servers = Progress(*columns, TimeElapsedColumn(), console=target)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._servers.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._servers.stop()

    def step(self, step: Step) -> None:
        """Show one change of a server."""
        if step.service not in self._tasks:
            self._tasks[step.service] = self._servers.add_task(step.service, total=1, state="")
        done = step.state not in ("starting", "stopping")
        self._servers.update(self._tasks[step.service], state=_coloured(step.state), completed=int(done))
        if step.note:
            self._servers.console.print(f"[yellow]{step.service}[/]: {step.note}")

    def fetching(self, done: int, total: int) -> None:
        """Show how many bytes of the jars are here."""
        if "jars" not in self._tasks:
            self._tasks["jars"] = self._servers.add_task("jars", total=total, state="")
        state = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB"
        self._servers.update(self._tasks["jars"], completed=done, state=state)


def _stack(**given: object) -> Stack:
    try:
        return Stack(load(**given))
    except ServiceError as e:
        _fail(e)


def _print_status(stack: Stack, as_json: bool = False) -> bool:
    """Print the state of each server; returns whether all answer."""
    lines = stack.status()
    if as_json:
        _print_json(lines)
    else:
        table = Table(
            Column("Server", no_wrap=True), "State", Column("Address", no_wrap=True), "Pid", "Up", "Memory", box=None
        )
        for s in lines:
            state = _coloured(s.state) + ("" if s.answers or s.state != "external" else " [red](does not answer)[/]")
            up = f"{s.uptime / 60:.0f} min" if s.uptime is not None else ""
            memory = f"{s.memory / 1e6:.0f} MB" if s.memory is not None else ""
            table.add_row(s.service, state, s.address, str(s.pid or ""), up, memory)
        console.print(table, f"Logs: {stack.settings.stack}/<server>/log/", highlight=False)
    return all(s.answers for s in lines)


def _print_json(items: Iterable[Any]) -> None:
    print(json.dumps([asdict(i) for i in items], default=str, indent=1))


def _coloured(word: str) -> str:
    return f"[{COLOURS.get(word, 'default')}]{word}[/]"


def _fail(error: ServiceError) -> NoReturn:
    # Not folded: a log's reader searches for the sentence.
    console.print(f"[red]Error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
    raise typer.Exit(1)
