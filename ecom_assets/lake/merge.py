"""Merging: one row per primary key out of a streamed table, with typed columns next to the text.

What belongs here: what takes more than one record to decide (duplicates, conflicts), and writing the merged table. What
does not: when to merge and what a merged table holds; see ``merged``.

Of several rows under one key the first stays, by Kafka's timestamp, then partition, then offset. Later rows equal to it
are duplicates and collapse; later rows that differ from it are conflicts and go to quarantine. So always: streamed =
merged + duplicates + conflicts, in rows and in checksum.

Each commit records the version of the streamed table that it brings the merged one up to, as Delta's transaction
identifier ``streamed/<id of the streamed table>``.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deltalake import CommitProperties, DeltaTable, Transaction
from pyspark.sql import Window
from pyspark.sql import functions as sf

from ecom_assets.core import row_hash
from ecom_assets.core.location import Location, exists, remove
from ecom_assets.core.location import replace as swap
from ecom_assets.core.measure import Measure
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.lake import delta, quarantine, streamed
from ecom_assets.lake.delta import Version
from ecom_assets.lake.repeats import KeysOf, repeats
from ecom_assets.lake.typed import typed

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from ecom_assets.core.context import Context

ORDER = ("_timestamp", "_partition", "_offset")
"""Which of several rows under one key came first."""

JSON_TIMES = {
    "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX",
    "timestampNTZFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS",
}
"""How times are written in quarantine, as Java's patterns (the last letters are a zone): by default, Spark writes
milliseconds alone."""


@dataclass(frozen=True)
class Left:
    """Rows of a streamed table that are not in the merged one.

    Attributes:
        duplicates: Later rows equal to the one that stayed under their key.
        conflicts: Later rows that differ from it; in quarantine.
    """

    duplicates: Measure
    conflicts: Measure


def folder(table: Table, settings: Settings) -> Location:
    """Folder of the merged Delta table."""
    return settings.lake / "merged" / table.name


def merged_version(merged: DeltaTable, streamed_id: str) -> Version | None:
    """The version of a streamed table that a merged one holds; ``None`` if it was built from another table."""
    number = merged.transaction_version(_app_id(streamed_id))
    return None if number is None else Version(streamed_id, number)


def _app_id(streamed_id: str) -> str:
    return f"streamed/{streamed_id}"


def merge(at: Context, table: Table, version: Version) -> Left:
    """Bring the merged table up to a version of the streamed one.

    Where the streamed table has only grown since the last merge, and no new row differs from another of its key, the
    new ones are appended. Otherwise the content is replaced. Either is one Delta commit; the quarantine is replaced
    just before, so that the next build repeats a merge that was killed in between.

    Args:
        at: Connections and settings.
        table: Which table.
        version: The version, with its rows in the streamed table.

    Returns:
        All rows that are left out.

    Raises:
        LakeError: The streamed table is gone, or of another id.
    """
    target = folder(table, at.settings)
    if appended := _append(at, table, version, target):
        return appended
    with _split(at.spark, table, streamed.folder(table, at.settings), version) as parts:
        return _write(at, table, version, parts, target)


def rebuild(at: Context, table: Table, version: Version) -> Left:
    """Merge all of a version of the streamed table into a new table, and swap it for the one there."""
    target = folder(table, at.settings)
    new = target.with_name(f".{table.name}.next")
    remove(new)
    with _split(at.spark, table, streamed.folder(table, at.settings), version) as parts:
        left = _write(at, table, version, parts, new)
    swap(new, target)
    return left


def left_out(at: Context, table: Table, version: Version) -> Left:
    """Measure again the rows of a version of the streamed table that merging leaves out."""
    with _split(at.spark, table, streamed.folder(table, at.settings), version) as (_, later):
        return _left(later, table)


def _left(later: DataFrame | None, table: Table) -> Left:
    return Left(*(_measure(later, table, c) for c in ("_duplicate", "NOT _duplicate")))


def _append(at: Context, table: Table, version: Version, target: Location) -> Left | None:
    """Merge what has come in since the last merge into the table as it is, none of whose rows is written again.

    Returns:
        All rows left out. ``None``, and nothing is done, where the change is more than new rows, where one of them
        differs from another of its key (the quarantine is then replaced as a whole), or where there are so many
        repeated rows that a full merge is as fast.
    """
    source = streamed.folder(table, at.settings)
    last = merged_version(DeltaTable(str(target)), version.id) if exists(target) else None
    known = _known(at, table, last)
    added = delta.added(source, last, version) if last and known else None
    if not added or not known:
        return None
    rows = at.spark.read.parquet(*(str(source / name) for name in sorted(added))).where("_undecoded IS NULL")
    duplicates = known.duplicates
    with ExitStack() as held:
        new = KeysOf(delta.at_version(source, version), "_undecoded", frozenset(added))
        if repeats(table, [KeysOf(DeltaTable(str(target))), new]):
            if 2 * rows.count() > delta.records(target):
                return None
            own = sf.struct(*table.names)
            under_key = Window.partitionBy(*table.primary_key).orderBy(*ORDER)
            there = read(at.spark, table, target).select(*table.primary_key, own.alias("_there"))
            there = there.join(rows.select(*table.primary_key).distinct(), list(table.primary_key), "left_semi")
            judged = rows.withColumns(
                {"_rank": sf.row_number().over(under_key), "_first": sf.first(own).over(under_key)}
            ).join(there, list(table.primary_key), "left")
            judged = judged.withColumn("_stays", sf.coalesce("_there", "_first")).persist()
            held.callback(judged.unpersist)
            if not judged.where(~sf.col("_stays").eqNullSafe(own)).isEmpty():
                return None
            duplicates += _measure(judged, table, "_rank > 1 OR _there IS NOT NULL")
            rows = judged.where("_rank = 1 AND _there IS NULL")
        left = Left(duplicates, known.conflicts)
        _remember(at, table, version, left)
        _transacted(typed(rows, table).write.format("delta").mode("append"), version).save(str(target))
    written = DeltaTable(str(target))
    if merged_version(written, version.id) != version:  # no row to append, and so no commit by Spark
        transaction = Transaction(_app_id(version.id), version.number)
        written.create_write_transaction(
            [], "append", written.schema(), commit_properties=CommitProperties(app_transactions=[transaction])
        )
    return left


def _write(
    at: Context, table: Table, version: Version, parts: tuple[DataFrame, DataFrame | None], target: Location
) -> Left:
    """Write quarantine and table."""
    kept, later = parts
    left = _left(later, table)
    quarantine.replace(_conflicts(later, table) if later and left.conflicts.rows else None, table, at.settings, "merge")
    _remember(at, table, version, left)
    writer = (
        typed(kept, table)
        .write.format("delta")
        .mode("overwrite")
        .option("overwriteSchema", "true")
        # Keys are random and readers take all of a table: per-column statistics cost time, and no reader uses them.
        .option("delta.dataSkippingNumIndexedCols", "0")
    )
    _transacted(writer, version).save(str(target))
    return left


def _transacted(writer: Any, version: Version) -> Any:
    """A write that names the version it brings the table up to; Delta skips one that was committed already."""
    return writer.option("txnAppId", _app_id(version.id)).option("txnVersion", version.number)


def _remember(at: Context, table: Table, version: Version, left: Left) -> None:
    """Record what a merge leaves out, before its commit: without it, the entry names a version that is not there."""
    at.books.set_state(
        f"merged/{table.name}/left out",
        {
            "version": str(version),
            "duplicates": left.duplicates.to_json(),
            "conflicts": left.conflicts.to_json(),
        },
    )


def _known(at: Context, table: Table, version: Version | None) -> Left | None:
    """What the merge of a version left out, if the books know."""
    entry = at.books.state(f"merged/{table.name}/left out")
    if not entry or version is None or entry["version"] != str(version):
        return None
    return Left(Measure.from_json(entry["duplicates"]), Measure.from_json(entry["conflicts"]))


def read(spark: SparkSession, table: Table, path: Location, number: int | None = None) -> DataFrame:
    """A merged table's own columns, at a version or as it is now."""
    reader = spark.read.format("delta")
    reader = reader if number is None else reader.option("versionAsOf", number)
    return reader.load(str(path)).select(*table.names)


