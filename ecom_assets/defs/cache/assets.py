"""The cache layer: the results of the analysis in Redis."""

from collections.abc import Iterator

import dagster as dg

from ecom_assets.defs import factory
from ecom_assets.defs.resources.home import HomeResource
from ecom_assets.servers.stack import Stack
from ecom_assets.serving import analysis
from ecom_assets.serving.questions import QUESTIONS


@dg.multi_asset(
    name="cache",
    can_subset=True,
    specs=[
        dg.AssetSpec(
            ["cache", name],
            deps=[dg.AssetKey(["analysis", name])],
            description=f"{QUESTIONS[name].doc} In Redis, with version and time to live.",
            group_name="cache",
            kinds={"redis"},
            owners=factory.OWNERS,
        )
        for name in analysis.ANALYSES
    ],
)
def cached(context: dg.AssetExecutionContext, home: HomeResource) -> Iterator[dg.MaterializeResult]:
    """Put each result into Redis."""
    settings = home.flow.settings
    url = Stack(settings).address("redis")
    for name in analysis.ANALYSES:
        key = dg.AssetKey(["cache", name])
        if key in context.selected_asset_keys:
            kept = analysis.keep(name, settings, url)
            yield dg.MaterializeResult(
                asset_key=key,
                metadata={
                    "dagster/row_count": dg.MetadataValue.int(kept.table.num_rows),
                    "version": dg.MetadataValue.text(kept.version),
                    "seconds_to_live": dg.MetadataValue.int(analysis.TTL),
                },
            )
