"""Streamed tables to merged ones: one row per primary key, with typed columns beside the text.

What belongs here: what takes more than one record to decide (duplicates, conflicts), the typed
companion columns, and reading a merged table back without Spark. What does not: how records
came into the lake; see ``streamed``.

Of several rows under one key the first stays, by Kafka's timestamp, then partition, then
offset. Later rows equal to it are duplicates and collapse; later rows that differ from it are
conflicts and go to quarantine. So always: streamed = merged + duplicates + conflicts, in rows
and in checksum.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError
from pyspark.sql import Window
from pyspark.sql import functions as sf

from ecom_assets.core import row_hash
from ecom_assets.core.errors import LakeError
from ecom_assets.core.location import Location, exists, remove
from ecom_assets.core.measure import Measure
from ecom_assets.core.parallel import ordered_map
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.lake import streamed
from ecom_assets.lake.streamed import dataset, read_batches

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

FORM = 1
"""Raised when this module makes other rows or columns of the same input, so that tables are merged anew."""

HASHES = 1 << 25
"""Hashes of keys that are compared at a time, 256 MB of them; of more rows, keys are read several times."""

ORDER = ("_timestamp", "_partition", "_offset")
"""Which of several rows under one key came first."""


@dataclass(frozen=True)
class MergeResult:
    """What a merge did.

    Attributes:
        duplicates: Later rows equal to the one that stayed under their key.
        conflicts: Later rows that differ from it; in quarantine.
        unparsed: Column with a typed companion -> rows whose text the companion's type does not allow.
        unchanged: The merged table was already made of this very streamed table; nothing was written.
    """

    duplicates: Measure
    conflicts: Measure
    unparsed: dict[str, int]
    unchanged: bool = False


def folder(table: Table, settings: Settings) -> Location:
    """Folder of the merged Delta table."""
    return settings.lake / "merged" / table.name


def merge(
    spark: SparkSession,
    table: Table,
    settings: Settings,
    *,
    force: bool = False,
) -> MergeResult:
    """Make the merged table, and its quarantine, of the streamed table as it is now.

    Where the streamed table has only grown since, and no new row differs from another of its key, the new ones are
    appended. Else the table is replaced. Either is one Delta commit, which also says what the table was made of; the
    quarantine is replaced just before, so that a run killed in between is made good by the next.

    Args:
        spark: A Spark Connect session.
        table: Which table.
        settings: Where the lake is.
        force: Merge even if nothing has changed.

    Returns:
        What was set aside, and what could not be parsed.

    Raises:
        LakeError: There is no streamed table.
    """
    source = _source(table, settings)
    origin = _origin(table, source)
    last = _last_merge(table, settings)
    if last and last["origin"] == origin and not force:
        made = {k: Measure.from_json(last[k]) for k in ("duplicates", "conflicts")}
        return MergeResult(**made, unparsed=unparsed(table, settings), unchanged=True)

    if last and not force and (appended := _append(spark, table, settings, last, origin)):
        return MergeResult(*appended, unparsed(table, settings))
    with _split(spark, table, source, origin["version"]) as (kept, later):
        duplicates, conflicts = _write(kept, later, table, settings, origin)
    return MergeResult(duplicates, conflicts, unparsed(table, settings))


def _added(source: Location, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Files that the streamed table has got since it was merged last; none where it is not that alone which it got."""
    if any(old[k] != new[k] for k in ("table", "contract")):
        return []
    try:
        before, now = _names(source, old["version"]), _names(source, _latest_with(source, new["version"]))
    except DeltaError:
        return []  # the log of that time was cleaned up
    return sorted(now - before) if before <= now else []  # upkeep brings rows into other files


def _names(path: Location, version: int) -> set[str]:
    return set(pa.table(DeltaTable(str(path), version=version).get_add_actions())["path"].to_pylist())