@contextmanager
def _split(
    spark: SparkSession, table: Table, source: Location, version: Version
) -> Generator[tuple[DataFrame, DataFrame | None]]:
    """Split a streamed table into rows that stay and later rows under the same key; ``None`` if there are none.

    Mostly there are none, and detecting that takes a tenth of the time that Spark needs to find them.
    """
    found = delta.at_version(source, version)
    rows = spark.read.format("delta").option("versionAsOf", found.version()).load(str(source))
    rows = rows.where("_undecoded IS NULL")
    if not repeats(table, [KeysOf(found, "_undecoded")]):
        yield rows, None
        return
    with split(rows, table) as parts:
        yield parts


@contextmanager
def split(rows: DataFrame, table: Table) -> Generator[tuple[DataFrame, DataFrame | None]]:
    """Separate rows that stay from later rows under the same key; no frame of these if no key comes twice.

    Keys are counted by a 64-bit hash, which is a quarter of the work of counting texts; two keys
    that share one only take the slower path. Few rows do, so there is no window over the whole table.
    """
    hashed = rows.withColumn("_key", sf.xxhash64(*table.primary_key))
    # Persisted, not checkpointed: a session forgets checkpoints while their frames are in use, a cache is rebuilt.
    repeated = hashed.groupBy("_key").count().where("count > 1").select("_key").persist()
    try:
        yield (rows, None) if repeated.isEmpty() else _parted(rows, hashed, repeated, table)
    finally:
        repeated.unpersist()


