"""The analysis path: expanded files to PostgreSQL, results computed by Spark over it, cached in Redis."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ecom_assets.core.progress import track
from ecom_assets.dataset.model import Dataset, Table
from ecom_assets.defs import lineage
from ecom_assets.defs.names import OWNERS, Names, owners
from ecom_assets.servers.stack import Stack
from ecom_assets.serving import analysis, postgres


def postgres_assets(dataset: Dataset, names: Names) -> dg.AssetsDefinition:
    """The expanded files as typed tables with keys and indexes."""

    @dg.multi_asset(
        name=names.of("postgres"),
        specs=[_spec(t, names) for t in dataset.tables.values()],
        required_resource_keys={names.home},
    )
    def postgres_tables(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        """Load all tables in one transaction: they refer to one another, and readers see old or new ones, not both."""
        settings = names.home_of(context).at.settings
        with track("postgres", None) as advance:
            loaded = postgres.load(
                settings, dataset, Stack(settings).address("postgres"), lambda _, rows: advance(rows)
            )
        for table in dataset.tables.values():
            done = loaded.get(table.name)
            context.log.info("postgres/%s: %s", table.name, f"{done.rows:,} rows" if done else "nothing to do")
            made_of = {column.name: column.source.name for column in postgres.columns(table)}
            metadata: dict[str, Any] = {"skipped": dg.MetadataValue.bool(done is None)}
            metadata |= lineage.of(made_of, names.asset_key("expanded", table))
            if done:
                metadata |= {
                    "dagster/row_count": dg.MetadataValue.int(done.rows),
                    **{reason: dg.MetadataValue.int(rows) for reason, rows in done.left.items()},
                    "unparsed": dg.MetadataValue.json(done.unparsed),
                    "orphans": dg.MetadataValue.json(done.orphans),
                    "primary_key": dg.MetadataValue.bool(done.keyed),
                }
            yield dg.MaterializeResult(asset_key=names.asset_key("postgres", table), metadata=metadata)

    return postgres_tables


def _spec(table: Table, names: Names) -> dg.AssetSpec:
    columns = [
        dg.TableColumn(
            c.name,
            c.kind,
            c.source.doc,
            dg.TableColumnConstraints(nullable=c.nullable, unique=(c.name,) == table.primary_key),
        )
        for c in postgres.columns(table)
    ]
    return dg.AssetSpec(
        names.asset_key("postgres", table),
        deps=[names.asset_key("expanded", table)],
        description=f"{table.doc} Typed, with primary key, foreign keys and indexes.".strip(),
        group_name=names.of("postgres"),
        kinds={"postgres"},
        owners=owners(table),
        tags={**table.tags, "table": table.name},
        metadata={
            "dagster/column_schema": dg.TableSchema(columns),
            "dagster/table_name": table.name,
            "primary_key": table.key,
        },
    )


def analysis_assets(dataset: Dataset, names: Names) -> dg.AssetsDefinition:
    """Answers computed by Spark over PostgreSQL's tables."""

    @dg.multi_asset(
        name=names.of("analyses"),  # not the name of the job
        can_subset=True,
        required_resource_keys={names.home},
        specs=[
            dg.AssetSpec(
                names.key("analysis", name),
                deps=[names.asset_key("postgres", dataset.tables[t]) for t in query.tables],
                description=query.doc,
                group_name=names.of("analysis"),
                kinds={"spark", "delta"},
                owners=OWNERS,
                metadata={"query": dg.MetadataValue.md(f"```sql\n{query.sql}\n```")},
            )
            for name, query in dataset.queries.items()
        ],
    )
    def analyses(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        """Read the tables over JDBC in parallel parts and compute each answer."""
        at = names.home_of(context).at
        url = Stack(at.settings).address("postgres")
        for name in dataset.queries:
            key = names.key("analysis", name)
            if key in context.selected_asset_keys:
                found, unchanged = analysis.analyse(at.spark, at.settings, dataset, url, name)
                context.log.info(
                    "analysis/%s: %s", name, "unchanged" if unchanged else f"{found.table.num_rows:,} rows"
                )
                yield dg.MaterializeResult(
                    asset_key=key,
                    metadata={
                        "skipped": dg.MetadataValue.bool(unchanged),
                        "dagster/row_count": dg.MetadataValue.int(found.table.num_rows),
                        "version": dg.MetadataValue.text(found.version),
                    },
                )

    return analyses


def cached_analyses(dataset: Dataset, names: Names) -> dg.AssetsDefinition:
    """The same answers in Redis."""

    @dg.multi_asset(
        name=names.of("cache"),
        can_subset=True,
        required_resource_keys={names.home},
        specs=[
            dg.AssetSpec(
                names.key("cache", name),
                deps=[names.key("analysis", name)],
                description=f"{query.doc} In Redis, with version and time to live.",
                group_name=names.of("cache"),
                kinds={"redis"},
                owners=OWNERS,
            )
            for name, query in dataset.queries.items()
        ],
    )
    def cached(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        """Put each result into Redis."""
        settings = names.home_of(context).at.settings
        url = Stack(settings).address("redis")
        for name in dataset.queries:
            key = names.key("cache", name)
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

    return cached
