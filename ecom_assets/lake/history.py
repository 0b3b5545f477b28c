"""History: former versions of rows, each with the time from which and up to which it was valid (SCD 2).

What belongs here: the table ``history/<table>``, next to the merged one. What does not: which rows ended, and by what;
see ``fates``. A merge of all rows writes it again, so it can be rebuilt from the topic at any time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.transaction import AddAction, RemoveAction
from pyspark.sql import functions as sf

from ecom_assets.core.books import Books
from ecom_assets.core.location import Location, exists, remove
from ecom_assets.core.measure import Measure
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.lake import delta, rewrite
from ecom_assets.lake.delta import Version
from ecom_assets.lake.fates import PLACED, UNTIL
from ecom_assets.lake.typed import typed

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

NAMES = {
    "_since": "valid_from",
    "_until": "valid_to",
    "_delivery": "delivery",
    "_until_delivery": "ended_by",
    "_fate": "ended_as",
}
"""Column of a judged row -> its name here: when the version was valid, the sequences of the deliveries that brought and
ended it, and whether it was superseded or deleted."""


def folder(table: Table, settings: Settings) -> Location:
    """Folder of a table's history."""
    return settings.lake / "history" / table.name


def append(ended: Iterator[pa.RecordBatch], table: Table, settings: Settings) -> None:
    """Add versions that ended: rows of the merged table, and how they ended."""
    path, first = folder(table, settings), next(ended)
    own = [name for name in first.schema.names if not name.startswith("_")]

    def shown(batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = [batch.column(name) for name in (*own, *NAMES)]
        return pa.RecordBatch.from_arrays(columns, names=[*own, *NAMES.values()])

    schema = shown(first).schema
    there = DeltaTable(str(path)) if exists(path) else DeltaTable.create(str(path), schema)
    rows = map(shown, itertools.chain([first], ended))
    added: list[AddAction | RemoveAction] = [file.action for file in rewrite.files(path, rows, schema)]
    there.create_write_transaction(added, "append", there.schema())


def replace(ended: DataFrame | None, table: Table, settings: Settings) -> None:
    """Write all versions that ended, in place of those there; ``None`` for none."""
    if ended is None:
        remove(folder(table, settings))
        return
    writer = _columns(ended, table).write.format("delta").mode("overwrite").option("overwriteSchema", "true")
    writer.save(str(folder(table, settings)))


def measure(table: Table, settings: Settings, books: Books, *, whole: bool = False) -> Measure:
    """Count and checksum the versions that are kept.

    Args:
        table: The table.
        settings: The home.
        books: They keep what was measured, so that files which came since are all that is read.
        whole: Read everything.
    """
    path, key = folder(table, settings), f"merged/{table.name}/history"
    version = delta.rows_version(path)
    if version is None:
        return Measure()
    known = None if whole else books.state(key)
    names = delta.added(path, Version.parse(known["version"]), version) if known else None
    before = Measure.from_json(known["measure"]).before if known and names is not None else Measure()
    found = before + delta.measure(table, delta.at_version(path, version), names=names)
    books.set_state(key, {"version": str(version), "measure": found.to_json()})
    return found


def _columns(ended: DataFrame, table: Table) -> DataFrame:
    rows = typed(ended, table, [*PLACED, *UNTIL, "_fate"])
    own = [name for name in rows.columns if not name.startswith("_")]
    return rows.select(*own, *(sf.col(name).alias(shown) for name, shown in NAMES.items()))
