"""What becomes of each row: of several rows under one primary key, one at most is the table's row.

What belongs here: the order of rows, and the verdict on each, as columns of a Spark frame. What does not: which rows
are looked at, and what is written; see ``merge``. The same verdict on a few rows is DuckDB's: ``core.verdict``.

Rows have one order, on every path: by the sequence of the delivery that brought them, then by their number there. Rows
of other producers come after the last delivery that was accepted before their record's time, in Kafka's order.

``append``: the first row of a key stays; later ones equal to it are duplicates, others conflicts. ``merge``: a row
equal to the one that is there is a duplicate; one with a lesser version, or with none next to one that has it, is
stale; any other supersedes it; a row that asks for a deletion deletes it. ``replace``: like ``merge``, and a row that
the next delivery of the whole table does not have is deleted by that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Self

import pyarrow.compute as pc
from deltalake import DeltaTable
from pyspark.sql import Window
from pyspark.sql import functions as sf

from ecom_assets.core import delivery
from ecom_assets.core.accounts import ENDED
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.lake import delta
from ecom_assets.lake.typed import with_parsed

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, WindowSpec

STAYS = "stays"

PLACED = {
    "_delivery": ("long", "sequence of the delivery that brought the row"),
    "_row": ("long", "its number there; null for a row of another producer"),
    "_since": ("timestamp", "when that delivery was accepted, or the record written"),
}
"""Columns that a merged table has besides: name -> Delta's type, and what it is."""

UNTIL = ("_until_delivery", "_until")
"""Of a row that ended: the sequence of the delivery that ended it, and when."""

LAST = (1 << 63) - 1
"""The number of a row of another producer in its delivery: behind all others."""


@dataclass(frozen=True)
class Deliveries:
    """The deliveries of a table, as far as the order of rows needs them.

    Attributes:
        times: Sequence -> when it was accepted, microseconds since 1970; not of the first files.
    """

    times: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, table: Table, settings: Settings, upto: int | None = None) -> Self:
        """The deliveries of a home that have a file for a table, up to a sequence if one is given."""
        touching = delivery.files(table, settings).keys()
        return cls(
            {
                each.sequence: int(datetime.fromisoformat(each.at).timestamp() * 1_000_000)
                for each in delivery.deliveries(settings)
                if each.sequence in touching and (upto is None or each.sequence <= upto)
            }
        )

    @cached_property
    def sequences(self) -> list[int]:
        """Their sequences in order, beginning with 0, that of the first files."""
        return [0, *sorted(self.times)]

    @property
    def last(self) -> int:
        """The place of the last one among ``sequences``."""
        return len(self.sequences) - 1


def placed(rows: DataFrame, deliveries: Deliveries) -> DataFrame:
    """Rows of a streamed table, with the columns ``PLACED`` in which their order is."""
    time, delivered = sf.col("_timestamp").cast("timestamp"), sf.col("_delivery")
    since = sf.timestamp_micros(_looked_up(deliveries.times, delivered))
    before = sf.lit(0)
    if deliveries.times:
        starts = _constant([deliveries.times[n] for n in deliveries.sequences[1:]], "array<bigint>")
        before = sf.size(sf.filter(starts, lambda start: start <= sf.unix_micros(time)))
    delivered = sf.coalesce(delivered, sf.try_element_at(_sequences(deliveries), before + 1))
    return rows.withColumns({"_since": sf.coalesce(since, time), "_delivery": delivered})


def judged(rows: DataFrame, table: Table, deliveries: Deliveries) -> DataFrame:
    """Judge each row.

    Args:
        rows: All rows of the keys that are looked at: the table's own columns, ``PLACED``, ``_tombstone`` and those of
            the record.
        table: Their table.
        deliveries: Its deliveries.

    Returns:
        The same with ``_fate``, ``STAYS`` or one of ``LEFT_OUT``, and ``UNTIL``, null where the row did not end.
    """
    number = sf.coalesce("_row", sf.lit(LAST))
    in_order = Window.partitionBy(*table.primary_key).orderBy("_delivery", number, "_since", "_partition", "_offset")
    wanted = [*rows.columns, "_fate", *UNTIL]
    if table.write == "append":
        own = sf.struct(*table.names)
        equal = own.eqNullSafe(sf.first(own).over(in_order))
        fate = sf.when(sf.row_number().over(in_order) == 1, STAYS).when(equal, "duplicates").otherwise("conflicts")
        return rows.withColumns({"_fate": fate, **_never()}).select(*wanted)
    rows, stale = _by_version(rows.withColumn("_deletes", asks_for_deletion(table)), table, in_order)
    places = {sequence: place for place, sequence in enumerate(deliveries.sequences)}
    rows = rows.withColumn("_index", _looked_up(places, sf.col("_delivery")))
    rows = rows.withColumn("_repeats", _repeats(table, in_order))
    # Each kind is judged without those before it: a row is compared with the next one that counts.
    kept = rows.where("NOT _repeats")
    if table.write == "replace":
        kept = _last_seen(rows, table, in_order).where("NOT _repeats")
    kept = kept.withColumn("_next", sf.lead(sf.struct("_deletes", "_delivery", "_since", "_index")).over(in_order))
    kept = _ended(kept, deliveries, absent=table.write == "replace")
    parts = [
        kept,
        *(
            part.withColumns({"_fate": sf.lit(fate), **_never()})
            for part, fate in ((rows.where("_repeats"), "duplicates"), (stale, "stale"))
            if part is not None
        ),
    ]
    first, *others = (part.select(*wanted) for part in parts)
    for other in others:
        first = first.unionByName(other)
    return first