def _append(
    spark: SparkSession, table: Table, settings: Settings, last: dict[str, Any], origin: dict[str, Any]
) -> tuple[Measure, Measure] | None:
    """Merge what has come in since the last merge into the table as it is, none of whose rows is written again.

    Returns:
        All duplicates and conflicts. ``None``, and nothing is done, where more has changed than that rows came in,
        where one of them differs from another of its key (the quarantine is made anew as a whole), or where rows come
        again and are so many that to merge all is as quick.
    """
    source, target = streamed.folder(table, settings), folder(table, settings)
    added = _added(source, last["origin"], origin)
    if not added:
        return None
    rows = spark.read.parquet(*(str(source / name) for name in added)).where("_undecoded IS NULL")
    duplicates, conflicts = (Measure.from_json(last[k]) for k in ("duplicates", "conflicts"))
    with ExitStack() as held:
        if repeats(table, [KeysOf(target), KeysOf(source, "_undecoded", origin["version"], frozenset(added))]):
            if 2 * rows.count() > streamed.records(target):
                return None
            own = sf.struct(*table.names)
            under_key = Window.partitionBy(table.primary_key).orderBy(*ORDER)
            there = read(spark, table, settings).select(sf.col(table.primary_key), own.alias("_there"))
            there = there.join(rows.select(table.primary_key).distinct(), table.primary_key, "left_semi")
            judged = rows.withColumns(
                {"_rank": sf.row_number().over(under_key), "_first": sf.first(own).over(under_key)}
            ).join(there, table.primary_key, "left")
            judged = judged.withColumn("_stays", sf.coalesce("_there", "_first")).persist()
            held.callback(judged.unpersist)
            if not judged.where(~sf.col("_stays").eqNullSafe(own)).isEmpty():
                return None
            duplicates += _measure(judged, table, "_rank > 1 OR _there IS NOT NULL")
            rows = judged.where("_rank = 1 AND _there IS NULL")
        memo = {"origin": origin, "duplicates": duplicates.to_json(), "conflicts": conflicts.to_json()}
        writer = typed(rows, table).write.format("delta").mode("append")
        writer.option("userMetadata", json.dumps(memo)).save(str(target))
    if (_last_merge(table, settings) or {}).get("origin") != origin:  # no row to append, and so no commit by Spark
        delta = DeltaTable(str(target))
        told = CommitProperties({"userMetadata": json.dumps(memo)})
        delta.create_write_transaction([], "append", delta.schema(), commit_properties=told)
    return duplicates, conflicts


def _write(
    kept: DataFrame, later: DataFrame | None, table: Table, settings: Settings, origin: dict[str, Any]
) -> tuple[Measure, Measure]:
    """Write quarantine and table; returns the duplicates and the conflicts."""
    duplicates, conflicts = (_measure(later, table, c) for c in ("_duplicate", "NOT _duplicate"))
    streamed.replace_quarantine(
        _conflicts(later, table) if later and conflicts.rows else None, table, settings, "merge"
    )
    memo = {"origin": origin, "duplicates": duplicates.to_json(), "conflicts": conflicts.to_json()}
    (
        typed(kept, table)
        .write.format("delta")
        .mode("overwrite")
        .option("overwriteSchema", "true")
        .option("userMetadata", json.dumps(memo))
        # Keys are random and readers take all of a table: per-column statistics cost, and help nobody.
        .option("delta.dataSkippingNumIndexedCols", "0")
        .save(str(folder(table, settings)))
    )
    return duplicates, conflicts


def due(table: Table, settings: Settings) -> bool:
    """Whether the merged table was not made of the streamed one as it is now.

    Raises:
        LakeError: There is no streamed table.
    """
    last = _last_merge(table, settings)
    return not last or last["origin"] != _origin(table, _source(table, settings))


def delete(table: Table, settings: Settings) -> None:
    """Delete the merged table and its quarantine."""
    streamed.replace_quarantine(None, table, settings, "merge")
    remove(folder(table, settings))


def version(path: Location) -> str:
    """Name what a Delta table holds now: equal names, equal rows; empty if there is no table.

    Upkeep, which changes files but no row, does not change the name.
    """
    if not exists(path):
        return ""
    delta = DeltaTable(str(path))
    return f"{delta.metadata().id}@{_rows_version(delta)}"


