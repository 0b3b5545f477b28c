"""The streamed layer: topics in Delta, one row per record."""

from ecom_assets.defs import factory

ASSETS = factory.layer_assets(
    "streamed",
    deps=lambda t: [factory.asset_key("topic", t)],
    kinds={"spark", "delta"},
    description="One row per record, with topic, partition, offset and timestamp.",
    stored_as=lambda t: f"streamed/{t.name}",
)
CHECKS = factory.layer_checks("streamed")