def asks_for_deletion(table: Table) -> Column:
    """Whether a row asks for the deletion of its key's row."""
    asks = sf.expr("false")
    if table.takes_tombstones:
        asks |= sf.coalesce("_tombstone", sf.expr("false"))
    if table.deleted_if:
        column, values = table.deleted_if
        asks |= sf.coalesce(sf.col(column).cast("string").isin(*values), sf.expr("false"))
    return asks


def may_delete(table: Table, streamed: DeltaTable) -> bool:
    """Whether a row of a streamed table may ask for a deletion."""
    if table.deleted_if or not table.takes_tombstones:
        return bool(table.deleted_if)
    column = "_tombstone"
    return any(pc.any(batch[column]).as_py() for batch in delta.batches(streamed, [column]))


def _by_version(rows: DataFrame, table: Table, in_order: WindowSpec) -> tuple[DataFrame, DataFrame | None]:
    """Separate rows that came too late; ``None`` where no version is declared."""
    if not table.version:
        return rows, None
    parsed = next((c for c in table.columns if c.parsed_as and c.parsed_as[0] == table.version), None)
    if parsed and parsed.parsed_as:
        rows = with_parsed(rows, parsed.name, "_version", parsed.parsed_as[1])
    else:
        rows = rows.withColumn("_version", sf.col(table.version))
    newest = sf.max("_version").over(in_order.rowsBetween(Window.unboundedPreceding, -1))
    none = sf.col("_version").isNull() & newest.isNotNull() & ~sf.col("_deletes")
    rows = rows.withColumn("_stale", sf.coalesce(sf.col("_version") < newest, sf.expr("false")) | none)
    return rows.where("NOT _stale"), rows.where("_stale")


def _repeats(table: Table, in_order: WindowSpec) -> Column:
    """Whether a row is the same as the one before it, which no delivery of the whole table lacked in between."""
    own = sf.struct(*table.names)
    before = sf.lag(sf.struct(own.alias("own"), "_deletes", "_index")).over(in_order)
    same = own.eqNullSafe(before["own"]) & ~before["_deletes"] & ~sf.col("_deletes")
    if table.write == "replace":
        same &= before["_index"] + 1 >= sf.col("_index")
    return sf.coalesce(same, sf.expr("false"))


def _last_seen(rows: DataFrame, table: Table, in_order: WindowSpec) -> DataFrame:
    """Rows with ``_seen``: the place of the last delivery that had the row, repeated ones included."""
    rows = rows.withColumn("_of", sf.count(sf.when(~sf.col("_repeats"), 1)).over(in_order))
    return rows.withColumn("_seen", sf.max("_index").over(Window.partitionBy(*table.primary_key, "_of")))


def _ended(rows: DataFrame, deliveries: Deliveries, *, absent: bool) -> DataFrame:
    """Rows with their fate, and by which delivery and when they ended: by the next row of their key, or by absence."""
    following = sf.col("_next")
    fate = sf.when(following["_deletes"], "deleted").when(following.isNotNull(), "superseded")
    until = (following["_delivery"], following["_since"])
    if absent:
        gone = following.isNull() | (following["_index"] > sf.col("_seen") + 1)
        gone = (sf.col("_seen") < deliveries.last) & gone
        sequence = sf.try_element_at(_sequences(deliveries), sf.col("_seen").cast("int") + 2)
        time = sf.timestamp_micros(_looked_up(deliveries.times, sequence))
        fate = sf.when(gone, "deleted").otherwise(fate)
        until = (sf.when(gone, sequence).otherwise(until[0]), sf.when(gone, time).otherwise(until[1]))
    fate = sf.when(sf.col("_deletes"), "deletions").otherwise(sf.coalesce(fate, sf.lit(STAYS)))
    rows = rows.withColumn("_fate", fate)
    return rows.withColumns(
        {name: sf.when(sf.col("_fate").isin(*ENDED), each) for name, each in zip(UNTIL, until, strict=True)}
    )


def _never() -> dict[str, Column]:
    return {UNTIL[0]: sf.lit(None).cast("bigint"), UNTIL[1]: sf.lit(None).cast("timestamp")}


def _sequences(deliveries: Deliveries) -> Column:
    return _constant(deliveries.sequences, "array<bigint>")


def _looked_up(values: Mapping[int, int], key: Column) -> Column:
    """The value of a key; null where there is none. In JSON, keys are texts."""
    return sf.element_at(_constant(values, "map<string,bigint>"), key.cast("string"))


def _constant(value: Mapping[int, int] | Sequence[int], kind: str) -> Column:
    """A constant of any size as one node of Spark's plan, which reads its JSON once."""
    return sf.from_json(sf.lit(json.dumps(value)), kind)
