"""The layers' assets: one for each layer and table, built by the engine.

What belongs here: the shell that is the same for all layers, and the source they come from. What does not: what a layer
does; see the class of the layer in the room of its system.
"""

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
from pydantic import Field

from ecom_assets.core import delivery
from ecom_assets.core.layer import Built, Layer
from ecom_assets.dataset.model import Dataset, Table
from ecom_assets.defs import deliveries, lineage, live_days
from ecom_assets.defs.names import OWNERS, Names, for_each, freshness, owners
from ecom_assets.lake.fates import PLACED
from ecom_assets.paths import LAYERS, PATHS
from ecom_assets.preview import preview
from ecom_assets.source.kaggle import URL


class LayerConfig(dg.Config):
    """Settings of one materialization."""

    path: str = Field("stream", description="stream (through Kafka and Spark) or bulk (expanded files to HBase)")
    repair: bool = Field(False, description="Rebuild what is known to be damaged, next to the old, and swap it in")


def source_asset(dataset: Dataset, names: Names) -> dg.AssetSpec:
    """Where the raw files come from."""
    places = ["a folder", "a bucket"]
    if dataset.kaggle:
        places.append(f"Kaggle's {dataset.kaggle}")
    if dataset.generator:
        places.append("the generator")
    return dg.AssetSpec(
        _source_key(dataset, names),
        description=f"The CSV files of the data set {dataset.name}, from {' or '.join(places)}.",
        group_name=names.of("source"),
        kinds={"csv", "kaggle"} if dataset.kaggle else {"csv"},
        owners=OWNERS,
        metadata={"url": dg.MetadataValue.url(URL + dataset.kaggle)} if dataset.kaggle else None,
    )


def _source_key(dataset: Dataset, names: Names) -> dg.AssetKey:
    return names.key("source", dataset.name)


def layer_assets(dataset: Dataset, names: Names) -> list[dg.AssetsDefinition]:
    """The assets of every layer; any table's can be materialized alone."""
    return [_layer(layer, dataset, names) for layer in PATHS["stream"]]


def _layer(layer: Layer, dataset: Dataset, names: Names) -> dg.AssetsDefinition:
    tables = dataset.tables.values()
    specs = [_spec(layer, table, dataset, names) for table in tables]

    @dg.multi_asset(
        name=names.of(layer.name),
        specs=specs,
        can_subset=True,
        pool=names.of(layer.pool),
        required_resource_keys={names.home},
    )
    def build(context: dg.AssetExecutionContext, config: LayerConfig) -> Iterator[dg.MaterializeResult]:
        home = names.home_of(context)
        engine = home.engine(config.path)

        of = engine.layer(layer.name)

        def built_of(table: Table) -> tuple[Built, int, str]:
            before = engine.reached(layer.name, table)
            built = engine.build(layer.name, table, repair=config.repair)
            return built, before, preview(home.at, of, table)

        due = [t for t in tables if names.asset_key(layer.name, t) in context.selected_asset_keys]
        small = layer.upstream is not None and not config.repair
        small = small and all(
            (reached := engine.reached(layer.name, table)) >= 0 and delivery.are_small(home.at.settings, reached)
            for table in due
        )
        for table, (built, before, some) in for_each(due, built_of, together=small):
            done = "nothing to do" if built.unchanged else f"{built.rows:,} rows in {built.seconds:.1f} s"
            context.log.info("%s/%s: %s", layer.name, table.name, done)
            live: dict[str, Any] = {}
            if layer.name in deliveries.PARTITIONED:
                deliveries.announce(context.instance, home.at, names)
                came = deliveries.came(context, home.at, names)
                for partition, shown in deliveries.passed(context, engine, layer.name, table, before):
                    key = names.asset_key(layer.name, table)
                    context.log_event(dg.AssetMaterialization(key, partition=partition, metadata=shown))
                if not came:  # nothing is materialized then, and the steps after this one are skipped
                    context.log.info("the expected delivery did not come; `ecom deliveries` lists files and reasons")
                    continue
                live = live_days.own(context, home.at, layer.name, table)
            yield dg.MaterializeResult(
                asset_key=names.asset_key(layer.name, table),
                metadata=_metadata(built)
                | _lineage(of, table, names)
                | live
                | {
                    "dagster/table_name": of.stored_as(home.at.settings, table),
                    "preview": dg.MetadataValue.md(some),
                },
            )

    return build


def _spec(layer: Layer, table: Table, dataset: Dataset, names: Names) -> dg.AssetSpec:
    return dg.AssetSpec(
        names.asset_key(layer.name, table),
        deps=_deps(layer.name, table, dataset, names),
        description=f"{table.doc} {layer.description}".strip(),
        group_name=names.of(layer.name),
        kinds=set(layer.kinds),
        owners=owners(table),
        tags={**table.tags, "table": table.name},
        freshness_policy=freshness(table) if layer.name == LAYERS[-1] else None,
        partitions_def=deliveries.partitions(names) if layer.name in deliveries.PARTITIONED else None,
        metadata={
            "dagster/column_schema": column_schema(table, layer.name),
            "primary_key": table.key,
            "avro_schema": dg.MetadataValue.json(json.loads(table.avro)),
        },
    )


def _deps(name: str, table: Table, dataset: Dataset, names: Names) -> list[dg.AssetKey]:
    """What a table's asset is built from on any path; raw files come together, so all of them count."""
    before = [layer.upstream for path in PATHS.values() for layer in path if layer.name == name]
    keys = {}
    for upstream in before:
        if upstream is None:
            keys[_source_key(dataset, names)] = None
        else:
            tables = dataset.tables.values() if upstream.upstream is None else [table]
            keys |= dict.fromkeys(names.asset_key(upstream.name, t) for t in tables)
    return list(keys)


def column_schema(table: Table, layer: str) -> dg.TableSchema:
    """A layer's columns as Dagster shows them: the table's own, and the typed companions of the merged layer."""
    own = [
        dg.TableColumn(
            c.name,
            c.kind.name,
            c.doc,
            dg.TableColumnConstraints(nullable=c.nullable, unique=(c.name,) == table.primary_key),
        )
        for c in table.columns
    ]
    if layer == "merged":
        own += [
            dg.TableColumn(c.parsed_as[0], c.parsed_as[1], f"{c.name}, typed") for c in table.columns if c.parsed_as
        ]
        own += [dg.TableColumn(name, kind, doc) for name, (kind, doc) in PLACED.items()]
    return dg.TableSchema(own)


def _lineage(layer: Layer, table: Table, names: Names) -> dict[str, Any]:
    """What the columns are made of, in the layer before on the path that was built."""
    if layer.upstream is None:
        return {}
    companions = lineage.typed(table) if layer.name == "merged" else {}
    return lineage.of(lineage.own(table) | companions, names.asset_key(layer.upstream.name, table))


def _metadata(built: Built) -> dict[str, Any]:
    """What the UI shows of a materialization."""
    shown: dict[str, Any] = {
        "skipped": dg.MetadataValue.bool(built.unchanged),
        "build_seconds": dg.MetadataValue.float(round(built.seconds, 3)),
    }
    if built.rows:
        shown["dagster/row_count"] = dg.MetadataValue.int(built.rows)
        shown["rows_per_second"] = dg.MetadataValue.float(round(built.rows / max(built.seconds, 1e-3), 1))
    for name, value in built.notes.items():
        shown[name] = dg.MetadataValue.json(value) if isinstance(value, dict | list) else value
    return shown
