"""What rows can be found by on the lookup page, as the declaration says."""

from __future__ import annotations

from dataclasses import replace

from ecom_assets.dataset.model import Dataset, Index, Reference, Table
from ecom_assets.serving import lookup
from ecom_assets_tests.tables import CUSTOMER, ORDERS, PRODUCT, SHOP, TRANSACTIONS


def found(*tables: Table, indexes: dict[str, Index] | None = None) -> list[tuple[str, list[str]]]:
    """Column -> the tables and indexes that it leads to."""
    dataset = replace(Dataset.of("x", *tables), indexes=indexes or {})
    return [(key.column, [place.name for place in key.places]) for key in lookup.keys(dataset)]


def test_a_value_finds_all_that_is_its() -> None:
    """If this fails, a person who looks for a customer does not see their orders, or looks in vain for a table."""
    assert found(*SHOP.tables.values(), indexes=SHOP.indexes) == [
        ("customer_id", ["customer", "orders_by_customer"]),
        ("id", ["product"]),
        ("booking_id", ["transactions"]),
        ("session_id", ["click_stream"]),
    ]


def test_columns_are_one_by_reference_too() -> None:
    """If this fails, a data set without domains of keys has a field for each table and index."""
    customer = replace(CUSTOMER, domains={})
    orders = replace(ORDERS, of=replace(TRANSACTIONS, domains={}))
    assert found(customer, indexes={"orders": orders}) == [("customer_id", ["customer", "orders_by_customer"])]


def test_columns_of_one_name_may_hold_other_keys() -> None:
    """If this fails, the number of a row is looked for among other things of the same number."""
    plain = replace(PRODUCT, domains={})
    other = replace(plain, name="other")
    assert found(plain, other) == [("id", ["product"]), ("id", ["other"])]
    refers = replace(other, references=(Reference(("id",), "product", ("id",)),))
    assert found(plain, refers) == [("id", ["product", "other"])]
