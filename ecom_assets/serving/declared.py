"""Whether the queries of a declaration can be run, and have the columns that their charts name.

What belongs here: what is found by planning a query on tables without rows, which needs neither data nor a server. What
does not: faults that a file alone shows (``dataset.query``).
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from ecom_assets.dataset.document import DatasetError, Fault
from ecom_assets.dataset.kind import named
from ecom_assets.dataset.model import Dataset
from ecom_assets.dataset.query import COUNTS, Query, check_columns


def check(dataset: Dataset, folder: Path) -> None:
    """Plan every query of a data set.

    Args:
        dataset: The data set.
        folder: Where its declaration is.

    Raises:
        DatasetError: A query cannot be run, or lacks a column; lists every fault.
    """
    found: list[Fault] = []
    for query in dataset.queries.values():
        file = folder / "queries" / f"{query.name}.sql"
        if query.name == COUNTS:
            continue
        try:
            found += check_columns(query, file, columns(query, dataset))
        except duckdb.Error as error:
            found.append(Fault(str(file), "", f"expected SQL that DuckDB runs, got: {str(error).splitlines()[0]}"))
    if found:
        raise DatasetError(folder, found)


def columns(query: Query, dataset: Dataset) -> dict[str, bool]:
    """The columns of a query's result, and whether they hold numbers; found on tables without rows.

    Raises:
        duckdb.Error: DuckDB cannot run it.
    """
    with duckdb.connect() as connection:
        for name in query.tables:
            own = [(c.name, c.kind.duckdb) for c in dataset.tables[name].columns]
            typed = [(c.parsed_as[0], _duckdb(c.parsed_as[1])) for c in dataset.tables[name].columns if c.parsed_as]
            declared = ", ".join(f'"{column}" {kind}' for column, kind in [*own, *typed])
            connection.execute(f'CREATE TABLE "{name}" ({declared})')
        for view in query.views:
            connection.execute(f'CREATE VIEW "{view.name}" AS {view.sql["duckdb"]}')
            found = connection.view(view.name)
            wide = [name for name, kind in zip(found.columns, found.types, strict=True) if str(kind) == _WIDE]
            if view.by_file and wide:
                raise duckdb.Error(f"the view {view.name} goes by file, so CAST the sums {', '.join(wide)} AS BIGINT")
        result = connection.sql(query.sql)
        return {name: kind.id in _NUMBERS for name, kind in zip(result.columns, result.types, strict=True)}


_WIDE = "HUGEINT"
"""The type of sums, which Parquet has not: it would keep them as floating numbers."""

_NUMBERS = {
    *(f"{sign}{size}" for sign in ("", "u") for size in ("tinyint", "smallint", "integer", "bigint", "hugeint")),
    "float", "double", "decimal",
}  # fmt: skip
"""DuckDB's types of numbers."""


def _duckdb(declared: str) -> str:
    """DuckDB's name of a companion's type: ``struct<id:bigint>`` is ``STRUCT("id" BIGINT)``."""
    head, _, inner = declared.removesuffix(">").partition("<")
    members = _members(inner)
    match head:
        case "array":
            return f"{_duckdb(inner)}[]"
        case "map":
            return f"MAP({', '.join(map(_duckdb, members))})"
        case "struct":
            pairs = [member.partition(":") for member in members]
            typed = [f'"{name.strip()}" {_duckdb(kind.strip())}' for name, _, kind in pairs]
            return f"STRUCT({', '.join(typed)})"
    kind = named(declared)
    return kind.duckdb if kind else {"long": "BIGINT", "string": "VARCHAR"}.get(declared, declared)


def _members(text: str) -> list[str]:
    """Parts between commas that are in no brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "<(") - (character in ">)")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]
