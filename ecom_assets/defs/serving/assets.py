"""The serving layer: what the pages need beside the tables, and the dashboard at the end of the graph."""

import dagster as dg

from ecom_assets.core.errors import ServiceError
from ecom_assets.core.settings import load
from ecom_assets.dataset.shop import TABLES
from ecom_assets.defs import factory
from ecom_assets.defs.resources.home import HomeResource
from ecom_assets.servers.stack import Stack
from ecom_assets.serving import analysis, lookup, publication
from ecom_assets.serving.publication import NotPublishedError
from ecom_assets.serving.queries import Queries, Snapshot


@dg.asset(
    key=["serving", lookup.ORDERS.name],
    deps=[factory.asset_key("hbase", TABLES[lookup.ORDERS.of])],
    group_name="serving",
    kinds={"hbase"},
    owners=factory.OWNERS,
)
def orders_by_customer(home: HomeResource) -> dg.MaterializeResult:
    """The way from a customer to their bookings: an index in HBase, for prefix reads in the order of time."""
    rows, unchanged = lookup.build_index(home.flow)
    return dg.MaterializeResult(metadata={"dagster/row_count": rows, "unchanged": unchanged})


@dg.asset_check(asset=orders_by_customer, blocking=True)
def holds_every_booking(home: HomeResource) -> dg.AssetCheckResult:
    """The index, read back whole, has one row for every booking and no other."""
    wrong = lookup.prove_index(home.flow)
    return dg.AssetCheckResult(passed=not wrong, metadata={"wrong": dg.MetadataValue.json(wrong)})


@dg.asset(
    key=["serving", "answers"],
    deps=[dg.AssetKey(["proof", "sheet"]), orders_by_customer],
    group_name="serving",
    kinds={"spark", "redis"},
    owners=factory.OWNERS,
)
def answers_ahead(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
    """The answers to the pages' questions, in Redis before anybody can ask: pages show what was published before."""
    flow = home.flow
    service = Queries(flow.settings, lambda: flow.spark)
    try:
        answers = Snapshot(service, publication.current(flow.settings)).warm()
    except NotPublishedError as error:
        context.log.warning("nothing to answer from: %s", error)
        return dg.MaterializeResult(metadata={"unchanged": True, "note": str(error)})
    finally:
        service.close()
    sources = {name: f"{a.source}, {a.milliseconds:.0f} ms" for name, a in answers.items()}
    return dg.MaterializeResult(
        metadata={
            "unchanged": all(a.source == "Redis" for a in answers.values()),
            "answers": dg.MetadataValue.json(sources),
        }
    )


@dg.asset(key=["serving", "publication"], deps=[answers_ahead], group_name="serving", kinds={"python"},
          owners=factory.OWNERS)  # fmt: skip
def published(home: HomeResource) -> dg.MaterializeResult:
    """One version of every table, all proven and answered: from now on the pages show these."""
    now, changed = publication.publish(home.flow.settings)
    return dg.MaterializeResult(metadata={"unchanged": not changed, "versions": dg.MetadataValue.json(now.merged)})


def _url() -> str:
    settings = load()
    try:
        return Stack(settings).address("dashboard")
    except ServiceError:
        return f"http://{settings.host}:8501"


DASHBOARD = dg.AssetSpec(
    ["dashboard"],
    deps=[
        published,
        *(factory.asset_key("hbase", t) for t in TABLES.values()),
        *(factory.asset_key("streamed", t) for t in TABLES.values()),
        *(dg.AssetKey(["cache", name]) for name in analysis.ANALYSES),
    ],
    description="What people look at: overview, live, look-up and proof. `ecom dashboard` starts it.",
    group_name="serving",
    kinds={"streamlit"},
    owners=factory.OWNERS,
    metadata={"url": dg.MetadataValue.url(_url())},
)
