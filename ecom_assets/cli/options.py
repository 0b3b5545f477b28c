"""Options that several commands have, and how options become settings.

What belongs here: types, help texts and defaults of shared options. An option that is not given leaves the setting to
the environment, then to what the home remembers, then to its default.
"""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ecom_assets.core import home as homes
from ecom_assets.core import settings as settings_module
from ecom_assets.core.settings import ROOT, Settings


class PipelinePath(StrEnum):
    """Paths to HBase."""

    stream = "stream"
    bulk = "bulk"


class CsvEngine(StrEnum):
    """Who expands and splits CSV files."""

    local = "local"
    spark = "spark"


class HBaseLoader(StrEnum):
    """How rows enter HBase."""

    hfile = "hfile"
    spark = "spark"
    importtsv = "importtsv"
    thrift = "thrift"


class Profile(StrEnum):
    """What a stack consists of."""

    embedded = "embedded"
    cluster = "cluster"


class LayerName(StrEnum):
    """Layers that can be deleted."""

    expanded = "expanded"
    chunked = "chunked"
    topic = "topic"
    streamed = "streamed"
    merged = "merged"
    hbase = "hbase"


Home = Annotated[Path | None, typer.Option(help="Folder for all data, logs and state.", show_default=".ecom")]
Tables = Annotated[
    list[str] | None, typer.Option(metavar="TABLE", help="Only this table; may be repeated.", show_default="all")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")]
Host = Annotated[str | None, typer.Option(help="Network interface for the embedded servers.", show_default="127.0.0.1")]
Kafka = Annotated[str | None, typer.Option(help="Bootstrap servers of an external Kafka cluster, host:port[,…].")]
HBaseThrift = Annotated[str | None, typer.Option(help="Thrift server of an external HBase, host:port.")]
HBaseZookeeper = Annotated[str | None, typer.Option(help="ZooKeeper quorum of an external HBase, host:port[,…].")]
Spark = Annotated[str | None, typer.Option(help="External Spark Connect server, sc://host:port.")]


def configure(**given: Any) -> Settings:
    """Take the options as settings, for this process and those it starts."""
    for name, value in given.items():
        if value is not None:
            text = json.dumps(value) if isinstance(value, dict) else str(getattr(value, "value", value))
            os.environ[f"ECOM_{name.upper()}"] = text
    found = settings_module.load(**{k: getattr(v, "value", v) for k, v in given.items()})
    os.environ["ECOM_HOME"] = str(found.home)
    return found


def configure_existing(**given: Any) -> Settings:
    """The same, for commands that need a home that is there.

    Raises:
        HomeError: There is none; nothing was created.
    """
    settings = configure(**given)
    homes.require(settings)
    return settings


def dagster_home(settings: Settings) -> None:
    """Use the home's own Dagster instance and data set, in this process and those it starts.

    Raises:
        DatasetError: The data set cannot be used, or one of its queries not be run; nothing was created.
    """
    from ecom_assets.dataset.loader import folder_of, named
    from ecom_assets.serving import declared

    declared.check(named(settings.dataset), folder_of(settings.dataset))
    homes.create(settings)
    folder = settings.dagster
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "dagster.yaml"
    if not config.exists():
        config.write_text((ROOT / "ecom_assets" / "dagster.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    os.environ["DAGSTER_HOME"] = str(folder)
    os.environ["ECOM_DATASET"] = settings.dataset


def known_tables(asked: list[str] | None, settings: Settings) -> list[str]:
    """The tables of the data set that are asked for; all if none is named.

    Raises:
        typer.BadParameter: One of them is unknown; names the known ones.
    """
    from ecom_assets.dataset.loader import named

    tables = named(settings.dataset).tables
    if unknown := set(asked or ()) - set(tables):
        raise typer.BadParameter(
            f"expected one of {', '.join(tables)}, got {', '.join(sorted(unknown))}", param_hint="'--table'"
        )
    return asked or list(tables)
