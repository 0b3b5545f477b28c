"""The expanded layer: good rows only, grown to the target size."""

from ecom_assets.dataset.shop import TABLES
from ecom_assets.defs import factory

ASSETS = factory.layer_assets(
    "expanded",
    deps=lambda _: [factory.asset_key("raw", t) for t in TABLES.values()],
    kinds={"csv", "polars"},
    description="Good rows only, grown to the target size with fresh keys; the others lie in quarantine.",
    stored_as=lambda t: f"expanded/{t.name}",
)
CHECKS = factory.layer_checks("expanded")
