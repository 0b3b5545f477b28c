"""Overview: the shop in numbers, filtered by time and category."""

from __future__ import annotations

import streamlit as st

from ecom_assets.dashboard import charts, figures
from ecom_assets.dashboard.common import card, chart, guarded, header, service, source, when
from ecom_assets.dashboard.figures import Filter
from ecom_assets.serving.queries import Snapshot

COUNTERS = (
    ("Customers", "customer", ":material/group:"),
    ("Transactions", "transactions", ":material/receipt_long:"),
    ("Products", "product", ":material/checkroom:"),
    ("Events", "click_stream", ":material/ads_click:"),
)

ALL = "All categories"


def page() -> None:
    """The page."""
    header("The shop at a glance", "Customers, products, bookings and clicks, from verified rows only.")
    with guarded("The overview"):
        asked = service().snapshot()
        counters(asked)
        chosen = choose(asked)
        sales(asked, chosen)
        people(asked)
        goods(asked, chosen)
        traffic(asked, chosen)
        st.caption(f"Published {when(asked.published.at)}. Amounts in Indonesian rupiah.")


def counters(asked: Snapshot) -> None:
    """The rows of each table."""
    answer = asked.ask("counts")
    with st.container(key="counters"):
        for column, (title, table, icon) in zip(st.columns(len(COUNTERS)), COUNTERS, strict=True):
            column.metric(f"{icon} {title}", f"{figures.count(answer.table, table):,}", border=True)
    st.caption(source(answer))


def choose(asked: Snapshot) -> Filter:
    """The filters."""
    years = figures.years(asked.ask("events").table, asked.ask("bookings").table)
    categories = figures.categories(asked.ask("catalogue").table)
    left, right = st.columns([1, 1], gap="large")
    first, last = (
        left.select_slider("Years", years, (years[0], years[-1]), key="years")
        if len(years) > 1
        else (years or [0])[:1] * 2
    )
    category = right.selectbox("Category of products", [ALL, *categories], key="category")
    return Filter(first, last, "" if category == ALL else category)


def sales(asked: Snapshot, chosen: Filter) -> None:
    """What was sold, where it is shipped to, and the funnel of sessions."""
    st.header("Sales", anchor=False)
    of = f" of {chosen.category}" if chosen.category else ""
    with card("revenue", f"Revenue{of} by month", "Paid items at their price, before promotions and shipment."):
        answer = asked.ask("revenue")
        frame = figures.over_time(answer.table, chosen)
        st.markdown(f"### {charts.rupiah(int(frame['amount'].sum()))}")
        chart(charts.trend(frame, "amount", "IDR"), answer, empty=frame.is_empty())
    left, right = st.columns([3, 2])
    with (
        left,
        card("map", "Where bookings are shipped to", "A dot per half degree, its size by the number of bookings."),
    ):
        answer = asked.ask("shipments")
        frame = figures.places(answer.table, chosen)
        chart(charts.shipment_map(frame), answer, empty=frame.is_empty())
    with right, card("funnel", "From home page to payment", "Share of all sessions that came to each step."):
        answer = asked.ask("funnel")
        frame = figures.funnel(answer.table, chosen)
        chart(charts.steps(frame), answer, empty=not frame["sessions"].sum())
    left, right = st.columns([2, 3])
    with left, card("promo", "Promotions", "Bookings by promotion code."):
        answer = asked.ask("bookings")
        frame = figures.promotions(answer.table, chosen)
        st.markdown(f"{figures.promotion_share(answer.table, chosen):.1%} of all bookings used one.")
        drawn = charts.bars(frame.select("promo_code", "bookings"), "promo_code", "bookings", "bookings")
        chart(drawn, answer, empty=frame.is_empty())
    with right, card("top", f"Products{of} that earned most"):
        answer = asked.ask("top_products")
        frame = figures.top_products(answer.table, chosen)
        chart(charts.ranking(frame), answer, empty=frame.is_empty())


def people(asked: Snapshot) -> None:
    """Who buys."""
    st.header("Customers", anchor=False)
    answer = asked.ask("customers")
    left, right = st.columns(2)
    for key, name, title in (("gender", "gender", "Gender"), ("device", "device_type", "Device")):
        with left, card(key, title):
            frame = figures.share(answer.table, name, "customers")
            chart(charts.bars(frame, name, "customers", "customers"), answer, empty=frame.is_empty())
    with right, card("age", "Age", "In steps of five years, on the day of the last booking."):
        frame = figures.ages(answer.table)
        chart(charts.columns(frame, "age", "customers", "customers", "years"), answer, empty=frame.is_empty())


def goods(asked: Snapshot, chosen: Filter) -> None:
    """What is sold."""
    st.header("Catalog", anchor=False)
    answer = asked.ask("catalogue")
    for column, (key, name, title) in zip(
        st.columns(3),
        (
            ("category", "category", "Master category"),
            ("subcategory", "subcategory", "Sub-category"),
            ("usage", "usage", "Usage"),
        ),
        strict=True,
    ):
        with column, card(key, title):
            frame = figures.share(answer.table, name, "products", chosen)
            chart(charts.bars(frame, name, "products", "products", most=10), answer, empty=frame.is_empty())


def traffic(asked: Snapshot, chosen: Filter) -> None:
    """How they come, what they do, and how they pay."""
    st.header("Traffic and payment", anchor=False)
    events, bookings = asked.ask("events"), asked.ask("bookings")
    left, right = st.columns(2)
    with left, card("event", "Events by kind"):
        frame = figures.share(events.table, "event_name", "events", chosen)
        chart(charts.bars(frame, "event_name", "events", "events"), events, empty=frame.is_empty())
    with right, card("source", "Traffic source", "Events by where their session came from."):
        frame = figures.share(events.table, "traffic_source", "events", chosen)
        chart(charts.bars(frame, "traffic_source", "events", "events"), events, empty=frame.is_empty())
    with right, card("payment", "Payment method"):
        frame = figures.share(bookings.table, "payment_method", "bookings", chosen)
        chart(charts.bars(frame, "payment_method", "bookings", "bookings"), bookings, empty=frame.is_empty())
    with card("years", "Transactions per year"):
        frame = figures.per_year(bookings.table, chosen)
        chart(charts.columns(frame, "year", "bookings", "transactions", "year"), bookings, empty=frame.is_empty())
