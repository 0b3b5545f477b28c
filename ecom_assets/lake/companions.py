"""Typed companions are verified against their texts: charts compute with them, so a wrong value is a wrong chart.

What belongs here: the comparison, by other programs than the one that types columns where that is possible. What does
not: how a text becomes a value; see ``typed``.

Timestamps, dates and numbers in their usual form are parsed again by Arrow, every row; odd texts, which Arrow and Spark
could read differently, by Spark. Structs and arrays are typed again in one row of ``SAMPLE``, or more where there are
few: by Spark where a whole table is compared, and else by Python, but for the texts that these two could read
differently.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from pyspark.sql import functions as sf

from ecom_assets.core.location import Location
from ecom_assets.dataset.kind import named
from ecom_assets.dataset.model import Column, Table
from ecom_assets.lake import delta
from ecom_assets.lake.delta import Rows
from ecom_assets.lake.typed import with_parsed
from ecom_assets.lake.usual import is_usual

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from ecom_assets.core.context import Context

SAMPLE = 64
"""One of so many rows is verified where a text is a struct or an array."""

WHOLE = 1000
"""Up to so many rows that came, each is verified."""

ODD = 100_000
"""Texts of an odd form that are typed again, at most."""


@dataclass
class _Found:
    """What was found of one companion.

    Attributes:
        wrong: Rows whose value differs from their text.
        example: Text and value of one of them.
        odd: Texts of which only Spark says what they are, and their values.
    """

    wrong: int = 0
    example: str = ""
    odd: list[pa.Table] = field(default_factory=list)


def mismatches(at: Context, table: Table, path: Location, found: DeltaTable, names: Rows | None = None) -> list[str]:
    """Compare every companion of a merged table with its text.

    Args:
        at: For a session with Spark, where one is needed.
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
        _ask_spark(at, what, column)
        sentences += _told(table, column, what)
    for column in typed:
        if column not in plain:
            what = _Found()
            if names is None:
                rows = at.spark.read.format("delta").option("versionAsOf", found.version()).load(str(path))
                some = rows.where(sf.pmod(sf.xxhash64(*table.primary_key), sf.lit(SAMPLE)) == 0)
                _add(what, some.select(sf.col(column.name).alias("text"), sf.col(_name(column)).alias("value")), column)
            else:
                _confirm(found, column, names, what)
                _ask_spark(at, what, column)
            sentences += _told(table, column, what)
    return sentences


def _name(column: Column) -> str:
    assert column.parsed_as
    return column.parsed_as[0]


def _told(table: Table, column: Column, what: _Found) -> Iterator[str]:
    if what.wrong:
        yield (
            f"merged/{table.name}: expected {_name(column)} to be {column.name}, typed; got another value in"
            f" {what.wrong:,} rows, such as {what.example}"
        )


def _compare_plain(found: DeltaTable, columns: list[Column], files: Rows | None) -> list[_Found]:
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
    usual = is_usual(texts, kind)
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


def _confirm(found: DeltaTable, column: Column, rows: Rows, what: _Found) -> None:
    """Let Python read structs and arrays again; those of which it does not find the same value are odd."""
    step = min(SAMPLE, 1 + delta.count(found, rows) // WHOLE)
    for batch in delta.batches(found, [column.name, _name(column)], names=rows):
        some = batch.take(pa.array(range(0, len(batch), step)))
        texts, values = some.column(0).cast(pa.string()), some.column(1)
        odd = [
            at
            for at, (text, value) in enumerate(zip(texts.to_pylist(), values.to_pylist(), strict=True))
            if not _is_read_as(text, value, values.type)
        ]
        if odd:
            what.odd.append(pa.table({"text": texts.take(odd), "value": values.take(odd)}))


def _is_read_as(text: str | None, value: Any, kind: pa.DataType) -> bool:
    """Whether Python reads a text as this value."""
    if text is None or "\\" in text:  # escapes, which JSON and Python write differently
        return text is None and value is None
    try:
        return _shaped(json.loads(text), kind) == value
    except ValueError:
        pass
    try:
        return _shaped(ast.literal_eval(text), kind) == value
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False


def _shaped(found: Any, kind: pa.DataType) -> Any:
    """What Python has read in the shape of a type.

    Raises:
        ValueError: It is no value of it, or of a type that Python has not.
    """
    if found is None:
        return None
    if pa.types.is_struct(kind) and type(found) is dict:
        return {field.name: _shaped(found.get(field.name), field.type) for field in kind}
    if pa.types.is_list(kind) and type(found) is list:
        return [_shaped(each, kind.value_type) for each in found]
    if pa.types.is_floating(kind) and type(found) in (int, float):
        return float(found)
    for is_kind, of in ((pa.types.is_integer, int), (pa.types.is_string, str), (pa.types.is_boolean, bool)):
        if is_kind(kind) and type(found) is of:
            return found
    raise ValueError


def _ask_spark(at: Context, what: _Found, column: Column) -> None:
    """Type odd texts again by Spark."""
    if what.odd:
        _add(what, at.spark.createDataFrame(pa.concat_tables(what.odd).slice(0, ODD)), column)


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
