"""Queries that a data set brings along: SQL files over its typed tables, each with a header that declares its charts.

What belongs here: reading the files, and what a header must say. What does not: the charts themselves (``chart``), and
running a query (``serving.engines``).

A query is ``queries/<name>.sql``, with one text for every engine. What engines write differently is a view that
queries read like a table: ``views/<name>.spark.sql`` and ``views/<name>.duckdb.sql``, or ``views/<name>.sql`` for both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, ValidationError

from ecom_assets.dataset import form
from ecom_assets.dataset.chart import Chart, Map, Table
from ecom_assets.dataset.document import Document, Fault, Key
from ecom_assets.dataset.form import Form

ENGINES = ("spark", "duckdb")
"""Who runs queries."""

COUNTS = "counts"
"""The query that every data set has: rows of each table."""


Names = Annotated[str, Field(pattern=r"^\s*[^\s,]+\s*(,\s*[^\s,]+\s*)*$")]
"""Names, with commas between them."""

OneOrTwo = Annotated[str, Field(pattern=r"^\s*[^\s,]+\s*(,\s*[^\s,]+\s*)?$")]
"""One name, or two with a comma between them."""


class ReadingForm(Form):
    """What each header says."""

    tables: Names
    """Tables that it reads."""


class ViewForm(ReadingForm):
    """The header of a view."""

    by_file: bool = False
    """Whether it may be computed of some of its table's rows at a time, and the results be put together: a query then
    reads what was kept of the rows that were there before. It reads one table, and the query adds its rows up."""


class QueryForm(ReadingForm):
    """The header of a query."""

    title: Annotated[str, Field(min_length=1)]
    """What it shows, a sentence."""
    filters: dict[str, OneOrTwo] = Field(default_factory=dict)
    """Filter of the page -> the column that it narrows: years of a time or a whole number, or values of a text. Two
    columns are the first and the last year of a span that a row was computed for."""
    charts: dict[str, Chart] = Field(default_factory=dict)
    """Title -> a chart of the result; a table of all of it if there is none."""


F = TypeVar("F", bound=ReadingForm)


@dataclass(frozen=True)
class View:
    """A table that is computed while a query runs.

    Attributes:
        name: Its name.
        sql: Engine -> its SELECT.
        tables: The tables it reads.
        by_file: Whether it may be computed of each file of its table alone.
    """

    name: str
    sql: dict[str, str]
    tables: tuple[str, ...]
    by_file: bool = False


@dataclass(frozen=True)
class Query:
    """Something that is computed from the tables.

    Attributes:
        name: Its name, and that of its result in the cache.
        doc: What it shows, a sentence.
        sql: A SELECT over the tables and the views.
        tables: The tables that it reads, itself or through a view.
        views: The views that it reads.
        filters: Filter of the page -> the column of the result that it narrows, or the two of a span of years.
        charts: Title -> a chart of the result.
    """

    name: str
    doc: str
    sql: str
    tables: tuple[str, ...]
    views: tuple[View, ...] = ()
    filters: dict[str, tuple[str, ...]] = field(default_factory=dict)
    charts: dict[str, Chart] = field(default_factory=dict)

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
    of_both = {file.name.partition(".")[0]: file for file in folder.glob("views/*.sql") if file.name.count(".") == 1}
    names = sorted({*of_both, *(file.name.partition(".")[0] for file in folder.glob(f"views/*.{ENGINES[0]}.sql"))})
    for name in names:
        texts = {engine: of_both.get(name, folder / "views" / f"{name}.{engine}.sql") for engine in ENGINES}
        if missing := [other for other in texts.values() if not other.is_file()]:
            faults += [Fault(str(other), "", "expected the view for this engine too, got no file") for other in missing]
            continue
        documents = {file: Document.sql(file) for file in dict.fromkeys(texts.values())}
        headers = {file: _header(document, ViewForm, tables, faults) for file, document in documents.items()}
        if header := all(headers.values()) and headers[texts["duckdb"]]:
            sql = {engine: documents[file].values[""] for engine, file in texts.items()}
            views[name] = View(name, sql, tuple(_names(header.tables)), header.by_file)
            if header.by_file and len(views[name].tables) != 1:
                fault = documents[texts["duckdb"]].fault(
                    ("tables",), "expected one table of a view by file, got several"
                )
                faults.append(fault)
    queries: dict[str, Query] = {}
    for file in sorted(folder.glob("queries/*.sql")):
        document = Document.sql(file)
        header = _header(document, QueryForm, [*tables, *names], faults)
        if file.stem == COUNTS:
            faults.append(document.fault((), f"expected another name, got {COUNTS}, which every data set has"))
        elif header:
            faults += _outlines(document, header, folder)
            queries[file.stem] = _query(document, header, tables, views)
    return {COUNTS: _counts(tables)} | queries, faults


def check_columns(query: Query, file: Path, columns: Mapping[str, bool]) -> list[Fault]:
    """Whether a query's result has the columns that its filters and charts name, and numbers where they want some.

    Args:
        query: The query.
        file: Its file.
        columns: Those of its result, and whether they hold numbers.
    """
    named: list[tuple[Key, str, bool]] = [
        (("filters", name), column, False) for name, of in query.filters.items() for column in of
    ]
    for title, chart in query.charts.items():
        named += [(("charts", title, *at), column, chart.is_number(at)) for at, column in chart.columns_used]
    document, numbers = Document.sql(file), [column for column, is_number in columns.items() if is_number]
    faults = []
    for key, column, is_number in named:
        if column not in columns:
            expected = f"a column of the result ({', '.join(columns)})"
            faults.append(document.fault(key, f"expected {expected}, got {column!r}"))
        elif is_number and column not in numbers:
            expected = f"a column of numbers ({', '.join(numbers) or 'the result has none'})"
            faults.append(document.fault(key, f"expected {expected}, got {column!r}"))
    return faults


def _query(document: Document, header: QueryForm, tables: Collection[str], views: Mapping[str, View]) -> Query:
    named = _names(header.tables)
    used = tuple(views[name] for name in named if name in views)
    read = [*(name for name in named if name in tables), *(table for view in used for table in view.tables)]
    charts = {title: _located(chart, document.file.parents[1]) for title, chart in header.charts.items()}
    return Query(
        name=document.file.stem,
        doc=header.title,
        sql=document.values[""],
        tables=tuple(dict.fromkeys(read)),
        views=used,
        filters={name: tuple(_names(columns)) for name, columns in header.filters.items()},
        charts=charts or {header.title.rstrip("."): Table()},
    )


def _located(chart: Chart, folder: Path) -> Chart:
    """A chart whose outline is named by its whole path."""
    if isinstance(chart, Map) and chart.outline:
        return chart.model_copy(update={"outline": str(folder / chart.outline)})
    return chart


def _counts(tables: Collection[str]) -> Query:
    # A count alone is in Delta's log: no file is read.
    rows = (f"SELECT '{name}' AS name, n FROM (SELECT count(*) AS n FROM \"{name}\") AS counted" for name in tables)
    return Query(COUNTS, "Rows of each table.", " UNION ALL ".join(rows), tuple(tables))


def _header(document: Document, kind: type[F], known: Collection[str], faults: list[Fault]) -> F | None:
    """The header of a file; what is wrong with it is added to ``faults``."""
    found = list(document.faults)
    header = None
    if not found:
        try:
            header = kind.model_validate({name: value for name, value in document.values.items() if name})
        except ValidationError as error:
            found = [form.fault(document, each, _key(each["loc"])) for each in error.errors()]
        else:
            found = [
                document.fault(("tables",), f"expected a table or view of this data set, got {name!r}")
                for name in _names(header.tables)
                if name not in known
            ]
    faults += found
    return None if found else header


def _key(place: tuple[str | int, ...]) -> Key:
    """The place of an error in a header, without the kind that pydantic adds to a chart's."""
    return (*place[:2], *place[3:]) if place[0] == "charts" else place


def _outlines(document: Document, header: QueryForm, folder: Path) -> Iterator[Fault]:
    """Outlines that are there, and of the one form that is drawn."""
    for title, chart in header.charts.items():
        if not isinstance(chart, Map) or not chart.outline:
            continue
        try:
            shape = json.loads((folder / chart.outline).read_text(encoding="utf-8"))
            got = "" if isinstance(shape, dict) and shape.get("type") == "MultiPolygon" else "something else"
        except (OSError, ValueError) as error:
            got = str(error)
        if got:
            key = ("charts", title, "outline")
            yield document.fault(key, f"expected GeoJSON of a MultiPolygon in {chart.outline}, got: {got}")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]
