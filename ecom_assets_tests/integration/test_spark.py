"""Topics to streamed and merged Delta tables, on the real Kafka and Spark."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import cast

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from ecom_assets.core import row_hash
from ecom_assets.core.addresses import Addresses
from ecom_assets.core.measure import Measure
from ecom_assets.core.settings import Settings
from ecom_assets.core.spark import answers, connect
from ecom_assets.dataset.model import Table
from ecom_assets.dataset.shop import CLICK_STREAM, PRODUCT
from ecom_assets.defs.resources.spark import SparkConnectResource
from ecom_assets.lake import merged, streamed
from ecom_assets_tests.topics import MakeTopic, Row, Topic, encode, event, held, product, rows_of


@pytest.mark.parametrize(("row", "expected"), row_hash.TEST_VECTORS, ids=str)
def test_hash(spark: SparkSession, row: tuple[str | None, ...], expected: int) -> None:
    """Spark would hash rows unlike the other engines, and every proof would fail."""
    names = PRODUCT.names[1 : len(row) + 1]
    table = cast("Table", SimpleNamespace(names=names))
    frame = spark.createDataFrame([row, row], ", ".join(f"{n} string" for n in names))
    assert row_hash.spark_measure(frame.limit(1), table) == (1, expected)
    assert row_hash.spark_measure(frame, table) == (2, 2 * expected % row_hash.MODULUS)


def test_measure_of_nothing(spark: SparkSession, settings: Settings) -> None:
    """A layer that was not made yet would raise instead of holding no rows."""
    assert streamed.measure(CLICK_STREAM, settings) == Measure()
    assert merged.measure(CLICK_STREAM, settings) == Measure()
    assert streamed.undecoded(CLICK_STREAM, settings) == 0
    assert merged.version(merged.folder(CLICK_STREAM, settings)) == ""


def test_stream(spark: SparkSession, make_topic: MakeTopic) -> None:
    """Rows would change on their way, aborted ones would show, or a second run would double what is there."""
    topic = make_topic(PRODUCT)
    rows = [product(k) for k in range(1, 21)]
    told: list[int] = []

    def stream() -> int:
        return streamed.stream(spark, PRODUCT, topic.settings, topic.kafka, told.append)

    topic.send(*rows[:10])
    topic.send(product(99), product(98), commit=False)
    topic.send(*rows[10:])
    assert stream() == 20
    assert rows_of(spark, PRODUCT, topic.settings) == rows
    measure = streamed.measure(PRODUCT, topic.settings)
    assert measure.same_rows(held(PRODUCT, rows))
    assert measure.bytes > 0
    version = merged.version(streamed.folder(PRODUCT, topic.settings))
    assert stream() == 0
    assert merged.version(streamed.folder(PRODUCT, topic.settings)) == version
    topic.send(product(21), product(22))
    assert stream() == 2
    assert rows_of(spark, PRODUCT, topic.settings) == [*rows, product(21), product(22)]
    assert sum(told) == 22


def test_undecodable_records(spark: SparkSession, make_topic: MakeTopic) -> None:
    """A record that is no row would stop the good ones, vanish, or become a wrong row."""
    topic = make_topic(CLICK_STREAM)
    good = encode(CLICK_STREAM, event("é1"))
    bad = [b"garbage", None, b"", good + b"!", good[:-1], good.replace("é".encode(), b"\xff\xfe")]
    topic.send(event("a"), event("b"), *bad, event("c"))
    assert streamed.stream(spark, CLICK_STREAM, topic.settings, topic.kafka) == 9
    assert rows_of(spark, CLICK_STREAM, topic.settings) == [event("a"), event("b"), event("c")]
    assert streamed.measure(CLICK_STREAM, topic.settings).rows == 3
    assert streamed.undecoded(CLICK_STREAM, topic.settings) == len(bad)

    aside = DeltaTable(str(streamed.quarantine(CLICK_STREAM, topic.settings))).to_pyarrow_table().to_pylist()
    assert {(r["source"], r["line_or_offset"]) for r in aside} == {
        (f"{topic.name}[{n % 2}]", n // 2) for n in range(2, 2 + len(bad))
    }
    assert {(r["table"], r["stage"], r["key"]) for r in aside} == {("click_stream", "topic", "k")}
    by_place = {r["line_or_offset"] * 2 + int(r["source"][-2]): (r["raw"], r["reason"]) for r in aside}
    assert by_place[2] == ("garbage", "expected one Avro record of click_stream, got 7 bytes that are none")
    assert by_place[3] == (None, "expected one Avro record of click_stream, got no value (a tombstone)")
    assert by_place[5][1].endswith("bytes that are not exactly one")
    assert by_place[7][1].endswith("bytes with text that is not UTF-8")
    assert r"\xFF\xFE" in by_place[7][0]


def test_sizes_of_records(spark: SparkSession, make_topic: MakeTopic) -> None:
    """A good record would be set aside for its size, or one pass that is not as Avro writes it."""
    topic = make_topic(PRODUCT)
    powers = [1 << 7 * n - 1 for n in range(1, 10)] + [1 << 63]
    keys = sorted({key for p in powers for key in (p - 1, -p, min(p, 2**63 - 1), max(-p - 1, -(2**63)))})
    lengths = [length + more for length in (64, 8192, 1 << 19) for more in (-1, 0)]
    rows = [product(key) for key in keys] + [product(10**6 + n, usage="x" * n) for n in lengths]
    long_key = encode(PRODUCT, product(1)).replace(b"\x02", b"\x82\x00", 1)  # 1, in two bytes
    topic.send(*rows, long_key)
    assert streamed.stream(spark, PRODUCT, topic.settings, topic.kafka) == len(rows) + 1
    assert rows_of(spark, PRODUCT, topic.settings) == sorted(rows, key=lambda row: row["id"])
    aside = DeltaTable(str(streamed.quarantine(PRODUCT, topic.settings))).to_pyarrow_table().to_pylist()
    assert [row["reason"].endswith("not exactly one") for row in aside] == [True]


def test_stopped_between_batches(spark: SparkSession, make_topic: MakeTopic, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was stopped half-way would leave out or double the batches at the break."""
    topic = make_topic(PRODUCT)
    rows = [product(k) for k in range(1, 61)]
    topic.send(*rows)
    monkeypatch.setattr(streamed, "RECORDS_PER_BATCH", 10)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        streamed.stream(spark, PRODUCT, topic.settings, topic.kafka, stop)
    assert not spark.streams.active
    before = streamed.records(streamed.folder(PRODUCT, topic.settings))
    assert 0 < before < len(rows)
    monkeypatch.undo()
    assert streamed.stream(spark, PRODUCT, topic.settings, topic.kafka) == len(rows) - before
    assert rows_of(spark, PRODUCT, topic.settings) == rows


