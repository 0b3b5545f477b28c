"""Deliveries as partitions: what they are called, and which assets have them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import dagster as dg
import pytest

from ecom_assets.core.context import Context
from ecom_assets.core.settings import load
from ecom_assets.definitions import defs
from ecom_assets.defs import deliveries, sensors
from ecom_assets.defs.assets.layers import layer_assets
from ecom_assets.defs.live_days import partition
from ecom_assets.defs.names import Names
from ecom_assets.defs.resources.home import HomeResource
from ecom_assets.paths import engine
from ecom_assets.source import acquire, synthetic
from ecom_assets_tests.offline import nowhere
from ecom_assets_tests.tables import CUSTOMER, SHOP

NAMES = Names()


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Context]:
    """A home with the first files and one delivery, of customers alone."""
    source = tmp_path / "shop"
    source.mkdir()
    synthetic.generate(source, 0.0005, 1)
    settings = load(home=tmp_path / "home", source=str(source))
    acquire(settings, SHOP)
    day = source / "customer-2026|11,28 [a].csv"
    day.write_bytes((source / "customer.csv").read_bytes().replace(b"0", b"1"))
    os.utime(day, (1, 1))
    acquire(settings, SHOP)
    with Context(settings, SHOP, nowhere) as opened:
        yield opened


def test_names_are_in_order_and_have_no_odd_character(at: Context) -> None:
    """If this fails, Dagster takes one partition for several, or a range of them is of other deliveries."""
    assert list(deliveries.known(at.settings).values()) == ["000000 first files", "000001 2026%7C11%2C28 %5Ba%5D"]
    assert deliveries.partition(9, "x") < deliveries.partition(10, "a")


def test_a_table_that_is_not_touched_has_passed_all_layers(at: Context) -> None:
    """If this fails, the matrix of partitions shows work that is missing where there is none to do."""
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):
            deliveries.announce(instance, at, NAMES)
        assert instance.get_dynamic_partitions("deliveries") == list(deliveries.known(at.settings).values())
        for layer in deliveries.PARTITIONED:
            keys = {name: NAMES.asset_key(layer, table) for name, table in SHOP.tables.items()}
            assert instance.get_materialized_partitions(keys["customer"]) == set()
            assert instance.get_materialized_partitions(keys["product"]) == {deliveries.known(at.settings)[1]}


def tick(instance: dg.DagsterInstance, at: Context, cursor: str = "") -> tuple[dg.RunRequest | None, str]:
    """One look of the sensor: what it requests, and its cursor."""
    context = dg.build_sensor_context(instance, cursor=cursor, definitions=defs())
    found = sensors.new_files(context, cast("HomeResource", SimpleNamespace(at=at)), NAMES)
    assert not isinstance(found, dg.SensorResult)
    return (found if isinstance(found, dg.RunRequest) else None), context.cursor or ""


def arrive(at: Context, name: str, content: bytes) -> None:
    """A file that was complete a while ago, at another time than the one before it."""
    file = Path(at.settings.source) / name
    file.write_bytes(content)
    os.utime(file, (1000 + len(content), 1000 + len(content)))


def test_a_run_is_for_the_delivery_that_it_accepts(at: Context) -> None:
    """If this fails, the run that loads a day is listed under the day before it."""
    header, row, *_ = (at.settings.raw / "customer.csv").read_bytes().splitlines(keepends=True)
    with dg.DagsterInstance.ephemeral() as instance:
        assert tick(instance, at) == (None, "")
        arrive(at, "customer-2026-12-02.csv", header + row)
        arrive(at, "customer-2026-12-01.csv", header + row * 2)
        requested, cursor = tick(instance, at)
        assert requested
        assert requested.tags[deliveries.PARTITION] == cursor == "000002 2026-12-01"
        assert cursor in instance.get_dynamic_partitions("deliveries")
        acquire(at.settings, SHOP)
        assert tick(instance, at, cursor) == (None, "")
        assert instance.get_dynamic_partitions("deliveries") == list(deliveries.known(at.settings).values())
        untouched = NAMES.asset_key("raw", SHOP.tables["product"])
        assert cursor in instance.get_materialized_partitions(untouched)


@pytest.mark.parametrize("content", [b"others\n", None], ids=["refused", "repeated"])
def test_a_delivery_that_was_expected_and_did_not_come(at: Context, content: bytes | None) -> None:
    """If this fails, a file that was refused, or sent twice, is shown as a delivery that waits for ever."""
    with dg.DagsterInstance.ephemeral() as instance:
        if content:
            arrive(at, "customer.csv", content)
        else:
            arrive(at, "customer-3.csv", (at.settings.raw / "customer.csv").read_bytes())
        requested, cursor = tick(instance, at)
        assert requested
        assert cursor in instance.get_dynamic_partitions("deliveries")
        acquire(at.settings, SHOP)
        assert tick(instance, at, cursor) == (None, "")
        assert instance.get_dynamic_partitions("deliveries") == list(deliveries.known(at.settings).values())


@pytest.mark.parametrize("expected", [True, False], ids=["by a sensor", "by nobody"])
def test_a_run_for_a_delivery_that_does_not_come(at: Context, expected: bool) -> None:
    """If this fails, a refused file's partition is shown as loaded, or a misspelt one is taken for nothing to do."""
    arrive(at, "customer.csv", b"others\n")
    tags = deliveries.expected(2, "others")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("deliveries", [tags[deliveries.PARTITION]])
        (raw,) = (assets for assets in layer_assets(SHOP, NAMES) if assets.node_def.name == "raw")
        done = dg.materialize(
            [raw],
            instance=instance,
            resources={"home": SimpleNamespace(at=at, engine=lambda path: engine(at, path))},
            tags=tags if expected else {deliveries.PARTITION: tags[deliveries.PARTITION]},
            raise_on_error=False,
        )
        assert done.success == expected
        assert tags[deliveries.PARTITION] not in instance.get_materialized_partitions(NAMES.asset_key("raw", CUSTOMER))


def test_a_run_for_a_live_day(at: Context) -> None:
    """If this fails, materializing a day of other producers in the UI ends with an error, or shows rows of all days."""
    day, raw = partition("2026-11-28"), NAMES.asset_key("raw", CUSTOMER)
    with dg.DagsterInstance.ephemeral() as instance:
        deliveries.announce(instance, at, NAMES)
        instance.add_dynamic_partitions("deliveries", [day])
        (assets,) = (assets for assets in layer_assets(SHOP, NAMES) if assets.node_def.name == "raw")
        done = dg.materialize(
            [assets],
            instance=instance,
            resources={"home": SimpleNamespace(at=at, engine=lambda path: engine(at, path))},
            tags={deliveries.PARTITION: day},
        )
        assert done.success
        made = [each for each in done.asset_materializations_for_node("raw") if each.partition == day]
        assert {each.asset_key: each.metadata["rows"].value for each in made}[raw] == 0


def test_files_to_merged_tables_are_partitioned() -> None:
    """If this fails, the UI cannot show which delivery has passed which layer, or HBase is shown as partly loaded."""
    partitioned = {
        key.path[0]: assets.partitions_def is not None for assets in layer_assets(SHOP, NAMES) for key in assets.keys
    }
    assert [name for name, has in partitioned.items() if has] == list(deliveries.PARTITIONED)
    assert not partitioned["hbase"]
