"""The HBase layer: the serving store, loaded from the merged tables or in bulk."""

from ecom_assets.defs import factory

ASSETS = factory.layer_assets(
    "hbase",
    deps=lambda t: [factory.asset_key("merged", t), factory.asset_key("expanded", t)],
    kinds={"hbase"},
    description="A row per row key, pre-split by quantiles; a null is an absent cell.",
    stored_as=lambda t: t.hbase.table,
)
CHECKS = factory.layer_checks("hbase")
