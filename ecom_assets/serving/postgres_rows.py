"""Rows as PostgreSQL has them: columns with their types, and the text that COPY reads.

What belongs here: what follows from a table's declaration, without a server. What does not: loading (``postgres``,
``postgres_changes``).
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from ecom_assets.core import values
from ecom_assets.dataset.kind import named
from ecom_assets.dataset.model import Column, Table
from ecom_assets.serving import literals


@dataclass(frozen=True)
class PgColumn:
    """A column in PostgreSQL.

    Attributes:
        name: Its name: that of the typed companion, if the source's column has one.
        source: The column it is built from.
        kind: Its type.
        nullable: Whether a null is allowed; a companion is null where its text is not of the type.
    """

    name: str
    source: Column
    kind: str
    nullable: bool


def columns(table: Table) -> list[PgColumn]:
    """The columns of a table in PostgreSQL, in the order of the source's."""
    return [
        PgColumn(c.parsed_as[0], c, _companion_type(c.parsed_as[1]), nullable=True)
        if c.parsed_as
        else PgColumn(c.name, c, c.kind.postgres, c.nullable)
        for c in table.columns
    ]


def _companion_type(declared: str) -> str:
    kind = named(declared)
    return kind.postgres if kind else "jsonb"


def to_csv(batch: pa.RecordBatch, table: Table) -> tuple[bytes, dict[str, int]]:
    """Rows as PostgreSQL's COPY reads them.

    Args:
        batch: Clean rows in schema order.
        table: The table.

    Returns:
        CSV without a header (a null is nothing at all, an empty text a pair of quotes), and the number of values
        whose text is not of the column's type, by column.
    """
    source = pl.DataFrame(pl.from_arrow(_as_fields(batch)))
    frame = source.select(_typed(c) for c in columns(table))
    lost = {}
    for column in columns(table):
        if column.kind == "jsonb":
            frame = frame.with_columns(literals.as_json(frame[column.name]))
        if column.source.parsed_as and (
            gone := frame[column.name].null_count() - source[column.source.name].null_count()
        ):
            lost[column.name] = gone
    text = frame.write_csv(include_header=False, quote_style="non_numeric").encode()
    # The one character that PostgreSQL's texts cannot hold.
    return text.replace(b"\0", "\N{REPLACEMENT CHARACTER}".encode()), lost


def _as_fields(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Rows with the texts of their values; bytes in hexadecimal, as PostgreSQL reads them."""
    fields = values.as_fields(batch)
    for place, column in enumerate(batch.columns):
        if pa.types.is_binary(column.type):
            digits = pl.DataFrame({"it": pl.from_arrow(column)}).select("\\x" + pl.col("it").bin.encode("hex"))
            made = digits.to_series().to_arrow().cast(pa.string())
            fields = fields.set_column(place, fields.schema.names[place], made)
    return fields


def _typed(column: PgColumn) -> pl.Expr:
    text = made = pl.col(column.source.name)
    kind = named(column.source.parsed_as[1]) if column.source.parsed_as else None
    if kind:
        text = pl.when(text.str.contains(kind.whole)).then(text)
        match kind.name:
            case "timestamp":
                made = values.moments(text).dt.strftime("%Y-%m-%d %H:%M:%S%.6f+00")
            case "date":
                made = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.String)
            case "double":
                made = text.cast(pl.Float64, strict=False)
            case _:
                made = text
    return made.alias(column.name)
