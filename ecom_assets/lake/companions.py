"""Typed companions are verified against their texts: charts compute with them, so a wrong value is a wrong chart.

What belongs here: the comparison, by other programs than the one that types columns where that is possible. What does
not: how a text becomes a value; see ``typed``.

Timestamps, dates and numbers in their usual form are parsed again by Arrow, every row. What Arrow and Spark could read
differently (another form of text), and structs and arrays, are typed again by Spark: the odd texts all, the structs and
arrays in one row of ``SAMPLE``, chosen by the primary key.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from pyspark.sql import functions as sf

from ecom_assets.core.location import Location
from ecom_assets.dataset.kind import named
from ecom_assets.dataset.model import Column, Table
from ecom_assets.lake import delta
from ecom_assets.lake.typed import with_parsed

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SAMPLE = 64
"""One of so many rows is verified where a text is a struct or an array."""

ODD = 100_000
"""Texts of an odd form that are typed again, at most."""

_USUAL = {"timestamp": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?Z$"}
"""Spark type -> what Arrow parses of the form of its texts, where that is not all of it."""


@dataclass
class _Found:
    """What was found of one companion.

    Attributes:
        wrong: Rows whose value differs from their text.
        example: Text and value of one of them.
        odd: Texts of another form, and their values.
    """

    wrong: int = 0
    example: str = ""
    odd: list[pa.Table] = field(default_factory=list)


def mismatches(
    spark: SparkSession, table: Table, path: Location, found: DeltaTable, names: Collection[str] | None = None
) -> list[str]:
    """Compare every companion of a merged table with its text.

    Args:
        spark: A Spark Connect session.
        table: The table.
        path: Folder of the Delta table.
        found: The same at the version wanted.
        names: Names of files within its folder; only their rows are compared, if given.

    Returns:
        A sentence for each companion that differs.
    """
    typed = [column for column in table.columns if column.parsed_as] if names is None or names else []
    plain = [column for column in typed if column.parsed_as and named(column.parsed_as[1])]
    sentences = []
    for column, what in zip(plain, _compare_plain(found, plain, names), strict=True):
        if what.odd:
            texts = pa.concat_tables(what.odd).slice(0, ODD)
            frame = spark.createDataFrame(texts)
            _add(what, frame, column)
        sentences += _told(table, column, what)
    for column in typed:
        if column not in plain:
            rows = _rows(spark, path, found, names)
            some = rows.where(sf.pmod(sf.xxhash64(*table.primary_key), sf.lit(SAMPLE)) == 0)
            what = _Found()
            _add(what, some.select(sf.col(column.name).alias("text"), sf.col(_name(column)).alias("value")), column)
            sentences += _told(table, column, what)
    return sentences


def _rows(spark: SparkSession, path: Location, found: DeltaTable, names: Collection[str] | None) -> DataFrame:
    if names is None:
        return spark.read.format("delta").option("versionAsOf", found.version()).load(str(path))
    return spark.read.parquet(*(str(path / name) for name in sorted(names)))


def _name(column: Column) -> str:
    assert column.parsed_as
    return column.parsed_as[0]


def _told(table: Table, column: Column, what: _Found) -> Iterator[str]:
    if what.wrong:
        yield (
            f"merged/{table.name}: expected {_name(column)} to be {column.name}, typed; got another value in"
            f" {what.wrong:,} rows, such as {what.example}"
        )


def _compare_plain(found: DeltaTable, columns: list[Column], files: Collection[str] | None) -> list[_Found]:
    results = [_Found() for _ in columns]
    names = [name for column in columns for name in (column.name, _name(column))]
    for batch in delta.batches(found, names, names=files) if columns else ():
        for column, result in zip(columns, results, strict=True):
            _compare(batch.column(column.name), batch.column(_name(column)), column, result)
    return results


def _compare(texts: pa.Array, values: pa.Array, column: Column, result: _Found) -> None:
    assert column.parsed_as
    kind = named(column.parsed_as[1])
    assert kind
    texts = texts.cast(pa.string())
    usual = pc.fill_null(pc.match_substring_regex(texts, _USUAL.get(kind.name, kind.whole)), True)
    plain, stored = texts.filter(usual), values.filter(usual)
    try:
        again = pc.cast(plain, kind.arrow)
    except pa.ArrowInvalid:  # a thirteenth month, for instance
        usual = pa.array([False] * len(texts))
        plain, stored, again = texts.slice(0, 0), values.slice(0, 0), pa.array([], kind.arrow)
    same = pc.or_kleene(
        pc.fill_null(pc.equal(again, stored.cast(kind.arrow)), False),
        pc.and_(again.is_null(), stored.is_null()),
    )
    differs = pc.indices_nonzero(pc.invert(same))
    if len(differs):
        at = differs[0].as_py()
        result.example = result.example or f"{plain[at].as_py()!r}: {stored[at].as_py()}"
        result.wrong += len(differs)
    if len(plain) < len(texts):
        odd = pc.invert(usual)
        result.odd.append(pa.table({"text": texts.filter(odd), "value": values.filter(odd)}))


def _add(what: _Found, frame: DataFrame, column: Column) -> None:
    """Type texts again by Spark, and count values that differ."""
    assert column.parsed_as
    again = with_parsed(frame, "text", "again", column.parsed_as[1])
    # Spark compares no maps; both are parsed from one text, so their keys have one order.
    pair = [sf.to_json(name) if "map<" in column.parsed_as[1] else sf.col(name) for name in ("value", "again")]
    wrong = again.where(~pair[0].eqNullSafe(pair[1]))
    count = wrong.count()
    if count:
        first = wrong.select("text", sf.col("value").cast("string")).first()
        assert first
        what.example = what.example or f"{first[0]!r}: {first[1]}"
        what.wrong += count
