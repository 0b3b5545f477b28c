"""What a data set declares: tables, columns, keys, references and HBase layouts.

Columns and types come from a table's Avro schema; what Avro cannot say is defined in a ``Table``. Topics, Arrow, Spark
and Delta schemas, column metadata and checks derive from the two. Both are files; see ``loader``.

Custom properties of an ``.avsc``: on a field, ``parsed_as`` names a typed companion column of the merged table; on the
record, ``null_values`` lists unquoted texts that mean null (next to the empty field), and ``"overflow": "last"``
assigns surplus fields to the last column.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
from typing_extensions import override

from ecom_assets.dataset.query import Query

ARROW = {"long": pa.int64(), "string": pa.string()}
"""Avro type -> Arrow type of a clean row; every other type is text, so that the source's own bytes reach HBase."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: Its name in the CSV header and everywhere after.
        avro: ``long`` or ``string``.
        nullable: Whether a null is allowed.
        doc: One line for people.
        parsed_as: ``(name, Spark type)`` of the typed companion column in the
            merged table, if there is one.
    """

    name: str
    avro: str
    nullable: bool
    doc: str
    parsed_as: tuple[str, str] | None = None

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type."""
        return ARROW[self.avro]


@dataclass(frozen=True)
class HBaseLayout:
    """How a table is stored in HBase.

    Attributes:
        table: Its name there (the namespace is put before it).
        families: Column family -> columns, in the order of the cells.
        row_key: Columns joined with ``|``; unique because the primary key is among them.
    """

    table: str
    families: dict[str, tuple[str, ...]]
    row_key: tuple[str, ...]


@dataclass(frozen=True)
class Reference:
    """What must exist elsewhere.

    Attributes:
        path: A column; or a typed companion and a member of its struct, or of each struct of
            its array, joined by a point.
        table: The table referred to.
        column: Its column.
        tolerated: Share of values that may lead nowhere before that is an error.
    """

    path: str
    table: str
    column: str
    tolerated: float = 0.0

    @property
    def label(self) -> str:
        """The reference as people read it."""
        return f"{self.path} -> {self.table}.{self.column}"


@dataclass(frozen=True)
class Published:
    """What is known of a published file.

    Attributes:
        bytes: Its size.
        sha256: Its SHA-256 in hexadecimal, or the first digits of it.
    """

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Table:
    """One table of a data set.

    Attributes:
        name: Name of the CSV file, the topic and the assets.
        avsc: The Avro schema as it is written, custom properties included.
        schema_file: Where it is written, for errors.
        primary_key: The column that identifies a row.
        entity_key: The column that keys the topic: rows of one entity stay in order.
        keys: Column -> key domain. Expansion renews every key of a domain alike,
            so that columns of one domain still match in each copy.
        references: What its values must find in other tables.
        hbase: Its layout in HBase.
        conflicts_tolerated: Share of rows that may differ from another row of their primary key before that is an
            error; such rows are quarantined in any case.
        published: Its file on Kaggle, if that is known.
    """

    name: str
    avsc: dict[str, Any] = field(repr=False)
    schema_file: str
    primary_key: str
    entity_key: str
    keys: dict[str, str]
    references: tuple[Reference, ...]
    hbase: HBaseLayout
    conflicts_tolerated: float = 0.0
    published: Published | None = None

    @cached_property
    def avro(self) -> str:
        """The Avro schema as plain JSON, without the project's own properties."""
        fields = [{k: v for k, v in f.items() if k != "parsed_as"} for f in self.avsc["fields"]]
        plain = {k: v for k, v in self.avsc.items() if k not in ("null_values", "overflow")}
        return json.dumps(plain | {"fields": fields})

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The columns in the order of the CSV header."""

        def column(declared: dict[str, Any]) -> Column:
            kinds = declared["type"] if isinstance(declared["type"], list) else [declared["type"]]
            (kind,) = [k for k in kinds if k != "null"]
            parsed = declared.get("parsed_as")
            return Column(
                declared["name"], kind, "null" in kinds, declared.get("doc", ""),
                (parsed["name"], parsed["type"]) if parsed else None,
            )  # fmt: skip

        return tuple(column(f) for f in self.avsc["fields"])

    @property
    def doc(self) -> str:
        """What a row of it is, a sentence; empty if its schema does not say."""
        return self.avsc.get("doc", "")

    @property
    def names(self) -> list[str]:
        """The column names in the order of the CSV header."""
        return [c.name for c in self.columns]

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema of a clean row."""
        return pa.schema([pa.field(c.name, c.arrow, c.nullable) for c in self.columns])

    @property
    def null_values(self) -> list[str]:
        """Unquoted texts that mean null."""
        return ["", *self.avsc.get("null_values", [])]

    @property
    def overflow(self) -> bool:
        """Whether surplus fields of a row belong to its last column."""
        return self.avsc.get("overflow") == "last"

    @property
    def csv(self) -> str:
        """Name of its CSV file."""
        return f"{self.name}.csv"

    def topic(self, namespace: str) -> str:
        """Name of its Kafka topic."""
        return f"{namespace}.{self.name}"

    def hbase_table(self, namespace: str) -> str:
        """Name of its HBase table."""
        return f"{namespace}_{self.hbase.table}"


@dataclass(frozen=True)
class Index(Table):
    """A table in HBase that holds some columns of another, under another row key.

    Attributes:
        of: The other table.
    """

    of: Table = field(kw_only=True)

    @cached_property
    @override
    def columns(self) -> tuple[Column, ...]:
        """Those of the row key."""
        return tuple(c for name in self.hbase.row_key for c in self.of.columns if c.name == name)

    @classmethod
    def by(cls, name: str, of: Table, row_key: tuple[str, ...], family: str) -> Index:
        """An index of a table by a row key, whose first column is in the row key alone."""
        return cls(
            name=name,
            avsc=of.avsc,
            schema_file=of.schema_file,
            primary_key=of.primary_key,
            entity_key=of.entity_key,
            keys={},
            references=(),
            hbase=HBaseLayout(table=name, families={family: row_key[1:]}, row_key=row_key),
            of=of,
        )


@dataclass(frozen=True)
class Dataset:
    """What one data set declares.

    Attributes:
        name: Its name.
        tables: Name -> table, in their declared order.
        indexes: Name -> index in HBase.
        queries: Name -> query that is precomputed for the pages.
        kaggle: Where it is published on Kaggle, ``owner/name``; empty if it is not.
        generator: Module that makes synthetic data; empty if there is none.
    """

    name: str
    tables: dict[str, Table]
    indexes: dict[str, Index] = field(default_factory=dict)
    queries: dict[str, Query] = field(default_factory=dict)
    kaggle: str = ""
    generator: str = ""

    @classmethod
    def of(cls, name: str, *tables: Table) -> Dataset:
        """A data set of some tables, and nothing else."""
        return cls(name, {table.name: table for table in tables})
