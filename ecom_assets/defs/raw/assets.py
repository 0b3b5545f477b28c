"""The raw layer: the shop's four CSV files, as published, dirt and all."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from ecom_assets import factory
from ecom_assets.pipeline import expand
from ecom_assets.pipeline.preview import preview
from ecom_assets.progress import track
from ecom_assets.resources.home import HomeResource
from ecom_assets.settings import remember
from ecom_assets.source import acquire
from ecom_assets.tables import TABLES

SHOP = dg.AssetSpec(
    ["source", "shop"],
    description="The shop's data: Kaggle's bytadit/transactional-ecommerce, a local folder, or the generator.",
    group_name="source",
    kinds={"kaggle", "csv"},
    owners=factory.OWNERS,
    metadata={"url": dg.MetadataValue.url("https://www.kaggle.com/datasets/bytadit/transactional-ecommerce")},
)


@dg.multi_asset(
    name="raw",
    specs=[
        factory.spec(
            "raw",
            t,
            deps=[SHOP.key],
            kinds={"csv"},
            description="The file as published.",
            stored_as=lambda t: t.csv,
        )
        for t in TABLES.values()
    ],
)
def raw_files(context: dg.AssetExecutionContext, home: HomeResource) -> Iterator[dg.MaterializeResult]:
    """Place the four files; they come from one source, so they come together."""
    flow = home.flow
    remember(flow.settings)
    paths = {name: expand.raw_file(table, flow.settings) for name, table in TABLES.items()}
    before = {name: _state(path) for name, path in paths.items() if path.exists()}
    with track("raw", None, "rows") as advance:
        done: dict[str, int] = {}

        def told(table: str, rows: int, total: int) -> None:  # noqa: ARG001
            advance(rows - done.get(table, 0))
            done[table] = rows

        files = acquire(flow.settings, told)
    context.log.info("source %s: %s", flow.settings.source, ", ".join(p.name for p in files.values()))
    for name, table in TABLES.items():
        yield dg.MaterializeResult(
            asset_key=factory.asset_key("raw", table),
            metadata={
                "unchanged": before.get(name) == _state(files[name]),
                "path": dg.MetadataValue.path(files[name]),
                "bytes": files[name].stat().st_size,
                "preview": dg.MetadataValue.md(preview(flow, "raw", table)),
            },
        )


def _state(path: Path) -> tuple[int, int]:
    return path.stat().st_size, path.stat().st_mtime_ns


CHECKS = factory.parity_checks("raw")
