"""Timestamps of loads, what readers see by them, and which past they may ask for; no server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecom_assets.core.books import Books
from ecom_assets.core.layer import Changes, Cut
from ecom_assets.core.settings import load
from ecom_assets.hbase import loads
from ecom_assets.hbase.loads import NotHeldError, Step
from ecom_assets.serving.publication import Publication
from ecom_assets_tests.tables import PRODUCT


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    with Books.open(load(home=tmp_path)) as books:
        yield books


def now() -> int:
    return int(time.time() * 1000)


def test_timestamps_increase_whatever_the_clock_shows() -> None:
    """If this fails, markers of a load meet cells of the one before, or readers see it before it is published."""
    began = now()
    assert began <= loads.next_timestamp(5) <= now()
    assert loads.next_timestamp(began + 100_000) == began + 100_002


def test_a_load_that_broke_off_keeps_its_timestamp(books: Books) -> None:
    """If this fails, two attempts write cells of two times, or the rows of an attempt are forgotten by the next one."""
    ahead = now() + 10**6
    first = loads.begin(books, PRODUCT, "a", "t@1", ahead)
    assert first == [Step("t@1", ahead + 2)]
    assert loads.begin(books, PRODUCT, "a", "t@1", ahead) == first
    further = loads.begin(books, PRODUCT, "a", "t@2", ahead)
    assert further == [*first, Step("t@2", ahead + 4)]
    assert loads.begin(books, PRODUCT, "a", "t@2", ahead) == further
    assert loads.begin(books, PRODUCT, "b", "t@2", ahead + 4) == [Step("t@2", ahead + 6)]


def test_steps_follow_one_another() -> None:
    """If this fails, what an attempt has written is not brought to where the next one begins."""
    asked: list[tuple[str | None, str | None]] = []
    done: list[int] = []

    def changes(since: Cut, until: Cut) -> Changes | None:
        asked.append((since.merged, until.merged))
        return None if until.merged == "t@9" else Changes(list)

    def change(_: Changes, timestamp: int) -> int:
        done.append(timestamp)
        return 10

    assert loads.follow([Step("t@1", 5), Step("t@2", 7)], Cut(merged="t@0"), changes, change) == 20
    assert (asked, done) == ([("t@0", "t@1"), ("t@1", "t@2")], [5, 7])
    assert loads.follow([Step("t@9", 9)], Cut(merged="t@0"), changes, change) is None


def test_a_past_that_is_not_held_is_refused(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a reader of yesterday gets the rows of another day without a word."""
    with pytest.raises(NotHeldError, match="got no delivery as the last one"):
        loads.as_of(books, PRODUCT, 0)
    for sequence, timestamp, reached in ((2, 100, 2), (3, 200, 2), (3, 200, 5), (7, 300, 8)):  # once it broke off
        loads.reached(books, PRODUCT, sequence, timestamp)
        books.set_state("hbase/product/reached", reached)
    assert [loads.as_of(books, PRODUCT, n) for n in (2, 3, 4, 5, 7, 8)] == [101, 201, 201, 201, 301, 301]
    with pytest.raises(NotHeldError, match="as of delivery 6, got those of 5 and 7; the deliveries between"):
        loads.as_of(books, PRODUCT, 6)
    assert loads.last_timestamp(books, PRODUCT) == 300
    with pytest.raises(NotHeldError, match="as of delivery 1, got that of delivery 2 as the oldest"):
        loads.as_of(books, PRODUCT, 1)
    with pytest.raises(NotHeldError, match="as of delivery 9, got delivery 8 as the last one that is loaded"):
        loads.as_of(books, PRODUCT, 9)
    monkeypatch.setattr(loads, "KEPT", 2)
    loads.reached(books, PRODUCT, 9, 400)
    with pytest.raises(NotHeldError, match="got that of delivery 7"):
        loads.as_of(books, PRODUCT, 3)
    loads.forget_past(books, PRODUCT)
    with pytest.raises(NotHeldError, match="got none"):
        loads.as_of(books, PRODUCT, 7)
    assert loads.last_timestamp(books, PRODUCT) is None


def test_a_publication_ends_behind_its_last_load(books: Books) -> None:
    """If this fails, readers see a load before it is published, or none of a table that was loaded as a whole."""
    published = Publication({}, {}, loaded={"product": 500})
    assert published.end(PRODUCT, books) == 501
    assert Publication({}, {}).end(PRODUCT, books) is None
    began = now()
    whole = loads.begin_whole(books, PRODUCT)
    assert began <= whole <= now()
    assert loads.begin_whole(books, PRODUCT) == whole, "every load of all rows is seen by readers of any later load"
    assert published.end(PRODUCT, books) == whole + 1
    assert not published.same_data(Publication({}, {}, loaded={"product": 501}))
