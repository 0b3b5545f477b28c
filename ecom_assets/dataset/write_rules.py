"""Rules of write modes: what a declaration may contain about further rows of a primary key.

What belongs here: the values ``write``, ``version``, ``deleted_if``, ``history`` and ``on_change``. What does not: all
other rules between values; see ``rules``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ecom_assets.dataset.declaration import TableForm
from ecom_assets.dataset.document import Document, Fault, Key
from ecom_assets.dataset.kind import Kind, named

FLAGS = ("string", "boolean", "enum", "int", "long")
"""Types of columns that can flag a deletion."""


def write_faults(
    document: Document, key: Key, table: TableForm, types: Mapping[str, Kind], companions: Mapping[str, str]
) -> Iterator[Fault]:
    """Faults between the write mode of a table and its other values.

    Args:
        document: The declaration.
        key: The table's place in it.
        table: The table in it.
        types: Column -> its type.
        companions: Typed companion -> its type.
    """
    for name, value in (("version", table.version), ("deleted_if", table.deleted_if)):
        if value is not None and table.write != "merge":
            yield document.fault(
                (*key, name),
                f"expected it with write: merge alone, got write: {table.write}",
                "declare write: merge, or leave it out",
            )
    if table.history and table.write == "append":
        yield document.fault(
            (*key, "history"),
            "expected it with write: merge or replace, got write: append",
            "rows that never change have no history",
        )
    if table.on_change == "append" and table.write == "replace":
        yield document.fault(
            (*key, "on_change"),
            "expected replace or refuse where each delivery is the whole table (write: replace), got append",
        )
    if table.version is not None:
        yield from _version(document, (*key, "version"), table.version, types, companions)
    if table.deleted_if is not None:
        at = (*key, "deleted_if", "column")
        kind = types.get(table.deleted_if.column)
        if kind is None:
            yield document.fault(at, f"expected a column of the table, got {table.deleted_if.column!r}")
        elif kind.name not in FLAGS:
            yield document.fault(at, f"expected a column of {', '.join(FLAGS)}, got one of {kind.name}")


def _version(
    document: Document, key: Key, name: str, types: Mapping[str, Kind], companions: Mapping[str, str]
) -> Iterator[Fault]:
    if name in companions:
        if named(companions[name]) is None:
            yield document.fault(key, f"expected a version that can be compared, got {companions[name]}")
    elif name not in types:
        yield document.fault(key, f"expected a column of the table or a typed companion, got {name!r}")
    elif types[name].is_plain:
        yield document.fault(
            key,
            f"expected a column of a type that has an order in time, got {name!r}, which is text",
            "give it a typed companion (parsed_as), and name that",
        )
