"""The types that a companion column can have, and which texts are of them.

What belongs here: the one rule by which a text has a value of a type. Spark, PostgreSQL and every check take a text
that matches the type's form, and no other, so that all of them hold the same value. What does not: how an engine
parses it.

The forms leave out what engines read differently: an hour without a date, a number with spaces around it, ``NaN``, the
year 0, which PostgreSQL has not. A text without a zone is UTC.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa

_YEAR = "([0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
DAY = f"{_YEAR}-[0-9]{{2}}-[0-9]{{2}}"
TIME = "[T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,6})?)?"
ZONE = "(Z|[+-](0[0-9]|1[0-7])(:[0-5][0-9])?)"

MOST_DIGITS = 38
"""Digits of a decimal at most, in Spark as in Arrow."""


@dataclass(frozen=True)
class Kind:
    """A type of companion columns.

    Attributes:
        spark: Its name in a declaration and in Spark.
        form: What a text of it looks like: a regular expression that Java, RE2 and Rust understand alike. A text of the
            form may still be no value, such as the 30th of February.
        arrow: Its Arrow type.
        postgres: Its PostgreSQL type.
    """

    spark: str
    form: str
    arrow: pa.DataType
    postgres: str


_PLAIN = {
    kind.spark: kind
    for kind in (
        Kind("timestamp", f"^{DAY}({TIME}{ZONE}?)?$", pa.timestamp("us", "UTC"), "timestamptz"),
        Kind("date", f"^{DAY}$", pa.date32(), "date"),
        Kind("double", "^-?[0-9]{1,300}([.][0-9]{1,300})?([eE][+-]?[0-9]{1,2})?$", pa.float64(), "double precision"),
        Kind("bigint", "^-?[0-9]{1,18}$", pa.int64(), "bigint"),
        Kind("boolean", "^(true|false)$", pa.bool_(), "boolean"),
    )
}


def kind(declared: str) -> Kind | None:
    """The type that a declaration names; ``None`` for structs and arrays, whose texts are JSON or Python literals."""
    if found := re.fullmatch(r"decimal\(([0-9]{1,2}), ?([0-9]{1,2})\)", declared):
        digits, scale = int(found[1]), int(found[2])
        if not 0 < digits <= MOST_DIGITS or scale > digits:
            return None
        whole = f"[0-9]{{1,{digits - scale}}}" if digits > scale else "0"
        fraction = f"([.][0-9]{{1,{scale}}})?" if scale else ""
        return Kind(declared, f"^-?{whole}{fraction}$", pa.decimal128(digits, scale), f"numeric({digits},{scale})")
    return _PLAIN.get(declared)


def is_nested(declared: str) -> bool:
    """Whether values of a type are structs or arrays."""
    return declared.startswith(("struct<", "array<", "map<"))
