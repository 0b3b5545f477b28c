"""The analysis layer: answers computed by Spark over PostgreSQL's tables; and the job of this whole way."""

from collections.abc import Iterator

import dagster as dg

from ecom_assets.dataset.shop import TABLES
from ecom_assets.defs import factory
from ecom_assets.defs.resources.home import HomeResource
from ecom_assets.servers.stack import Stack
from ecom_assets.serving import analysis
from ecom_assets.serving.questions import QUESTIONS


@dg.multi_asset(
    name="analyses",  # not the name of the job
    can_subset=True,
    specs=[
        dg.AssetSpec(
            ["analysis", name],
            deps=[factory.asset_key("postgres", TABLES[t]) for t in QUESTIONS[name].tables],
            description=QUESTIONS[name].doc,
            group_name="analysis",
            kinds={"spark", "delta"},
            owners=factory.OWNERS,
            metadata={"query": dg.MetadataValue.md(f"```sql\n{QUESTIONS[name].sql}\n```")},
        )
        for name in analysis.ANALYSES
    ],
)
def analyses(context: dg.AssetExecutionContext, home: HomeResource) -> Iterator[dg.MaterializeResult]:
    """Read the tables over JDBC in parallel parts and compute each answer."""
    flow = home.flow
    url = Stack(flow.settings).address("postgres")
    for name in analysis.ANALYSES:
        key = dg.AssetKey(["analysis", name])
        if key in context.selected_asset_keys:
            found, unchanged = analysis.analyse(flow.spark, flow.settings, url, name)
            context.log.info("analysis/%s: %s", name, "unchanged" if unchanged else f"{found.table.num_rows:,} rows")
            yield dg.MaterializeResult(
                asset_key=key,
                metadata={
                    "unchanged": dg.MetadataValue.bool(unchanged),
                    "dagster/row_count": dg.MetadataValue.int(found.table.num_rows),
                    "version": dg.MetadataValue.text(found.version),
                },
            )


analysis_job = dg.define_asset_job(
    "analysis",
    selection=dg.AssetSelection.groups("raw", "expanded", "postgres", "analysis", "cache"),
    description="The second way to the same numbers: files, PostgreSQL, Spark, Redis.",
)