def test_lost_checkpoint_or_table(spark: SparkSession, make_topic: MakeTopic) -> None:
    """Without its checkpoint a table would get all rows again; without its table a topic would seem empty."""
    topic = make_topic(PRODUCT)
    rows = [product(k) for k in range(1, 8)]
    topic.send(*rows[:4], partition=0)
    assert streamed.stream(spark, PRODUCT, topic.settings, topic.kafka) == 4
    streamed.remove(topic.settings.lake / "checkpoints" / "product")
    topic.send(*rows[4:])
    assert streamed.stream(spark, PRODUCT, topic.settings, topic.kafka) == 3
    assert rows_of(spark, PRODUCT, topic.settings) == rows
    streamed.remove(streamed.folder(PRODUCT, topic.settings))
    assert streamed.stream(spark, PRODUCT, topic.settings, topic.kafka) == 7
    assert rows_of(spark, PRODUCT, topic.settings) == rows


def test_topic_made_anew(spark: SparkSession, make_topic: MakeTopic) -> None:
    """The records of a topic that was replaced would be skipped without a word."""
    topic = make_topic(PRODUCT)
    topic.send(*(product(k) for k in range(1, 9)))
    streamed.stream(spark, PRODUCT, topic.settings, topic.kafka)
    admin = AdminClient({"bootstrap.servers": topic.kafka})
    admin.delete_topics([topic.name])[topic.name].result()
    with pytest.raises(streamed.LakeError, match="there is no topic"):
        streamed.stream(spark, PRODUCT, topic.settings, topic.kafka)
    for _ in range(100):  # a deletion takes a moment
        with contextlib.suppress(KafkaException):
            again = Topic(PRODUCT, topic.settings, topic.kafka)
            break
    again.send(product(1), product(2))
    with pytest.raises(streamed.LakeError, match=f"(?s){topic.name}.*ecom reset topic --table product"):
        streamed.stream(spark, PRODUCT, topic.settings, topic.kafka)
    streamed.delete(PRODUCT, topic.settings)
    assert streamed.stream(spark, PRODUCT, topic.settings, topic.kafka) == 2


