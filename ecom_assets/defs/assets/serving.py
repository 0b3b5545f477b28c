"""The serving assets: what the pages need in addition to the tables, and the dashboard at the end of the graph."""

import dagster as dg

from ecom_assets.core.errors import ServiceError
from ecom_assets.dataset.model import Dataset
from ecom_assets.defs.names import OWNERS, PRECOMPUTED, PUBLICATION, REPORT, asset_key
from ecom_assets.defs.resources.home import HomeResource
from ecom_assets.paths import HBASE, path_used
from ecom_assets.servers.stack import Stack
from ecom_assets.serving import analysis, index, lookup, publication
from ecom_assets.serving.publication import NotPublishedError
from ecom_assets.serving.queries import Queries, Snapshot

INDEX = dg.AssetKey(["serving", lookup.ORDERS.name])


def serving_assets(dataset: Dataset) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """The assets of serving."""

    @dg.asset(
        key=INDEX,
        deps=[asset_key("hbase", dataset.tables[lookup.ORDERS.of])],
        group_name="serving",
        kinds={"hbase"},
        owners=OWNERS,
    )
    def orders_by_customer(home: HomeResource) -> dg.MaterializeResult:
        """Secondary index on HBase: bookings by customer, sorted by time."""
        built = index.build_index(home.at, HBASE[path_used(home.at)])
        return dg.MaterializeResult(metadata={"dagster/row_count": built.rows, "skipped": built.unchanged})

    @dg.asset(
        key=PRECOMPUTED,
        deps=[REPORT, INDEX],
        group_name="serving",
        kinds={"spark", "redis"},
        owners=OWNERS,
    )
    def precomputed_results(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        """Precomputed dashboard queries, cached in Redis; pages show the previous publication meanwhile."""
        at = home.at
        service = Queries(at.settings, lambda: at.spark, at.books)
        try:
            service.cache.register(at.owner)
            answers = Snapshot(service, publication.current(at.settings, at.books)).warm()
        except NotPublishedError as error:
            context.log.warning("nothing to compute from: %s", error)
            return dg.MaterializeResult(metadata={"skipped": True, "note": str(error)})
        finally:
            service.close()
        sources = {name: f"{a.source}, {a.milliseconds:.0f} ms" for name, a in answers.items()}
        return dg.MaterializeResult(
            metadata={
                "skipped": all(a.source == "Redis" for a in answers.values()),
                "results": dg.MetadataValue.json(sources),
            }
        )

    @dg.asset(key=PUBLICATION, deps=[PRECOMPUTED], group_name="serving", kinds={"python"}, owners=OWNERS)
    def published(home: HomeResource) -> dg.MaterializeResult:
        """One version of every table, all verified and precomputed: from now on the pages show these."""
        at = home.at
        now, changed = publication.publish(at.settings, at.books)
        try:
            address = Stack(at.settings).address("dashboard")
        except ServiceError:
            address = ""
        shown: dict[str, dg.MetadataValue] = {
            "skipped": dg.MetadataValue.bool(not changed),
            "versions": dg.MetadataValue.json(now.merged),
        }
        return dg.MaterializeResult(metadata=shown | ({"dashboard": dg.MetadataValue.url(address)} if address else {}))

    dashboard = dg.AssetSpec(
        ["dashboard"],
        deps=[
            PUBLICATION,
            *(asset_key(layer, t) for layer in ("hbase", "streamed") for t in dataset.tables.values()),
            *(dg.AssetKey(["cache", name]) for name in analysis.ANALYSES),
        ],
        description="The dashboard's pages: overview, live, lookup and reconciliation. `ecom dashboard` starts it.",
        group_name="serving",
        kinds={"streamlit"},
        owners=OWNERS,
    )
    return [orders_by_customer, precomputed_results, published, dashboard]


@dg.asset_check(asset=INDEX, blocking=True)
def matches_transactions(home: HomeResource) -> dg.AssetCheckResult:
    """The index, read back completely, has one row for every booking and no other."""
    wrong = index.check_index(home.at, HBASE[path_used(home.at)])
    return dg.AssetCheckResult(passed=not wrong, metadata={"mismatches": dg.MetadataValue.json(wrong)})
