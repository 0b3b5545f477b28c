"""The numbers that each chart shows: results, filtered and summed up.

Pure functions from Arrow to polars, so that a test can hold them against numbers found another way. What does not
belong here: how the numbers look (``charts``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import assert_never

import polars as pl
import pyarrow as pa

from ecom_assets.core.errors import EcomError
from ecom_assets.dataset.chart import Bars, Chart, Columns, Funnel, Map, Table
from ecom_assets.dataset.query import Query

UNKNOWN = "not given"
"""What a null is called."""

Options = Mapping[str, list[int] | list[str]]
"""Filter -> what there is to choose from: years, or values."""

Choice = Mapping[str, tuple[int, int] | str]
"""Filter -> the first and the last year that a person wants to see, or a value; all if empty."""


class ChartError(EcomError):
    """A chart names a column that the result of its query does not have."""


def count(counts: pa.Table, table: str) -> int:
    """Rows of a table."""
    return next((row["n"] for row in counts.to_pylist() if row["name"] == table), 0)


def options(results: Iterable[tuple[Query, pa.Table]]) -> Options:
    """What there is to choose from, for each filter.

    Args:
        results: Queries with their results.
    """
    found: dict[str, set[int | str]] = {}
    for query, table in results:
        frame = _frame(table)
        for name, columns in query.filters.items():
            for column in columns:
                if column in frame.columns:  # of one that is not, each chart of the query reports it
                    found.setdefault(name, set()).update(frame.select(_year(frame, column)).to_series().drop_nulls())
    return {name: _sorted(values) for name, values in found.items()}


def _sorted(values: set[int | str]) -> list[int] | list[str]:
    years = [value for value in values if isinstance(value, int)]
    return sorted(years) if len(years) == len(values) else sorted(map(str, values))


def chosen(query: Query, table: pa.Table, choice: Choice) -> pl.DataFrame:
    """The rows of a result that a person wants to see, by those filters that its query has."""
    frame = _frame(table)
    # Spans first: the widest one of all rows counts, whatever else is chosen.
    for name, columns in sorted(query.filters.items(), key=lambda each: -len(each[1])):
        _require(f"the filter {name!r}", query, frame, columns)
        match choice.get(name, ""), columns:
            case (int(first), int(last)), (begin, end):
                frame = frame.filter(pl.col(begin) >= first, pl.col(end) <= last)
                frame = frame.filter(pl.col(begin) == frame[begin].min(), pl.col(end) == frame[end].max())
            case (int(first), int(last)), (column,):
                frame = frame.filter(_year(frame, column).is_between(first, last))
            case str(value), (column, *_) if value:
                frame = frame.filter(pl.col(column).cast(pl.String) == value)
    return frame


def shown(title: str, chart: Chart, query: Query, frame: pl.DataFrame) -> pl.DataFrame:
    """What a chart shows of the rows that were chosen; its columns are those that the chart names.

    Args:
        title: The chart's title, for the error.
        chart: The chart.
        query: Its query.
        frame: The rows.

    Raises:
        ChartError: The chart names a column that is not there.
    """
    _require(f"the chart {title!r}", query, frame, [column for _, column in chart.columns_used])
    match chart:
        case Bars(x=x, y=y, nulls=nulls):
            named = frame if nulls else frame.drop_nulls(x)
            grouped = named.group_by(pl.col(x).cast(pl.String).fill_null(UNKNOWN)).agg(pl.col(y).sum())
            return grouped.sort([y, x], descending=[True, False])
        case Columns(x=x, y=y):
            placed = frame.drop_nulls(x)
            day = pl.col(x).cast(pl.Date) if placed.schema[x] == pl.Datetime else pl.col(x)
            return placed.group_by(day).agg(pl.col(y).sum()).sort(x)
        case Funnel(steps=steps, of=of):
            whole = frame[of].sum() or 0
            came = [frame[column].sum() or 0 for column in steps]
            return pl.DataFrame({"step": list(steps.values()), "came": came}).with_columns(
                share=pl.col("came") / (whole or 1)
            )
        case Map(x=x, y=y, size=size):
            return frame.drop_nulls([x, y]).group_by(x, y).agg(pl.col(size).sum()).sort(size, y, x)
        case Table(columns=columns, by=by, rows=rows):
            ordered = frame.sort(by, descending=True, nulls_last=True, maintain_order=True) if by else frame
            return ordered.select(list(columns) or pl.all()).head(rows)
    assert_never(chart)


def summary(chart: Bars | Columns, frame: pl.DataFrame) -> dict[str, float]:
    """What a chart's summary is filled with: the sum of all rows, and the share of it that has a value in ``x``."""
    total, given = float(frame[chart.y].sum() or 0), float(frame.drop_nulls(chart.x)[chart.y].sum() or 0)
    return {"total": total, "given": given / total if total else 0.0}


def _frame(table: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(table))


def _year(frame: pl.DataFrame, column: str) -> pl.Expr:
    """A column as what people choose from: of a time, its year."""
    return pl.col(column).dt.year() if frame.schema[column].is_temporal() else pl.col(column)


def _require(what: str, query: Query, frame: pl.DataFrame, columns: Iterable[str]) -> None:
    if missing := [column for column in columns if column not in frame.columns]:
        raise ChartError(
            f"{what} of the query {query.name}: expected a column of its result ({', '.join(frame.columns)}),"
            f" got {', '.join(missing)}",
            f"correct the header of queries/{query.name}.sql; `ecom dataset check` with its folder lists every fault",
        )
