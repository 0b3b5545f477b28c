"""The types of values: which texts are of them, and what each system calls them.

What belongs here: the one rule by which a text has a value of a type. CSV readers, Spark, PostgreSQL and every check
take a text that matches the type's form, and no other, so that all of them hold the same value. What does not: how a
text becomes a value (``core.values``, and how an engine parses it).

Columns of a table have the types of Avro (``of_avro``), whose values are stored as such; a text can have a typed
companion next to it (``named``), and keeps its own bytes.

The forms leave out what engines read differently: an hour without a date, a number with spaces around it, ``NaN``, the
year 0, which PostgreSQL has not. A time without a zone is UTC.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

_YEAR = "([0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
DAY = f"{_YEAR}-[0-9]{{2}}-[0-9]{{2}}"
HOUR = "([01][0-9]|2[0-3]):[0-5][0-9]"
TIME = f"[T ]{HOUR}(:[0-5][0-9]([.][0-9]{{1,6}})?)?"
ZONE = "(Z|[+-](0[0-9]|1[0-7])(:[0-5][0-9])?)"
_DOUBLE = "-?[0-9]{1,300}([.][0-9]{1,300})?([eE][+-]?[0-9]{1,2})?"
_NUMBER = _DOUBLE.replace("{1,2}", "{1,3}")
_INTEGER = "(0|-?[1-9][0-9]{0,18})"
_BASE64 = "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_UUID = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"

MOST_DIGITS = 38
"""Digits of a decimal at most, in Spark as in Arrow."""

INSTANT = pa.timestamp("us", "UTC")
"""Arrow's type of times with a zone."""


@dataclass(frozen=True)
class Kind:
    """A type of values.

    Attributes:
        name: Its name in a declaration: Avro's of a column, Spark's of a companion.
        form: What a text of it looks like as a whole: a regular expression that Java, RE2, Rust and Python understand
            alike; empty for any text. A text of the form may still be no value, such as the 30th of February.
        arrow: Its Arrow type in a clean row.
        spark: Its Spark type.
        postgres: Its PostgreSQL type.
        duckdb: Its DuckDB type.
        wire: Avro's primitive type under it; empty if columns do not have it.
        unit: Microseconds in a unit of it, for times.
        symbols: The texts that an enum allows.
    """

    name: str
    form: str
    arrow: pa.DataType
    spark: str
    postgres: str
    duckdb: str
    wire: str = ""
    unit: int = 1
    symbols: tuple[str, ...] = ()

    @property
    def whole(self) -> str:
        """The form for engines that look for it within a text; not with ``$``, before which Java allows a line end."""
        return rf"\A(?:{self.form})\z"

    @property
    def is_text(self) -> bool:
        """Whether its values are texts, in any system but PostgreSQL."""
        return self.arrow == pa.string()

    @property
    def is_integer(self) -> bool:
        """Whether its values are whole numbers."""
        return pa.types.is_integer(self.arrow)

    @property
    def is_plain(self) -> bool:
        """Whether any text is a value of it."""
        return self.name == "string"

    def shown(self, canonical: bytes) -> str:
        """A canonical text as people read and type it: bytes in Base64."""
        return (b64encode(canonical) if self.name == "bytes" else canonical).decode()

    @property
    def can_be_key(self) -> bool:
        """Whether its values can be a part of a key: each has one text, in every engine."""
        return self.is_text or self.is_integer or self.name == "date" or pa.types.is_timestamp(self.arrow)


_FRACTION = "[0-9]{1,6}"
_MILLIS = "[0-9]{1,3}0{0,3}"
"""Digits behind the point of a second, as Python and Java write them: also six of a time that has milliseconds."""


def _moment(fraction: str, zone: str = "") -> str:
    """The form of a day, or of a day and a time."""
    return f"{DAY}({TIME.replace(_FRACTION, fraction)}{zone})?"


def _clock(fraction: str) -> str:
    return f"{HOUR}(:[0-5][0-9]([.]{fraction})?)?"


_AT_MILLIS, _AT_MICROS = (_moment(fraction, f"{ZONE}?") for fraction in (_MILLIS, _FRACTION))
_THERE_MILLIS, _THERE_MICROS = _moment(_MILLIS), _moment(_FRACTION)
_LOCAL = pa.timestamp("us")

_COMPANIONS = {
    kind.name: kind
    for kind in (
        Kind("timestamp", _AT_MICROS, INSTANT, "timestamp", "timestamptz", "TIMESTAMP"),
        Kind("date", f"{DAY}", pa.date32(), "date", "date", "DATE"),
        Kind("double", _DOUBLE, pa.float64(), "double", "double precision", "DOUBLE"),
        Kind("bigint", "-?[0-9]{1,18}", pa.int64(), "bigint", "bigint", "BIGINT"),
        Kind("boolean", "(true|false)", pa.bool_(), "boolean", "boolean", "BOOLEAN"),
    )
}

