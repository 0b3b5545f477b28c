"""The entry point of the dashboard: its pages and what they have in common; started by `ecom dashboard`."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

HERE = Path(__file__).parent

st.set_page_config(page_title="ecom", page_icon=str(HERE / "icon.png"), layout="wide")
st.html(HERE / "style.css")
st.navigation(
    [
        st.Page("views/overview.py", title="Overview", icon=":material/monitoring:", default=True),
        st.Page("views/live.py", title="Live", icon=":material/bolt:", url_path="live"),
        st.Page("views/lookup.py", title="Lookup", icon=":material/search:", url_path="lookup"),
        st.Page(
            "views/reconciliation.py", title="Reconciliation", icon=":material/verified:", url_path="reconciliation"
        ),
    ],
    position="top",
).run()