def read(spark: SparkSession, table: Table, settings: Settings) -> DataFrame:
    """The merged table's own columns."""
    return spark.read.format("delta").load(str(folder(table, settings))).select(*table.names)


def measure(table: Table, settings: Settings) -> Measure:
    """Count and checksum the merged table's own columns; a missing table holds none."""
    return streamed.measure_delta(table, folder(table, settings))


def unparsed(table: Table, settings: Settings) -> dict[str, int]:
    """Count, per column with a typed companion, the rows that hold text but no typed value."""
    pairs = {c.name: c.parsed_as[0] for c in table.columns if c.parsed_as}
    if not pairs or not exists(folder(table, settings)):
        return dict.fromkeys(pairs, 0)
    counts = dict.fromkeys(pairs, 0)
    for batch in read_batches(folder(table, settings), [*pairs, *pairs.values()]):
        for raw, companion in pairs.items():
            bad = pc.and_(batch.column(raw).is_valid(), batch.column(companion).is_null())
            counts[raw] += pc.sum(bad).as_py() or 0
    return counts


def set_aside(spark: SparkSession, table: Table, settings: Settings) -> dict[str, Measure]:
    """Measure anew what the last merge set aside, for a proof that trusts no remembered number.

    Duplicates are found again in the streamed table, as it was when it was merged; conflicts are
    read from the quarantine, where they must be.

    Returns:
        ``duplicates`` and ``conflicts``.

    Raises:
        LakeError: The streamed table was replaced since, so that it cannot tell any more.
    """
    last = _last_merge(table, settings)
    if not last:
        return {"duplicates": Measure(), "conflicts": Measure()}
    source = streamed.folder(table, settings)
    if not exists(source) or _origin(table, source)["table"] != last["origin"]["table"]:
        raise LakeError(
            f"table {table.name}: the merged table was made of another streamed table than the one in {source};"
            " materialize merged again"
        )
    with _split(spark, table, source, last["origin"]["version"]) as (_, later):
        duplicates = _measure(later, table, "_duplicate")
    return {"duplicates": duplicates, "conflicts": _in_quarantine(spark, table, settings)}


@contextmanager
def _split(
    spark: SparkSession, table: Table, source: Location, rows_version: int
) -> Generator[tuple[DataFrame, DataFrame | None]]:
    """Part rows of a streamed table that stay from later rows under the same key; no frame of these if there are none.

    Mostly there are none, and to see that takes a tenth of the time that Spark needs to find those that are.
    """
    version = _latest_with(source, rows_version)
    rows = spark.read.format("delta").option("versionAsOf", version).load(str(source)).where("_undecoded IS NULL")
    if not repeats(table, [KeysOf(source, "_undecoded", version)]):
        yield rows, None
        return
    with split(rows, table) as parts:
        yield parts


@dataclass(frozen=True)
class KeysOf:
    """Keys of a Delta table.

    Attributes:
        path: Folder of the table.
        null: A column; only rows where it is null count.
        version: Which version of it; the newest if not given.
        files: Only those of these files; all if not given.
    """

    path: Location
    null: str | None = None
    version: int | None = None
    files: frozenset[str] | None = None

    def batches(self, key: str) -> Iterator[pa.RecordBatch]:
        """Read them."""
        return read_batches(self.path, [key], self.null, self.version, self.files)


def repeats(table: Table, keys: Sequence[KeysOf]) -> bool:
    """Whether a key comes twice, or two keys have one 64-bit hash.

    Args:
        table: Whose key.
        keys: Where to look.
    """
    passes = 1 + sum(streamed.records(k.path) for k in keys) // HASHES

    def hashed(batch: pa.RecordBatch, number: int) -> np.ndarray:
        hashes = row_hash.batch_hashes(batch, [table.primary_key])
        return hashes[hashes % passes == number] if passes > 1 else hashes

    for number in range(passes):
        batches = itertools.chain.from_iterable(k.batches(table.primary_key) for k in keys)
        found = np.concatenate([np.empty(0, np.uint64), *ordered_map(partial(hashed, number=number), batches)])
        found.sort()
        if (found[1:] == found[:-1]).any():
            return True
    return False