@pytest.mark.parametrize("hashes", [4, merged.HASHES], ids=["keys in passes", "keys at once"])
def test_merge(spark: SparkSession, make_topic: MakeTopic, monkeypatch: pytest.MonkeyPatch, hashes: int) -> None:
    """A row would be lost, doubled or chosen at random where several stand under one key."""
    monkeypatch.setattr(merged, "HASHES", hashes)
    topic, settings = (t := make_topic(PRODUCT)), t.settings
    rows = [product(k) for k in range(1, 9)]
    same, other, third = dict(rows[1]), product(3, usage="other"), product(3, usage=None)
    topic.send(*rows)
    streamed.stream(spark, PRODUCT, settings, topic.kafka)
    first = merged.merge(spark, PRODUCT, settings)
    assert first == merged.MergeResult(Measure(), Measure(), {})
    assert merged.measure(PRODUCT, settings).same_rows(held(PRODUCT, rows))

    topic.send(same, other, third, same, other)
    streamed.stream(spark, PRODUCT, settings, topic.kafka)
    result = merged.merge(spark, PRODUCT, settings)
    assert not result.unchanged
    assert result.duplicates.same_rows(held(PRODUCT, [same, same]))
    assert result.conflicts.same_rows(held(PRODUCT, [other, third, other]))
    measure = merged.measure(PRODUCT, settings)
    assert measure.same_rows(held(PRODUCT, rows))
    assert streamed.measure(PRODUCT, settings).same_rows(measure + result.duplicates + result.conflicts)
    aside = merged.set_aside(spark, PRODUCT, settings)
    assert aside["duplicates"].same_rows(result.duplicates)
    assert aside["conflicts"].same_rows(result.conflicts)
    (reason,) = set(DeltaTable(str(streamed.quarantine(PRODUCT, settings))).to_pyarrow_table()["reason"].to_pylist())
    assert "differs" in reason

    version = merged.version(merged.folder(PRODUCT, settings))
    again = merged.merge(spark, PRODUCT, settings)
    assert again.unchanged
    assert (again.duplicates, again.conflicts) == (result.duplicates, result.conflicts)
    assert merged.version(merged.folder(PRODUCT, settings)) == version
    assert not merged.merge(spark, PRODUCT, settings, force=True).unchanged
    assert merged.version(merged.folder(PRODUCT, settings)) != version

    # What is set aside is measured where it lies: a row taken out of quarantine must show.
    DeltaTable(str(streamed.quarantine(PRODUCT, settings))).delete("raw LIKE '%other%'")
    assert merged.set_aside(spark, PRODUCT, settings)["conflicts"].same_rows(held(PRODUCT, [third]))


def test_a_merge_adds_to_what_is_there(spark: SparkSession, make_topic: MakeTopic) -> None:
    """A few new rows would have the whole table written again, or added rows not be what a whole merge makes."""
    topic, settings = (t := make_topic(PRODUCT)), t.settings
    target = merged.folder(PRODUCT, settings)
    rows = [product(k) for k in range(1, 9)]

    def merge(*sent: Row, force: bool = False) -> merged.MergeResult:
        if sent:
            topic.send(*sent)
            streamed.stream(spark, PRODUCT, settings, topic.kafka)
        result = merged.merge(spark, PRODUCT, settings, force=force)
        assert not merged.due(PRODUCT, settings)
        return result

    def files() -> set[str]:
        return set(DeltaTable(str(target)).file_uris())

    merge(*rows)
    first = files()
    assert merge(product(9), product(10)).duplicates == Measure()
    second = files()
    assert second > first
    result = merge(rows[0], product(11), product(9), product(11))
    assert result.duplicates.same_rows(held(PRODUCT, [rows[0], product(9), product(11)]))
    assert result.conflicts == Measure()
    third = files()
    assert third > second
    only_seen_before = merge(rows[1])
    assert only_seen_before.duplicates.same_rows(held(PRODUCT, [rows[0], product(9), product(11), rows[1]]))
    assert files() == third
    assert merged.merge(spark, PRODUCT, settings).unchanged
    whole = [*rows, product(9), product(10), product(11)]
    assert merged.measure(PRODUCT, settings).same_rows(held(PRODUCT, whole))
    assert merged.set_aside(spark, PRODUCT, settings)["duplicates"].same_rows(only_seen_before.duplicates)
    typed = spark.read.format("delta").load(str(target)).orderBy("id").collect()

    forced = merge(force=True)
    assert (forced.duplicates, forced.conflicts) == (only_seen_before.duplicates, Measure())
    assert not files() & third
    assert spark.read.format("delta").load(str(target)).orderBy("id").collect() == typed

    # One that contradicts an earlier row, and more than half as many rows as there are: all is merged anew.
    conflict = merge(product(9, usage="other"), product(12))
    assert conflict.conflicts.same_rows(held(PRODUCT, [product(9, usage="other")]))
    assert merged.set_aside(spark, PRODUCT, settings)["conflicts"].same_rows(conflict.conflicts)
    before = files()
    assert merge(*rows).duplicates.rows == 4 + len(rows)
    assert not files() & before
    assert merged.measure(PRODUCT, settings).same_rows(held(PRODUCT, [*whole, product(12)]))


