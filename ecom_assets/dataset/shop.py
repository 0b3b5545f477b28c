"""The shop: the four tables of Kaggle's bytadit/transactional-ecommerce, as ``schemas/shop`` declares them."""

from __future__ import annotations

from ecom_assets.dataset.loader import bundled, load
from ecom_assets.dataset.model import Table

SHOP = load(bundled() / "shop")
"""The data set."""

TABLES: dict[str, Table] = SHOP.tables
"""All tables by name."""

CUSTOMER, PRODUCT, TRANSACTIONS, CLICK_STREAM = TABLES.values()
