"""The books: what is recorded is what is found again, by any process."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ecom_assets.core.books import KEPT, Books, Build, Verification, books_file
from ecom_assets.core.errors import HomeError, OwnedError, ServiceError, is_transient
from ecom_assets.core.layer import Measurement
from ecom_assets.core.measure import Measure
from ecom_assets.core.ownership import Owner
from ecom_assets.core.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def test_what_is_recorded_is_found_by_another_process(settings: Settings) -> None:
    """If it failed, a run would not know what the last one built, and verdicts would rest on nothing."""
    build = Build("topic", "customer", "abc", {"topic_key": "customer_id"}, "stream", 5, 1.5, {"chunks": 2})
    measurement = Measurement(
        "customer", "topic", Measure(5, 2**64 - 1, 7, 0.5), {"replayed": Measure(1, 3)}, "0:5", problems=("p",)
    )
    verification = Verification("topic", "customer", "stream", "0:5", ("differs",))
    with Books.open(settings) as books:
        books.record_build(Build("topic", "customer", "older"))
        books.record_build(build)
        books.record_measurement(measurement)
        books.record_verification(verification)
        books.set_state("topic/customer/ledger", {"offset": 3})
    with Books.open(settings) as books:
        assert books.build("topic", "customer") == build
        assert books.builds() == [build]
        assert books.measurement("topic", "customer", "0:5") == measurement
        assert books.measurement("topic", "customer", "0:6") is None
        assert books.verification("topic", "customer") == verification
        assert books.states("topic/") == {"topic/customer/ledger": {"offset": 3}}
        books.forget("topic", "customer")
        assert books.build("topic", "customer") is None
        assert books.last_measurement("topic", "customer") is None
        assert books.verification("topic", "customer") is None
        assert books.state("topic/customer/ledger") is None


def test_new_books_can_be_opened_by_several_at_once(tmp_path: Path) -> None:
    """If it failed, the first run of a home would end with "table builds already exists" in some of its steps."""
    for attempt in range(5):
        home, together = tmp_path / str(attempt), threading.Barrier(4)

        def opened(number: int, home: Path = home, together: threading.Barrier = together) -> None:
            together.wait(30)
            with Books.open(Settings(home=home)) as books:
                books.set_state(str(number), value=True)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(opened, range(4)))
        with Books.open(Settings(home=home)) as books:
            assert books.states("").keys() >= {"0", "1", "2", "3"}


def test_measurements_do_not_pile_up(settings: Settings) -> None:
    """If it failed, the books of a home that streams all day would grow without bound."""
    with Books.open(settings) as books:
        for n in range(KEPT + 5):
            books.record_measurement(Measurement("t", "topic", Measure(n), position=str(n)))
        kept = [n for n in range(KEPT + 5) if books.measurement("topic", "t", str(n))]
        assert kept == list(range(5, KEPT + 5))
        last = books.last_measurement("topic", "t")
        assert last
        assert last.measure.rows == KEPT + 4


def test_many_writers_lose_nothing(settings: Settings) -> None:
    """If it failed, a run and the command line at once would end in `database is locked`."""
    Books.open(settings).close()

    def write(number: int) -> None:
        with Books.open(settings) as books:
            for n in range(20):
                books.set_state(f"k/{number}/{n}", n)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Books.open(settings) as books:
        assert len(books.states("k/")) == 80


def test_a_home_of_the_first_edition_is_refused_with_the_remedy(settings: Settings) -> None:
    """If it failed, all of an old home's layers would count as not built, and be built over."""
    (settings.home / "manifests").mkdir(parents=True)
    with pytest.raises(HomeError, match=r"first edition.*\nRemedy: .*ecom run --source synthetic --home"):
        Books.open(settings)
    assert not books_file(settings).exists()


def test_another_home_is_refused_with_both_names(tmp_path: Path) -> None:
    """If it failed, two homes of one namespace would drop each other's tables."""
    ours, theirs = (Owner.of(Settings(home=tmp_path / name)) for name in ("ours", "theirs"))
    assert Owner.of(Settings(home=tmp_path / "ours")) == ours
    ours.check(None, "HBase tables ecom_*")
    ours.check(Owner.from_text(ours.to_text()), "HBase tables ecom_*")
    with pytest.raises(OwnedError) as refused:
        ours.check(theirs, "HBase tables ecom_*")
    assert ours.home in str(refused.value)
    assert theirs.home in str(refused.value)


def test_transient_errors_are_told_from_lasting_ones() -> None:
    """If it failed, a broker that restarts would fail a run, or a damaged layer would be tried again and again."""
    passing = ServiceError("away", transient=True)
    wrapped = RuntimeError("outer")
    wrapped.__cause__ = passing
    assert is_transient(passing)
    assert is_transient(wrapped)
    assert is_transient(ConnectionResetError())
    assert is_transient(ExceptionGroup("both", [passing, TimeoutError()]))
    assert not is_transient(ExceptionGroup("one", [passing, ValueError()]))
    assert not is_transient(ServiceError("gone"))
    assert not is_transient(None)
