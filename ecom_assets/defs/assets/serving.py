"""The serving assets: what the pages need in addition to the tables, and the dashboard at the end of the graph."""

import dagster as dg

from ecom_assets.core.errors import ServiceError
from ecom_assets.dataset.model import Dataset, Index
from ecom_assets.defs.names import OWNERS, PRECOMPUTED, PUBLICATION, REPORT, asset_key, index_key
from ecom_assets.defs.resources.home import HomeResource
from ecom_assets.paths import HBASE, path_used
from ecom_assets.servers.stack import Stack
from ecom_assets.serving import publication
from ecom_assets.serving.index import build_index, check_index
from ecom_assets.serving.publication import NotPublishedError
from ecom_assets.serving.queries import Queries, Snapshot


def serving_assets(dataset: Dataset) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """The assets of serving."""

    @dg.asset(
        key=PRECOMPUTED,
        deps=[REPORT, *map(index_key, dataset.indexes.values())],
        group_name="serving",
        kinds={"spark", "redis"},
        owners=OWNERS,
    )
    def precomputed_results(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        """Precomputed dashboard queries, cached in Redis; pages show the previous publication meanwhile."""
        at = home.at
        service = Queries(at.settings, dataset, lambda: at.spark, at.books)
        try:
            service.cache.register(at.owner)
            answers = Snapshot(service, publication.current(at.settings, dataset, at.books)).warm()
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
        now, changed = publication.publish(at.settings, dataset, at.books)
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
            *(dg.AssetKey(["cache", name]) for name in dataset.queries),
        ],
        description="The dashboard's pages: overview, live, lookup and reconciliation. `ecom dashboard` starts it.",
        group_name="serving",
        kinds={"streamlit"},
        owners=OWNERS,
    )
    return [*map(_index_asset, dataset.indexes.values()), precomputed_results, published, dashboard]


def _index_asset(index: Index) -> dg.AssetsDefinition:
    @dg.asset(
        key=index_key(index),
        deps=[asset_key("hbase", index.of)],
        description=f"Secondary index on HBase: {index.of.name} by {', '.join(index.hbase.row_key)}.",
        group_name="serving",
        kinds={"hbase"},
        owners=OWNERS,
    )
    def index_asset(home: HomeResource) -> dg.MaterializeResult:
        built = build_index(home.at, index, HBASE[path_used(home.at)])
        return dg.MaterializeResult(metadata={"dagster/row_count": built.rows, "skipped": built.unchanged})

    return index_asset


def index_checks(dataset: Dataset) -> list[dg.AssetChecksDefinition]:
    """A check of every index."""
    return [_index_check(index) for index in dataset.indexes.values()]


def _index_check(index: Index) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=index_key(index),
        name=f"matches_{index.of.name}",
        description=f"The index, read back completely, has one row for every row of {index.of.name} and no other.",
        blocking=True,
    )
    def matches(home: HomeResource) -> dg.AssetCheckResult:
        wrong = check_index(home.at, index, HBASE[path_used(home.at)])
        return dg.AssetCheckResult(passed=not wrong, metadata={"mismatches": dg.MetadataValue.json(wrong)})

    return matches
