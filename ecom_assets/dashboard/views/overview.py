"""Overview: the tables in numbers, and the results of the data set's queries as its headers declare them.

What belongs here: what stands where. What does not: which charts there are (``dataset.chart``), their numbers
(``figures``) and how they look (``charts``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction

import streamlit as st

from ecom_assets.dashboard import charts, figures
from ecom_assets.dashboard.common import across, card, chart, dataset, guarded, header, plain, service, source, when
from ecom_assets.dashboard.figures import Choice, Options
from ecom_assets.dataset.chart import Bars, Chart, Columns
from ecom_assets.dataset.query import COUNTS, Query
from ecom_assets.serving.queries import WARMERS, Answer, Snapshot

ALL = "All"
"""What is chosen where no value is."""

Answers = Mapping[str, Future[Answer]]
"""Query -> its result, or why there is none."""


@dataclass(frozen=True)
class Placed:
    """A chart, and the query whose result it shows."""

    title: str
    chart: Chart
    query: Query

    @property
    def place(self) -> tuple[bool, int]:
        """Sorts charts as they are shown."""
        return self.chart.order is None, self.chart.order or 0


def page() -> None:
    """The page."""
    with guarded("The overview"):
        held = dataset()
        header(held.label, held.doc or "Its tables and their numbers.")
        asked = service().snapshot()
        answer = asked.ask(COUNTS)
        with st.container(key="counters"):
            for column, table in across(list(held.tables.values())):
                icon = f":material/{table.icon}: " * bool(table.icon)
                column.metric(f"{icon}{table.label}", f"{figures.count(answer.table, table.name):,}", border=True)
        st.caption(source(answer))
        queries = [query for name, query in held.queries.items() if name != COUNTS]
        answers = ask_all(asked, queries)
        known = [query for query in queries if not answers[query.name].exception()]
        options = figures.options((query, answers[query.name].result().table) for query in known)
        choice = choose(options)
        for section, placed in sections(queries).items():
            if section:
                st.header(section, anchor=False)
            for row in rows(placed):
                widths = [float(each.chart.share) for each in row]
                rest = 1 - sum(widths)
                for column, each in zip(st.columns([*widths, *([rest] if rest > 0.01 else [])]), row, strict=False):
                    with column:
                        show(each, answers[each.query.name], options, choice)
        upto = f", up to delivery {asked.published.delivery}" if asked.published.delivery else ""
        st.caption(f"Published {when(asked.published.at)}{upto}, from verified rows only. {held.note}")


def ask_all(asked: Snapshot, queries: Iterable[Query]) -> Answers:
    """Ask all queries at once: a page without a cache is computed as quickly as the engine can."""
    with ThreadPoolExecutor(WARMERS) as pool:
        return {query.name: pool.submit(asked.ask, query.name) for query in queries}


def sections(queries: Iterable[Query]) -> dict[str, list[Placed]]:
    """Section -> its charts, both in the order of the page."""
    placed = [Placed(title, chart, query) for query in queries for title, chart in query.charts.items()]
    found: dict[str, list[Placed]] = {}
    for each in sorted(placed, key=lambda each: each.place):
        found.setdefault(each.chart.section, []).append(each)
    return found


def rows(placed: Iterable[Placed]) -> Iterator[list[Placed]]:
    """Charts that fit next to one another."""
    row: list[Placed] = []
    for each in placed:
        if sum((one.chart.share for one in row), Fraction(0)) + each.chart.share > 1:
            yield row
            row = []
        row.append(each)
    if row:
        yield row


def choose(options: Options) -> Choice:
    """The filters: a range of years, or a value."""
    choice: dict[str, tuple[int, int] | str] = {}
    offered = {name: values for name, values in options.items() if len(values) > 1}
    for column, (name, values) in zip(st.columns(max(1, len(offered)), gap="large"), offered.items(), strict=False):
        with column:
            match values:
                case [int(first), *_, int(last)]:
                    choice[name] = st.select_slider(name, values, (first, last), key=f"filter-{name}")
                case [str(), *_]:
                    value = st.selectbox(name, [ALL, *values], key=f"filter-{name}")
                    choice[name] = "" if value == ALL else value
    return choice


def followed(query: Query, options: Options, choice: Choice) -> str:
    """What was chosen of the filters that a query has, if that is not all."""
    parts = []
    for name in query.filters:
        match choice.get(name, ""):
            case (first, last) if (first, last) != (options[name][0], options[name][-1]):
                parts.append(str(first) if first == last else f"{first}–{last}")
            case str(value) if value:
                parts.append(plain(value))
    return " · ".join(parts)


def show(placed: Placed, answered: Future[Answer], options: Options, choice: Choice) -> None:
    """A chart in its card."""
    title, declared, query = placed.title, placed.chart, placed.query
    note = " ".join(filter(None, (declared.note, f"**{f}**" if (f := followed(query, options, choice)) else "")))
    with card(f"{query.name}-{title}", title, note):
        answer = answered.result()
        frame = figures.chosen(query, answer.table, choice)
        shown = figures.shown(title, declared, query, frame)
        if isinstance(declared, Bars | Columns) and declared.summary and not frame.is_empty():
            st.html(charts.summary(declared.summary, **figures.summary(declared, frame)))
        chart(charts.drawn(declared, shown), answer)


page()
