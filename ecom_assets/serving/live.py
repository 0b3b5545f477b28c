"""The stream as it happens: what the streamed tables hold, how fast they grow, and how far they are behind the topic.

Reads Delta's log, at the newest data file and at the last records of a topic; never at a whole table.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from deltalake import DeltaTable

from ecom_assets.core.home import hint
from ecom_assets.core.location import Location, last_commit
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.kafka.clients import Clients
from ecom_assets.lake import streamed
from ecom_assets.lake.delta import latest

COMMITS = 50
"""Micro-batches that are remembered of each table."""

LOOK_BACK = 16
"""Offsets looked at before the end of a partition: the last ones may be transaction markers, which are no records."""

TIMEOUT = 3.0
"""Seconds within which Kafka must respond."""


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


def stream(table: Table, settings: Settings) -> Stream | None:
    """Look at a streamed table, if it has changed since the last look; ``None`` if there is none."""
    path = streamed.folder(table, settings)
    commit = last_commit(path)
    return _stream(path, commit) if commit else None


def last_records(table: Table, settings: Settings, count: int) -> list[dict[str, Any]]:
    """The newest records of a streamed table, the latest first, with their place in the topic."""
    path = streamed.folder(table, settings)
    commit = last_commit(path)
    return _last_records(path, commit, (*table.names, "_partition"), count).to_dicts() if commit else []


@lru_cache(maxsize=16)
def _stream(path: Location, commit: tuple[object, ...]) -> Stream:  # noqa: ARG001  part of the cache's key
    delta = latest(path)
    batches = [
        (datetime.fromtimestamp(entry["timestamp"] / 1000, UTC), rows)
        for entry in delta.history(COMMITS)
        if (rows := int((entry.get("operationMetrics") or {}).get("numOutputRows") or 0))
    ]
    newest = _newest(path, delta, (), 1)
    return Stream(
        int(_files(delta)["num_records"].sum()),
        newest["_timestamp"][0] if len(newest) else None,
        tuple(reversed(batches)),
    )


@lru_cache(maxsize=16)
def _last_records(
    path: Location,
    commit: tuple[object, ...],  # noqa: ARG001  part of the cache's key
    columns: tuple[str, ...],
    count: int,
) -> pl.DataFrame:
    return _newest(path, latest(path), columns, count)


def _newest(path: Location, delta: DeltaTable, columns: tuple[str, ...], count: int) -> pl.DataFrame:
    """The newest rows: some columns, ``_offset`` and ``_timestamp``."""
    order = ("_timestamp", "_offset")
    files = _files(delta).filter(pl.col("num_records") > 0)
    # A micro-batch writes a file per partition of the topic: those of the last one, within two seconds.
    names = files.filter(pl.col("modification_time") >= pl.col("modification_time").max() - 2000)["path"]
    if names.is_empty():
        return pl.DataFrame(schema=[*columns, *order])
    places = [path / name for name in names]
    sources = [place if isinstance(place, Path) else place.read_bytes() for place in places]
    rows = pl.concat(pl.scan_parquet(source).select(*columns, *order) for source in sources)
    newest = rows.top_k(count, by=order).sort(order, descending=True)
    return newest.with_columns(pl.col("_timestamp").cast(pl.Datetime("us", "UTC"))).collect()


def _files(delta: DeltaTable) -> pl.DataFrame:
    return pl.DataFrame(delta.get_add_actions(flatten=True)).select("path", "num_records", "modification_time")


def topic_newest(table: Table, settings: Settings, kafka: str) -> datetime | None:
    """Kafka's time of the newest committed record of a topic; ``None`` if it holds none.

    Raises:
        ConnectionError: Kafka does not answer.
    """
    topic = table.topic(settings.namespace)
    latest = 0
    try:
        with closing(Clients(kafka, settings.kafka_config).consumer()) as consumer:
            meta = consumer.list_topics(topic, timeout=TIMEOUT).topics[topic]
            if meta.error:
                return None
            starts = []
            for partition in meta.partitions:
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=TIMEOUT)
                if high > low:
                    starts.append(TopicPartition(topic, partition, max(low, high - LOOK_BACK)))
            consumer.assign(starts)
            left, end = len(starts), time.monotonic() + TIMEOUT
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
            f"Kafka does not answer at {kafka} ({error.args[0].str()}); "
            f"`{hint('status', settings)}` shows which servers run"
        ) from error
    return datetime.fromtimestamp(latest / 1000, UTC) if latest else None
