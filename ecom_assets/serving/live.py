"""The stream as it happens: what the streamed tables hold, how fast they grow, and how far behind the topic they are.

Looks at Delta's log, at the newest data file and at the last records of a topic; never at a whole table.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from deltalake import DeltaTable

from ecom_assets.pipeline import streamed
from ecom_assets.pipeline.topic import Clients
from ecom_assets.settings import Settings
from ecom_assets.tables import Table

LOOK_BACK = 16
"""Offsets looked at before the end of a partition: the last ones may be marks of transactions, which are no records."""

PATIENCE = 3.0
"""Seconds within which Kafka must answer."""


@dataclass(frozen=True)
class Stream:
    """The state of one streamed table.

    Attributes:
        rows: Records it holds.
        newest: Kafka's time of its newest record.
        commits: The last micro-batches: when they were committed, and their records.
    """

    rows: int
    newest: datetime | None
    commits: tuple[tuple[datetime, int], ...]

    def rate(self, now: datetime, seconds: float = 60) -> float:
        """Records a second over the last ``seconds``."""
        return sum(n for at, n in self.commits if now - at <= timedelta(seconds=seconds)) / seconds


def stream(table: Table, settings: Settings, commits: int = 50) -> Stream | None:
    """Look at a streamed table; ``None`` if there is none."""
    path = streamed.folder(table, settings)
    if not streamed.exists(path):
        return None
    delta = DeltaTable(str(path))
    batches = []
    for entry in delta.history(commits):
        rows = int((entry.get("operationMetrics") or {}).get("numOutputRows") or 0)
        if rows:
            batches.append((datetime.fromtimestamp(entry["timestamp"] / 1000, UTC), rows))
    newest = last_records(table, settings, 1)
    return Stream(streamed.records(path), newest[0]["_timestamp"] if newest else None, tuple(reversed(batches)))


def last_records(table: Table, settings: Settings, count: int) -> list[dict[str, Any]]:
    """The newest records of a streamed table, the latest first, with their place in the topic."""
    path = streamed.folder(table, settings)
    if not streamed.exists(path):
        return []
    files = pa.table(DeltaTable(str(path)).get_add_actions(flatten=True))
    files = files.filter(pc.greater(files["num_records"], 0))
    if not files.num_rows:
        return []
    # A micro-batch writes a file per partition of the topic: those of the last one.
    latest = pc.max(files["modification_time"])
    near = pc.greater_equal(files["modification_time"], pc.subtract(latest, 2000))  # milliseconds
    names = [*table.names, "_partition", "_offset", "_timestamp"]
    found = []
    for name in files.filter(near)["path"].to_pylist():
        with (path / name).open("rb") as source:
            file = pq.ParquetFile(source)
            rows = file.read_row_group(file.num_row_groups - 1, columns=names)
        found.append(rows.take(pc.select_k_unstable(rows, min(count, rows.num_rows), [("_offset", "descending")])))
    together = pa.concat_tables(found).sort_by([("_timestamp", "descending"), ("_offset", "descending")])
    records = together.slice(0, count).to_pylist()
    for record in records:
        if record["_timestamp"].tzinfo is None:
            record["_timestamp"] = record["_timestamp"].replace(tzinfo=UTC)
    return records


def topic_newest(table: Table, settings: Settings, kafka: str) -> datetime | None:
    """Kafka's time of the newest committed record of a topic; ``None`` if it holds none.

    Raises:
        ConnectionError: Kafka does not answer.
    """
    topic = table.topic(settings.namespace)
    latest = 0
    try:
        with closing(Clients(kafka, settings.kafka_config).consumer()) as consumer:
            meta = consumer.list_topics(topic, timeout=PATIENCE).topics[topic]
            if meta.error:
                return None
            starts = []
            for partition in meta.partitions:
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=PATIENCE)
                if high > low:
                    starts.append(TopicPartition(topic, partition, max(low, high - LOOK_BACK)))
            consumer.assign(starts)
            left, end = len(starts), time.monotonic() + PATIENCE
            while left and time.monotonic() < end:
                message = consumer.poll(0.2)
                if message is None:
                    continue
                error = message.error()
                if error is not None:
                    left -= error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001  librdkafka's own name
                    continue
                latest = max(latest, message.timestamp()[1])
    except KafkaException as error:
        raise ConnectionError(
            f"Kafka does not answer at {kafka} ({error.args[0].str()}); `ecom status` shows which servers run"
        ) from error
    return datetime.fromtimestamp(latest / 1000, UTC) if latest else None
