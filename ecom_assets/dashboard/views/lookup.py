"""Lookup: rows straight from HBase, by their key, by the beginning of it, or through an index.

What belongs here: what a person chooses and sees. What does not: which keys there are, and how rows are read
(``serving.lookup``).
"""

from __future__ import annotations

import pyarrow as pa
import streamlit as st

from ecom_assets.dashboard import charts
from ecom_assets.dashboard.common import card, dataset, guarded, header, plain, service, source
from ecom_assets.dataset.model import Index, Table
from ecom_assets.serving import lookup
from ecom_assets.serving.lookup import Key
from ecom_assets.serving.queries import Answer, BadQuestionError

SHOWN = 12
"""Rows that a table shows before it scrolls."""


@st.cache_data(ttl=600, show_spinner=False)
def example(name: str) -> str:
    """A value that exists, as the default of the empty field."""
    held = dataset()
    table = held.indexes.get(name) or held.tables[name]
    ends = service().snapshot().ends(table)
    return next(iter(lookup.examples(table, service().settings, service().addresses, ends=ends)), "")


def as_of() -> int | None:
    """The delivery that rows are to be shown as of, from the page's address (``?as_of=3``).

    Raises:
        BadQuestionError: It is no number of a delivery.
    """
    text = st.query_params.get("as_of", "")
    if text and not (text.isascii() and text.isdigit()):
        raise BadQuestionError(f"expected the number of a delivery as as_of, got {text[:60]!r}")
    return int(text) if text else None


def page() -> None:
    """The page."""
    header("Lookup", "Point reads and prefix scans on HBase.")
    with guarded("The lookup"):
        asked = service().snapshot(as_of())
        if asked.as_of is not None:
            st.info(f"Rows as of delivery {asked.as_of}.", icon=":material/history:")
        keys = lookup.keys(dataset())
        chosen = st.segmented_control(
            "What",
            range(len(keys)),
            default=0,
            format_func=lambda n: ", ".join(place.label for place in keys[n].places),
            key="what",
            label_visibility="collapsed",
        )
        key = keys[chosen or 0]
        # Whatever an index finds has rows in its table as well, but not the other way round.
        value = st.text_input(key.column, example(key.places[-1].name), key=f"value-{chosen or 0}").strip()
        if not value:
            st.info(f"Enter a value of {key.column} to see its rows.", icon=":material/search:")
            return
        found = {place.name: asked.find(place, value) for place in key.places}
        if not any(answer.table.num_rows for answer in found.values()):
            st.info(f"There is no row with {key.column} {plain(value[:60])}.", icon=":material/search_off:")
            return
        for place in key.places:
            show(key, place, value, found[place.name])


def show(key: Key, place: Table, value: str, answer: Answer) -> None:
    """What was found in one place."""
    count = answer.table.num_rows
    with card(place.name, place.label, f"{plain(key.column)} {plain(value[:60])}"):
        if not count:
            st.markdown(":gray[No rows.]")
        elif count == 1 and len(place.hbase.row_key) == 1:
            st.html(charts.facts(answer.table.to_pylist()[0]))
        else:
            more = ", and there may be more" if count >= lookup.MOST else ""
            order = "descending" if isinstance(place, Index) else "ascending"
            by = plain(", ".join(place.hbase.row_key[1:]))
            st.markdown(f"{count:,} row{'s' * (count != 1)}{more}  \n:gray[:small[By {by}, {order}.]]")
            several(place, answer.table)
        st.caption(source(answer))


def several(place: Table, found: pa.Table) -> None:
    """Rows as a table: the rest of the row key first, times and numbers as people read them."""
    table = place.of if isinstance(place, Index) else place
    first, *rest = place.hbase.row_key
    names = list(dict.fromkeys([*rest, *(name for name in table.names if name != first)]))
    frame = found.select(names).to_pandas()
    config = {}
    for column in table.columns:
        if column.name not in frame:
            continue
        values = frame[column.name]
        if column.kind.is_integer and column.name not in table.key_columns:
            frame[column.name] = values.astype("Int64")
            config[column.name] = st.column_config.NumberColumn(format="localized")
        elif pa.types.is_timestamp(column.kind.arrow) or (column.parsed_as and column.parsed_as[1] == "timestamp"):
            frame[column.name] = values.str.slice(0, 19).str.replace("T", " ", regex=False).fillna("–")
        else:
            frame[column.name] = values.fillna("–")
    st.dataframe(frame, hide_index=True, height=35 * (min(len(frame), SHOWN) + 1) + 3, column_config=config)


page()
