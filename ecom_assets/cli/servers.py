"""Commands of the servers: ``up``, ``down``, ``status``, ``doctor``, ``dashboard`` and ``serve``.

What belongs here: their options and tables. What is done is done in the room ``servers``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from ecom_assets.cli.console import results
from ecom_assets.cli.options import AsJson, HBaseThrift, HBaseZookeeper, Home, Host, Kafka, Profile, Spark, configure
from ecom_assets.core import home as homes

if TYPE_CHECKING:
    from ecom_assets.core.settings import Settings
    from ecom_assets.servers.doctor import Finding
    from ecom_assets.servers.stack import Stack

ELSEWHERE = ("kafka", "hbase_thrift", "hbase_zookeeper", "spark", "postgres", "redis")
"""Settings with addresses of external servers."""


def up(  # noqa: PLR0917 - typer passes each as an option, never by position
    home: Home = None,
    host: Host = None,
    kafka: Kafka = None,
    hbase_thrift: HBaseThrift = None,
    hbase_zookeeper: HBaseZookeeper = None,
    spark: Spark = None,
    profile: Annotated[
        Profile | None,
        typer.Option(help="embedded: one server of each kind; cluster: several, on HDFS.", show_default="embedded"),
    ] = None,
) -> None:
    """Start Kafka, HBase, its Thrift server, Spark, PostgreSQL and Redis; running servers are reused.

    An external address (also as ECOM_KAFKA, ECOM_SPARK, …) replaces an embedded server. Those of PostgreSQL and Redis
    contain passwords, so they are read from ECOM_POSTGRES and ECOM_REDIS alone.
    """
    settings = configure(
        home=home,
        host=host,
        kafka=kafka,
        hbase_thrift=hbase_thrift,
        hbase_zookeeper=hbase_zookeeper,
        spark=spark,
        profile=profile,
    )
    from ecom_assets.cli.display import start
    from ecom_assets.servers.stack import Stack

    start(settings)
    _print_status(Stack(settings))


def down(home: Home = None) -> None:
    """Stop the servers of a home; their data stay."""
    settings = configure(home=home)
    from ecom_assets.cli.display import Display
    from ecom_assets.servers.stack import Stack

    stack = Stack(settings)
    if not homes.exists(settings) and not stack.strays():
        homes.require(settings)
    with Display() as display:
        stack.down(display.step)


def status(  # noqa: PLR0917 - as above
    home: Home = None,
    kafka: Kafka = None,
    hbase_thrift: HBaseThrift = None,
    hbase_zookeeper: HBaseZookeeper = None,
    spark: Spark = None,
    as_json: AsJson = False,
) -> None:
    """Show each server: state, address, process, memory. Exit code 1 if one does not respond."""
    settings = configure(
        home=home, kafka=kafka, hbase_thrift=hbase_thrift, hbase_zookeeper=hbase_zookeeper, spark=spark
    )
    if not any(getattr(settings, name) for name in ELSEWHERE):
        homes.require(settings)
    from ecom_assets.servers.stack import Stack

    if not _print_status(Stack(settings), as_json):
        raise typer.Exit(1)


def doctor(home: Home = None, host: Host = None, as_json: AsJson = False) -> None:
    """Diagnose problems that prevent the stack from starting. Exit code 1 if there is one."""
    settings = configure(home=home, host=host)
    from ecom_assets.cli.display import colored
    from ecom_assets.servers.stack import Stack

    findings = [*Stack(settings).doctor(), *_topics(settings)]
    if as_json:
        _print_json(findings)
    else:
        table = Table("", "Found", "What to do", box=None)
        for f in findings:
            table.add_row(colored(f.level), f.what, f.remedy)
        results.print(table)
    if any(f.level == "fail" for f in findings):
        raise typer.Exit(1)


def _topics(settings: Settings) -> list[Finding]:
    """What is wrong with the settings of topics that exist; nothing where Kafka does not run."""
    from ecom_assets.core.errors import EcomError
    from ecom_assets.paths import TOPIC, open_home
    from ecom_assets.servers.doctor import Finding

    if not homes.exists(settings):
        return []
    with open_home(settings) as at:
        try:
            wrong = [s for table in at.dataset.tables.values() for s in TOPIC.check_settings(at, table)]
        except EcomError:  # the stack's own findings say so
            return []
    parts = [sentence.partition("; ") for sentence in wrong]
    return [Finding("fail", what, remedy) for what, _, remedy in parts]


def dashboard(home: Home = None) -> None:
    """Start the dashboard and the servers behind it, and print its address; `ecom down` stops them."""
    settings = configure(home=home)
    from ecom_assets.cli.display import start
    from ecom_assets.servers.stack import Stack

    start(settings, also=("dashboard",))
    print(Stack(settings).address("dashboard"))


def serve(
    role: Annotated[str, typer.Argument(help="The server, such as kafka, namenode, regionserver or spark-worker.")],
    home: Home = None,
    host: Host = None,
) -> None:
    """Run a single cluster server in the foreground (container entry point).

    Peers, name and ports are read from ECOM_* variables; see docs/cluster.md.
    """
    settings = configure(home=home, host=host)
    from ecom_assets.servers import serve as foreground
    from ecom_assets.servers.kinds import ROLES

    if role not in ROLES:
        raise typer.BadParameter(f"expected one of {', '.join(ROLES)}, got {role!r}", param_hint="'ROLE'")
    foreground.serve(role, settings)


def _print_status(stack: Stack, as_json: bool = False) -> bool:
    """Print the state of each server; returns whether all respond."""
    from ecom_assets.cli.display import colored

    lines = stack.status()
    if as_json:
        _print_json(lines)
    else:
        columns = ("State", "Server", "Address", "Pid", "Up", "Memory")
        table = Table(*(Column(name, no_wrap=True, overflow="ignore") for name in columns), box=None)
        for s in lines:
            state = colored(s.state) + ("" if s.answers or s.state != "external" else " [red](no response)[/]")
            uptime = f"{s.uptime / 60:.0f} min" if s.uptime is not None else ""
            memory = f"{s.memory / 1e6:.0f} MB" if s.memory is not None else ""
            table.add_row(state, s.service, s.address, str(s.pid or ""), uptime, memory)
        results.print(table, highlight=False, crop=False)
        results.print(f"Logs: {stack.settings.stack}/<server>/log/", highlight=False, soft_wrap=True)
    return all(s.answers for s in lines)


def _print_json(items: Iterable[Any]) -> None:
    print(json.dumps([asdict(i) for i in items], default=str, indent=1))
