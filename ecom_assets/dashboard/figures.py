"""The numbers that each chart shows: answers, filtered and summed up.

Pure functions from Arrow to polars, so that a test can hold them against numbers found another way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

MOST_SOLD = 20
"""Products that are named as the best sold; ``queries/top_products.sql`` computes as many."""


UNKNOWN = "not given"
"""What a null is called."""

FUNNEL = {"home": "Home page", "cart": "Put into the cart", "booking": "Booked", "paid": "Paid"}
"""The steps of the funnel, in order, and what people call them."""


@dataclass(frozen=True)
class Filter:
    """What a person wants to see.

    Attributes:
        first_year: From the beginning of this year.
        last_year: To the end of this one.
        category: A master category; all if empty.
    """

    first_year: int
    last_year: int
    category: str = ""


def years(events: pa.Table, bookings: pa.Table) -> list[int]:
    """The years that have data."""
    months = pl.concat([_frame(events).select("month"), _frame(bookings).select("month")])
    return sorted(months["month"].drop_nulls().dt.year().unique().to_list())


def categories(catalogue: pa.Table) -> list[str]:
    """The master categories, by name."""
    return sorted(_frame(catalogue)["category"].drop_nulls().unique().to_list())


def share(table: pa.Table, column: str, value: str, chosen: Filter | None = None) -> pl.DataFrame:
    """Sum up by one column, the biggest first.

    Args:
        table: An answer.
        column: What to group by; a null becomes ``UNKNOWN``.
        value: What to add up.
        chosen: Filters those of its columns that the answer has.

    Returns:
        ``column`` and ``value``.
    """
    frame = _chosen(_frame(table), chosen)
    grouped = frame.group_by(pl.col(column).fill_null(UNKNOWN)).agg(pl.col(value).sum())
    return grouped.sort([value, column], descending=[True, False])


def ages(customers: pa.Table) -> pl.DataFrame:
    """Customers by age, in steps of five years: ``age`` (where the step begins), ``customers``."""
    frame = _frame(customers).filter(pl.col("age").is_not_null())
    return frame.group_by((pl.col("age") // 5 * 5).alias("age")).agg(pl.col("customers").sum()).sort("age")


def per_year(bookings: pa.Table, chosen: Filter | None = None) -> pl.DataFrame:
    """Transactions per year: ``year``, ``bookings``."""
    frame = _chosen(_frame(bookings), chosen).with_columns(pl.col("month").dt.year().alias("year"))
    return frame.group_by("year").agg(pl.col("bookings").sum()).sort("year")


def over_time(revenue: pa.Table, chosen: Filter) -> pl.DataFrame:
    """Value of what was paid for, by month: ``month``, ``amount``, ``units``."""
    frame = _chosen(_frame(revenue), chosen)
    return frame.group_by("month").agg(pl.col("amount").sum(), pl.col("units").sum()).sort("month")


def funnel(sessions: pa.Table, chosen: Filter) -> pl.DataFrame:
    """How many sessions came how far: ``step``, ``sessions``, ``share`` of all sessions."""
    frame = _chosen(_frame(sessions), chosen)
    total = int(frame["sessions"].sum() or 0)
    counts = [int(frame[column].sum() or 0) for column in FUNNEL]
    return pl.DataFrame(
        {"step": list(FUNNEL.values()), "sessions": counts, "share": [n / total if total else 0.0 for n in counts]},
        schema={"step": pl.String, "sessions": pl.Int64, "share": pl.Float64},
    )


def promotions(bookings: pa.Table, chosen: Filter) -> pl.DataFrame:
    """Bookings by promotion, those without one left out: ``promo_code``, ``bookings``, ``discount``."""
    frame = _chosen(_frame(bookings), chosen).filter(pl.col("promo_code").is_not_null())
    grouped = frame.group_by("promo_code").agg(pl.col("bookings").sum(), pl.col("discount").sum())
    return grouped.sort(["bookings", "promo_code"], descending=[True, False])


def promotion_share(bookings: pa.Table, chosen: Filter) -> float:
    """Share of the bookings that used a promotion."""
    frame = _chosen(_frame(bookings), chosen)
    total = int(frame["bookings"].sum())
    used = int(frame.filter(pl.col("promo_code").is_not_null())["bookings"].sum())
    return used / total if total else 0.0


def places(shipments: pa.Table, chosen: Filter) -> pl.DataFrame:
    """Bookings by where they go: ``latitude``, ``longitude``, ``bookings``."""
    frame = _frame(shipments).filter(pl.col("year").is_between(chosen.first_year, chosen.last_year))
    return frame.group_by("latitude", "longitude").agg(pl.col("bookings").sum()).sort("bookings", "latitude")


def top_products(best: pa.Table, chosen: Filter) -> pl.DataFrame:
    """The products that earned most, the best first: ``product_id``, ``name``, ``category``, ``units``, ``amount``."""
    frame, place = _frame(best), "place_in_category" if chosen.category else "place"
    # Years in which nothing was booked begin and end no span.
    sold = frame.filter(pl.col("first_year") >= chosen.first_year, pl.col("last_year") <= chosen.last_year)
    frame = _chosen(sold, chosen).filter(
        pl.col("first_year") == sold["first_year"].min(), pl.col("last_year") == sold["last_year"].max()
    )
    frame = frame.filter(pl.col(place) <= MOST_SOLD).sort(place).with_columns(pl.col("name").fill_null("(no name)"))
    return frame.select("product_id", "name", "category", "units", "amount")


def count(counts: pa.Table, table: str) -> int:
    """Rows of a table."""
    return next((row["n"] for row in counts.to_pylist() if row["name"] == table), 0)


def _frame(table: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(table))


def _chosen(frame: pl.DataFrame, chosen: Filter | None) -> pl.DataFrame:
    if chosen is None:
        return frame
    conditions: list[Any] = []
    if "month" in frame.columns:
        conditions.append(pl.col("month").dt.year().is_between(chosen.first_year, chosen.last_year))
    if "category" in frame.columns and chosen.category:
        conditions.append(pl.col("category") == chosen.category)
    return frame.filter(*conditions) if conditions else frame
