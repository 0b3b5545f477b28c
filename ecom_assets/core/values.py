"""Texts to values and values to texts, in columns.

What belongs here: the value that a text of a type has (``parse``), and the one text by which a value is hashed, used in
keys and stored in HBase (``texts``). What does not: which texts are of a type; see ``dataset.kind``.

**Canonical texts.** Integers in decimal without leading zeros; ``true`` and ``false``; floating-point numbers as
RFC 8785 writes them (the shortest digits that give the number back, https://www.rfc-editor.org/rfc/rfc8785); decimals
with all digits of their scale; ``2022-07-31``; ``10:00:00.000000``; ``2022-07-31T10:00:00.000000`` with ``Z`` behind
it, in UTC, where the type has a zone; UUIDs in lower case; texts, symbols and bytes as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, cast

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ecom_assets.dataset.kind import INSTANT, Kind

Column: TypeAlias = pa.Array | pa.ChunkedArray

_CLOCK = len("10:00:00.000000")
_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The years 1 to 9999, in microseconds since 1970."""
_DAYS = (-719_162, 2_932_896)
"""The same in days."""


def parse(column: pa.Array, kind: Kind) -> pa.Array:
    """The values of texts.

    Args:
        column: Texts (``pa.string()``).
        kind: Their type.

    Returns:
        Values of the type ``kind.arrow``; null also where a text is no value of the type.
    """
    if kind.is_plain:
        return column
    if kind.form:
        fits = pc.match_substring_regex(column, kind.whole)
        if not pc.all(fits, min_count=0).as_py():
            column = pc.if_else(fits, column, pa.scalar(None, pa.string()))
    return _PARSERS.get(kind.name, _PARSERS["decimal"])(column, kind)


def texts(column: Column) -> Column:
    """The canonical texts of a column, as binary."""
    if isinstance(column, pa.ChunkedArray):
        return pa.chunked_array([texts(chunk) for chunk in column.chunks], pa.binary())
    kind = column.type
    if pa.types.is_floating(kind):
        return _numbers(column).cast(pa.binary())
    if pa.types.is_timestamp(kind):
        stamps = column.cast(INSTANT if kind.tz else pa.timestamp("us")).cast(pa.string())
        return pc.binary_replace_slice(stamps.cast(pa.binary()), 10, 11, b"T")
    if pa.types.is_decimal(kind):  # Arrow writes small ones with an exponent
        return _arrow(_polars(column).cast(pl.String)).cast(pa.binary())
    plain = pa.types.is_binary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return (column if plain else column.cast(pa.string())).cast(pa.binary())


