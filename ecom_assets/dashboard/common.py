"""What all pages share: the query service, the header, the line under a chart, and how a failure is shown."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeVar

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ecom_assets.core.errors import EcomError
from ecom_assets.core.settings import Settings, load
from ecom_assets.dataset.document import DatasetError
from ecom_assets.dataset.model import Dataset
from ecom_assets.serving.publication import NotPublishedError
from ecom_assets.serving.queries import Answer, BadQuestionError, Queries

log = logging.getLogger(__name__)

T = TypeVar("T")

ACROSS = 4
"""Counters next to one another."""


@st.cache_resource(show_spinner=False)
def service() -> Queries:
    """The query service of this process; all sessions share it."""
    return Queries(settings())


@st.cache_resource(show_spinner=False)
def settings() -> Settings:
    """The home; known even where its data set is not."""
    return load()


def dataset() -> Dataset:
    """What the home holds.

    Raises:
        DatasetError: Its declaration is gone, or cannot be used any more.
    """
    return service().dataset


def header(title: str, text: str) -> None:
    """The top of a page."""
    st.title(title, anchor=False)
    st.markdown(f":gray[{text}]")


@contextmanager
def guarded(what: str) -> Generator[None]:
    """Show a failure as a sentence in its place; the rest of the page continues.

    Args:
        what: What was to be shown, for an unexpected failure.
    """
    try:
        yield
    except (NotPublishedError, BadQuestionError) as error:
        st.info(_sentence(error), icon=":material/info:")
    except (EcomError, DatasetError, ConnectionError, FileNotFoundError) as error:
        st.warning(_sentence(error), icon=":material/cloud_off:")
    except Exception:
        log.exception("%s could not be shown", what)
        st.error(
            f"{what}: unexpected error; see the dashboard's log at"
            f" {settings().stack / 'dashboard' / 'log' / 'out.log'}",
            icon=":material/error:",
        )


def _sentence(error: Exception) -> str:
    text = str(error).replace("\nRemedy: ", "; ")
    return text[:1].upper() + text[1:]


def ago(seconds: float) -> str:
    """A time span for people."""
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


def source(answer: Answer) -> str:
    """The origin of an answer, its age, its latency, and the cache's hit ratio."""
    computed = "" if answer.source == answer.computed_by else f", computed by {answer.computed_by}"
    ratio = "" if answer.hit_ratio is None else f" · {answer.hit_ratio:.0%} hits"
    return f"{answer.source}{computed} · {ago(answer.age)} old · {answer.milliseconds:.1f} ms{ratio}"


@contextmanager
def card(key: str, title: str, note: str = "") -> Generator[None]:
    """A frame with a title around a chart or table, as high as those next to it; a failure inside stays inside."""
    with st.container(border=True, key=f"card-{key}", height="stretch"):
        st.markdown(f"**{title}**" + (f"  \n:gray[:small[{note}]]" if note else ""))
        with guarded(title):
            yield


def chart(drawn: str, answer: Answer) -> None:
    """A chart, or a sentence where there is nothing to draw; and its source."""
    if drawn:
        st.html(drawn)
    else:
        st.info("There is nothing to show for this choice; take more of each filter.", icon=":material/filter_alt:")
    st.caption(source(answer))


def across(items: Sequence[T]) -> Iterator[tuple[DeltaGenerator, T]]:
    """A column for each of some counters, a few of them next to one another."""
    for start in range(0, len(items), ACROSS):
        yield from zip(st.columns(min(ACROSS, len(items))), items[start : start + ACROSS], strict=False)


def plain(text: str) -> str:
    """Text from the data, none of it taken for Markdown."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!$:|<>~" else c for c in text)


def when(text: str) -> str:
    """An ISO time as people read it."""
    try:
        at = datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return text
    return f"{at:%d %b %Y, %H:%M} UTC"
