"""Lookup: rows straight from HBase, by the beginning of their row key or through an index.

The shop has a page of its own.
"""

from __future__ import annotations

import streamlit as st

from ecom_assets.dashboard.common import card, dataset, guarded, header, service, source
from ecom_assets.dashboard.shop import lookup as shop
from ecom_assets.dataset.model import Table
from ecom_assets.serving import lookup


@st.cache_data(ttl=600, show_spinner=False)
def example(name: str) -> str:
    """A value that exists, as the default of the empty field."""
    return next(iter(lookup.examples(_searched()[name], service().settings, service().addresses)), "")


def page() -> None:
    """The page."""
    header("Lookup", "Point reads and prefix scans on HBase.")
    with guarded("The lookup"):
        asked = service().snapshot()
        name = st.selectbox("Table or index", list(_searched()), key="table")
        searched = _searched()[name]
        first = searched.hbase.row_key[0]
        value = st.text_input(first, example(name), key=f"value-{name}").strip()
        if not value:
            st.info(f"Enter a {first} to see its rows.", icon=":material/search:")
            return
        with card("rows", f"{name}: {first} {value[:60]}"):
            if name in dataset().indexes:
                answer = asked.through(name, value)
            elif len(searched.hbase.row_key) == 1:
                answer = asked.row(name, value)
            else:
                answer = asked.under(name, value)
            if answer.table.num_rows:
                st.markdown(f"{answer.table.num_rows:,} rows")
                st.dataframe(answer.table.to_pandas(), hide_index=True)
            else:
                st.info(f"There is no row with {first} {value}.", icon=":material/search_off:")
            st.caption(source(answer))


def _searched() -> dict[str, Table]:
    return {**dataset().tables, **dataset().indexes}


shop.page() if dataset().name == "shop" else page()
