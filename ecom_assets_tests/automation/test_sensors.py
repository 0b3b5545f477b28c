"""Sensors that are left alone: whatever happens meanwhile, all is published in the end, and no layer is rebuilt."""

from __future__ import annotations

import random
import time

from ecom_assets.core import delivery
from ecom_assets.defs import deliveries
from ecom_assets.lake import streamed
from ecom_assets_tests.automation.dagster import working
from ecom_assets_tests.automation.home import JOBS, Home, now, simulate
from ecom_assets_tests.exports import Shop


def test_three_ingestions_in_a_row(shop_home: Home) -> None:
    """If this fails, rows wait for a click, pages go on saying that nothing is published, or a layer is rebuilt."""
    first = shop_home.dagster.materialize(shop_home.topics())
    assert shop_home.dagster.wait_for(first) == "FAILURE", "there is nothing to send yet"
    shop_home.ingest()
    shop_home.settle()
    counts = shop_home.counts()
    assert counts["ingest", "SUCCESS"] == 1
    assert counts["stream", "SUCCESS"] == 1
    assert counts["publish", "SUCCESS"] == 1
    assert sum(counts.values()) == 4, counts
    before = shop_home.identity()
    shop_home.check(before)
    for _ in range(2):
        simulate(shop_home, 500, "--again")
        assert shop_home.dagster.wait_for(shop_home.dagster.materialize(shop_home.topics())) == "SUCCESS"
        shop_home.settle()
        shop_home.check(before)
    assert {status for (_, status) in shop_home.counts() - counts} == {"SUCCESS"}


def test_files_that_come_into_the_source(exports_home: Home, shop: Shop) -> None:
    """If this fails, yesterday's export waits for a click, or is loaded without the checks."""
    exports_home.ingest()
    exports_home.settle()
    before = exports_home.identity()
    for day, tables in enumerate((("customer", "click_stream"), ("product",)), 1):
        shop.deliver(20, *tables)
        exports_home.dagster.settle(lambda day=day: len(delivery.deliveries(exports_home.at.settings)) == day)
        exports_home.settle()
        exports_home.check(before)
    held = {name: exports_home.at.books.last_measurement("hbase", name) for name in ("customer", "product")}
    assert {name: found.measure.rows for name, found in held.items() if found} == {n: shop.rows(n) for n in held}
    assert {status for (_, status) in exports_home.counts()} == {"SUCCESS"}
    of = list(deliveries.known(exports_home.at.settings).values())
    assert runs_for(exports_home) == of[1:]
    assert exports_home.dagster.partitions("raw/customer") == (of, set(of))
    (shop.folder / "customer.csv").write_bytes(b"others\n")  # refused, and that is all
    exports_home.dagster.settle(lambda: len(runs_for(exports_home)) == len(of))
    time.sleep(12)
    exports_home.settle()
    exports_home.check(before)
    assert runs_for(exports_home)[-1].startswith(f"{len(of):06d} ")
    assert {status for (_, status) in exports_home.counts()} == {"SUCCESS"}
    for layer in deliveries.PARTITIONED:
        assert exports_home.dagster.partitions(f"{layer}/customer") == (of, set(of)), "nothing is left of it"


def runs_for(home: Home) -> list[str]:
    """The partitions that the sensor has started runs for, in order."""
    started = [run for run in reversed(home.dagster.runs()) if run.by_sensor == "new_files"]
    return [run.tags[deliveries.PARTITION] for run in started]


def test_a_producer_and_a_stream_that_never_end(shop_home: Home, chance: random.Random) -> None:
    """If this fails, a live shop's checks compare two moments, fail, and have sound layers rebuilt."""
    shop_home.ingest()
    shop_home.settle()
    before = shop_home.identity()
    with working(shop_home.env, "simulate", "--again", "--rate", "500"):
        for _ in range(2):
            began = now()
            time.sleep(chance.uniform(0, 5))
            assert shop_home.dagster.wait_for(shop_home.dagster.materialize(shop_home.topics())) == "SUCCESS"
            shop_home.dagster.settle(lambda began=began: shop_home.published_since(began))
        with working(shop_home.env, "stream", "--interval", "2"):
            began = now()
            assert shop_home.dagster.wait_for(shop_home.dagster.materialize(shop_home.topics())) == "SUCCESS"
            shop_home.dagster.settle(lambda: shop_home.published_since(began))
            shop_home.check(before)
            for table in shop_home.at.dataset.tables.values():
                assert streamed.is_followed(table, shop_home.at.settings)
        shop_home.check(before)
    shop_home.settle()
    shop_home.check(before)
    assert {status for (_, status) in shop_home.counts()} == {"SUCCESS"}


def test_a_reload_of_the_code_and_a_restart_of_the_daemon(shop_home: Home, chance: random.Random) -> None:
    """If this fails, what was under way when the code was reloaded, or the daemon ended, waits for a click."""
    shop_home.dagster.launch("ingest")
    time.sleep(chance.uniform(2, 10))
    shop_home.dagster.reload()
    time.sleep(chance.uniform(2, 10))
    shop_home.dagster.stop("daemon")
    time.sleep(chance.uniform(0, 5))
    shop_home.dagster.start("daemon")
    shop_home.settle()
    before = shop_home.identity()
    shop_home.check(before)
    simulate(shop_home, 500, "--again")
    shop_home.dagster.reload()
    shop_home.settle()
    shop_home.check(before)


def test_a_step_that_fails_once_and_is_then_fixed(shop_home: Home) -> None:
    """If this fails, a failure that was fixed waits until somebody starts a run by hand."""
    obstacle = shop_home.at.settings.home / "chunked"
    obstacle.write_text("not a folder")
    assert shop_home.dagster.wait_for(shop_home.dagster.launch("ingest")) == "FAILURE"
    obstacle.unlink()
    shop_home.settle()
    shop_home.check(shop_home.identity())
    by_person = [run for run in shop_home.dagster.runs() if not run.by_sensor]
    assert len(by_person) == 1


def test_jobs_in_any_order(shop_home: Home, chance: random.Random) -> None:
    """If this fails, a job that runs at an odd moment breaks what another has built."""
    for job in chance.sample(JOBS, len(JOBS)):  # on a home without anything
        shop_home.dagster.wait_for(shop_home.dagster.launch(job))
    shop_home.settle()
    before = shop_home.identity()
    for _ in range(2):
        for job in chance.sample(JOBS, len(JOBS)):
            if chance.random() < 0.3:
                simulate(shop_home, 200, "--again")
            assert shop_home.dagster.wait_for(shop_home.dagster.launch(job)) == "SUCCESS", job
    shop_home.settle()
    shop_home.check(before)
