"""Typed companions of texts in their usual form, computed in this process: a job of Spark takes a second for few rows.

What belongs here: which texts have one value beyond doubt, and that value. Everything else is *odd*: what it is of the
type, Spark alone says (``typed``), as it does where a whole table is typed. Structs and arrays are read by Arrow, whose
reader is stricter than Spark's: what it takes, Spark reads alike.
"""

from __future__ import annotations

import re

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from ecom_assets.dataset.kind import DAY, HOUR, Kind, named
from ecom_assets.dataset.model import Column, Table

FORMS = {"timestamp": rf"^{DAY}T{HOUR}:[0-5][0-9]([.][0-9]{{1,6}})?Z$"}
"""Companion's type -> the form of its texts that all programs read alike, where that is not the whole form."""

_DOUBTFUL = r"[\\\x00-\x1f]"
"""Escapes, which JSON and Python write differently, and what may not be within a text."""
_PYTHON = {"None": "null", "True": "true", "False": "false"}
_WORD = re.compile(rf"\b({'|'.join(_PYTHON)})\b")
_BLOCK = 16 << 20
"""Bytes that Arrow parses at a time; a longer text is odd."""


def typed(rows: pa.RecordBatch, table: Table, schema: pa.Schema) -> pa.RecordBatch | None:
    """Add the typed companions to rows.

    Args:
        rows: The table's own columns, and others.
        table: The table.
        schema: The types of the companions, among others.

    Returns:
        The rows with their companions; ``None`` if a text is odd.
    """
    columns = [column for column in table.columns if column.parsed_as]
    plain = [column for column in columns if named(_kind(column))]
    found = _plain(rows, plain)
    if found is None:
        return None
    for column in columns:
        name = column.parsed_as[0] if column.parsed_as else ""
        if column not in plain:
            value = nested(_texts(rows, column), schema.field(name).type)
            if value is None:
                return None
            found[name] = value
        rows = rows.append_column(name, found[name].cast(schema.field(name).type))
    return rows


def _kind(column: Column) -> str:
    assert column.parsed_as
    return column.parsed_as[1]


def _texts(rows: pa.RecordBatch, column: Column) -> pa.Array:
    return rows.column(column.name).cast(pa.string())


def is_usual(texts: pa.Array, kind: Kind) -> pa.Array:
    """Whether each text is of a form that all programs read alike, or null."""
    return pc.fill_null(pc.match_substring_regex(texts, FORMS.get(kind.name, kind.whole)), True)


def _plain(rows: pa.RecordBatch, columns: list[Column]) -> dict[str, pa.Array] | None:
    """The companions that are no structs and no arrays, by DuckDB; ``None`` if a text is odd.

    Arrow, which verifies them, must not have computed them.
    """
    texts, parts = {}, []
    for number, column in enumerate(columns):
        kind, own = named(_kind(column)), _texts(rows, column)
        assert kind
        usual = is_usual(own, kind)
        if pc.any(pc.and_(pc.invert(usual), pc.match_substring_regex(own, kind.whole))).as_py():
            return None
        # No text of another form has a value.
        texts[f"c{number}"] = pc.if_else(usual, own, None)
        parts.append(f"TRY_CAST(c{number} AS {kind.duckdb}) AS c{number}")
    if not columns:
        return {}
    given = pa.table(texts)
    with duckdb.connect() as connection:
        connection.register("given", given)
        found = connection.sql(f"SELECT {', '.join(parts)} FROM given").to_arrow_table()  # noqa: S608  types alone
    return {
        column.parsed_as[0]: found[f"c{number}"].combine_chunks()
        for number, column in enumerate(columns)
        if column.parsed_as
    }


def nested(texts: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """Structs and arrays of their texts, JSON or Python literals; ``None`` if one of these is odd.

    Args:
        texts: The texts.
        kind: Arrow's type of the companion.
    """
    if not _is_simple(kind) or pc.any(pc.match_substring_regex(texts, _DOUBTFUL)).as_py():
        return None
    # With one kind of quotes, and no escapes, these are the ends of texts and nothing else.
    single = pc.invert(pc.match_substring(texts, '"'))
    json = pc.if_else(single, pc.replace_substring(texts, "'", '"'), texts)
    words = pc.fill_null(pc.match_substring_regex(json, _WORD.pattern), False)
    if pc.any(words).as_py():
        pairs = zip(json.to_pylist(), words.to_pylist(), strict=True)
        json = pa.array([_as_json(text) if word else text for text, word in pairs], pa.string())
    lines = pc.binary_join_element_wise('{"value":', pc.fill_null(json, "null"), "}\n", "")
    data = b"".join(lines.cast(pa.binary()).to_pylist())
    if not data:
        return pa.array([], kind)
    try:
        found = pa.json.read_json(
            pa.BufferReader(data),
            pa.json.ReadOptions(block_size=_BLOCK),
            pa.json.ParseOptions(pa.schema([("value", kind)]), unexpected_field_behavior="error"),
        )
    except pa.ArrowInvalid:
        return None
    value = found["value"].combine_chunks()
    return value if len(value) == len(texts) and _is_finite(value) else None


def _as_json(text: str) -> str:
    """Rewrite what Python literals have and JSON has not, outside of the texts within."""
    parts = text.split('"')
    parts[::2] = [_WORD.sub(lambda word: _PYTHON[word[0]], part) for part in parts[::2]]
    return '"'.join(parts)


def _is_simple(kind: pa.DataType) -> bool:
    """Whether Arrow reads a type as Spark does."""
    if pa.types.is_struct(kind):
        return all(_is_simple(field.type) for field in kind)
    if pa.types.is_list(kind):
        return _is_simple(kind.value_type)
    return kind in (pa.string(), pa.int64(), pa.int32(), pa.float64(), pa.bool_())


def _is_finite(value: pa.Array) -> bool:
    """Whether no number is too great for its type, or none at all, which JSON has no text for."""
    if pa.types.is_struct(value.type):
        return all(map(_is_finite, value.flatten()))
    if pa.types.is_list(value.type):
        return _is_finite(value.flatten())
    return not pa.types.is_floating(value.type) or pc.all(pc.is_finite(value)).as_py() is not False
