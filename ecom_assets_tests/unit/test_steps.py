"""Steps of runs: what is retried, and what people read of a failure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Barrier

import dagster as dg
import pytest

from ecom_assets.cli import job
from ecom_assets.core.addresses import LocatedAddresses
from ecom_assets.core.errors import ServiceError
from ecom_assets.defs.names import RETRIES, for_each

AWAY = "kafka does not run in /home/shop"


def failing(error: Exception, done: list[str]) -> Callable[[str], None]:
    """Work that fails for every table."""

    def work(table: str) -> None:
        done.append(table)
        raise error

    return work


@pytest.mark.parametrize(
    "error", [ServiceError(AWAY, "run `ecom up`", transient=True), ConnectionError("Spark went away")]
)
def test_a_step_is_retried_after_an_error_that_passes(error: Exception) -> None:
    """If this fails, a broker that restarts fails a run, or each table waits for it in turn."""
    done: list[str] = []
    with pytest.raises(dg.RetryRequested) as retried:
        list(for_each(["customer", "product"], failing(error, done)))
    assert retried.value.max_retries == RETRIES
    assert retried.value.__cause__ is error
    assert done == ["customer"], "the others would only wait for the same server"


def test_a_lasting_error_skips_no_other_table_and_is_said_once() -> None:
    """If this fails, one damaged table hides the others, or people read the same sentence four times."""
    done: list[str] = []
    with pytest.raises(ExceptionGroup) as failed:
        list(for_each(["customer", "product"], failing(ServiceError(AWAY), done)))
    assert done == ["customer", "product"]
    assert job.sentence(f"ExceptionGroup: {failed.value}") == AWAY
    with pytest.raises(ServiceError):
        list(for_each(["customer"], failing(ServiceError(AWAY), done)))


def test_tables_worked_on_together_are_reported_in_their_order() -> None:
    """If this fails, small deliveries take as long as one table after the other, or a failed one takes others along."""
    met = Barrier(2, timeout=30)

    def work(table: str) -> str:
        met.wait()
        if table == "customer":
            raise ServiceError(AWAY)
        return table.upper()

    done: deque[tuple[str, str]] = deque()
    with pytest.raises(ServiceError):
        done.extend(for_each(["customer", "product"], work, together=True))
    assert list(done) == [("product", "PRODUCT")]
    found = for_each(["a", "b", "c", "d"], lambda table: (met.wait(), table)[1], together=True)
    assert [each for each, _ in found] == ["a", "b", "c", "d"]


def test_an_error_is_a_sentence_without_its_class() -> None:
    """If this fails, people read class paths before they read what happened."""
    assert job.sentence(f"ecom_assets.core.errors.ServiceError: {AWAY}\nRemedy: run `ecom up`") == (
        f"{AWAY}\nRemedy: run `ecom up`"
    )
    assert job.sentence("topic ecom.product: expected Error: none") == "topic ecom.product: expected Error: none"


def test_work_fails_only_for_want_of_a_server_that_it_needs() -> None:
    """If this fails, every layer fails while one server is away, whether it needs that one or not."""

    def locate(served: str) -> str:
        if served == "kafka":
            raise ServiceError(AWAY, transient=True)
        return "localhost:9090"

    addresses = LocatedAddresses(locate)
    assert addresses.hbase_thrift == ("localhost", 9090)
    assert addresses.spark == "localhost:9090"
    with pytest.raises(ServiceError, match=AWAY):
        _ = addresses.kafka