def as_fields(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Rows as the fields of a CSV file: texts that ``parse`` reads again, and integers."""
    columns = [_field(column) for column in rows.columns]
    return pa.RecordBatch.from_arrays(columns, names=rows.schema.names)


def known(column: pa.Array) -> pa.Array:
    """Values, null where one has no canonical text: a number that is not finite, or a time outside the years 1 to 9999.

    Args:
        column: Values of any type.
    """
    if pa.types.is_floating(column.type):
        fits = pc.is_finite(column)
    elif pa.types.is_timestamp(column.type):
        fits = _between(column.cast(pa.int64()), _FIRST, _LAST)
    elif pa.types.is_date(column.type):
        fits = _between(column.cast(pa.int32()), *_DAYS)
    else:
        return column
    return column if pc.all(fits, min_count=0).as_py() else pc.if_else(fits, column, pa.scalar(None, column.type))


def moments(stamps: pl.Expr) -> pl.Expr:
    """Times of the form of a companion, with all that one may leave out; null where one is none."""
    date, rest = stamps.str.slice(0, 10), stamps.str.slice(11)
    zone = rest.str.extract("(Z|[+-].*)$")
    clock = rest.str.replace("(Z|[+-].*)$", "")
    clock = (
        pl.when(clock == "").then(pl.lit("00:00:00"))
        .when(clock.str.len_bytes() == len("10:00")).then(clock + ":00")
        .otherwise(clock)
    )  # fmt: skip
    zone = (
        pl.when(zone.is_null() | (zone == "Z")).then(pl.lit("+00:00"))
        .when(zone.str.len_bytes() == len("+07")).then(zone + ":00")
        .otherwise(zone)
    )  # fmt: skip
    whole = date + " " + clock + zone
    return whole.str.to_datetime("%F %T%.f%:z", time_unit="us", time_zone="UTC", strict=False)


def _field(column: pa.Array) -> pa.Array:
    if pa.types.is_integer(column.type) or pa.types.is_string(column.type):
        return column
    if pa.types.is_binary(column.type):
        return _arrow(_polars(column).bin.encode("base64"))
    return texts(column).cast(pa.string())


def _between(numbers: pa.Array, first: int, last: int) -> pa.Array:
    return pc.and_(pc.greater_equal(numbers, first), pc.less_equal(numbers, last))


def _number(column: pa.Array, kind: Kind) -> pa.Array:
    try:
        return known(column.cast(kind.arrow))
    except pa.ArrowInvalid:  # one has too many digits
        wanted = _polars(pa.array([], kind.arrow)).dtype
        return known(_arrow(_polars(column).cast(wanted, strict=False)))


def _date(column: pa.Array, kind: Kind) -> pa.Array:
    return _arrow(_polars(column).str.to_date("%Y-%m-%d", strict=False)).cast(kind.arrow)


def _moment(column: pa.Array, kind: Kind) -> pa.Array:
    frame = pl.DataFrame({"text": _polars(column)}).select(moments(pl.col("text")))
    return known(_arrow(frame.to_series()).cast(INSTANT)).cast(kind.arrow)


def _clock(column: pa.Array, _: Kind) -> pa.Array:
    """``10:00`` as ``10:00:00.000000``."""
    whole = pc.if_else(pc.less(pc.utf8_length(column), len("10:00:00")), _joined(column, ":00"), column)
    pointed = pc.if_else(pc.equal(pc.utf8_length(whole), len("10:00:00")), _joined(whole, "."), whole)
    return pc.utf8_rpad(pointed, _CLOCK, "0")


def _joined(column: pa.Array, end: str) -> pa.Array:
    return pc.binary_join_element_wise(column, end, "")


def _bytes(column: pa.Array, _: Kind) -> pa.Array:
    return _arrow(_polars(column).str.decode("base64", strict=False)).cast(pa.binary())


_PARSERS: dict[str, Callable[[pa.Array, Kind], pa.Array]] = {
    "long": _number,
    "int": _number,
    "double": _number,
    "float": _number,
    "decimal": lambda column, kind: column.cast(kind.arrow),
    "boolean": lambda column, _: pc.equal(column, "true"),
    "bytes": _bytes,
    "date": _date,
    "time-millis": _clock,
    "time-micros": _clock,
    "timestamp-millis": _moment,
    "timestamp-micros": _moment,
    "local-timestamp-millis": _moment,
    "local-timestamp-micros": _moment,
    "uuid": lambda column, _: pc.ascii_lower(column),
    "enum": lambda column, _: column,
}


def _numbers(column: pa.Array) -> pa.Array:
    """Floating-point numbers as texts: Arrow's, but for where it takes an exponent earlier than RFC 8785 does."""
    found = column.cast(pa.string())
    unlike = pc.indices_nonzero(pc.or_(pc.match_substring(found, "e"), pc.equal(found, "-0")))
    if not len(unlike):
        return found
    mask = pc.is_in(pa.array(range(len(found)), pa.uint64()), unlike)
    rewritten = [_rewritten(text) for text in found.take(unlike).to_pylist()]
    return pc.replace_with_mask(found, mask, pa.array(rewritten, pa.string()))


def _rewritten(text: str) -> str:
    """``1.5e+15`` as ``1500000000000000``; from 1e21 on, and below 1e-6, with an exponent."""
    if text == "-0":
        return "0"
    digits, _, exponent = text.partition("e")
    if not 0 <= int(exponent) < 21:
        return text
    whole, _, fraction = digits.partition(".")
    places = int(exponent)
    return f"{whole}{fraction[:places].ljust(places, '0')}.{fraction[places:]}".rstrip(".")


def _polars(column: pa.Array) -> pl.Series:
    return cast("pl.Series", pl.from_arrow(column))


def _arrow(series: pl.Series) -> pa.Array:
    """A series as an array, texts as ``pa.string()``."""
    array = series.to_arrow()
    return array.cast(pa.string()) if series.dtype == pl.String else array