def _measure(frame: DataFrame | None, table: Table, condition: str = "true") -> Measure:
    return Measure(*row_hash.spark_measure(frame.where(condition), table.ids)) if frame else Measure()


def _parted(rows: DataFrame, hashed: DataFrame, repeated: DataFrame, table: Table) -> tuple[DataFrame, DataFrame]:
    under_key = Window.partitionBy(*table.primary_key).orderBy(*ORDER)
    own = sf.struct(*table.names)
    ranked = hashed.join(repeated, "_key", "left_semi").withColumns(
        {
            "_rank": sf.row_number().over(under_key),
            "_duplicate": sf.first(own).over(under_key).eqNullSafe(own),
        }
    )
    single = hashed.join(repeated, "_key", "left_anti")
    kept = single.select(*rows.columns).unionByName(ranked.where("_rank = 1").select(*rows.columns))
    return kept, ranked.where("_rank > 1")


def in_quarantine(spark: SparkSession, table: Table, settings: Settings) -> Measure:
    """The conflicts in quarantine, parsed back into rows."""
    path = quarantine.folder(table, settings)
    if not exists(path):
        return Measure()
    columns = ", ".join(f"`{c.name}` {c.kind.spark}" for c in table.columns)
    raw = spark.read.format("delta").load(str(path)).where("stage = 'merge'")
    return _measure(raw.select(sf.from_json("raw", columns, JSON_TIMES).alias("row")).select("row.*"), table)


def _conflicts(later: DataFrame, table: Table) -> DataFrame:
    """Rows for the quarantine; their raw text is JSON from which the row can be rebuilt."""
    return later.where("NOT _duplicate").select(
        sf.format_string("%s[%d]", "_topic", "_partition").alias("source"),
        sf.col("_offset").alias("line_or_offset"),
        sf.concat_ws(", ", *(sf.col(name).cast("string") for name in table.primary_key)).alias("key"),
        sf.to_json(sf.struct(*table.names), {**JSON_TIMES, "ignoreNullFields": "false"}).alias("raw"),
        sf.lit(f"expected one row per {table.key}, got one that differs from an earlier one").alias("reason"),
    )
