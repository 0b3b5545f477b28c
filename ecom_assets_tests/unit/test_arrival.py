"""Which files of a source are of which table and delivery."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from ecom_assets.dataset.model import Dataset
from ecom_assets.source import arrival
from ecom_assets.source.places import Folder
from ecom_assets_tests.tables import CUSTOMER, PRODUCT

TABLES = Dataset.of("d", replace(CUSTOMER, name="order"), replace(PRODUCT, name="order-lines", file="Order-Lines.csv"))


@pytest.mark.parametrize(
    ("path", "table", "delivery"),
    [
        ("order.csv", "order", ""),
        ("ORDER.CSV.GZ", "order", ""),
        ("order-2026-11-28.csv", "order", "2026-11-28"),
        ("order_20261128.csv.gz", "order", "20261128"),
        ("order/2026-11-28.csv", "order", "2026-11-28"),
        ("2026-11-28/order.csv", "order", "2026-11-28"),
        ("day 7/Order-Lines.csv", "order-lines", "day 7"),
        ("order-lines.csv", "order-lines", ""),
        ("order-lines-3.csv", "order-lines", "3"),
        ("order_backup.csv", "", ""),
        ("orders-1.csv", "", ""),
        ("backup/order.csv", "", ""),
        ("2026-11-28/orders.csv", "", ""),
        ("order-2026-11-28.xlsx", "", ""),
        ("readme.txt", "", ""),
    ],
)
def test_files_are_recognized_by_name_and_place(path: str, table: str, delivery: str) -> None:
    """If this fails, a file of a shop is loaded into another table, or not seen at all."""
    assert arrival.recognized(PurePosixPath(path), TABLES) == (table, delivery)


@pytest.mark.parametrize(
    ("path", "table", "delivery"),
    [
        ("in/2026-11-28/orders-part-1.csv", "order", "2026-11-28"),
        ("IN/Monday/Orders-.CSV.GZ", "order", "Monday"),
        ("all orders.csv", "order", ""),
        ("order-2026-11-28.csv", "", ""),
        ("order.csv", "", ""),
        ("in/a/b/orders-1.csv", "", ""),
        ("in/2026-11-28/orders-part-1.csvx", "", ""),
        ("order-lines-3.csv", "order-lines", "3"),
        ("x/y/order-lines.csv", "", ""),
    ],
)
def test_declared_patterns_take_the_place_of_the_usual_names(path: str, table: str, delivery: str) -> None:
    """If this fails, a shop whose files are named otherwise has to rename them each day."""
    order = replace(TABLES.tables["order"], files=("in/{delivery}/orders-*.csv", "all orders.csv"))
    named = Dataset.of("d", order, TABLES.tables["order-lines"])
    assert arrival.recognized(PurePosixPath(path), named) == (table, delivery)


def test_a_source_is_searched_as_deep_as_patterns_go(tmp_path: Path) -> None:
    """If this fails, files in deeper folders are not found though they are declared."""
    deep = tmp_path / "2026" / "11" / "28" / "order.csv"
    deep.parent.mkdir(parents=True)
    deep.write_text("")
    assert arrival.scan(Folder(tmp_path), TABLES) == []
    order = replace(TABLES.tables["order"], files=("2026/11/{delivery}/order.csv",))
    (found,) = arrival.scan(Folder(tmp_path), Dataset.of("d", order, TABLES.tables["order-lines"]))
    assert (found.table, found.delivery) == ("order", "28")


def test_a_source_is_listed_in_the_order_of_deliveries(tmp_path: Path) -> None:
    """If this fails, tomorrow's file is loaded before today's, or a stray one goes unnoticed."""
    for name in (
        "order.csv", "order-lines.csv", "order-10.csv", "order-9.csv", "9/order-lines.csv", "notes.txt", ".order-8.csv",
        "_SUCCESS", "9/.partial.csv",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a,b\n")
    old = time.time() - 2 * arrival.QUIET_SECONDS
    os.utime(tmp_path / "order-9.csv", (old, old))
    found = arrival.scan(Folder(tmp_path), TABLES)
    assert [(str(each.path), each.table, each.delivery) for each in found] == [
        ("order.csv", "order", ""),
        ("order-lines.csv", "order-lines", ""),
        ("order-9.csv", "order", "9"),
        ("9/order-lines.csv", "order-lines", "9"),
        ("order-10.csv", "order", "10"),
        ("notes.txt", "", ""),
    ]
    assert [each.path.name for each in found if each.is_settled] == ["order-9.csv"]
    assert found[0].bytes == 4
