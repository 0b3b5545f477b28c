"""The rules of a declaration: what its values, and the Avro schemas next to them, must be to one another.

What belongs here: one function per kind of rule, each yielding faults with their place and a remedy. What does not: the
form of single values (``declaration``), and whether data keep to it (``reconcile.quality``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import fastavro
from fastavro.schema import SchemaParseException

from ecom_assets.dataset.declaration import DatasetForm, HBaseForm, IndexForm, PartForm, TableForm
from ecom_assets.dataset.document import Document, Fault, Key
from ecom_assets.dataset.kind import AVRO_NAMES, Kind, is_nested, named
from ecom_assets.dataset.model import OWN, declared_types, kind_of
from ecom_assets.dataset.write_rules import write_faults

TABLE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
"""What may be part of the name of a Kafka topic (https://kafka.apache.org/documentation/#topicconfigs), an HBase table
and a folder."""
COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""A name in Avro (https://avro.apache.org/docs/1.12.0/specification/#names)."""
MOST_ID = (1 << 31) - 1
"""Highest permanent number of a column, as in Iceberg."""
RENEWABLE = ("string", "long", "int", "uuid")
"""Types of the columns whose keys expansion can renew."""
_FAMILY = re.compile(r"[^\x00-\x20\x7f:/.][^\x00-\x20\x7f:/]*")
"""What HBase takes as a column family (``ColumnFamilyDescriptorBuilder.isLegalColumnFamilyName``), without spaces."""


@dataclass(frozen=True)
class Schema:
    """The Avro schema of a table, as far as rules need it.

    Attributes:
        document: Its file.
        nullable: Column -> whether a null is allowed, in the order of the CSV header.
        types: Column -> its type.
        companions: Typed companion -> its type.
    """

    document: Document
    nullable: dict[str, bool]
    types: dict[str, Kind]
    companions: dict[str, str]


def check(document: Document, form: DatasetForm, avro: dict[str, Document]) -> list[Fault]:
    """All faults between the values of a declaration.

    Args:
        document: Its file.
        form: What it says.
        avro: Table -> the file of its Avro schema.
    """
    faults: list[Fault] = []
    schemas: dict[str, Schema] = {}
    for name, file in avro.items():
        found = list(file.faults) or list(_schema_faults(file))
        faults += found
        if not found:
            schemas[name] = _schema(file)
    faults += _names(document, form)
    for name, table in form.tables.items():
        if name in schemas:
            faults += _table_faults(document, name, table, schemas, form)
    return faults + list(_owners(document, form))


def _schema_faults(file: Document) -> Iterator[Fault]:
    """An Avro record of columns whose types every layer holds exactly."""
    schema = file.values
    if not isinstance(schema, dict) or schema.get("type") != "record" or not isinstance(schema.get("fields"), list):
        yield file.fault((), "expected an Avro record with fields, got something else")
        return
    if not schema["fields"]:
        yield file.fault(("fields",), "expected a field per column, got none")
    try:
        fastavro.parse_schema(
            {**schema, "fields": [{k: v for k, v in f.items() if k not in OWN} for f in schema["fields"]]}
        )
    except (SchemaParseException, AttributeError, KeyError, TypeError, ValueError) as error:
        yield file.fault(("fields",), f"expected an Avro schema, got {type(error).__name__}: {error}")
        return
    yield from _header_faults(file, schema["fields"])
    yield from _id_faults(file, schema["fields"])
    seen: dict[str, str] = {}
    for position, field in enumerate(schema["fields"]):
        key: Key = ("fields", position)
        yield from _type_faults(file, key, field)
        for name in _column_names(field):
            yield from _name_faults(file, key, name, seen)


def _header_faults(file: Document, fields: list[dict[str, Any]]) -> Iterator[Fault]:
    """Columns of the CSV file with a name each, and no name twice."""
    seen: set[Any] = set()
    for position, field in enumerate(fields):
        header = field.get("header", field["name"])
        at: Key = ("fields", position, "header")
        if not isinstance(header, str) or not header or "\n" in header or "\r" in header:
            yield file.fault(at, f"column {field['name']}: expected the text of a CSV header, got {header!r}")
        elif header in seen:
            yield file.fault(at, f"column {field['name']}: expected a CSV header of its own, got {header!r} again")
        seen.add(header)


def _id_faults(file: Document, fields: list[dict[str, Any]]) -> Iterator[Fault]:
    """A permanent number for each column, or for none."""
    seen: set[Any] = set()
    if not any("field-id" in field for field in fields):
        return
    for position, field in enumerate(fields):
        number = field.get("field-id")
        at: Key = ("fields", position, *(["field-id"] if "field-id" in field else []))
        if not isinstance(number, int) or isinstance(number, bool) or not 0 < number <= MOST_ID:
            yield file.fault(
                at,
                f"column {field['name']}: expected a field-id of 1 to {MOST_ID:,}, as other fields have one,"
                f" got {number!r}",
                "a new column takes a number that none has had before",
            )
        elif number in seen:
            yield file.fault(at, f"column {field['name']}: expected a field-id of its own, got {number} again")
        seen.add(number)


def _type_faults(file: Document, key: Key, field: dict[str, Any]) -> Iterator[Fault]:
    kind = kind_of(field)
    if kind is None:
        yield file.fault(
            (*key, "type"),
            f"column {field['name']}: expected one of {', '.join(AVRO_NAMES)}, with null or without, got"
            f" {field['type']!r}",
            "write other types as string with parsed_as, so that no byte of the source is lost",
        )
    if "parsed_as" in field and kind and not kind.is_plain:
        at = (*key, "parsed_as")
        yield file.fault(at, f"column {field['name']}: expected a typed companion of a string alone, got {kind.name}")
    if "parsed_as" in field and len(_column_names(field)) == 1:
        at = (*key, "parsed_as")
        yield file.fault(at, f"column {field['name']}: expected a name and a type, got {field['parsed_as']!r}")
    elif "parsed_as" in field:
        declared = field["parsed_as"]["type"]
        if named(declared) is None and not is_nested(declared):
            yield file.fault(
                (*key, "parsed_as"),
                f"column {field['name']}: expected timestamp, date, double, bigint, boolean, decimal(p,s), struct<…>,"
                f" array<…> or map<…>, got {declared!r}",
            )


def _column_names(field: dict[str, Any]) -> list[str]:
    """A column's name, and that of its typed companion."""
    match field.get("parsed_as"):
        case {"name": str(companion), "type": str()}:
            return [field["name"], companion]
    return [field["name"]]


def _name_faults(file: Document, key: Key, name: str, seen: dict[str, str]) -> Iterator[Fault]:
    if not COLUMN.fullmatch(name):
        yield file.fault(key, f"column {name}: expected letters, digits and _ only, no digit first; so Avro wants it")
    if name.startswith("_"):
        yield file.fault(key, f"column {name}: expected no underscore first, got one; those names are ours")
    if other := seen.get(name.lower()):
        yield file.fault(
            key,
            f"column {name}: expected a name of its own, got {other} as well",
            "Spark does not tell upper case from lower case, so rename one of the two",
        )
    seen[name.lower()] = name


def _schema(file: Document) -> Schema:
    fields = file.values["fields"]
    return Schema(
        file,
        {f["name"]: "null" in declared_types(f) for f in fields},
        {f["name"]: kind for f in fields if (kind := kind_of(f))},
        {each["parsed_as"]["name"]: each["parsed_as"]["type"] for each in fields if "parsed_as" in each},
    )


def _names(document: Document, form: DatasetForm) -> Iterator[Fault]:
    """Names that every system takes, and that no two tables share."""
    stored: Counter[str] = Counter()
    folded: Counter[str] = Counter()
    files: dict[str, str] = {}
    for name, table in form.tables.items():
        key: Key = ("tables", name)
        hbase = table.hbase.table or name
        for text, at in ((name, key), (hbase, (*key, "hbase", "table"))):
            if not TABLE.fullmatch(text):
                yield document.fault(
                    at,
                    f"expected letters, digits, _, - and ., 100 at most, got {text!r}",
                    "Kafka and HBase take no others",
                )
        for index in table.indexes:
            at = (*key, "indexes", index)
            if not TABLE.fullmatch(index):
                yield document.fault(
                    at, f"expected letters, digits, _, - and ., 100 at most, got {index!r}", "HBase takes no others"
                )
            stored[index] += 1
            if stored[index] > 1:
                yield document.fault(at, f"expected a table of its own in HBase, got {index} again")
        file = (table.file or f"{name}.csv").lower()
        if (other := files.setdefault(file, name)) != name:
            yield document.fault((*key, "file"), f"expected a CSV file of its own, got that of {other}")
        stored[hbase] += 1
        folded[name.lower()] += 1
        if stored[hbase] > 1:
            yield document.fault((*key, "hbase", "table"), f"expected a table of its own in HBase, got {hbase} again")
        if folded[name.lower()] > 1:
            yield document.fault(key, "expected names that differ in more than upper and lower case, got it again")


def _table_faults(
    document: Document, name: str, table: TableForm, schemas: dict[str, Schema], form: DatasetForm
) -> Iterator[Fault]:
    here: Key = ("tables", name)
    schema = schemas[name]
    yield from _columns(document, (*here, "primary_key"), table.primary_key, schema, keyed=True)
    yield from _columns(document, (*here, "topic_key"), table.topic_key or [], schema, keyed=True)
    for column in table.domains:
        at: Key = (*here, "domains", column)
        yield from _columns(document, at, [column], schema, listed=False)
        if (kind := schema.types.get(column)) and kind.name not in RENEWABLE:
            yield document.fault(
                at,
                f"expected a column of {' or '.join(RENEWABLE)}, got {column!r}, which is {kind.name}",
                "no other keys can be renewed in copies of the data",
            )
    yield from write_faults(document, here, table, schema.types, schema.companions)
    yield from _references(document, name, table, schemas, form)
    yield from _hbase(document, (*here, "hbase"), table, schema)
    for index, declared in table.indexes.items():
        at = (*here, "indexes", index)
        yield from _row_key(document, at, declared, table, schema)
        if len(declared.row_key) == 1:
            yield document.fault(
                (*at, "row_key"), "expected two columns or more, got one", "take the primary key as the last"
            )
        yield from _family(document, (*at, "family"), declared.family)
        if lost := {*table.hbase.key_columns} - {*declared.key_columns, *table.primary_key}:
            yield document.fault(
                (*at, "row_key"),
                f"expected the table's row key among its columns, got it without {', '.join(sorted(lost))}",
                "a row of the index would not lead to its row of the table",
            )


def _columns(
    document: Document, key: Key, names: Iterable[str], schema: Schema, *, keyed: bool = False, listed: bool = True
) -> Iterator[Fault]:
    """Columns that exist, each once; where a key is made of them, never null, and of a type that can be one."""
    seen: set[str] = set()
    for position, name in enumerate(names):
        at = (*key, position) if listed else key
        if name not in schema.nullable:
            yield document.fault(
                at, f"expected a column of {schema.document.file.name}, got {name!r}", _like(name, schema.nullable)
            )
        elif name in seen:
            yield document.fault(at, f"expected each column once, got {name!r} again")
        elif keyed and schema.nullable[name]:
            yield document.fault(
                at,
                f"expected a column that is never null, got {name!r}, which may be",
                f'make its type in {schema.document.file.name} the type alone, without "null"',
            )
        elif keyed and not (kind := schema.types[name]).can_be_key:
            yield document.fault(
                at,
                f"expected a column that can be a key, got {name!r}, which is {kind.name}",
                "declare it as string, long, int, date, timestamp, time, uuid or enum",
            )
        seen.add(name)


def _references(
    document: Document, name: str, table: TableForm, schemas: dict[str, Schema], form: DatasetForm
) -> Iterator[Fault]:
    schema = schemas[name]
    for position, reference in enumerate(table.references):
        key: Key = ("tables", name, "references", position)
        if reference.table not in form.tables:
            yield document.fault(
                (*key, "table"),
                f"expected a table of this data set, got {reference.table!r}",
                _like(reference.table, form.tables),
            )
            continue
        to = reference.to or form.tables[reference.table].primary_key
        if len(to) != len(reference.columns):
            yield document.fault(
                key, f"expected as many columns as they refer to, got {len(reference.columns)} for {len(to)}"
            )
        if reference.table in schemas and reference.to:
            yield from _columns(document, (*key, "to"), reference.to, schemas[reference.table])
        for place, column in enumerate(reference.columns):
            first = column.partition(".")[0]
            if column not in schema.nullable and (first not in schema.companions or len(reference.columns) > 1):
                member = " or a member of a companion" * (len(reference.columns) == 1)
                yield document.fault(
                    (*key, "columns", place),
                    f"expected a column of {schema.document.file.name}{member}, got {column!r}",
                    _like(first, [*schema.nullable, *(schema.companions if member else [])]),
                )
        if reference.table in schemas:
            pairs = zip(reference.columns, to, strict=False)
            yield from _pairs(document, key, pairs, schema, schemas[reference.table])


def _pairs(
    document: Document, key: Key, pairs: Iterable[tuple[str, str]], schema: Schema, other: Schema
) -> Iterator[Fault]:
    """Columns of one type, or no value of one would ever be found in the other."""
    for place, (column, there) in enumerate(pairs):
        own, theirs = schema.types.get(column), other.types.get(there)
        if own and theirs and own != theirs:
            yield document.fault(
                (*key, "columns", place),
                f"expected {theirs.name}, the type of {there}, got {column!r}, which is {own.name}",
                "give both the same type",
            )


def _hbase(document: Document, key: Key, table: TableForm, schema: Schema) -> Iterator[Fault]:
    """Each column is stored once, or can be read from the row key; the row key is unique."""
    layout = table.hbase
    yield from _row_key(document, key, layout, table, schema)
    stored: dict[str, str] = {}
    rest = [family for family, columns in layout.families.items() if columns == "*"]
    if len(rest) > 1:
        yield document.fault((*key, "families", rest[1]), 'expected one family with "*", got another')
    for family, columns in layout.families.items():
        at: Key = (*key, "families", family)
        yield from _family(document, at, family)
        if columns == "*":
            continue
        yield from _columns(document, at, columns, schema)
        for position, name in enumerate(columns):
            if (other := stored.setdefault(name, family)) != family:
                yield document.fault(
                    (*at, position), f"expected each column in one family, got {name!r} in {other} as well"
                )
    lost = [name for name in schema.nullable if name not in stored and name != layout.derived]
    if lost and not rest:
        yield document.fault(
            (*key, "families"),
            f"expected every column in a family or, one at most, in the row key alone, got none with {', '.join(lost)}",
            'name them, or give a family the columns "*"',
        )


def _row_key(
    document: Document, key: Key, form: HBaseForm | IndexForm, table: TableForm, schema: Schema
) -> Iterator[Fault]:
    names = form.key_columns
    yield from _columns(document, (*key, "row_key"), names, schema, keyed=True)
    yield from _forms(document, (*key, "row_key"), form.row_key, schema)
    texts = [column for column in form.times if column in schema.types and schema.types[column].is_plain]
    if several := [column for column in texts if column in table.primary_key]:
        yield document.fault(
            (*key, "row_key"),
            f"expected a time next to the primary key, got {several[0]}, which is a part of it",
            "one time can be written in several ways, so two rows would share a row key; take it as text,"
            " or declare it as timestamp-micros",
        )
    if missing := [name for name in table.primary_key if name in schema.nullable and name not in names]:
        yield document.fault(
            (*key, "row_key"),
            f"expected the primary key among its columns, got it without {', '.join(missing)}",
            "two rows might share a row key, and one would overwrite the other",
        )


_FORMS = {
    "int64": ("long", "int"),
    "fixed": ("string",),
    "reversed_time": ("string", "timestamp-millis", "timestamp-micros"),
}
"""Form of a part of a row key -> the types that can have it."""


def _forms(document: Document, key: Key, row_key: list[str | PartForm], schema: Schema) -> Iterator[Fault]:
    """Parts of a form that their columns can have."""
    for position, part in enumerate(row_key):
        if isinstance(part, str) or part.column not in schema.types:
            continue
        at, own = (*key, position), schema.types[part.column]
        if (part.form == "fixed") != (part.width is not None):
            got = "none" if part.width is None else str(part.width)
            yield document.fault((*at, "width"), f"expected a width with the form fixed alone, got {got}")
        wanted = _FORMS.get(part.form)
        if wanted and own.name not in wanted:
            yield document.fault(
                (*at, "as"),
                f"expected a column of the type {' or '.join(wanted)}, got {part.column!r}, which is {own.name}",
            )


def _family(document: Document, key: Key, family: str) -> Iterator[Fault]:
    if not _FAMILY.fullmatch(family):
        yield document.fault(
            key, f"expected a name that HBase takes, got {family!r}", "no colon, slash or space, no point first"
        )


def _owners(document: Document, form: DatasetForm) -> Iterator[Fault]:
    """The keys of a domain are made by one table: the one whose primary key is of that domain."""
    owners: dict[str, str] = {}
    for name, table in form.tables.items():
        domain = table.domains.get(table.primary_key[0]) if len(table.primary_key) == 1 else None
        if domain and (other := owners.setdefault(domain, name)) != name:
            yield document.fault(
                ("tables", name, "domains", table.primary_key[0]),
                f"expected one table with a primary key of the domain {domain!r}, got {other} as well",
                "give one of the two a domain of its own",
            )


def _like(name: str, names: Iterable[str]) -> str:
    known = list(names)
    close = get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
