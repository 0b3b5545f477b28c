"""The PostgreSQL layer: the expanded files as typed tables with keys and indexes."""

from collections.abc import Iterator

import dagster as dg

from ecom_assets.core.progress import track
from ecom_assets.dataset.model import Table
from ecom_assets.dataset.shop import TABLES
from ecom_assets.defs import factory
from ecom_assets.defs.resources.home import HomeResource
from ecom_assets.servers.stack import Stack
from ecom_assets.serving import postgres


def _spec(table: Table) -> dg.AssetSpec:
    columns = [
        dg.TableColumn(
            c.name,
            c.kind,
            c.source.doc,
            dg.TableColumnConstraints(nullable=c.nullable, unique=c.name == table.primary_key),
        )
        for c in postgres.columns(table)
    ]
    return dg.AssetSpec(
        factory.asset_key("postgres", table),
        deps=[factory.asset_key("expanded", table)],
        description=f"{table.avsc['doc']} Typed, with primary key, foreign keys and indexes.",
        group_name="postgres",
        kinds={"postgres"},
        owners=factory.OWNERS,
        tags={"table": table.name},
        metadata={
            "dagster/column_schema": dg.TableSchema(columns),
            "dagster/table_name": table.name,
            "primary_key": table.primary_key,
        },
    )


@dg.multi_asset(name="postgres", specs=[_spec(t) for t in TABLES.values()])
def postgres_tables(context: dg.AssetExecutionContext, home: HomeResource) -> Iterator[dg.MaterializeResult]:
    """Load all four in one transaction: they refer to one another, and readers see old or new ones, never both."""
    settings = home.flow.settings
    with track("postgres", None) as advance:
        loaded = postgres.load(settings, Stack(settings).address("postgres"), lambda _, rows: advance(rows))
    for table in TABLES.values():
        done = loaded.get(table.name)
        context.log.info("postgres/%s: %s", table.name, f"{done.rows:,} rows" if done else "nothing to do")
        metadata: dict[str, dg.MetadataValue] = {"unchanged": dg.MetadataValue.bool(done is None)}
        if done:
            metadata |= {
                "dagster/row_count": dg.MetadataValue.int(done.rows),
                "duplicates": dg.MetadataValue.int(done.duplicates),
                "conflicts": dg.MetadataValue.int(done.conflicts),
                "unparsed": dg.MetadataValue.json(done.unparsed),
                "orphans": dg.MetadataValue.json(done.orphans),
            }
        yield dg.MaterializeResult(asset_key=factory.asset_key("postgres", table), metadata=metadata)