_AVRO = {
    kind.name: kind
    for kind in (
        Kind("string", "", pa.string(), "string", "text", "VARCHAR", "string"),
        Kind("long", _INTEGER, pa.int64(), "bigint", "bigint", "BIGINT", "long"),
        Kind("int", _INTEGER, pa.int32(), "int", "integer", "INTEGER", "int"),
        Kind("boolean", "(true|false)", pa.bool_(), "boolean", "boolean", "BOOLEAN", "boolean"),
        Kind("double", _NUMBER, pa.float64(), "double", "double precision", "DOUBLE", "double"),
        Kind("float", _NUMBER, pa.float32(), "float", "real", "FLOAT", "float"),
        Kind("bytes", _BASE64, pa.binary(), "binary", "bytea", "BLOB", "bytes"),
        Kind("date", f"{DAY}", pa.date32(), "date", "date", "DATE", "int"),
        # Neither Spark nor Delta has a time of day.
        Kind("time-millis", _clock(_MILLIS), pa.string(), "string", "time", "VARCHAR", "int", 1000),
        Kind("time-micros", _clock(_FRACTION), pa.string(), "string", "time", "VARCHAR", "long"),
        Kind("timestamp-millis", _AT_MILLIS, INSTANT, "timestamp", "timestamptz", "TIMESTAMP", "long", 1000),
        Kind("timestamp-micros", _AT_MICROS, INSTANT, "timestamp", "timestamptz", "TIMESTAMP", "long"),
        Kind(
            "local-timestamp-millis", _moment(_MILLIS), _LOCAL, "timestamp_ntz", "timestamp", "TIMESTAMP", "long", 1000
        ),
        Kind("local-timestamp-micros", _THERE_MICROS, _LOCAL, "timestamp_ntz", "timestamp", "TIMESTAMP", "long"),
        Kind("uuid", _UUID, pa.string(), "string", "uuid", "VARCHAR", "string"),
    )
}

TIMESTAMP, UUID = _AVRO["timestamp-micros"], _AVRO["uuid"]

AVRO_NAMES = (*_AVRO, "decimal(p,s)", "enum")
"""The types that a column can have, as people read them."""


def named(declared: str) -> Kind | None:
    """The type of a companion that a declaration names.

    ``None`` for structs, arrays and maps, whose texts are JSON or Python literals, and for what is no type.
    """
    if found := re.fullmatch(r"decimal\(([0-9]{1,2}), ?([0-9]{1,2})\)", declared):
        return _decimal(int(found[1]), int(found[2]))
    return _COMPANIONS.get(declared)


def of_avro(declared: Any) -> Kind | None:
    """The type of a column by its type in an Avro schema, without null; ``None`` if columns cannot have it.

    See https://avro.apache.org/docs/1.12.0/specification/#logical-types.

    Args:
        declared: A name of a primitive type, or an object.
    """
    if isinstance(declared, str):
        return _AVRO.get(declared) if declared in _PRIMITIVES else None
    if not isinstance(declared, dict):
        return None
    kind, logical = declared.get("type"), declared.get("logicalType")
    if kind == "enum" and logical is None:
        symbols = tuple(declared.get("symbols", ()))
        form = f"({'|'.join(symbols)})"  # letters, digits and _ alone, as Avro has it
        return Kind("enum", form, pa.string(), "string", "text", "VARCHAR", "int", symbols=symbols)
    if logical is None:
        return _AVRO.get(kind) if kind in _PRIMITIVES else None
    if logical == "decimal" and kind == "bytes":
        digits, scale = declared.get("precision"), declared.get("scale", 0)
        return _decimal(digits, scale) if isinstance(digits, int) and isinstance(scale, int) else None
    found = _AVRO.get(logical)
    return found if found and logical not in _PRIMITIVES and found.wire == kind else None


_PRIMITIVES = ("string", "long", "int", "boolean", "double", "float", "bytes")


def _decimal(digits: int, scale: int) -> Kind | None:
    if not 0 < digits <= MOST_DIGITS or not 0 <= scale <= digits:
        return None
    whole = f"[0-9]{{1,{digits - scale}}}" if digits > scale else "0"
    fraction = f"([.][0-9]{{1,{scale}}})?" if scale else ""
    name = f"decimal({digits},{scale})"
    arrow = pa.decimal128(digits, scale)
    return Kind(name, f"-?{whole}{fraction}", arrow, name, f"numeric({digits},{scale})", name.upper(), "bytes")


def is_nested(declared: str) -> bool:
    """Whether values of a companion's type are structs, arrays or maps."""
    return declared.startswith(("struct<", "array<", "map<"))
