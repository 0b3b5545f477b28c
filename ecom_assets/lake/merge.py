"""Merging: one row per primary key out of a streamed table, with typed columns next to the text.

What belongs here: when new rows alone are merged and when all, and the merge of all. What does not: the merge of new
ones (``increment``), the verdict on each row (``fates``), and what a merged table holds (``merged``).

Always: streamed = merged + what was left out, in rows and in checksum; ``boundary.LEFT_OUT`` has the reasons.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deltalake import DeltaTable
from pyspark.sql import functions as sf

from ecom_assets.core import row_hash
from ecom_assets.core.accounts import ENDED
from ecom_assets.core.errors import LakeError
from ecom_assets.core.location import Location, exists, remove
from ecom_assets.core.location import replace as swap
from ecom_assets.core.measure import Measure
from ecom_assets.dataset.model import Table
from ecom_assets.lake import delta, fates, history, quarantine, streamed, target
from ecom_assets.lake.delta import Version
from ecom_assets.lake.fates import STAYS, Deliveries
from ecom_assets.lake.increment import Increment
from ecom_assets.lake.repeats import KeysOf, repeats
from ecom_assets.lake.target import LastMerge, Left, folder, merged_version

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from ecom_assets.core.context import Context

JSON_TIMES = {
    "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX",
    "timestampNTZFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS",
}
"""How times are written in quarantine, as Java's patterns (the last letters are a zone): by default, Spark writes
milliseconds alone."""


def merge(at: Context, table: Table, version: Version) -> Left:
    """Bring the merged table up to a version of the streamed one.

    Where the streamed table has only grown since the last merge, the rows of its new files alone are looked at, next to
    those that the merged table has under their keys: new rows are appended, and the files of rows that were superseded
    or deleted are written again without them. Otherwise the content is replaced. Either is one Delta commit; quarantine
    and history are written just before, and a merge that was killed in between is repeated as a whole.

    Args:
        at: Connections and settings.
        table: Which table.
        version: The version, with its rows in the streamed table.

    Returns:
        All rows that are left out.

    Raises:
        LakeError: The streamed table is gone, of another id, or has only a part of a delivery that is the whole table.
    """
    path = folder(table, at.settings)
    deliveries = Deliveries.of(table, at.settings, _complete(at, table, version))
    if exists(path) and (left := _merge_new(at, table, version, deliveries)) is not None:
        return left
    with _split(at, table, version, deliveries) as parts:
        return _write(at, table, version, parts, deliveries=deliveries, path=path)


def rebuild(at: Context, table: Table, version: Version) -> Left:
    """Merge all of a version of the streamed table into a new table, and swap it for the one there."""
    path = folder(table, at.settings)
    new = path.with_name(f".{table.name}.next")
    remove(new)
    deliveries = Deliveries.of(table, at.settings, _complete(at, table, version))
    with _split(at, table, version, deliveries) as parts:
        left = _write(at, table, version, parts, deliveries=deliveries, path=new)
    swap(new, path)
    return left


def left_out(at: Context, table: Table, version: Version) -> Left:
    """Measure again the rows of a version of the streamed table that merging leaves out."""
    deliveries = Deliveries.of(table, at.settings, _complete(at, table, version))
    with _split(at, table, version, deliveries) as (_, judged):
        return target.left_of(judged, table)


def left_since(at: Context, table: Table, merged: DeltaTable, version: Version) -> Left | None:
    """Measure again what was left out of the rows that were streamed since an earlier merge, and what ended by them.

    Args:
        at: Connections and settings.
        table: The table.
        merged: The merged table as that merge left it.
        version: The version of the streamed table up to which rows count.

    Returns:
        The difference to what was left out before; ``None`` where only ``left_out`` finds it.
    """
    last = merged_version(merged, version.id)
    names = delta.added(streamed.folder(table, at.settings), last, version) if last else None
    if names is None or table.write == "replace" or table.version:
        return None
    if not names:
        return target.left_of(None, table)
    new = Increment(at, table, version, frozenset(names), merged, Deliveries.of(table, at.settings), 0)
    with new.judged() as judged:
        if judged is None:
            return target.left_of(None, table)
        return None if judged.is_beyond else judged.left


def _merge_new(at: Context, table: Table, version: Version, deliveries: Deliveries) -> Left | None:
    """Merge what came since the last merge; ``None`` where that is more than new rows, or unknown."""
    merged = DeltaTable(str(folder(table, at.settings)))
    last = merged_version(merged, version.id)
    known = LastMerge.of(at.books, table, last) if last else None
    names = delta.added(streamed.folder(table, at.settings), last, version) if last and known else None
    if not known or not names:
        return None
    if table.version and known.left["deletions"].rows:
        return None  # the versions of rows that were deleted are in the streamed table alone
    return Increment(at, table, version, frozenset(names), merged, deliveries, known.deliveries).merge(known.left)


def _complete(at: Context, table: Table, version: Version) -> int | None:
    """The last delivery that a streamed table holds all rows of, where deliveries are whole tables; else ``None``.

    Raises:
        LakeError: It has a part of one: the rows that are still to come would count as deleted.
    """
    if table.write != "replace":
        return None
    held = _all(at, table, version).groupBy("_delivery").count().collect()
    rows, last = {row["_delivery"]: row["count"] for row in held}, 0
    for sequence in Deliveries.of(table, at.settings).sequences[1:]:
        built, got = at.books.build("chunked", table.name, str(sequence)), rows.get(sequence, 0)
        if not got and (built is None or built.rows):
            break
        if built and got < built.rows:
            raise LakeError(
                f"streamed/{table.name}: expected all {built.rows:,} rows of delivery {sequence}, which is the whole"
                f" table, got {got:,}",
                "materialize topic and streamed to their end, then merge again",
                transient=True,
            )
        last = sequence
    return last


def _all(at: Context, table: Table, version: Version) -> DataFrame:
    """All rows of a version of the streamed table."""
    source = streamed.folder(table, at.settings)
    number = delta.at_version(source, version).version()
    rows = at.spark.read.format("delta").option("versionAsOf", number).load(str(source))
    return rows.where("_undecoded IS NULL")


def _write(
    at: Context,
    table: Table,
    version: Version,
    parts: tuple[DataFrame, DataFrame | None],
    *,
    deliveries: Deliveries,
    path: Location,
) -> Left:
    """Write quarantine, history and table as a whole."""
    kept, judged = parts
    left = target.left_of(judged, table)
    conflicts = judged if left["conflicts"].rows else None
    quarantine.replace(_conflicts(conflicts, table) if conflicts else None, table, at.settings, "merge")
    target.remember(at.books, table, version, left, deliveries)
    if table.history:
        ended = judged.where(sf.col("_fate").isin(*ENDED)) if judged and any(left[r].rows for r in ENDED) else None
        history.replace(ended, table, at.settings)
    writer = (
        target.columns(kept, table)
        .write.format("delta")
        .mode("overwrite")
        .option("overwriteSchema", "true")
        # Keys are random and readers take all of a table: per-column statistics cost time, and no reader uses them.
        .option("delta.dataSkippingNumIndexedCols", "0")
    )
    target.transacted(writer, version).save(str(path))
    return left


def read(spark: SparkSession, table: Table, path: Location, number: int | None = None) -> DataFrame:
    """A merged table's own columns, at a version or as it is now."""
    reader = spark.read.format("delta")
    reader = reader if number is None else reader.option("versionAsOf", number)
    return reader.load(str(path)).select(*table.names)


