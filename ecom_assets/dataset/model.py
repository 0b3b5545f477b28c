"""What a data set declares: tables, columns, keys, references and HBase layouts.

Columns and types come from a table's Avro schema; what Avro cannot say is defined in a ``Table``. Topics, Arrow, Spark
and Delta schemas, column metadata and checks derive from the two. Both are files; see ``loader``.

Custom properties of an ``.avsc``: on a field, ``field-id`` is its permanent number (its place, where no field has one;
Iceberg's name for the same), ``parsed_as`` names a typed companion column of the merged table, and ``header`` the
column of the CSV file, where that has a name that Avro does not take; on the record, ``null_values`` lists unquoted
texts that mean null (next to the empty field), and ``"overflow": "last"`` assigns surplus fields to the last column.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa
from typing_extensions import override

from ecom_assets.dataset.kind import Kind, of_avro
from ecom_assets.dataset.query import Query

OWN = ("parsed_as", "header", "field-id")
"""Properties of a field that Avro does not know."""


def declared_types(field: Mapping[str, Any]) -> list[Any]:
    """The types that a field of an Avro schema may have, null among them."""
    return field["type"] if isinstance(field["type"], list) else [field["type"]]


def kind_of(field: Mapping[str, Any]) -> Kind | None:
    """The one type next to null of a field of an Avro schema; ``None`` if it is not one that columns can have."""
    others = [each for each in declared_types(field) if each != "null"]
    return of_avro(others[0]) if len(others) == 1 else None


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: Its name.
        kind: Its type.
        nullable: Whether a null is allowed.
        doc: One line for people.
        parsed_as: ``(name, Spark type)`` of the typed companion column in the
            merged table, if there is one.
        header: Its name in the CSV header; the same if empty.
        id: Its permanent number, under which its values are hashed.
    """

    name: str
    kind: Kind
    nullable: bool
    doc: str
    parsed_as: tuple[str, str] | None = None
    header: str = ""
    id: int = 0


MAX_KEY = 10_000
"""Longest value of a key column in bytes; less where a row key has more than two parts."""

MAX_ROW_KEY = 32_767
"""Longest row key that HBase takes, in bytes (``HConstants.MAX_ROW_LENGTH``)."""

KeyForm = Literal["text", "int64", "fixed", "reversed_time"]
"""How a part of a key is written; see ``core.ordered_key``."""

WriteMode = Literal["append", "merge", "replace"]
"""What a further row of a primary key does: nothing; replace the row there; be part of a new state of the whole."""

OnChange = Literal["append", "replace", "refuse"]
"""What it means that a file which was loaded is another one now: more rows; a new delivery of all; a mistake."""


def readable(name: str) -> str:
    """A name as a label: ``stock_items`` becomes ``Stock items``."""
    text = name.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


@dataclass(frozen=True)
class HBaseLayout:
    """How a table is stored in HBase.

    Attributes:
        table: Its name there (the namespace is put before it).
        families: Column family -> columns, in the order of the cells.
        row_key: The columns of the row key; unique because the primary key is among them.
        forms: The form of each of them in the row key.
        widths: Column -> bytes that each of its values must have, because its form is ``fixed``.
        salt: Buckets that rows are spread over by the hash of the first column, a byte before the row key; 0 for none.
    """

    table: str
    families: dict[str, tuple[str, ...]]
    row_key: tuple[str, ...]
    forms: tuple[KeyForm, ...]
    widths: dict[str, int] = field(default_factory=dict)
    salt: int = 0