@contextmanager
def split(rows: DataFrame, table: Table) -> Generator[tuple[DataFrame, DataFrame | None]]:
    """Part rows that stay from later rows under the same key; no frame of these if no key comes twice.

    Keys are counted by a 64-bit hash, which is a quarter of the work of counting texts; two keys
    that share one only take the longer way. Few rows do, so no window over the whole table.
    """
    hashed = rows.withColumn("_key", sf.xxhash64(table.primary_key))
    # Persisted, not checkpointed: a session forgets checkpoints while their frames are in use, a cache is made again.
    repeated = hashed.groupBy("_key").count().where("count > 1").select("_key").persist()
    try:
        yield (rows, None) if repeated.isEmpty() else _parted(rows, hashed, repeated, table)
    finally:
        repeated.unpersist()


def typed(rows: DataFrame, table: Table) -> DataFrame:
    """The table's own columns, and the typed companions beside them."""
    made = rows.select(*table.names)
    for column in table.columns:
        if column.parsed_as:
            made = with_parsed(made, column.name, *column.parsed_as)
    return made


def with_parsed(frame: DataFrame, raw: str, name: str, kind: str) -> DataFrame:
    """Add the typed companion of a text column; null where the text is not of the type.

    Structs and arrays are read as JSON or as Python literals (single quotes, ``None``).

    Args:
        frame: Has the text column.
        raw: The text column.
        name: Name of the companion.
        kind: Its Spark type.

    Returns:
        The frame with one more column.
    """
    text = sf.col(raw)
    if kind in ("timestamp", "date"):
        # A cast alone also takes "12:30" (today!) and "2020".
        return frame.withColumn(name, sf.when(text.rlike(r"^\d{4}-\d\d-\d\d"), text.try_cast(kind)))
    if not kind.startswith(("struct", "array")):
        return frame.withColumn(name, text.try_cast(kind))
    # Columns of their own, or each use of a parsed value would parse again.
    json, literal = sf.col("_json"), sf.col("_literal")
    return (
        frame.withColumn("_json", _from_json(text, kind))
        .withColumn("_literal", sf.when(json["rest"].isNotNull(), _from_json(_as_json(text), kind)))
        .withColumn(
            name, sf.when(json["rest"].isNull(), json["value"]).when(literal["rest"].isNull(), literal["value"])
        )
        .drop("_json", "_literal")
    )


