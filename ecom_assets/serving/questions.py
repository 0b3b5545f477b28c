"""The questions that pages ask, as SQL over the typed tables.

What belongs here: SQL that Spark and DuckDB read alike. Both the merged tables and those in PostgreSQL have the
columns named here, so one question has one text on every path. What does not: running it (``engines``).

Answers are small cubes, a row per month and category or the like: they are computed once per version of the tables,
and a filter on a page only picks and sums up some of their rows.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from ecom_assets.dataset.shop import TABLES

SALES = {
    "Spark": """
        SELECT booking_id, created_at_ts, payment_status, item.product_id, item.quantity, item.item_price
        FROM (SELECT booking_id, created_at_ts, payment_status, explode(items) AS item FROM transactions)
    """,
    "DuckDB": """
        SELECT booking_id, created_at_ts, payment_status, item.product_id, item.quantity, item.item_price
        FROM (SELECT booking_id, created_at_ts, payment_status, unnest(items) AS item FROM transactions)
    """,
}
"""The view ``sales``, a row per item of a booking: the only thing that the engines write differently."""


@dataclass(frozen=True)
class Question:
    """Something to be computed from the tables.

    Attributes:
        name: Its name, and that of its answer in the cache.
        doc: What it shows, a sentence.
        sql: A SELECT over ``customer``, ``product``, ``transactions``, ``click_stream`` and ``sales``.
        tables: The tables it reads.
    """

    name: str
    doc: str
    sql: str
    tables: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Names its text: a result that another version of the project cached for another text is not found."""
        return hashlib.sha256(json.dumps([self.sql, SALES]).encode()).hexdigest()[:16]


TOP = 20
"""Products that are named as the best sold."""

_MONTH = "CAST(date_trunc('month', {}) AS DATE)"


def _has(event: str, condition: str = "true") -> str:
    return f"max(CASE WHEN event_name = '{event}' AND {condition} THEN 1 ELSE 0 END)"


