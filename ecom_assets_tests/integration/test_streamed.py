"""Topics to streamed Delta tables, on the real Kafka and Spark."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from ecom_assets.core import row_hash
from ecom_assets.core.addresses import Addresses
from ecom_assets.core.errors import LakeError, NotBuiltError
from ecom_assets.core.layer import Cut
from ecom_assets.core.location import remove
from ecom_assets.core.progress import track
from ecom_assets.core.spark import answers, connect
from ecom_assets.defs.resources.spark import SparkConnectResource
from ecom_assets.lake import delta, fetch, kafka_source, quarantine, query, record_files, streamed
from ecom_assets.lake.query import Place
from ecom_assets.paths import MERGED, STREAMED
from ecom_assets_tests.tables import CLICK_STREAM, PRODUCT
from ecom_assets_tests.topics import MakeTopic, Topic, encode, event, held, product, rows_of


@pytest.mark.parametrize(("row", "expected"), row_hash.TEST_VECTORS, ids=str)
def test_hash(spark: SparkSession, row: dict[int, str | None], expected: int) -> None:
    """Spark would hash rows unlike the other engines, and every verification would fail."""
    ids = {f"column {number}": number for number in row}
    values = tuple(row.values())
    frame = spark.createDataFrame([values, values], ", ".join(f"`{name}` string" for name in ids))
    assert row_hash.spark_measure(frame.limit(1), ids) == (1, expected)
    assert row_hash.spark_measure(frame, ids) == (2, 2 * expected % row_hash.MODULUS)


def test_what_is_not_built_has_no_cut(make_topic: MakeTopic) -> None:
    """A layer that was never built would count as one without rows, and pass."""
    topic = make_topic(CLICK_STREAM)
    for layer in (STREAMED, MERGED):
        assert not layer.exists(topic.at, CLICK_STREAM)
        with pytest.raises(NotBuiltError, match="materialize"):
            layer.extend(topic.at, CLICK_STREAM, Cut())
    assert delta.rows_version(streamed.folder(CLICK_STREAM, topic.settings)) is None


@pytest.fixture(params=["spark", "here"])
def later(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who reads what comes after a table's first records: Spark, or this process."""
    if request.param == "spark":
        monkeypatch.setattr(fetch, "FEW", 0)
    return request.param


def test_stream(later: str, spark: SparkSession, make_topic: MakeTopic) -> None:
    """Rows would change on their way, aborted ones would show, or a second run would double what is there."""
    topic = make_topic(PRODUCT)
    rows = [product(k) for k in range(1, 21)]
    topic.send(*rows[:10])
    topic.send(product(99), product(98), commit=False)
    topic.send(*rows[10:])
    assert topic.stream() == 20
    assert rows_of(spark, PRODUCT, topic.settings) == rows
    measure = topic.streamed().measure
    assert measure.same_rows(held(PRODUCT, rows))
    assert measure.bytes > 0
    path = streamed.folder(PRODUCT, topic.settings)
    before = STREAMED.extend(topic.at, PRODUCT, Cut())
    assert topic.stream() == 0
    assert STREAMED.extend(topic.at, PRODUCT, Cut()) == before
    topic.send(product(21), product(22))
    assert topic.stream() == 2
    assert rows_of(spark, PRODUCT, topic.settings) == [*rows, product(21), product(22)]
    assert STREAMED.measure(topic.at, PRODUCT, before).measure.same_rows(held(PRODUCT, rows)), "as it was at that cut"
    assert query.committed(DeltaTable(str(path)), topic.name) == dict.fromkeys(
        (0, 1), 15 if later == "spark" else 16
    ), "Spark names the last record, and leaves the marker behind it to its checkpoint"
    assert topic.stream() == 0


