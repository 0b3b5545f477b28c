"""Overview: the tables in numbers, and the results of the data set's queries.

The shop has a page of its own.
"""

from __future__ import annotations

import streamlit as st

from ecom_assets.dashboard import figures
from ecom_assets.dashboard.common import card, dataset, guarded, header, service, source, when
from ecom_assets.dashboard.shop import overview as shop
from ecom_assets.dataset.query import COUNTS
from ecom_assets.serving.queries import Snapshot

ACROSS = 4
"""Counters next to one another."""


def page() -> None:
    """The page."""
    header(dataset().name.replace("_", " ").capitalize(), "Its tables and their numbers, from verified rows only.")
    with guarded("The overview"):
        asked = service().snapshot()
        counters(asked)
        for name, query in dataset().queries.items():
            if name != COUNTS:
                with card(name, query.doc):
                    answer = asked.ask(name)
                    st.dataframe(answer.table.to_pandas(), hide_index=True)
                    st.caption(source(answer))
        st.caption(f"Published {when(asked.published.at)}.")


def counters(asked: Snapshot) -> None:
    """The rows of each table."""
    answer = asked.ask(COUNTS)
    names = list(dataset().tables)
    with st.container(key="counters"):
        for start in range(0, len(names), ACROSS):
            for column, name in zip(st.columns(ACROSS), names[start : start + ACROSS], strict=False):
                column.metric(name.replace("_", " "), f"{figures.count(answer.table, name):,}", border=True)
    st.caption(source(answer))


shop.page() if dataset().name == "shop" else page()