@contextmanager
def _split(
    at: Context, table: Table, version: Version, deliveries: Deliveries
) -> Generator[tuple[DataFrame, DataFrame | None]]:
    """Rows of a streamed table that stay, and all those with their fate that had to be judged; ``None`` if none had.

    Mostly no key comes twice, and detecting that takes a tenth of the time that Spark needs to find those that do.
    """
    rows = fates.placed(_all(at, table, version), deliveries)
    snapshots = table.write == "replace" and deliveries.last > 0
    source = delta.at_version(streamed.folder(table, at.settings), version)
    alone = not snapshots and not fates.may_delete(table, source)
    if alone and not repeats(table, [KeysOf(source, "_undecoded")]):
        yield rows, None
        return
    with split(rows, table, deliveries) as parts:
        yield parts


@contextmanager
def split(rows: DataFrame, table: Table, deliveries: Deliveries) -> Generator[tuple[DataFrame, DataFrame | None]]:
    """Separate rows that stay from those that do not; the latter are among all that were judged, with ``_fate``.

    Keys are counted by a 64-bit hash, which is a quarter of the work of counting texts; two keys
    that share one only take the slower path. Few rows do, so there is no window over the whole table, unless a delivery
    may delete by what it does not have.
    """
    hashed = rows.withColumn("_key", sf.xxhash64(*table.primary_key))
    if table.write == "replace" and deliveries.last:
        judged = fates.judged(rows, table, deliveries).persist()
        try:
            yield judged.where(sf.col("_fate") == STAYS).select(*rows.columns), judged
        finally:
            judged.unpersist()
        return
    counted = hashed.withColumn("_deletes", fates.asks_for_deletion(table)).groupBy("_key")
    counted = counted.agg(sf.count("*").alias("count"), sf.max("_deletes").alias("deletes"))
    # Persisted, not checkpointed: a session forgets checkpoints while their frames are in use, a cache is rebuilt.
    several = counted.where("count > 1 OR deletes").select("_key").persist()
    try:
        if several.isEmpty():
            yield rows, None
            return
        judged = fates.judged(hashed.join(several, "_key", "left_semi"), table, deliveries)
        single = hashed.join(several, "_key", "left_anti").select(*rows.columns)
        yield single.unionByName(judged.where(sf.col("_fate") == STAYS).select(*rows.columns)), judged
    finally:
        several.unpersist()


def in_quarantine(at: Context, table: Table) -> Measure:
    """The conflicts in quarantine, parsed back into rows."""
    path = quarantine.folder(table, at.settings)
    if not exists(path):
        return Measure()
    columns = ", ".join(f"`{c.name}` {c.kind.spark}" for c in table.columns)
    raw = at.spark.read.format("delta").load(str(path)).where("stage = 'merge'")
    rows = raw.select(sf.from_json("raw", columns, JSON_TIMES).alias("row")).select("row.*")
    return Measure(*row_hash.spark_measure(rows, table.ids))


def _conflicts(judged: DataFrame, table: Table) -> DataFrame:
    """Rows for the quarantine; their raw text is JSON from which the row can be rebuilt."""
    return judged.where("_fate = 'conflicts'").select(
        sf.format_string("%s[%d]", "_topic", "_partition").alias("source"),
        sf.col("_offset").alias("line_or_offset"),
        sf.concat_ws(", ", *(sf.col(name).cast("string") for name in table.primary_key)).alias("key"),
        sf.to_json(sf.struct(*table.names), {**JSON_TIMES, "ignoreNullFields": "false"}).alias("raw"),
        sf.lit(f"expected one row per {table.key}, got one that differs from an earlier one").alias("reason"),
    )
