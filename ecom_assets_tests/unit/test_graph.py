"""The graph as Dagster loads it: which assets there are, what they are made from, and what blocks what."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta

import dagster as dg
import pytest
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy

from ecom_assets import diagram
from ecom_assets.dataset.model import Dataset
from ecom_assets.definitions import build_defs, defs
from ecom_assets.defs import lineage
from ecom_assets.defs.assets.layers import source_asset
from ecom_assets.defs.names import Names
from ecom_assets.paths import LAYERS
from ecom_assets_tests.tables import SHOP, TABLES

GROUPS = {
    "source": {"source/shop"},
    **{layer: {f"{layer}/{name}" for name in TABLES} for layer in LAYERS[:-1]},
    "hbase": {"hbase/customers", "hbase/product", "hbase/transactions", "hbase/clickstream"},
    "reconciliation": {"reconciliation/report"},
    "serving": {"serving/orders_by_customer", "serving/publication", "serving/precomputed_results", "dashboard"},
    "postgres": {f"postgres/{name}" for name in TABLES},
    "analysis": {f"analysis/{name}" for name in SHOP.queries},
    "cache": {f"cache/{name}" for name in SHOP.queries},
}


@pytest.fixture(scope="module")
def graph() -> dg.AssetGraph:
    return defs().resolve_asset_graph()


def test_keys_and_groups(graph: dg.AssetGraph) -> None:
    """If this fails, people's saved selections, links and automations no longer find their assets."""
    found: dict[str, set[str]] = {}
    for key in graph.get_all_asset_keys():
        found.setdefault(graph.get(key).group_name, set()).add(key.to_user_string())
    assert found == GROUPS


def test_files_come_from_where_the_data_set_says() -> None:
    """If this fails, lineage of any data set begins at Kaggle, with a link to another one."""
    found = source_asset(SHOP, Names())
    assert set(found.kinds) == {"kaggle", "csv"}
    assert str(found.metadata["url"].value).endswith(f"/{SHOP.kaggle}")
    own = source_asset(Dataset.of("library", *TABLES.values()), Names())
    assert (own.key.path, set(own.kinds), own.metadata) == (["source", "library"], {"csv"}, {})
    assert own.description == "The CSV files of the data set library, from a folder or a bucket."


def test_every_table_goes_from_layer_to_layer(graph: dg.AssetGraph) -> None:
    """If this fails, lineage has a gap, and a materialization does not bring what it needs with it."""
    for name, table in TABLES.items():
        keys = [dg.AssetKey([layer, table.hbase.table if layer == "hbase" else name]) for layer in LAYERS]
        for parent, child in itertools.pairwise(keys):
            assert parent in graph.get(child).parent_keys
        assert dg.AssetKey(["expanded", name]) in graph.get(keys[-1]).parent_keys, "the bulk path"
        assert keys[-1] in graph.get(dg.AssetKey(["reconciliation", "report"])).parent_keys


def test_every_boundary_blocks(graph: dg.AssetGraph) -> None:
    """If this fails, a layer that lost a row is built upon."""
    checked = {check.asset_key for check in graph.asset_check_keys if graph.get(check).blocking}
    assert checked == {key for key in graph.get_all_asset_keys() if key.path[0] in (*LAYERS, "reconciliation")} | {
        dg.AssetKey(["serving", "orders_by_customer"])
    }


def test_assets_tell_their_columns(graph: dg.AssetGraph) -> None:
    """If this fails, the UI's columns are not those of the schemas."""
    for name, table in TABLES.items():
        for layer in LAYERS:
            key = dg.AssetKey([layer, table.hbase.table if layer == "hbase" else name])
            schema = graph.get(key).metadata["dagster/column_schema"]
            assert isinstance(schema, dg.TableSchema)
            typed = [c.parsed_as[0] for c in table.columns if c.parsed_as]
            more = [*typed, "_delivery", "_row", "_since"] if layer == "merged" else []
            assert [c.name for c in schema.columns] == [*table.names, *more]


def test_jobs_take_their_path(graph: dg.AssetGraph) -> None:
    """If this fails, `ecom run` leaves a layer out, or the bulk path goes through Kafka."""
    loaded = defs()
    for job, groups in {
        "pipeline": {*LAYERS, "reconciliation", "serving"},
        "bulk_load": {"raw", "expanded", "hbase", "reconciliation", "serving"},
        "analysis": {"raw", "expanded", "postgres", "analysis", "cache"},
    }.items():
        keys = loaded.resolve_job_def(job).asset_layer.executable_asset_keys
        assert {graph.get(key).group_name for key in keys} == groups


def test_all_three_ways_end_at_the_dashboard(graph: dg.AssetGraph) -> None:
    """If this fails, lineage ends before it reaches what people look at."""
    dashboard = graph.get(dg.AssetKey(["dashboard"]))
    assert not dashboard.is_materializable
    ways = {key.path[0] for key in dashboard.parent_keys}
    assert ways == {"serving", "hbase", "streamed", "cache"}


def test_the_diagram_is_current(graph: dg.AssetGraph) -> None:
    """If this fails, docs/architecture.md shows another graph than the one that runs; `make diagram` draws it again."""
    page = diagram.PAGE.read_text(encoding="utf-8")
    assert diagram.draw(page, graph) == page
    with pytest.raises(ValueError, match="put them where it belongs"):
        diagram.draw(page.replace(diagram.END, ""), graph)


def test_owners_tags_and_freshness_are_declared() -> None:
    """If this fails, a team is asked about another team's tables, or a table grows stale without a word."""
    table = replace(TABLES["product"], owners=("team:books",), tags={"domain": "sales"}, freshness_hours=6)
    graph = build_defs(dataset=Dataset.of("own", table)).resolve_asset_graph()
    (served,) = [graph.get(key) for key in graph.materializable_asset_keys if key.path[0] == "hbase"]
    assert served.owners == ["team:books"]
    assert served.tags.items() >= {"domain": "sales", "table": "product"}.items()
    policy = served.freshness_policy
    assert isinstance(policy, TimeWindowFreshnessPolicy)
    assert policy.fail_window.to_timedelta() == timedelta(hours=6)


def test_columns_are_made_of_columns() -> None:
    """If this fails, nobody finds out where a typed column comes from."""
    table = TABLES["transactions"]
    key = dg.AssetKey(["streamed", "transactions"])
    found = lineage.of(lineage.own(table) | lineage.typed(table), key)["dagster/column_lineage"].deps_by_column
    assert found["created_at_ts"] == [dg.TableColumnDep(asset_key=key, column_name="created_at")]
    assert set(found) == {*table.names, "created_at_ts", "items", "shipment_date_limit_ts", *lineage.typed(table)}
