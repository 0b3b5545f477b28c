"""The layers' assets: one for each layer and table, built by the engine.

What belongs here: the shell that is the same for all layers, and the source they come from. What does not: what a layer
does; see the class of the layer in the room of its system.
"""

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
from pydantic import Field

from ecom_assets.core.layer import Built, Layer
from ecom_assets.dataset.model import Dataset, Table
from ecom_assets.defs.names import OWNERS, WEEKLY, asset_key, for_each
from ecom_assets.defs.resources.home import HomeResource
from ecom_assets.paths import LAYERS, PATHS
from ecom_assets.preview import preview

SOURCE = dg.AssetSpec(
    ["source", "shop"],
    description="The shop's data: Kaggle's bytadit/transactional-ecommerce, a local folder, or the generator.",
    group_name="source",
    kinds={"kaggle", "csv"},
    owners=OWNERS,
    metadata={"url": dg.MetadataValue.url("https://www.kaggle.com/datasets/bytadit/transactional-ecommerce")},
)


class LayerConfig(dg.Config):
    """Settings of one materialization."""

    path: str = Field("stream", description="stream (through Kafka and Spark) or bulk (expanded files to HBase)")
    repair: bool = Field(False, description="Rebuild what is known to be damaged, next to the old, and swap it in")


def layer_assets(dataset: Dataset) -> list[dg.AssetsDefinition]:
    """The assets of every layer; any table's can be materialized alone."""
    return [_layer(layer, dataset) for layer in PATHS["stream"]]


def _layer(layer: Layer, dataset: Dataset) -> dg.AssetsDefinition:
    tables = dataset.tables.values()
    specs = [_spec(layer, table, dataset) for table in tables]

    @dg.multi_asset(name=layer.name, specs=specs, can_subset=True, pool=layer.pool)
    def build(
        context: dg.AssetExecutionContext, config: LayerConfig, home: HomeResource
    ) -> Iterator[dg.MaterializeResult]:
        engine = home.engine(config.path)
        due = [t for t in tables if asset_key(layer.name, t) in context.selected_asset_keys]
        for table, built in for_each(due, lambda t: engine.build(layer.name, t, repair=config.repair)):
            done = "nothing to do" if built.unchanged else f"{built.rows:,} rows in {built.seconds:.1f} s"
            context.log.info("%s/%s: %s", layer.name, table.name, done)
            of = engine.layer(layer.name)
            yield dg.MaterializeResult(
                asset_key=asset_key(layer.name, table),
                metadata=_metadata(built)
                | {
                    "dagster/table_name": of.stored_as(home.at.settings, table),
                    "preview": dg.MetadataValue.md(preview(home.at, of, table)),
                },
            )

    return build


def _spec(layer: Layer, table: Table, dataset: Dataset) -> dg.AssetSpec:
    return dg.AssetSpec(
        asset_key(layer.name, table),
        deps=_deps(layer.name, table, dataset),
        description=f"{table.doc} {layer.description}".strip(),
        group_name=layer.name,
        kinds=set(layer.kinds),
        owners=OWNERS,
        tags={"table": table.name},
        freshness_policy=WEEKLY if layer.name == LAYERS[-1] else None,
        metadata={
            "dagster/column_schema": column_schema(table, layer.name),
            "primary_key": table.key,
            "avro_schema": dg.MetadataValue.json(json.loads(table.avro)),
        },
    )


def _deps(name: str, table: Table, dataset: Dataset) -> list[dg.AssetKey]:
    """What a table's asset is built from on any path; raw files come together, so all of them count."""
    before = [layer.upstream for path in PATHS.values() for layer in path if layer.name == name]
    keys = {}
    for upstream in before:
        if upstream is None:
            keys[SOURCE.key] = None
        else:
            tables = dataset.tables.values() if upstream.upstream is None else [table]
            keys |= dict.fromkeys(asset_key(upstream.name, t) for t in tables)
    return list(keys)


def column_schema(table: Table, layer: str) -> dg.TableSchema:
    """A layer's columns as Dagster shows them: the table's own, and the typed companions of the merged layer."""
    own = [
        dg.TableColumn(
            c.name,
            c.avro,
            c.doc,
            dg.TableColumnConstraints(nullable=c.nullable, unique=(c.name,) == table.primary_key),
        )
        for c in table.columns
    ]
    if layer == "merged":
        own += [
            dg.TableColumn(c.parsed_as[0], c.parsed_as[1], f"{c.name}, typed") for c in table.columns if c.parsed_as
        ]
    return dg.TableSchema(own)


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
