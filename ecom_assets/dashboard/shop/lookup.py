"""Lookup: one customer with their orders, one session with its events, straight from HBase."""

from __future__ import annotations

import pyarrow as pa
import streamlit as st

from ecom_assets.dashboard.common import card, dataset, guarded, header, service, source
from ecom_assets.serving import lookup
from ecom_assets.serving.queries import Snapshot


@st.cache_data(ttl=600, show_spinner=False)
def examples() -> dict[str, str]:
    """Ids that exist, as defaults of the empty fields."""
    home, at = service().settings, service().addresses
    found = {"customer": dataset().indexes["orders_by_customer"], "session": dataset().tables["click_stream"]}
    return {name: "".join(lookup.examples(table, home, at)) for name, table in found.items()}


def page() -> None:
    """The page."""
    header("Lookup", "Point reads and prefix scans on HBase.")
    with guarded("The lookup"):
        asked = service().snapshot()
        known = examples()
        left, right = st.columns(2)
        with left:
            number = st.text_input("Customer number", known.get("customer", ""), key="customer").strip()
        with right:
            session = st.text_input("Session id", known.get("session", ""), key="session").strip()
        if number:
            customer(asked, number)
        else:
            st.info("Enter a customer number to see the customer and their orders.", icon=":material/person_search:")
        if session:
            events(asked, session)
        else:
            st.info("Enter a session id to see its events sorted by time.", icon=":material/search:")


def customer(asked: Snapshot, number: str) -> None:
    """A customer and their orders."""
    found = False
    with card("customer", f"Customer {number[:60]}"):
        answer = asked.row("customer", number)
        if not answer.table.num_rows:
            st.info(
                f"There is no customer {number}. Check the number; it is `customer_id`.", icon=":material/person_off:"
            )
            st.caption(source(answer))
            return
        found = True
        (row,) = answer.table.to_pylist()
        st.markdown(f"### {_plain(row['first_name'])} {_plain(row['last_name'])}")
        facts = {
            "Gender": row["gender"],
            "Born": row["birthdate"],
            "Home": f"{row['home_location']}, {row['home_country']}",
            "Device": f"{row['device_type']}, {row['device_version']}",
            "Customer since": row["first_join_date"],
        }
        st.markdown("  \n".join(f":gray[{name}] {_plain(value)}" for name, value in facts.items()))
        st.caption(source(answer))
    if not found:
        return
    with card("orders", "Orders, the latest first"):
        orders = asked.through("orders_by_customer", number)
        if not orders.table.num_rows:
            st.info("This customer has not ordered anything.", icon=":material/remove_shopping_cart:")
        else:
            count = f"{orders.table.num_rows:,} orders"
            if orders.table.num_rows >= lookup.MOST:
                count = f"The latest {lookup.MOST:,} orders"
            st.markdown(count)
            _table(
                orders.table,
                ["created_at", "total_amount", "payment_status", "payment_method", "promo_code", "booking_id"],
                ["total_amount"],
            )
        st.caption(source(orders))


def events(asked: Snapshot, session: str) -> None:
    """A session's events."""
    with card("session", "Session, sorted by time"):
        answer = asked.under("click_stream", session)
        if not answer.table.num_rows:
            st.info(
                "There is no session of this id. Check it; it is `session_id`, a UUID.", icon=":material/search_off:"
            )
        else:
            st.markdown(f"{answer.table.num_rows:,} events")
            _table(answer.table, ["event_time", "event_name", "traffic_source", "event_metadata", "event_id"])
        st.caption(source(answer))


def _table(table: pa.Table, columns: list[str], numbers: list[str] | None = None) -> None:
    frame = table.select(columns).to_pandas()
    for name in ("created_at", "event_time"):
        if name in frame:
            frame[name] = frame[name].str.slice(0, 19).str.replace("T", " ", regex=False)
    for name in numbers or []:
        frame[name] = frame[name].astype("int64")
    texts = [name for name in columns if name not in (numbers or [])]
    frame[texts] = frame[texts].fillna("–")
    config = {name: st.column_config.NumberColumn(format="localized") for name in numbers or []}
    rows = min(len(frame), 12)
    st.dataframe(frame, hide_index=True, height=35 * (rows + 1) + 3, column_config=config)


def _plain(text: str | None) -> str:
    """Text from the data, none of it taken for Markdown."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!$:|<>~" else c for c in text or "not given")
