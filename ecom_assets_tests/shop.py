"""A small shop, published and in HBase, without Kafka: what the tests of serving start from."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from pyspark.sql import SparkSession

from ecom_assets.core.addresses import Addresses
from ecom_assets.core.settings import Settings, load
from ecom_assets.csv.unique import Deduplicated
from ecom_assets.dataset.model import Table
from ecom_assets.lake import streamed
from ecom_assets.paths import HBASE, engine, open_home
from ecom_assets.serving import index, publication
from ecom_assets_tests.tables import ORDERS, TABLES

SCALE = 0.002


def settings_for(home: Path, addresses: Addresses, namespace: str) -> Settings:
    """A home that uses the session's servers by their addresses."""
    return load(
        home=home,
        namespace=namespace,
        scale=SCALE,
        kafka=addresses.kafka,
        spark=addresses.spark,
        hbase_thrift="{}:{}".format(*addresses.hbase_thrift),
        hbase_zookeeper=addresses.hbase_zookeeper,
        postgres=addresses.postgres,
        redis=addresses.redis,
    )


def open_shop(settings: Settings) -> None:
    """Make the data, the merged tables, HBase's and the index, and publish."""
    with open_home(settings.model_copy(update={"hbase_loader": "thrift"})) as at:
        stream = engine(at, "stream")
        for table in TABLES.values():
            stream.build("raw", table)
        for table in TABLES.values():
            stream.build("expanded", table)
            write_streamed(at.spark, table, settings)
            stream.build("merged", table)
            stream.build("hbase", table)
        index.build_index(at, ORDERS, HBASE["stream"])
        publication.publish(settings, at.dataset, at.books)


def write_streamed(spark: SparkSession, table: Table, settings: Settings) -> None:
    """What Spark would have made of the topic: the rows, and where they come from."""
    rows = pa.Table.from_batches(list(Deduplicated(table, settings)))
    rows = rows.cast(pa.schema([f.with_nullable(True) for f in rows.schema]))
    count = rows.num_rows
    place = {
        "_topic": pa.array([table.topic(settings.namespace)] * count),
        "_partition": pa.array([0] * count, pa.int32()),
        "_offset": pa.array(range(count), pa.int64()),
        "_timestamp": pa.array([1_700_000_000_000_000] * count, pa.timestamp("us", "UTC")),
        "_delivery": pa.array([0] * count, pa.int64()),
        "_row": pa.array(range(count), pa.int64()),
        "_tombstone": pa.array([False] * count),
        "_undecoded": pa.nulls(
            count, pa.struct([("key", pa.binary()), ("value", pa.binary()), ("reason", pa.string())])
        ),
    }
    for name, values in place.items():
        rows = rows.append_column(name, values)
    spark.createDataFrame(rows).write.format("delta").save(str(streamed.folder(table, settings)))
