"""What all pages share: the query service, the header, the line under a chart, and how a failure is shown."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime

import streamlit as st

from ecom_assets.core.errors import LakeError, ServiceError
from ecom_assets.core.settings import Settings, load
from ecom_assets.dataset.model import Dataset
from ecom_assets.serving.lookup import LookupUnavailableError
from ecom_assets.serving.postgres import PostgresError
from ecom_assets.serving.publication import NotPublishedError
from ecom_assets.serving.queries import Answer, BadQuestionError, Queries

log = logging.getLogger(__name__)


@st.cache_resource(show_spinner=False)
def service() -> Queries:
    """The query service of this process; all sessions share it."""
    return Queries(load())


def dataset() -> Dataset:
    """What the home holds."""
    return service().dataset


def settings() -> Settings:
    """The home."""
    return service().settings


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
    except (
        LookupUnavailableError,
        PostgresError,
        ServiceError,
        LakeError,
        ConnectionError,
        FileNotFoundError,
    ) as error:
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
    """A frame with a title around a chart or table; a failure inside stays inside."""
    with st.container(border=True, key=f"card-{key}"):
        st.markdown(f"**{title}**" + (f"  \n:gray[:small[{note}]]" if note else ""))
        with guarded(title):
            yield


def chart(drawn: str, answer: Answer | None = None, *, empty: bool = False) -> None:
    """A chart, or a sentence where there is nothing to draw; and its source."""
    if empty:
        st.info("Nothing here for this choice. Take more years or all categories.", icon=":material/filter_alt:")
    else:
        st.html(drawn)
    if answer:
        st.caption(source(answer))


def when(text: str) -> str:
    """An ISO time as people read it."""
    try:
        at = datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return text
    return f"{at:%d %b %Y, %H:%M} UTC"
