"""The quarantine of the lake: a Delta table for each table, with the records that did not become rows.

What belongs here: where it is, its columns, and how a stage replaces its part. What does not: why a record is in it;
see ``streamed`` and ``merge``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from deltalake import DeltaTable
from pyspark.sql import functions as sf

from ecom_assets.core.location import Location, exists
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

COLUMNS = "table string, stage string, source string, line_or_offset bigint, key string, raw string, reason string"
"""Columns of every quarantine table, partitioned by stage: each stage replaces its own part alone."""

Stage = Literal["topic", "merge"]


def folder(table: Table, settings: Settings) -> Location:
    """Folder of a table's quarantine."""
    return settings.lake / "quarantine" / table.name


def replace(frame: DataFrame | None, table: Table, settings: Settings, stage: Stage) -> None:
    """Replace what a stage has moved to quarantine; other stages keep theirs.

    Args:
        frame: The columns ``COLUMNS`` without ``table`` and ``stage``; ``None`` for nothing.
        table: Whose quarantine.
        settings: Where the lake is.
        stage: Which stage.
    """
    path = folder(table, settings)
    if frame is None:
        if exists(path) and DeltaTable(str(path)).partitions([("stage", "=", stage)]):
            DeltaTable(str(path)).delete(f"stage = '{stage}'")
        return
    named = frame.withColumns({"table": sf.lit(table.name), "stage": sf.lit(stage)})
    columns = [sf.col(name).cast(kind).alias(name) for name, kind in (c.split() for c in COLUMNS.split(", "))]
    writer = named.select(*columns).write.format("delta").partitionBy("stage").mode("overwrite")
    if exists(path):
        writer = writer.option("replaceWhere", f"stage = '{stage}'")
    writer.save(str(path))
