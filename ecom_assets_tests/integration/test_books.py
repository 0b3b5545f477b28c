"""The books in PostgreSQL, as a cluster keeps them: the same answers as from SQLite, a schema per namespace."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ecom_assets.core.addresses import Addresses
from ecom_assets.core.books import KEPT, Books, Build, Verification, books_file
from ecom_assets.core.errors import HomeError
from ecom_assets.core.layer import Measurement
from ecom_assets.core.measure import Measure
from ecom_assets.core.settings import Settings


@pytest.fixture
def own(addresses: Addresses, tmp_path: Path) -> Settings:
    namespace = f"books_{secrets.token_hex(4)}"
    return Settings(home=tmp_path, namespace=namespace, books=addresses.postgres)


def test_what_is_recorded_is_found_by_another_process(own: Settings) -> None:
    """If it failed, the nodes of a cluster would not know what the others have built and verified."""
    build = Build("topic", "customer", "abc", {"key": "id"}, "stream", 5, 1.5, {"chunks": 2})
    found = Measurement("customer", "topic", Measure(5, 2**64 - 1, 7, 0.5), position="x" * 10_000, problems=("p",))
    verification = Verification("topic", "customer", "stream", "x", ("differs",))
    with Books.open(own) as books:
        books.record_build(Build("topic", "customer", "older"))
        books.record_build(build)
        books.record_measurement(found)
        books.record_verification(verification)
        books.set_state("topic/customer/ledger", {"offset": 3})
    with Books.open(own) as books:
        assert books.build("topic", "customer") == build
        assert books.measurement("topic", "customer", "x" * 10_000) == found
        assert books.verifications() == [verification]
        assert books.states("topic/") == {"topic/customer/ledger": {"offset": 3}}
        books.forget("topic", "customer")
        assert books.builds() == []
        assert books.states("topic/") == {}
    assert not books_file(own).exists()


def test_namespaces_do_not_meet(own: Settings) -> None:
    """If it failed, two homes of one database would read each other's books."""
    with Books.open(own) as books:
        books.set_state("k", 1)
    with Books.open(own.model_copy(update={"namespace": f"{own.namespace}_b"})) as books:
        assert books.state("k") is None


def test_many_writers_lose_nothing_and_nothing_piles_up(own: Settings) -> None:
    """If it failed, runs on several nodes would end in serialization errors, or the books grow without bound."""

    def write(number: int) -> None:
        with Books.open(own) as books:
            for n in range(15):
                books.set_state(f"k/{number}/{n}", n)
                books.record_measurement(Measurement("t", "topic", Measure(n), position=f"{number} {n}"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    with Books.open(own) as books:
        assert len(books.states("k/")) == 60
        kept = [books.measurement("topic", "t", f"{number} {n}") for number in range(4) for n in range(15)]
        assert sum(found is not None for found in kept) <= KEPT + 4


def test_another_database_is_refused(tmp_path: Path) -> None:
    """If it failed, a mistyped URL would end in a driver's traceback, with the password in it."""
    with pytest.raises(HomeError, match="expected a PostgreSQL URL") as refused:
        Books.open(Settings(home=tmp_path, books="mysql://me:secret@127.0.0.1/db"))
    assert "secret" not in str(refused.value)
