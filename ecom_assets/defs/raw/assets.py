"""The raw layer: the shop's four CSV files, as published, dirt and all."""

from collections.abc import Iterator

import dagster as dg

from ecom_assets.csv import expand
from ecom_assets.dataset.shop import TABLES
from ecom_assets.defs import factory
from ecom_assets.defs.resources.home import HomeResource

SHOP = dg.AssetSpec(
    ["source", "shop"],
    description="The shop's data: Kaggle's bytadit/transactional-ecommerce, a local folder, or the generator.",
    group_name="source",
    kinds={"kaggle", "csv"},
    owners=factory.OWNERS,
    metadata={"url": dg.MetadataValue.url("https://www.kaggle.com/datasets/bytadit/transactional-ecommerce")},
)


@dg.multi_asset(
    name="raw",
    specs=[
        factory.spec(
            "raw",
            t,
            deps=[SHOP.key],
            kinds={"csv"},
            description="The file as published.",
            stored_as=lambda t: t.csv,
        )
        for t in TABLES.values()
    ],
    pool=factory.POOLS["raw"],
)
def raw_files(context: dg.AssetExecutionContext, home: HomeResource) -> Iterator[dg.MaterializeResult]:
    """Place the four files; they come from one source, so they come together."""
    flow = home.flow
    for name, built in flow.acquire().items():
        table = TABLES[name]
        context.log.info("raw/%s: %s", name, "nothing to do" if built.unchanged else f"made in {built.seconds:.1f} s")
        yield dg.MaterializeResult(
            asset_key=factory.asset_key("raw", table),
            metadata=factory.built_metadata(built, flow, "raw", table)
            | {"path": dg.MetadataValue.path(expand.raw_file(table, flow.settings))},
        )


CHECKS = factory.layer_checks("raw")