def test_a_merge_after_upkeep(spark: SparkSession, make_topic: MakeTopic) -> None:
    """Rows that upkeep has brought into new files would pass for new rows, or new ones for old."""
    topic, settings = (t := make_topic(PRODUCT)), t.settings
    for keys in ((1, 2), (3, 4), (5, 6)):
        topic.send(*map(product, keys))
        streamed.stream(spark, PRODUCT, settings, topic.kafka)
        if keys[0] != 3:
            merged.merge(spark, PRODUCT, settings)
        DeltaTable(str(streamed.folder(PRODUCT, settings))).optimize.compact()
    rows = [product(k) for k in range(1, 7)]
    assert merged.merge(spark, PRODUCT, settings).duplicates == Measure()
    assert merged.measure(PRODUCT, settings).same_rows(held(PRODUCT, rows))


def test_typed_columns_and_batches(spark: SparkSession, make_topic: MakeTopic) -> None:
    """Companions would be wrong or hide what they cannot hold, or the loader would read other rows than Spark."""
    topic, settings = (t := make_topic(CLICK_STREAM)), t.settings
    rows = [
        event("a", event_metadata="{'product_id': 1, 'quantity': 2, 'item_price': 3}"),
        event("b", event_metadata="{'product_id': oops}", event_time="12:30"),
        event("c"),
    ]
    topic.send(*rows)
    streamed.stream(spark, CLICK_STREAM, settings, topic.kafka)
    assert merged.merge(spark, CLICK_STREAM, settings).unparsed == {"event_time": 1, "event_metadata": 1}
    path = merged.folder(CLICK_STREAM, settings)
    frame = spark.read.format("delta").load(str(path)).orderBy("event_id")
    assert [r.asDict() for r in frame.select(*CLICK_STREAM.names).collect()] == rows
    typed = frame.select(sf.col("event_time_ts").cast("string"), "metadata.product_id", "metadata.quantity").collect()
    assert [tuple(r) for r in typed] == [("2016-06-30 23:18:44.792905", 1, 2), (None,) * 3, (typed[2][0], None, None)]

    batches = list(streamed.read_batches(path, CLICK_STREAM.names))
    assert sorted((r for b in batches for r in b.to_pylist()), key=lambda r: r["event_id"]) == rows
    hashes = [row_hash.total(row_hash.batch_hashes(b, CLICK_STREAM.names)) for b in batches]
    assert sum(hashes) % row_hash.MODULUS == merged.measure(CLICK_STREAM, settings).checksum


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{'text': 'Baju', 'number': 5}", ("Baju", 5)),
        ('{"text": "Baju", "number": null}', ("Baju", None)),
        ("{'text': \"it's\", 'number': None}", ("it's", None)),
        (r"{'text': 'it\'s \"x\", None', 'number': None}", ('it\'s "x", None', None)),
        (r"{'text': 'a\xa0b\\xa0', 'more': True}", ("a\xa0b\\xa0", None)),
        ("{}", (None, None)),
        ("{'number': 'x'}", None),
        ("{'number': 1.5}", None),
        ("{'number': 1} and more", None),
        ("[1]", None),
        ("", None),
    ],
)
def test_literals(spark: SparkSession, text: str, value: tuple[str | None, int | None] | None) -> None:
    """Metadata as Python writes it would be read wrong, or half, instead of whole or not at all."""
    frame = spark.createDataFrame([(text,)], "raw string")
    (row,) = merged.with_parsed(frame, "raw", "typed", "struct<text: string, number: bigint>").collect()
    assert row["typed"] == value


def test_session_is_renewed(addresses: Addresses) -> None:
    """After a restart of the server every later step of a process would fail on the old session."""
    resource = SparkConnectResource(address=addresses.spark)
    old = resource.spark_session
    assert resource.spark_session is old
    other = connect(addresses.spark)
    try:
        old.client.release_session()  # what a restart does to it
        assert not answers(old)
        assert resource.spark_session.range(3).count() == 3
        assert other.range(2).count() == 2
    finally:
        other.stop()
        resource.spark_session.stop()
