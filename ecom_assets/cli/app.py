"""The root of the command line: its commands by group, and ``--version``.

What belongs here: which commands there are. Each is defined in the file of its group.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from ecom_assets.cli import bench, dataset, deliveries, dev, init, lookup, pipeline, replay, schema, servers, streaming

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        try:
            print(f"ecom {version('ecom-assets')}")
        except PackageNotFoundError:  # the source alone
            print("ecom (not installed)")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """An e-commerce lakehouse: CSV to Kafka, Spark, Delta and HBase, with every layer verified against the last."""


GROUPS = {
    "Pipeline": (
        init.init,
        pipeline.plan,
        pipeline.run,
        pipeline.reconcile,
        pipeline.check,
        pipeline.reset,
        pipeline.books,
        deliveries.deliveries,
        replay.replay,
        lookup.lookup,
    ),
    "Streaming": (streaming.stream, streaming.simulate),
    "Servers": (servers.up, servers.down, servers.status, servers.doctor, servers.dashboard, servers.serve),
    "Development": (dev.dev, bench.bench),
}

for _group, _commands in GROUPS.items():
    for _command in _commands:
        app.command(rich_help_panel=_group)(_command)
app.add_typer(dataset.app, name="dataset", rich_help_panel="Development")
app.add_typer(schema.app, name="schema", rich_help_panel="Development")