def test_undecodable_records(spark: SparkSession, make_topic: MakeTopic) -> None:
    """A record that is no row would stop the good ones, vanish, or become a wrong row."""
    topic = make_topic(CLICK_STREAM)
    good = encode(CLICK_STREAM, event("é1"))
    bad = [b"garbage", None, b"", good + b"!", good[:-1], good.replace("é".encode(), b"\xff\xfe")]
    topic.send(event("a"), event("b"), *bad, event("c"))
    assert topic.stream() == 9
    assert rows_of(spark, CLICK_STREAM, topic.settings) == [event("a"), event("b"), event("c")]
    assert topic.streamed().measure.rows == 3
    assert topic.streamed().excluded["quarantined"].rows == len(bad)

    aside = DeltaTable(str(quarantine.folder(CLICK_STREAM, topic.settings))).to_pyarrow_table().to_pylist()
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

    # Its content is verified, not its count alone; and repeating the build restores it.
    assert not topic.streamed().problems
    DeltaTable(str(quarantine.folder(CLICK_STREAM, topic.settings))).update(
        {"raw": "'other'"}, predicate="raw = 'garbage'"
    )
    assert "undecodable records" in topic.streamed().problems[0]
    assert topic.stream() == 0
    assert not topic.streamed().problems


def test_sizes_of_records(spark: SparkSession, make_topic: MakeTopic) -> None:
    """A good record would be quarantined for its size, or one pass that is not as Avro writes it."""
    topic = make_topic(PRODUCT)
    powers = [1 << 7 * n - 1 for n in range(1, 10)] + [1 << 63]
    keys = sorted({key for p in powers for key in (p - 1, -p, min(p, 2**63 - 1), max(-p - 1, -(2**63)))})
    lengths = [length + more for length in (64, 8192, 1 << 19) for more in (-1, 0)]
    rows = [product(key) for key in keys] + [product(10**6 + n, usage="x" * n) for n in lengths]
    long_key = encode(PRODUCT, product(1)).replace(b"\x02", b"\x82\x00", 1)  # 1, in two bytes
    topic.send(*rows, long_key)
    assert topic.stream() == len(rows) + 1
    assert rows_of(spark, PRODUCT, topic.settings) == sorted(rows, key=lambda row: row["id"])
    aside = DeltaTable(str(quarantine.folder(PRODUCT, topic.settings))).to_pyarrow_table().to_pylist()
    assert [row["reason"].endswith("not exactly one") for row in aside] == [True]


