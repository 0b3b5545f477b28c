"""The merged layer: typed Delta tables, one row per primary key."""

from ecom_assets.defs import factory

ASSETS = factory.layer_assets(
    "merged",
    deps=lambda t: [factory.asset_key("streamed", t)],
    kinds={"spark", "delta"},
    description="One row per primary key, typed columns beside the source text.",
    stored_as=lambda t: f"merged/{t.name}",
)
CHECKS = factory.layer_checks("merged")
