"""Partitions that people materialize again, by Dagster's own means: nothing is loaded twice."""

from __future__ import annotations

from typing import Any

from ecom_assets.defs import deliveries, live_days
from ecom_assets.paths import LAYERS, engine
from ecom_assets.reconcile import deliveries as listed
from ecom_assets_tests.automation.home import Home, simulate
from ecom_assets_tests.exports import Shop


def held(home: Home) -> dict[str, Any]:
    """What the books say of each layer and table: rows, checksum, what was excluded, and what it was built from."""
    found = {}
    for layer in LAYERS:
        for table in home.at.dataset.tables:
            measured, build = home.at.books.last_measurement(layer, table), home.at.books.build(layer, table)
            assert measured, (layer, table)
            assert build, (layer, table)
            excluded = {reason: (each.rows, each.checksum) for reason, each in measured.excluded.items() if each.rows}
            own = measured.measure
            found[f"{layer}/{table}"] = (own.rows, own.checksum, excluded, build.fingerprint, build.rows)
    return found


def test_deliveries_that_are_materialized_again(exports_home: Home, shop: Shop) -> None:
    """If this fails, whoever clicks on a past day loads it twice, or rebuilds what others read."""
    shop.deliver(20, "customer", "click_stream")
    shop.deliver(30, "customer")
    dagster = exports_home.dagster
    exports_home.ingest()
    exports_home.settle()
    names = list(deliveries.known(exports_home.at.settings).values())
    assert len(names) == 3
    keys = [f"{layer}/{table}" for layer in deliveries.PARTITIONED for table in exports_home.at.dataset.tables]
    for key in keys:
        assert dagster.partitions(key) == (names, set(names)), key
    before, books = exports_home.identity(), held(exports_home)
    assert books["hbase/customer"][0] == shop.rows("customer")

    def same() -> None:
        assert held(exports_home) == books
        exports_home.check(before)

    runs = len(dagster.runs())
    assert dagster.wait_for_backfill(dagster.backfill(keys, names[1:])) == "COMPLETED_SUCCESS"
    same()
    by_backfill = dagster.runs()[: len(dagster.runs()) - runs]
    assert {run.tags.get(deliveries.PARTITION) for run in by_backfill} == set(names[1:])
    assert dagster.wait_for(dagster.materialize(keys, names[0], names[-1])) == "SUCCESS"
    same()
    assert dagster.wait_for(dagster.materialize(keys, names[1])) == "SUCCESS"
    same()
    runs = len(dagster.runs())
    exports_home.settle()
    assert len(dagster.runs()) == runs, "nothing was left to do"
    assert {status for (_, status) in exports_home.counts()} == {"SUCCESS"}


def test_a_day_of_other_producers(exports_home: Home, shop: Shop) -> None:
    """If this fails, rows of other producers have no partition, or a run for their day fails or loads them twice."""
    shop.deliver(20, "customer")
    dagster, at = exports_home.dagster, exports_home.at
    exports_home.ingest()
    exports_home.settle()
    assert listed.live(engine(at, "stream")) == []
    sent = "click_stream"
    for rows in (300, 200):
        simulate(exports_home, rows, "--table", sent)
        exports_home.settle()
    (day, *more) = listed.live(engine(at, "stream"))  # two, if it is midnight
    assert list(day.tables) == [sent]
    found = at.books.last_measurement("topic", sent)
    assert found
    assert sum(each.tables[sent].rows for each in (day, *more)) == found.excluded["live"].rows >= 500
    assert {each.layer for each in (day, *more)} == {"hbase"}

    known = list(deliveries.known(at.settings).values())
    names = [*known, *(live_days.partition(each.day) for each in (day, *more))]
    name = names[len(known)]
    keys = [f"{layer}/{table}" for layer in deliveries.PARTITIONED for table in at.dataset.tables]
    counted = {"rows": day.tables[sent].rows, "windows": day.tables[sent].windows}
    assert counted["windows"] == 2 or more

    def reported() -> None:
        for key in keys:
            layer, _, table = key.partition("/")
            assert dagster.partitions(key) == (names, set(names)), key
            has = table == sent and layer in ("topic", "streamed", "merged")
            shown = dagster.shown(key, name)
            assert {what: shown.get(what, 0) for what in counted} == (counted if has else dict.fromkeys(counted, 0)), (
                key
            )

    reported()
    before, books = exports_home.identity(), held(exports_home)

    def same() -> None:
        assert held(exports_home) == books
        exports_home.check(before)

    assert dagster.wait_for(dagster.materialize(keys, name)) == "SUCCESS"
    reported()
    same()
    assert dagster.wait_for(dagster.materialize(keys, known[-1], name)) == "SUCCESS"
    assert dagster.wait_for_backfill(dagster.backfill(keys, [known[-1], name])) == "COMPLETED_SUCCESS"
    same()
    runs = len(dagster.runs())
    exports_home.settle()
    assert len(dagster.runs()) == runs, "nothing was left to do"
    assert {status for (_, status) in exports_home.counts()} == {"SUCCESS"}