@pytest.mark.usefixtures("later")
def test_stopped_between_batches(spark: SparkSession, make_topic: MakeTopic, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was stopped half-way would leave out or double the batches at the break."""
    topic = make_topic(PRODUCT)
    rows = [product(k) for k in range(1, 61)]
    topic.send(*rows)
    monkeypatch.setattr(kafka_source, "RECORDS_PER_BATCH", 10)

    @contextmanager
    def stopping(*_: object) -> Generator[Callable[[int], None]]:
        def stop(rows: int) -> None:
            if rows:
                raise KeyboardInterrupt

        yield stop

    monkeypatch.setattr(streamed, "track", stopping)
    with pytest.raises(KeyboardInterrupt):
        topic.stream()
    assert not spark.streams.active
    before = delta.records(streamed.folder(PRODUCT, topic.settings))
    assert 0 < before < len(rows)
    monkeypatch.setattr(streamed, "track", track)
    assert topic.stream() == len(rows) - before
    assert rows_of(spark, PRODUCT, topic.settings) == rows


@pytest.mark.usefixtures("later")
def test_lost_checkpoint_or_table(spark: SparkSession, make_topic: MakeTopic) -> None:
    """Without its checkpoint a table would get all rows again; without its table a topic would seem empty."""
    topic = make_topic(PRODUCT)
    rows = [product(k) for k in range(1, 8)]
    topic.send(*rows[:4], partition=0)
    assert topic.stream() == 4
    remove(Place.of(PRODUCT, topic.settings).checkpoint)
    topic.send(*rows[4:])
    assert topic.stream() == 3
    assert rows_of(spark, PRODUCT, topic.settings) == rows
    remove(streamed.folder(PRODUCT, topic.settings))
    assert topic.stream() == 7
    assert rows_of(spark, PRODUCT, topic.settings) == rows


@pytest.mark.usefixtures("later")
def test_a_topic_that_was_created_again(spark: SparkSession, make_topic: MakeTopic) -> None:
    """The records of a topic that was replaced would be skipped silently."""
    topic = make_topic(PRODUCT)
    topic.send(*(product(k) for k in range(1, 9)))
    topic.stream()
    admin = AdminClient({"bootstrap.servers": topic.kafka})
    admin.delete_topics([topic.name])[topic.name].result()
    with pytest.raises(NotBuiltError, match="topic/product"):
        topic.stream()
    for _ in range(100):  # a deletion takes a moment
        with contextlib.suppress(KafkaException):
            again = Topic(PRODUCT, topic.settings, topic.at.addresses, lambda: spark)
            break
    again.send(product(1), product(2))
    with pytest.raises(LakeError, match=f"(?s){topic.name}.*ecom reset topic --table product"):
        topic.stream()
    STREAMED.delete(topic.at, PRODUCT)
    assert topic.stream() == 2


@pytest.mark.usefixtures("later")
def test_a_repair_reads_the_topic_again_and_swaps(spark: SparkSession, make_topic: MakeTopic) -> None:
    """A damaged table would stay, or its rows come twice once the stream resumes."""
    topic = make_topic(PRODUCT)
    rows = [product(k) for k in range(1, 8)]
    topic.send(*rows[:5])
    assert topic.stream() == 5
    before = STREAMED.extend(topic.at, PRODUCT, Cut())
    DeltaTable(str(streamed.folder(PRODUCT, topic.settings))).delete("id = 3")
    assert topic.stream() == 0, "nothing is unread, so nothing is built, and nothing deleted"
    assert topic.streamed().measure.rows == 4
    assert topic.stream(repair=True) == 5
    assert topic.streamed().measure.same_rows(held(PRODUCT, rows[:5]))
    with pytest.raises(LakeError, match="it was rebuilt"):
        STREAMED.measure(topic.at, PRODUCT, before)
    topic.send(*rows[5:])
    assert topic.stream() == 2
    assert rows_of(spark, PRODUCT, topic.settings) == rows
    assert not Place.next_to(PRODUCT, topic.settings).table.exists()


def test_spark_and_this_process_take_turns(
    spark: SparkSession, make_topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records would come twice or never where one goes on behind the other, or be other rows than those of Spark."""
    topic = make_topic(PRODUCT)
    rows = [product(k) for k in range(1, 41)]
    for turn, at in enumerate(range(0, 40, 8)):
        monkeypatch.setattr(fetch, "FEW", 1_000_000 if turn % 2 else 0)
        topic.send(*rows[at : at + 8], product(900 + turn), commit=False)
        topic.send(*rows[at : at + 8])
        assert topic.stream() == 8
        assert topic.stream() == 0
    assert rows_of(spark, PRODUCT, topic.settings) == rows
    places = ["_topic", "_partition", "_offset", "_timestamp", "_delivery", "_row", "_tombstone"]
    found = DeltaTable(str(streamed.folder(PRODUCT, topic.settings))).to_pyarrow_table(columns=places)
    remove(streamed.folder(PRODUCT, topic.settings))
    assert topic.stream() == 40
    again = DeltaTable(str(streamed.folder(PRODUCT, topic.settings))).to_pyarrow_table(columns=places)
    order = [("_partition", "ascending"), ("_offset", "ascending")]
    assert found.sort_by(order).equals(again.sort_by(order)), "Spark has read it all"


@pytest.mark.parametrize("where", ["before the commit", "behind the commit"])
def test_killed_while_this_process_reads(
    spark: SparkSession, make_topic: MakeTopic, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """What was read would be lost or doubled by the run that follows, be it Spark's or not."""
    topic = make_topic(PRODUCT)
    rows = [product(k) for k in range(1, 17)]
    topic.send(*rows[:8])
    assert topic.stream() == 8
    commit = record_files.commit

    def killed(*arguments: Any) -> None:
        if where == "behind the commit":
            commit(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(record_files, "commit", killed)
    topic.send(*rows[8:12])
    with pytest.raises(KeyboardInterrupt):
        topic.stream()
    monkeypatch.setattr(record_files, "commit", commit)
    monkeypatch.setattr(fetch, "FEW", 0)
    assert topic.stream() == (4 if where == "before the commit" else 0)
    topic.send(*rows[12:])
    assert topic.stream() == 4
    assert rows_of(spark, PRODUCT, topic.settings) == rows


def test_markers_alone_are_looked_at_once(make_topic: MakeTopic) -> None:
    """A topic whose last records were aborted would look unread for ever."""
    topic = make_topic(PRODUCT)
    topic.send(product(1), partition=0)
    topic.stream()
    topic.send(product(2), product(3), commit=False)
    assert topic.stream() == 0
    assert STREAMED.unread(topic.at, PRODUCT) == 0
    assert topic.streamed().measure.rows == 1


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
