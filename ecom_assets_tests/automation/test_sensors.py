"""Sensors that are left alone: whatever happens meanwhile, all is published in the end, and no layer is rebuilt."""

from __future__ import annotations

import random
import subprocess
import sys
import time

from ecom_assets.core.settings import ROOT
from ecom_assets.lake import streamed
from ecom_assets_tests.automation.dagster import working
from ecom_assets_tests.automation.home import JOBS, Home, now


def simulate(home: Home, rows: int) -> None:
    """Send some rows again, as `ecom simulate` does."""
    command = [sys.executable, "-m", "ecom_assets.cli", "simulate", "--rows", str(rows), "--rate", "5000"]
    subprocess.run(command, env=home.env | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)


def test_three_ingestions_in_a_row(home: Home) -> None:
    """If this fails, rows wait for a click, pages go on saying that nothing is published, or a layer is rebuilt."""
    first = home.dagster.materialize(home.topics())
    assert home.dagster.wait_for(first) == "FAILURE", "there is nothing to send yet"
    home.ingest()
    home.settle()
    counts = home.counts()
    assert counts["ingest", "SUCCESS"] == 1
    assert counts["stream", "SUCCESS"] == 1
    assert counts["publish", "SUCCESS"] == 1
    assert sum(counts.values()) == 4, counts
    before = home.identity()
    home.check(before)
    for _ in range(2):
        simulate(home, 500)
        assert home.dagster.wait_for(home.dagster.materialize(home.topics())) == "SUCCESS"
        home.settle()
        home.check(before)
    assert {status for (_, status) in home.counts() - counts} == {"SUCCESS"}


def test_a_producer_and_a_stream_that_never_end(home: Home, chance: random.Random) -> None:
    """If this fails, a live shop's checks compare two moments, fail, and have sound layers rebuilt."""
    home.ingest()
    home.settle()
    before = home.identity()
    with working(home.env, "simulate", "--rate", "500"):
        for _ in range(2):
            began = now()
            time.sleep(chance.uniform(0, 5))
            assert home.dagster.wait_for(home.dagster.materialize(home.topics())) == "SUCCESS"
            home.dagster.settle(lambda began=began: home.published_since(began))
        with working(home.env, "stream", "--interval", "2"):
            began = now()
            assert home.dagster.wait_for(home.dagster.materialize(home.topics())) == "SUCCESS"
            home.dagster.settle(lambda: home.published_since(began))
            home.check(before)
            for table in home.at.dataset.tables.values():
                assert streamed.is_followed(table, home.at.settings)
        home.check(before)
    home.settle()
    home.check(before)
    assert {status for (_, status) in home.counts()} == {"SUCCESS"}


def test_a_reload_of_the_code_and_a_restart_of_the_daemon(home: Home, chance: random.Random) -> None:
    """If this fails, what was under way when the code was reloaded, or the daemon ended, waits for a click."""
    home.dagster.launch("ingest")
    time.sleep(chance.uniform(2, 10))
    home.dagster.reload()
    time.sleep(chance.uniform(2, 10))
    home.dagster.stop("daemon")
    time.sleep(chance.uniform(0, 5))
    home.dagster.start("daemon")
    home.settle()
    before = home.identity()
    home.check(before)
    simulate(home, 500)
    home.dagster.reload()
    home.settle()
    home.check(before)


def test_a_step_that_fails_once_and_is_then_fixed(home: Home) -> None:
    """If this fails, a failure that was fixed waits until somebody starts a run by hand."""
    obstacle = home.at.settings.home / "chunked"
    obstacle.write_text("not a folder")
    assert home.dagster.wait_for(home.dagster.launch("ingest")) == "FAILURE"
    obstacle.unlink()
    home.settle()
    home.check(home.identity())
    by_person = [run for run in home.dagster.runs() if not run.by_sensor]
    assert len(by_person) == 1


def test_jobs_in_any_order(home: Home, chance: random.Random) -> None:
    """If this fails, a job that runs at an odd moment breaks what another has built."""
    for job in chance.sample(JOBS, len(JOBS)):  # on a home without anything
        home.dagster.wait_for(home.dagster.launch(job))
    home.settle()
    before = home.identity()
    for _ in range(2):
        for job in chance.sample(JOBS, len(JOBS)):
            if chance.random() < 0.3:
                simulate(home, 200)
            assert home.dagster.wait_for(home.dagster.launch(job)) == "SUCCESS", job
    home.settle()
    home.check(before)
