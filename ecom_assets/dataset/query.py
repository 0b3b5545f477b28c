"""Queries that a data set brings along: SQL files over its typed tables, each with a header that says what it shows.

What belongs here: reading the files, and what a header must say. What does not: running them (``serving.engines``).

A query is ``queries/<name>.sql``, with one text for every engine. What engines write differently is a view that
queries read like a table: ``views/<name>.spark.sql`` and ``views/<name>.duckdb.sql``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ecom_assets.dataset.document import Fault

ENGINES = ("spark", "duckdb")
"""Who runs queries."""

COUNTS = "counts"
"""The query that every data set has: rows of each table."""

_HEADER = re.compile(r"--\s*([a-z_]+):\s*(.*?)\s*")


@dataclass(frozen=True)
class View:
    """A table that is computed while a query runs.

    Attributes:
        name: Its name.
        sql: Engine -> its SELECT.
        tables: The tables it reads.
    """

    name: str
    sql: dict[str, str]
    tables: tuple[str, ...]


@dataclass(frozen=True)
class Query:
    """Something that is computed from the tables.

    Attributes:
        name: Its name, and that of its result in the cache.
        doc: What it shows, a sentence.
        sql: A SELECT over the tables and the views.
        tables: The tables that it reads, itself or through a view.
        views: The views that it reads.
    """

    name: str
    doc: str
    sql: str
    tables: tuple[str, ...]
    views: tuple[View, ...] = ()

    @property
    def digest(self) -> str:
        """Names its text: a result that was cached for another text is not found."""
        parts = [self.sql, *(view.sql for view in self.views)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def read(folder: Path, tables: Collection[str]) -> tuple[dict[str, Query], list[Fault]]:
    """Read the queries of a data set.

    Args:
        folder: Where its declaration is.
        tables: Names of its tables.

    Returns:
        Name -> query, ``counts`` first; and what is wrong with their files.
    """
    faults: list[Fault] = []
    views: dict[str, View] = {}
    for file in sorted(folder.glob(f"views/*.{ENGINES[0]}.sql")):
        name = file.name.partition(".")[0]
        texts = {engine: file.with_name(f"{name}.{engine}.sql") for engine in ENGINES}
        if missing := [other for other in texts.values() if not other.is_file()]:
            faults += [_fault(other, 0, "expected the view for this engine too, got no file") for other in missing]
            continue
        headers = [_header(other, ("tables",), tables, faults) for other in texts.values()]
        sql = {engine: _select(other) for engine, other in texts.items()}
        views[name] = View(name, sql, _names(headers[0].get("tables", "")))
    queries: dict[str, Query] = {}
    for file in sorted(folder.glob("queries/*.sql")):
        if file.stem == COUNTS:
            faults.append(_fault(file, 1, f"expected another name, got {COUNTS}, which every data set has"))
        header = _header(file, ("title", "tables"), [*tables, *views], faults)
        named = _names(header.get("tables", ""))
        used = tuple(views[name] for name in named if name in views)
        read_by_views = [table for view in used for table in view.tables]
        queries[file.stem] = Query(
            file.stem,
            header.get("title", ""),
            _select(file),
            tuple(dict.fromkeys([*(name for name in named if name in tables), *read_by_views])),
            used,
        )
    return {COUNTS: _counts(tables)} | queries, faults


def _counts(tables: Collection[str]) -> Query:
    # A count alone is in Delta's log: no file is read.
    rows = (f"SELECT '{name}' AS name, n FROM (SELECT count(*) AS n FROM {name}) AS {name}_rows" for name in tables)
    return Query(COUNTS, "Rows of each table.", " UNION ALL ".join(rows), tuple(tables))


def _header(file: Path, needed: Collection[str], tables: Collection[str], faults: list[Fault]) -> dict[str, str]:
    """The lines ``-- name: value`` that a file begins with."""
    found: dict[str, str] = {}
    for number, (name, value) in enumerate(_header_lines(file), 1):
        found[name] = value
        if name not in needed:
            faults.append(_fault(file, number, f"expected {' or '.join(needed)}, got {name!r}"))
        elif name == "tables":
            unknown = [each for each in _names(value) if each not in tables]
            faults.extend(
                _fault(file, number, f"expected a table or view of this data set, got {each!r}") for each in unknown
            )
    faults.extend(
        _fault(file, 1, f"expected a line `-- {name}: …` at the top, got none")
        for name in needed
        if not found.get(name)
    )
    return found


def _select(file: Path) -> str:
    """The text below the header."""
    return "".join(file.read_text(encoding="utf-8").splitlines(keepends=True)[sum(1 for _ in _header_lines(file)) :])


def _header_lines(file: Path) -> Iterator[tuple[str, str]]:
    for line in file.read_text(encoding="utf-8").splitlines():
        match = _HEADER.fullmatch(line)
        if not match:
            return
        yield match[1], match[2]


def _names(value: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in value.split(","))))


def _fault(file: Path, line: int, message: str) -> Fault:
    return Fault(f"{file}:{line}" if line else str(file), "", message)
