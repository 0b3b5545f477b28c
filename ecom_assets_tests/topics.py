"""A topic with hand-made records, and what the tables made of it must hold: what tests of streaming start from."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable
from typing import Any

import fastavro
import pyarrow as pa
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from pyspark.sql import SparkSession

from ecom_assets.core import avro, row_hash
from ecom_assets.core.addresses import Addresses
from ecom_assets.core.context import Context
from ecom_assets.core.layer import Built, Cut, Layer, Measurement
from ecom_assets.core.measure import Measure
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.lake import streamed
from ecom_assets.paths import MERGED, STREAMED
from ecom_assets_tests.tables import PRODUCT, SHOP

Row = dict[str, Any]
TEXTS = ["Shirt", "", "ü, \"x\"\n'y'", "日本\r\n", "NA", "null", "\\N", "x" * 3000]


def product(key: int, **changes: Any) -> Row:
    """A product; hard texts and nulls take turns."""
    text = TEXTS[key % len(TEXTS)]
    row = dict.fromkeys(PRODUCT.names, text) | {"id": key, "year": None if key % 3 else -key}
    return row | {"season": None, "productDisplayName": text or None} | changes


def event(key: str, **changes: Any) -> Row:
    """An event without metadata."""
    row = {"session_id": "s", "event_name": "CLICK", "event_time": "2016-06-30T23:18:44.792905Z", "event_id": key}
    return row | {"traffic_source": "WEB", "event_metadata": None} | changes


def encode(table: Table, row: Row) -> bytes:
    """One Avro record, as fastavro writes it."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(table.avro)), row)
    return out.getvalue()


def held(table: Table, rows: list[Row]) -> Measure:
    """What a layer with these rows must measure, by the reference hash."""
    fields = [[(i, None if r[n] is None else str(r[n]).encode()) for n, i in table.ids.items()] for r in rows]
    return Measure(len(rows), sum(row_hash.row_hash(f) for f in fields) % row_hash.MODULUS)


class Topic:
    """A topic of a namespace and lake of its own, and the layers of the lake behind it."""

    def __init__(
        self,
        table: Table,
        settings: Settings,
        addresses: Addresses,
        session: Callable[[], SparkSession] | None = None,
    ) -> None:
        self.table, self.settings, self.kafka = table, settings, addresses.kafka
        self.at = Context(settings, SHOP, lambda: addresses, session)
        self.name = table.topic(settings.namespace)
        admin = AdminClient({"bootstrap.servers": self.kafka})
        admin.create_topics([NewTopic(self.name, settings.partitions, 1)])[self.name].result()
        self.producer = Producer({"bootstrap.servers": self.kafka, "transactional.id": self.name})
        self.producer.init_transactions(30)

    def stream(self, *, repair: bool = False) -> int:
        """Build the streamed table; returns the records that came in."""
        return STREAMED.build(self.at, self.table, repair=repair).rows

    def merge(self, *, repair: bool = False) -> Built:
        """Build the merged table."""
        return MERGED.build(self.at, self.table, repair=repair)

    def streamed(self) -> Measurement:
        """What the streamed table holds."""
        return self._measured(STREAMED)

    def merged(self) -> Measurement:
        """What the merged table holds."""
        return self._measured(MERGED)

    def _measured(self, layer: Layer) -> Measurement:
        return layer.measure(self.at, self.table, layer.extend(self.at, self.table, Cut()))

    def deliver(self, sequence: int, *rows: Row, first: int = 0) -> None:
        """Send rows as those of a delivery, the first of which has a number there."""
        batch = pa.RecordBatch.from_pylist(list(rows), schema=self.table.arrow)
        places = [
            pa.repeat(sequence, len(rows)).cast(pa.int64()),
            pa.array(range(first, first + len(rows)), pa.int64()),
        ]
        self.send(*avro.encode(batch, self.table, pa.RecordBatch.from_arrays(places, schema=avro.PLACE)))

    def bury(self, *keys: str) -> None:
        """Send tombstones of keys, as another producer would."""
        self.producer.begin_transaction()
        for key in keys:
            self.producer.produce(self.name, None, key=key.encode())
        self.producer.flush()
        self.producer.commit_transaction()

    def send(self, *rows: Row | bytes | None, commit: bool = True, partition: int | None = None) -> None:
        """Send rows (or raw values) as one transaction."""
        self.producer.begin_transaction()
        for row, turn in zip(rows, itertools.cycle(range(self.settings.partitions))):
            value = encode(self.table, row) if isinstance(row, dict) else row
            self.producer.produce(self.name, value, key=b"k", partition=turn if partition is None else partition)
        self.producer.flush()
        if commit:
            self.producer.commit_transaction()
        else:
            self.producer.abort_transaction()


MakeTopic = Callable[[Table], Topic]


def rows_of(spark: SparkSession, table: Table, settings: Settings, condition: str = "_undecoded IS NULL") -> list[Row]:
    """The rows of the streamed table, by key."""
    frame = spark.read.format("delta").load(str(streamed.folder(table, settings))).where(condition)
    return [r.asDict() for r in frame.select(*table.names).orderBy(*table.primary_key).collect()]
