"""Queries that a data set brings along: SQL files over its typed tables, each with a header that says what it shows.

What belongs here: reading the files, and what a header must say. What does not: running them (``serving.engines``).

A query is ``queries/<name>.sql``, with one text for every engine. What engines write differently is a view that
queries read like a table: ``views/<name>.spark.sql`` and ``views/<name>.duckdb.sql``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ecom_assets.dataset.document import Document, Fault, Key

ENGINES = ("spark", "duckdb")
"""Who runs queries."""

COUNTS = "counts"
"""The query that every data set has: rows of each table."""


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
    names = [file.name.partition(".")[0] for file in sorted(folder.glob(f"views/*.{ENGINES[0]}.sql"))]
    for name in names:
        texts = {engine: folder / "views" / f"{name}.{engine}.sql" for engine in ENGINES}
        if missing := [other for other in texts.values() if not other.is_file()]:
            faults += [Fault(str(other), "", "expected the view for this engine too, got no file") for other in missing]
            continue
        documents = {engine: Document.sql(other) for engine, other in texts.items()}
        found = [fault for each in documents.values() for fault in _faults(each, ("tables",), tables)]
        faults += found
        if not found:
            sql = {engine: document.values[""] for engine, document in documents.items()}
            views[name] = View(name, sql, tuple(_names(documents[ENGINES[0]])))
    queries: dict[str, Query] = {}
    for file in sorted(folder.glob("queries/*.sql")):
        document = Document.sql(file)
        found = list(_faults(document, ("title", "tables"), [*tables, *names]))
        if file.stem == COUNTS:
            found.append(_at(document, (), f"expected another name, got {COUNTS}, which every data set has"))
        faults += found
        if not found:
            queries[file.stem] = _query(document, tables, views)
    return {COUNTS: _counts(tables)} | queries, faults


def _query(document: Document, tables: Collection[str], views: Mapping[str, View]) -> Query:
    named = _names(document)
    used = tuple(views[name] for name in named if name in views)
    read = [*(name for name in named if name in tables), *(table for view in used for table in view.tables)]
    return Query(document.file.stem, document.values["title"], document.values[""], tuple(dict.fromkeys(read)), used)


def _counts(tables: Collection[str]) -> Query:
    # A count alone is in Delta's log: no file is read.
    rows = (f"SELECT '{name}' AS name, n FROM (SELECT count(*) AS n FROM \"{name}\") AS counted" for name in tables)
    return Query(COUNTS, "Rows of each table.", " UNION ALL ".join(rows), tuple(tables))


def _faults(document: Document, needed: Collection[str], known: Collection[str]) -> Iterator[Fault]:
    """What is wrong with the header of a file."""
    if document.faults:
        yield from document.faults
        return
    for name in document.values:
        if name not in {"", *needed}:
            yield _at(document, (name,), f"expected {' or '.join(needed)}, got {name!r}")
    for name in needed:
        if not document.values.get(name):
            yield _at(document, (), f"expected a line `-- {name}: …` at the top, got none")
    for name in _names(document):
        if name not in known:
            yield _at(document, ("tables",), f"expected a table or view of this data set, got {name!r}")


def _names(document: Document) -> list[str]:
    return [name for each in document.values.get("tables", "").split(",") if (name := each.strip())]


def _at(document: Document, key: Key, message: str) -> Fault:
    """A fault whose message names the value itself."""
    return replace(document.fault(key, message), field="")
