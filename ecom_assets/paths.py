"""The two paths through the systems, as lists of layers: the one place where rooms are assembled.

What belongs here: which layer is built from which, and opening a home for them. What does not: any work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ecom_assets.core.addresses import LocatedAddresses
from ecom_assets.core.context import Context
from ecom_assets.core.engine import Engine
from ecom_assets.core.layer import Layer
from ecom_assets.csv.chunked import ChunkedLayer
from ecom_assets.csv.expanded import ExpandedLayer
from ecom_assets.csv.raw import RawLayer
from ecom_assets.dataset.loader import named
from ecom_assets.dataset.model import Dataset
from ecom_assets.hbase.layer import HBaseLayer
from ecom_assets.kafka.layer import TopicLayer
from ecom_assets.lake.merged import MergedLayer
from ecom_assets.lake.streamed import StreamedLayer
from ecom_assets.servers.stack import Stack
from ecom_assets.source import acquire, waiting

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from ecom_assets.core.settings import Settings

RAW = RawLayer(acquire, waiting)
EXPANDED = ExpandedLayer(RAW)
CHUNKED = ChunkedLayer(EXPANDED)
TOPIC = TopicLayer(CHUNKED)
STREAMED = StreamedLayer(TOPIC)
MERGED = MergedLayer(STREAMED)
HBASE = {"stream": HBaseLayer(MERGED, "stream"), "bulk": HBaseLayer(EXPANDED, "bulk")}
"""Path -> the layer at its end."""

PATHS: dict[str, tuple[Layer, ...]] = {
    "stream": (RAW, EXPANDED, CHUNKED, TOPIC, STREAMED, MERGED, HBASE["stream"]),
    "bulk": (RAW, EXPANDED, HBASE["bulk"]),
}
"""Path -> its layers: through Kafka and Spark, or straight to HBase."""

LAYERS = tuple(layer.name for layer in PATHS["stream"])
"""Names of all layers, in the order in which data pass them."""

INGESTION = LAYERS[1 : 1 + LAYERS.index(TOPIC.name)]
"""Names of the layers that carry raw files into Kafka."""


def open_home(
    settings: Settings, dataset: Dataset | None = None, session: Callable[[], SparkSession] | None = None
) -> Context:
    """Open a home; leave its ``with`` block to close what was opened.

    Args:
        settings: The home.
        dataset: What it holds; without it, what its settings name.
        session: Gives a Spark session that somebody else releases; without it one is opened at first need.
    """
    return Context(
        settings, dataset or named(settings.dataset), lambda: LocatedAddresses(Stack(settings).address), session
    )


def engine(at: Context, path: str) -> Engine:
    """The engine of a path."""
    return Engine(at, path, PATHS[path])


def path_used(at: Context) -> str:
    """The path on which HBase was loaded last; the settings' if it was not."""
    builds = [build for build in at.books.builds() if build.layer == LAYERS[-1]]
    return builds[-1].path if builds else at.settings.path
