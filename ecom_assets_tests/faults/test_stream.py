"""Damage to what a stream rests on: nothing is doubled or skipped, and an error names what only a person can fix.

Each has its control: the same damage done to a plain stream, which doubles or skips.
"""

from __future__ import annotations

import pytest
from confluent_kafka import TopicPartition
from pyspark.sql import DataFrame, SparkSession

from ecom_assets.core.errors import LakeError
from ecom_assets.core.location import Location, remove
from ecom_assets.kafka.clients import Clients
from ecom_assets.lake import delta, fetch, streamed
from ecom_assets.lake.query import Place
from ecom_assets.paths import STREAMED
from ecom_assets_tests.tables import PRODUCT
from ecom_assets_tests.topics import MakeTopic, Topic, product, rows_of


def checkpoint_of(topic: Topic) -> Location:
    return Place.of(topic.table, topic.settings).checkpoint


def last(log: Location) -> Location:
    """The file of the last batch in a part of a checkpoint."""
    return max(log.glob("[0-9]*"), key=lambda file: int(file.name))


def plain_stream(spark: SparkSession, topic: Topic, *, data_loss: bool = False) -> int:
    """Stream a topic as the examples do, into a table whose writer keeps no account; returns the table's rows."""
    target = str(topic.settings.lake / "control")

    def append(frame: DataFrame, _: int) -> None:
        frame.write.format("delta").mode("append").save(target)

    source = {
        "kafka.bootstrap.servers": topic.kafka,
        "subscribe": topic.name,
        "startingOffsets": "earliest",
        "failOnDataLoss": str(not data_loss).lower(),
    }
    stream = spark.readStream.format("kafka").options(**source).load().writeStream.foreachBatch(append)
    stream = stream.option("checkpointLocation", str(topic.settings.lake / "control.checkpoint"))
    query = stream.trigger(availableNow=True).start()
    assert query.awaitTermination(120)
    return spark.read.format("delta").load(target).count()


@pytest.mark.parametrize("later", ["spark", "here"])
def test_a_batch_whose_commit_is_lost_is_not_doubled(
    spark: SparkSession, make_topic: MakeTopic, monkeypatch: pytest.MonkeyPatch, later: str
) -> None:
    """If this fails, a crash between the table's commit and the checkpoint's doubles a batch."""
    monkeypatch.setattr(fetch, "FEW", 0)
    topic = make_topic(PRODUCT)
    rows = [product(k) for k in range(1, 31)]
    for part in (rows[:10], rows[10:]):
        topic.send(*part)
        topic.stream()
        plain = plain_stream(spark, topic)
    assert plain == len(rows)
    last(checkpoint_of(topic) / "commits").unlink()
    lost = last(topic.settings.lake / "control.checkpoint" / "commits")
    for file in (lost, lost.with_name(f".{lost.name}.crc")):
        file.unlink()
    if later == "here":
        monkeypatch.setattr(fetch, "FEW", 1_000_000)
    topic.send(product(31))
    assert topic.stream() == 1
    assert rows_of(spark, PRODUCT, topic.settings) == [*rows, product(31)]
    assert plain_stream(spark, topic) == len(rows) + 20 + 1, "the control doubles the batch"


@pytest.mark.parametrize("left", [0, -5], ids=["nothing left", "its end cut off"])
def test_a_damaged_checkpoint_is_refused(spark: SparkSession, make_topic: MakeTopic, left: int) -> None:
    """If this fails, a stream resumes from a wrong place, or people are left with a Java error."""
    topic = make_topic(PRODUCT)
    rows = [product(k) for k in range(1, 21)]
    topic.send(*rows[:10])
    topic.stream()
    topic.send(*rows[10:])
    log = last(checkpoint_of(topic) / "offsets")
    log.write_bytes(log.read_bytes()[:left])
    message = f"(?s){log} is damaged.*delete {checkpoint_of(topic)};"
    with pytest.raises(LakeError, match=message):
        topic.stream()
    with pytest.raises(LakeError, match=message):
        STREAMED.unread(topic.at, PRODUCT)
    assert rows_of(spark, PRODUCT, topic.settings) == rows[:10]
    # The remedy that the message names works.
    remove(checkpoint_of(topic))
    assert topic.stream() == 10
    assert rows_of(spark, PRODUCT, topic.settings) == rows


@pytest.mark.parametrize("read", [0, 10], ids=["never read", "read in part"])
def test_records_that_aged_out_are_not_skipped(spark: SparkSession, make_topic: MakeTopic, read: int) -> None:
    """If this fails, what a topic dropped before it was read is missing without a word."""
    topic = make_topic(PRODUCT)
    rows = [product(k) for k in range(1, 31)]
    if read:
        topic.send(*rows[:read], partition=0)
        topic.stream()
    topic.send(*rows[read:], partition=0)
    before = read + bool(read)  # each transaction ends with a mark
    gone = TopicPartition(topic.name, 0, before + 5)
    admin = Clients(topic.kafka).admin()  # a future does not outlive its client
    admin.delete_records([gone])[gone].result()
    message = f"{topic.name}, partition 0: expected to resume at offset {before}, got {before + 5} .*`ecom reset topic"
    with pytest.raises(LakeError, match=f"(?s){message}"):
        topic.stream()
    assert delta.records(streamed.folder(PRODUCT, topic.settings)) == read
    assert plain_stream(spark, topic, data_loss=True) == len(rows) - read - 5, "the control skips them"