_ALL = (
    Question(
        "counts",
        "Rows of each table.",
        # A count alone, which is in Delta's log: no file is read.
        " UNION ALL ".join(
            f"SELECT '{name}' AS name, n FROM (SELECT count(*) AS n FROM {name}) AS {name}_rows" for name in TABLES
        ),
        tuple(TABLES),
    ),
    Question(
        "customers",
        "Customers by gender, device and age in full years on the day of the last booking.",
        """
        SELECT gender, device_type,
            year(today) - year(birthdate_date)
            - CASE WHEN month(birthdate_date) * 100 + day(birthdate_date) > month(today) * 100 + day(today)
              THEN 1 ELSE 0 END AS age,
            count(*) AS customers
        FROM customer CROSS JOIN (SELECT CAST(max(created_at_ts) AS DATE) AS today FROM transactions) AS last_day
        GROUP BY 1, 2, 3
        """,
        ("customer", "transactions"),
    ),
    Question(
        "catalogue",
        "Products by category, subcategory and usage.",
        """
        SELECT masterCategory AS category, subCategory AS subcategory, usage, count(*) AS products
        FROM product GROUP BY 1, 2, 3
        """,
        ("product",),
    ),
    Question(
        "events",
        "Events by month, kind and traffic source.",
        f"""
        SELECT {_MONTH.format("event_time_ts")} AS month, event_name, traffic_source, count(*) AS events
        FROM click_stream GROUP BY 1, 2, 3
        """,
        ("click_stream",),
    ),
    Question(
        "bookings",
        "Bookings by month, payment and promotion, with their amounts in IDR.",
        f"""
        SELECT {_MONTH.format("created_at_ts")} AS month, payment_method, payment_status, promo_code,
            count(*) AS bookings, CAST(sum(total_amount) AS BIGINT) AS amount,
            CAST(sum(promo_amount) AS BIGINT) AS discount, CAST(sum(shipment_fee) AS BIGINT) AS shipment
        FROM transactions GROUP BY 1, 2, 3, 4
        """,
        ("transactions",),
    ),
    Question(
        "revenue",
        "Paid items by month and category: units, and their value in IDR before promotions.",
        f"""
        SELECT {_MONTH.format("created_at_ts")} AS month, masterCategory AS category,
            CAST(sum(quantity) AS BIGINT) AS units, CAST(sum(quantity * item_price) AS BIGINT) AS amount
        FROM sales LEFT JOIN product ON sales.product_id = product.id
        WHERE payment_status = 'Success' GROUP BY 1, 2
        """,
        ("transactions", "product"),
    ),
    Question(
        "funnel",
        "Sessions by the month they began and traffic source: how many reached each step.",
        f"""
        SELECT {_MONTH.format("begun")} AS month, traffic_source, count(*) AS sessions,
            CAST(sum(home) AS BIGINT) AS home, CAST(sum(cart) AS BIGINT) AS cart,
            CAST(sum(booking) AS BIGINT) AS booking, CAST(sum(paid) AS BIGINT) AS paid
        FROM (
            SELECT session_id, min(begun) AS begun, min(traffic_source) AS traffic_source, max(home) AS home,
                max(cart) AS cart, max(booking) AS booking, max(paid) AS paid
            FROM (
                SELECT session_id, traffic_source, min(event_time_ts) AS begun,
                    {_has("HOMEPAGE")} AS home, {_has("ADD_TO_CART")} AS cart, {_has("BOOKING")} AS booking,
                    {_has("BOOKING", "metadata.payment_status = 'Success'")} AS paid
                FROM click_stream GROUP BY session_id, traffic_source
            ) AS parts
            GROUP BY session_id
        ) AS sessions
        GROUP BY 1, 2
        """,
        ("click_stream",),
    ),
    Question(
        "shipments",
        "Bookings by year and by where they are shipped to, in squares of half a degree.",
        """
        SELECT year(created_at_ts) AS year, floor(shipment_location_lat_deg * 2) / 2 + 0.25 AS latitude,
            floor(shipment_location_long_deg * 2) / 2 + 0.25 AS longitude, count(*) AS bookings
        FROM transactions
        WHERE shipment_location_lat_deg IS NOT NULL AND shipment_location_long_deg IS NOT NULL
        GROUP BY 1, 2, 3
        """,
        ("transactions",),
    ),
    Question(
        "top_products",
        f"The {TOP} products that earned most in each span of years, of all categories and of each.",
        f"""
        WITH sold AS (
            SELECT year(created_at_ts) AS year, product_id, sum(quantity) AS units,
                sum(quantity * item_price) AS amount
            FROM sales WHERE payment_status = 'Success' GROUP BY 1, 2
        ), years AS (
            SELECT DISTINCT year(created_at_ts) AS year FROM transactions
        ), spans AS (
            SELECT a.year AS first_year, b.year AS last_year FROM years AS a JOIN years AS b ON a.year <= b.year
        ), earned AS (
            SELECT first_year, last_year, product_id, sum(units) AS units, sum(amount) AS amount
            FROM sold JOIN spans ON year BETWEEN first_year AND last_year GROUP BY 1, 2, 3
        ), best AS (
            SELECT * FROM (
                SELECT first_year, last_year, product_id, productDisplayName AS name, masterCategory AS category,
                    units, amount,
                    row_number() OVER (
                        PARTITION BY first_year, last_year, masterCategory ORDER BY amount DESC, product_id
                    ) AS place_in_category
                FROM earned LEFT JOIN product ON product_id = id
            ) AS placed
            WHERE place_in_category <= {TOP}
        )
        SELECT first_year, last_year, place_in_category, product_id, name, category,
            row_number() OVER (PARTITION BY first_year, last_year ORDER BY amount DESC, product_id) AS place,
            CAST(units AS BIGINT) AS units, CAST(amount AS BIGINT) AS amount
        FROM best
        """,
        ("transactions", "product"),
    ),
)

QUESTIONS: dict[str, Question] = {q.name: q for q in _ALL}
"""All questions by name."""
