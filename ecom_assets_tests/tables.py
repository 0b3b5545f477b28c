"""The tables of the shop, by name: most tests and benchmarks work on them, as ``schemas/shop`` declares them."""

from __future__ import annotations

from ecom_assets.dataset.loader import bundled, load
from ecom_assets.dataset.model import Index, Table

SHOP = load(bundled() / "shop")
"""The data set."""

TABLES: dict[str, Table] = SHOP.tables
"""All tables by name."""

ORDERS: Index = SHOP.indexes["orders_by_customer"]
"""The index that leads from a customer to their bookings."""

CUSTOMER, PRODUCT, TRANSACTIONS, CLICK_STREAM = TABLES.values()
