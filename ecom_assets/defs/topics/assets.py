"""The topic layer: one Kafka topic per table, Avro values, every chunk atomic."""

from ecom_assets.defs import factory

ASSETS = factory.layer_assets(
    "topic",
    deps=lambda t: [factory.asset_key("chunked", t)],
    kinds={"kafka", "avro"},
    description="One Avro record per row, every chunk in one transaction with its ledger record.",
    stored_as=lambda t: t.name,
)
CHECKS = factory.layer_checks("topic")
