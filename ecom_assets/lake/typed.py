"""Typed companions: the columns next to the source's text that charts and queries compute with.

What belongs here: how a text becomes a timestamp, a number, a struct or an array in Spark. What does not: which columns
have a companion; the schema declares that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyspark.sql import functions as sf

from ecom_assets.dataset.kind import named
from ecom_assets.dataset.model import Table

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def typed(rows: DataFrame, table: Table, more: Sequence[str] = ()) -> DataFrame:
    """The table's own columns, further ones, and the typed companions next to them."""
    frame = rows.select(*table.names, *more)
    for column in table.columns:
        if column.parsed_as:
            frame = with_parsed(frame, column.name, *column.parsed_as)
    return frame


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
    if found := named(kind):
        # A cast alone also takes "12:30" (today!), "2020" and " 1.5 ", and rounds decimals.
        return frame.withColumn(name, sf.when(text.rlike(found.whole), text.try_cast(kind)))
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
