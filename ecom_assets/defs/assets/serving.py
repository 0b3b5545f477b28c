"""The serving assets: what the pages need in addition to the tables, and the dashboard at the end of the graph."""

import dagster as dg

from ecom_assets.core.errors import ServiceError
from ecom_assets.dataset.model import Dataset, Index
from ecom_assets.defs import lineage
from ecom_assets.defs.checks import CHECKING
from ecom_assets.defs.names import OWNERS, Names
from ecom_assets.paths import HBASE, path_used
from ecom_assets.servers.stack import Stack
from ecom_assets.serving import publication
from ecom_assets.serving.index import build_index, check_index
from ecom_assets.serving.publication import NotPublishedError
from ecom_assets.serving.queries import Queries, Snapshot


def serving_assets(dataset: Dataset, names: Names) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """The assets of serving."""

    @dg.asset(
        key=names.precomputed,
        deps=[names.report, *map(names.index_key, dataset.indexes.values())],
        group_name=names.of("serving"),
        kinds={"spark", "redis"},
        owners=OWNERS,
        required_resource_keys={names.home},
    )
    def precomputed_results(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """Precomputed dashboard queries, cached in Redis; pages show the previous publication meanwhile."""
        at = names.home_of(context).at
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

    @dg.asset(
        key=names.publication,
        deps=[names.precomputed],
        group_name=names.of("serving"),
        kinds={"python"},
        owners=OWNERS,
        required_resource_keys={names.home},
    )
    def published(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """One version of every table, all verified and precomputed: from now on the pages show these."""
        at = names.home_of(context).at
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
        names.key("dashboard"),
        deps=[
            names.publication,
            *(names.asset_key(layer, t) for layer in ("hbase", "streamed") for t in dataset.tables.values()),
            *(names.key("cache", name) for name in dataset.queries),
        ],
        description="The dashboard's pages: overview, live, lookup and reconciliation. `ecom dashboard` starts it.",
        group_name=names.of("serving"),
        kinds={"streamlit"},
        owners=OWNERS,
    )
    indexes = [_index_asset(index, names) for index in dataset.indexes.values()]
    return [*indexes, precomputed_results, published, dashboard]


def _index_asset(index: Index, names: Names) -> dg.AssetsDefinition:
    @dg.asset(
        key=names.index_key(index),
        deps=[names.asset_key("hbase", index.of)],
        description=f"Secondary index on HBase: {index.of.name} by {', '.join(index.hbase.row_key)}.",
        group_name=names.of("serving"),
        kinds={"hbase"},
        owners=OWNERS,
        required_resource_keys={names.home},
    )
    def index_asset(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        at = names.home_of(context).at
        built = build_index(at, index, HBASE[path_used(at)])
        made_of = {name: name for name in index.names}
        return dg.MaterializeResult(
            metadata=lineage.of(made_of, names.asset_key("hbase", index.of))
            | {"dagster/row_count": built.rows, "skipped": built.unchanged}
        )

    return index_asset


def index_checks(dataset: Dataset, names: Names) -> list[dg.AssetChecksDefinition]:
    """A check of every index."""
    return [_index_check(index, names) for index in dataset.indexes.values()]


def _index_check(index: Index, names: Names) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=names.index_key(index),
        name=f"matches_{index.of.name}",
        description=f"The index has one row for every row of {index.of.name} and no other: of those that changed since"
        " the last check, read back; of all by the jobs `reconcile` and `nightly`.",
        blocking=True,
        required_resource_keys={names.home},
    )
    def matches(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        at = names.home_of(context).at
        whole = context.run.job_name in map(names.of, CHECKING)
        wrong = check_index(at, index, HBASE[path_used(at)], whole=whole)
        return dg.AssetCheckResult(passed=not wrong, metadata={"mismatches": dg.MetadataValue.json(wrong)})

    return matches