def sample_keys(path: Location, columns: list[str], rows: int = 100_000) -> pa.Table:
    """Read some rows, spread evenly over a Delta table, for instance to find quantiles of keys.

    Args:
        path: Folder of the table.
        columns: Which columns, in the order wanted.
        rows: About how many; all if the table has fewer.

    Returns:
        The rows, always the same ones of the same table.

    Raises:
        LakeError: There is no Delta table.
    """
    whole = dataset(path)
    step = max(1, whole.count_rows() // rows)
    schema = pa.schema([whole.schema.field(c) for c in columns])
    taken, seen = [], 0
    for batch in read_batches(path, columns):
        at = range(-seen % step, batch.num_rows, step)
        taken.append(batch.take(pa.array(at, pa.int64())))
        seen += batch.num_rows
    return pa.Table.from_batches(taken, schema)


def _source(table: Table, settings: Settings) -> Location:
    path = streamed.folder(table, settings)
    if not exists(path):
        raise LakeError(f"table {table.name}: expected a Delta table in {path}, got none; materialize streamed first")
    return path


def _origin(table: Table, source: Location) -> dict[str, Any]:
    """What a merged table is made of: which streamed table, at which version, under which contract."""
    delta = DeltaTable(str(source))
    contract = hashlib.sha256(f"{FORM} {json.dumps(table.avsc)}".encode()).hexdigest()[:16]
    return {"table": str(delta.metadata().id), "version": _rows_version(delta), "contract": contract}


UPKEEP = ("OPTIMIZE", "VACUUM START", "VACUUM END")
"""Operations in a Delta log that change files but no row."""


def _rows_version(delta: DeltaTable) -> int:
    """The last version that changed rows and not only files."""
    changed = (c["version"] for c in delta.history() if c.get("operation") not in UPKEEP)
    return next(changed, delta.version())  # the log of what came before may have been cleaned up


def _latest_with(source: Location, rows_version: int) -> int:
    """The newest version that holds the rows of a version: its files are deleted last."""
    later = sorted(
        (c for c in DeltaTable(str(source)).history() if c["version"] > rows_version), key=lambda c: c["version"]
    )
    same = itertools.takewhile(lambda c: c.get("operation") in UPKEEP, later)
    return max((c["version"] for c in same), default=rows_version)


def _last_merge(table: Table, settings: Settings) -> dict[str, Any] | None:
    """What the last merge has written into its commit."""
    if not exists(path := folder(table, settings)):
        return None
    # Another program may have compacted the table since; that keeps its rows.
    memos = (commit.get("userMetadata") for commit in DeltaTable(str(path)).history())
    return next((json.loads(memo) for memo in memos if memo), None)


def _measure(frame: DataFrame | None, table: Table, condition: str = "true") -> Measure:
    return Measure(*row_hash.spark_measure(frame.where(condition), table)) if frame else Measure()


def _parted(rows: DataFrame, hashed: DataFrame, repeated: DataFrame, table: Table) -> tuple[DataFrame, DataFrame]:
    under_key = Window.partitionBy(table.primary_key).orderBy(*ORDER)
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


def _in_quarantine(spark: SparkSession, table: Table, settings: Settings) -> Measure:
    """The conflicts in quarantine, made rows again."""
    path = streamed.quarantine(table, settings)
    if not exists(path):
        return Measure()
    raw = spark.read.format("delta").load(str(path)).where("stage = 'merge'")
    row = sf.from_json("raw", streamed.own_columns(table)).alias("row")
    return _measure(raw.select(row).select("row.*"), table)


def _conflicts(later: DataFrame, table: Table) -> DataFrame:
    """Rows for the quarantine; their raw text is JSON from which the row can be made again."""
    return later.where("NOT _duplicate").select(
        sf.format_string("%s[%d]", "_topic", "_partition").alias("source"),
        sf.col("_offset").alias("line_or_offset"),
        sf.col(table.primary_key).cast("string").alias("key"),
        sf.to_json(sf.struct(*table.names), {"ignoreNullFields": "false"}).alias("raw"),
        sf.lit(f"expected one row per {table.primary_key}, got one that differs from an earlier one").alias("reason"),
    )


def _from_json(text: Column, kind: str) -> Column:
    """Parse one value; ``rest`` is not null if anything was left over or of another type."""
    # Within an object, so that the parser reports what it could not use, and takes no trailing text.
    options = {"columnNameOfCorruptRecord": "rest", "allowSingleQuotes": "true"}
    return sf.from_json(sf.concat(sf.lit('{"value":'), text, sf.lit("}")), f"value {kind}, rest string", options)


def _as_json(text: Column) -> Column:
    r"""Rewrite what Python literals have and JSON has not: None, True, False and \xNN."""
    mark = "\x01"
    strings = r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    for python, plain in (("None", "null"), ("True", "true"), ("False", "false")):
        # A replacement cannot choose, so texts are marked at their end and words become a bare mark.
        text = sf.regexp_replace(text, rf"{strings}|\b{python}\b", f"$1{mark}")
        text = sf.replace(sf.regexp_replace(text, rf"(?<=['\"]){mark}", ""), sf.lit(mark), sf.lit(plain))
    return sf.regexp_replace(text, r"(?<!\\)((?:\\\\)*)\\x([0-9a-f]{2})", r"$1\\u00$2")