@dataclass(frozen=True)
class Reference:
    """What must exist elsewhere.

    Attributes:
        columns: Columns whose values, together, must exist there. A single one may be a typed companion and a member
            of its struct, or of each struct of its array, joined by a point.
        table: The table referred to.
        to: Its columns, in the order of those that refer to them.
        tolerated: Share of values that may lead nowhere before that is an error.
    """

    columns: tuple[str, ...]
    table: str
    to: tuple[str, ...]
    tolerated: float = 0.0

    @property
    def label(self) -> str:
        """The reference as people read it."""
        to = self.to[0] if len(self.to) == 1 else f"({', '.join(self.to)})"
        return f"{', '.join(self.columns)} -> {self.table}.{to}"


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
        name: Name of the topic and the assets.
        avsc: The Avro schema as it is written, custom properties included.
        schema_file: Where it is written, for errors.
        primary_key: The columns that identify a row.
        topic_key: The columns that key the topic: rows of one entity stay in order.
        domains: Column -> key domain. Expansion renews every key of a domain alike,
            so that columns of one domain still match in each copy.
        references: What its values must find in other tables.
        hbase: Its layout in HBase.
        indexes: Name -> layout of its indexes in HBase.
        file: Name of its CSV file; ``<name>.csv`` if empty.
        title: What people call its rows, in the plural; made of its name if empty.
        icon: Icon on its counter, by its name in Material Symbols; none if empty.
        conflicts_tolerated: Share of rows that may differ from another row of their primary key before that is an
            error; such rows are quarantined in any case.
        owners: Who to ask about it; empty for the project's own.
        tags: Name -> value of tags of its assets.
        freshness_hours: Hours within which it should be verified in HBase again; 0 for the usual.
        files: Patterns of the files that deliver it; empty for the usual names.
        on_change: What it means that a file which was loaded is another one now.
        write: What a further row of a primary key does.
        version: The column whose greatest value is the newest version of a row; empty: the last one to come is.
        deleted_if: A column and its values in rows that ask for a deletion; ``None``: no row does.
        history: Whether former versions of rows are kept.
        published: Its file on Kaggle, if that is known.
    """

    name: str
    avsc: dict[str, Any] = field(repr=False)
    schema_file: str
    primary_key: tuple[str, ...]
    topic_key: tuple[str, ...]
    domains: dict[str, str]
    references: tuple[Reference, ...]
    hbase: HBaseLayout
    indexes: dict[str, HBaseLayout] = field(default_factory=dict)
    file: str = ""
    title: str = ""
    icon: str = ""
    conflicts_tolerated: float = 0.0
    owners: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    freshness_hours: int = 0
    on_change: OnChange = "append"
    write: WriteMode = "append"
    version: str = ""
    deleted_if: tuple[str, tuple[str, ...]] | None = None
    history: bool = False
    files: tuple[str, ...] = ()
    published: Published | None = None

    @cached_property
    def avro(self) -> str:
        """The Avro schema as plain JSON, without the project's own properties."""
        fields = [{k: v for k, v in f.items() if k not in OWN} for f in self.avsc["fields"]]
        plain = {k: v for k, v in self.avsc.items() if k not in ("null_values", "overflow")}
        return json.dumps(plain | {"fields": fields})

    @cached_property
    def wire_avro(self) -> str:
        """The Avro schema of the same records with primitive types alone; bytes as texts (see ``core.wire``)."""
        fields = []
        for column, declared in zip(self.columns, self.avsc["fields"], strict=True):
            kind = "string" if column.kind.wire == "bytes" else column.kind.wire
            # In the order of the union, by which the number before a value is chosen.
            types = [each if each == "null" else kind for each in declared_types(declared)]
            fields.append({"name": column.name, "type": types if isinstance(declared["type"], list) else kind})
        return json.dumps({"type": "record", "name": self.avsc["name"], "fields": fields})

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The columns in the order of the CSV header."""

        def column(place: int, declared: dict[str, Any]) -> Column:
            kind, parsed = kind_of(declared), declared.get("parsed_as")
            assert kind  # the declaration was checked
            return Column(
                declared["name"], kind, "null" in declared_types(declared), declared.get("doc", ""),
                (parsed["name"], parsed["type"]) if parsed else None, declared.get("header", ""),
                declared.get("field-id", place),
            )  # fmt: skip

        return tuple(column(place, field) for place, field in enumerate(self.avsc["fields"], 1))

    @cached_property
    def ids(self) -> dict[str, int]:
        """Column -> its permanent number."""
        return {c.name: c.id for c in self.columns}

    @property
    def takes_tombstones(self) -> bool:
        """Whether a record without a value deletes the row under its key: a key names one row, and rows change."""
        return self.write == "merge" and self.topic_key == self.primary_key

    @property
    def doc(self) -> str:
        """What a row of it is, a sentence; empty if its schema does not say."""
        return self.avsc.get("doc", "")

    @property
    def label(self) -> str:
        """What people call its rows."""
        return self.title or readable(self.name)

    @property
    def names(self) -> list[str]:
        """The column names in the order of the CSV header."""
        return [c.name for c in self.columns]

    @property
    def headers(self) -> list[str]:
        """The CSV header."""
        return [c.header or c.name for c in self.columns]

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema of a clean row."""
        return pa.schema([pa.field(c.name, c.kind.arrow, c.nullable) for c in self.columns])

    @property
    def key(self) -> str:
        """The primary key as people read it."""
        return ", ".join(self.primary_key)

    @property
    def domain(self) -> str | None:
        """The key domain that the table owns, because its primary key is one column of it."""
        return self.domains.get(self.primary_key[0]) if len(self.primary_key) == 1 else None

    @cached_property
    def key_columns(self) -> frozenset[str]:
        """Columns that are part of any key, which must be neither empty nor too long for the systems that hold it."""
        stored = [column for layout in self.layouts for column in layout.row_key]
        return frozenset({*self.primary_key, *self.topic_key, *self.domains, *stored})

    @property
    def layouts(self) -> list[HBaseLayout]:
        """Its layout in HBase, and those of its indexes."""
        return [self.hbase, *self.indexes.values()]

    @cached_property
    def key_sizes(self) -> dict[str, tuple[int, int]]:
        """Text column of any key -> fewest and most bytes of its values, so that every row key fits HBase's limit."""
        # An escaped text takes up to two bytes for one; an end, a salt and an integer take a few more.
        texts = max(2 * len(layout.row_key) - 1 for layout in self.layouts)
        most = min(MAX_KEY, MAX_ROW_KEY // texts - 16)
        fixed = {column: width for layout in self.layouts for column, width in layout.widths.items()}
        return {
            c.name: (fixed.get(c.name, 1), fixed.get(c.name, most))
            for c in self.columns
            if c.name in self.key_columns and c.kind.is_plain
        }

    @cached_property
    def key_times(self) -> frozenset[str]:
        """Columns that some row key holds as a time, and whose values must be one: ``2022-07-31T10:00:00.5Z``."""
        parts = [part for layout in self.layouts for part in zip(layout.row_key, layout.forms, strict=True)]
        return frozenset(column for column, form in parts if form == "reversed_time")

    def key_of(self, row: Mapping[str, Any]) -> str:
        """A row's primary key as people read it."""
        return ", ".join(str(row[name]) for name in self.primary_key)

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
        return self.file or f"{self.name}.csv"

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
    def by(cls, name: str, of: Table, layout: HBaseLayout) -> Index:
        """An index of a table by a row key, whose first column is in the row key alone."""
        return cls(
            name=name,
            avsc=of.avsc,
            schema_file=of.schema_file,
            primary_key=of.primary_key,
            topic_key=of.topic_key,
            domains={},
            references=(),
            hbase=layout,
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
        title: Heading of the overview; made of its name if empty.
        doc: What it is about, a sentence; may be empty.
        note: What is to be known of all charts, a sentence; may be empty.
        kaggle: Where it is published on Kaggle, ``owner/name``; empty if it is not.
        generator: Module that makes synthetic data; empty if there is none.
        marker: File that says that its folder of the source is complete; empty if none is awaited.
    """

    name: str
    tables: dict[str, Table]
    indexes: dict[str, Index] = field(default_factory=dict)
    queries: dict[str, Query] = field(default_factory=dict)
    title: str = ""
    doc: str = ""
    note: str = ""
    kaggle: str = ""
    generator: str = ""
    marker: str = ""

    @property
    def label(self) -> str:
        """What people call it."""
        return self.title or readable(self.name)

    @classmethod
    def of(cls, name: str, *tables: Table) -> Dataset:
        """A data set of some tables, and nothing else."""
        return cls(name, {table.name: table for table in tables})
