"""The merged table as merges leave it: where it is, its columns, the version that it holds, and what was left out.

What belongs here: what a merge of all rows and one of new rows have in common. What does not: these (``merge``,
``increment``), and what is read from the table (``merged``).

Each commit records the version of the streamed table that it brings the merged one up to, as Delta's transaction
identifier ``streamed/<id of the streamed table>``. What it leaves out is in the books.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deltalake import DeltaTable

from ecom_assets.core import row_hash
from ecom_assets.core.books import Books
from ecom_assets.core.boundary import LEFT_OUT
from ecom_assets.core.location import Location
from ecom_assets.core.measure import Measure
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.lake import delta
from ecom_assets.lake.delta import Version
from ecom_assets.lake.fates import PLACED, Deliveries
from ecom_assets.lake.typed import typed

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Left = Mapping[str, Measure]
"""Rows of a streamed table that are not in the merged one, by reason; all of ``boundary.LEFT_OUT``."""


def folder(table: Table, settings: Settings) -> Location:
    """Folder of the merged Delta table."""
    return settings.lake / "merged" / table.name


def app_id(streamed_id: str) -> str:
    """Name of the transaction identifier whose version is that of the streamed table."""
    return f"streamed/{streamed_id}"


def merged_version(merged: DeltaTable, streamed_id: str) -> Version | None:
    """The version of a streamed table that a merged one holds; ``None`` if it was built from another table."""
    number = delta.transaction(merged, app_id(streamed_id))
    return None if number is None else Version(streamed_id, number)


def columns(rows: DataFrame, table: Table) -> DataFrame:
    """The columns of a merged table."""
    return typed(rows, table, tuple(PLACED))


def transacted(writer: Any, version: Version) -> Any:
    """A write that names the version it brings the table up to; Delta skips one that was committed already."""
    return writer.option("txnAppId", app_id(version.id)).option("txnVersion", version.number)


def left_of(judged: DataFrame | None, table: Table) -> Left:
    """Count and checksum the rows that are left out, of those that were judged."""
    found = row_hash.spark_measures(judged, table.ids, "_fate") if judged else {}
    return {reason: Measure(*found.get(reason, (0, 0))) for reason in LEFT_OUT}


@dataclass(frozen=True)
class LastMerge:
    """What the last merge did, as the books have it.

    Attributes:
        left: What is left out of the merged table in all.
        deliveries: The place of the last delivery that it held, among those of the table.
    """

    left: Left
    deliveries: int

    @classmethod
    def of(cls, books: Books, table: Table, version: Version) -> LastMerge | None:
        """The merge of a version of the streamed table; ``None`` if the last one was another."""
        entry = books.state(_key(table))
        if not entry or entry["version"] != str(version) or "deliveries" not in entry:
            return None
        left = {reason: Measure.from_json(entry["left out"][reason]) for reason in LEFT_OUT}
        return cls(left, entry["deliveries"])


def remember(books: Books, table: Table, version: Version, left: Left, deliveries: Deliveries) -> None:
    """Record a merge, before it writes anything: if it is killed, the entry names a version that is not there.

    Then the next merge is one of all rows, which repeats what was written without its commit.
    """
    entry = {reason: measure.to_json() for reason, measure in left.items()}
    books.set_state(_key(table), {"version": str(version), "left out": entry, "deliveries": deliveries.last})


def _key(table: Table) -> str:
    return f"merged/{table.name}/left out"
