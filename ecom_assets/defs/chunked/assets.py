"""The chunked layer: row-aligned CSV parts with a manifest."""

from ecom_assets.defs import factory

ASSETS = factory.layer_assets(
    "chunked",
    deps=lambda t: [factory.asset_key("expanded", t)],
    kinds={"csv"},
    description="Row-aligned parts with header, and a manifest of rows, bytes and checksums.",
    stored_as=lambda t: f"chunked/{t.name}",
)
CHECKS = factory.layer_checks("chunked")
