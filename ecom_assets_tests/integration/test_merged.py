"""Streamed to merged Delta tables, on the real Kafka and Spark."""

from __future__ import annotations

import dataclasses
import json
import random
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from ecom_assets.core import row_hash
from ecom_assets.core.addresses import Addresses
from ecom_assets.core.boundary import LEFT_OUT
from ecom_assets.core.layer import Built, Cut
from ecom_assets.core.measure import Measure
from ecom_assets.dataset.model import Table
from ecom_assets.lake import (
    companions,
    delta,
    maintenance,
    merge,
    quarantine,
    repeats,
    rewrite,
    streamed,
    target,
    usual,
)
from ecom_assets.lake.fates import Deliveries
from ecom_assets.lake.typed import typed, with_parsed
from ecom_assets.paths import MERGED
from ecom_assets.serving import postgres
from ecom_assets_tests.tables import CLICK_STREAM
from ecom_assets_tests.tables import PRODUCT as DECLARED
from ecom_assets_tests.topics import MakeTopic, Row, event, held, product

PRODUCT = dataclasses.replace(DECLARED, write="append", history=False)
"""Products that never change; ``test_write_modes`` has others."""


def test_merge(make_topic: MakeTopic, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row would be lost, doubled or chosen at random where several share one key."""
    monkeypatch.setattr(repeats, "HASHES", 4)  # more keys than are looked at in one pass; other tests need one only
    topic = make_topic(PRODUCT)
    path = merge.folder(PRODUCT, topic.settings)
    rows = [product(k) for k in range(1, 9)]
    same, other, third = dict(rows[1]), product(3, usage="other"), product(3, usage=None)
    topic.send(*rows)
    topic.stream()
    assert topic.merge().notes == {"duplicates": 0, "conflicts": 0}
    assert topic.merged().measure.same_rows(held(PRODUCT, rows))

    topic.send(same, other, third, same, other)
    topic.stream()
    assert not topic.merge().unchanged
    found = topic.merged()
    assert found.measure.same_rows(held(PRODUCT, rows))
    assert found.excluded["duplicates"].same_rows(held(PRODUCT, [same, same]))
    assert found.excluded["conflicts"].same_rows(held(PRODUCT, [other, third, other]))
    assert topic.streamed().measure.same_rows(
        found.measure + found.excluded["duplicates"] + found.excluded["conflicts"]
    )
    (reason,) = set(
        DeltaTable(str(quarantine.folder(PRODUCT, topic.settings))).to_pyarrow_table()["reason"].to_pylist()
    )
    assert "differs" in reason

    version = delta.rows_version(path)
    assert topic.merge().unchanged
    assert delta.rows_version(path) == version
    assert not topic.merge(repair=True).unchanged
    assert delta.rows_version(path) != version
    assert topic.merged().measure.same_rows(held(PRODUCT, rows))

    # Conflicts are measured in the streamed table and in quarantine: a row taken out of there shows.
    assert not topic.merged().problems
    DeltaTable(str(quarantine.folder(PRODUCT, topic.settings))).delete("raw LIKE '%other%'")
    assert "expected 3 conflicts" in topic.merged().problems[0]


def test_a_merge_adds_to_what_is_there(spark: SparkSession, make_topic: MakeTopic) -> None:
    """A few new rows would have the whole table written again, or added rows not be what a whole merge builds."""
    topic = make_topic(PRODUCT)
    target = merge.folder(PRODUCT, topic.settings)
    rows = [product(k) for k in range(1, 9)]

    def merged(*sent: Row) -> Built:
        topic.send(*sent)
        topic.stream()
        return topic.merge()

    def files() -> set[str]:
        return set(DeltaTable(str(target)).file_uris())

    def duplicates() -> Measure:
        return topic.merged().excluded["duplicates"]

    merged(*rows)
    first = files()
    assert merged(product(9), product(10)).notes["duplicates"] == 0
    second = files()
    assert second > first
    result = merged(rows[0], product(11), product(9), product(11))
    assert result.notes["duplicates"] == 3
    assert duplicates().same_rows(held(PRODUCT, [rows[0], product(9), product(11)]))
    assert result.notes["conflicts"] == 0
    third = files()
    assert third > second
    assert merged(rows[1]).notes["duplicates"] == 4
    assert duplicates().same_rows(held(PRODUCT, [rows[0], product(9), product(11), rows[1]]))
    assert files() == third
    assert topic.merge().unchanged
    whole = [*rows, product(9), product(10), product(11)]
    assert topic.merged().measure.same_rows(held(PRODUCT, whole))
    typed = spark.read.format("delta").load(str(target)).orderBy("id").collect()

    rebuilt = topic.merge(repair=True)
    assert (rebuilt.notes["duplicates"], rebuilt.notes["conflicts"]) == (4, 0)
    assert not files() & third
    assert spark.read.format("delta").load(str(target)).orderBy("id").collect() == typed

    # One that contradicts an earlier row, and more than half as many rows as there are: all is merged again.
    assert merged(product(9, usage="other"), product(12)).notes["conflicts"] == 1
    assert topic.merged().excluded["conflicts"].same_rows(held(PRODUCT, [product(9, usage="other")]))
    before = files()
    assert merged(*rows).notes["duplicates"] == 4 + len(rows)
    assert not files() & before
    assert topic.merged().measure.same_rows(held(PRODUCT, [*whole, product(12)]))


def test_a_merge_killed_before_its_commit_counts_nothing_twice(make_topic: MakeTopic) -> None:
    """What the books say a merge left out would be added to again by the merge that repeats it."""
    topic = make_topic(PRODUCT)
    topic.send(*(product(k) for k in range(1, 9)))
    topic.stream()
    topic.merge()
    topic.send(product(1), product(2))
    topic.stream()
    version = delta.rows_version(streamed.folder(PRODUCT, topic.settings))
    assert version
    repeated = held(PRODUCT, [product(1), product(2)])
    left = dict.fromkeys(LEFT_OUT, Measure()) | {"duplicates": repeated}
    target.remember(
        topic.at.books, PRODUCT, version, left, Deliveries.of(PRODUCT, topic.settings)
    )  # then it was killed
    assert topic.merge().notes["duplicates"] == 2
    assert topic.merged().measure.rows == 8
    assert topic.merged().excluded["duplicates"].same_rows(repeated)


def test_a_foreign_note_in_the_log_stops_nothing(make_topic: MakeTopic) -> None:
    """Another program's commit metadata would be taken for the merge's own, and end it with a JSON error."""
    topic = make_topic(PRODUCT)
    topic.send(product(1), product(2))
    topic.stream()
    topic.merge()
    from deltalake import CommitProperties

    table = DeltaTable(str(merge.folder(PRODUCT, topic.settings)))
    table.optimize.compact(commit_properties=CommitProperties({"userMetadata": "not JSON"}))
    table.create_write_transaction(
        [], "append", table.schema(), commit_properties=CommitProperties({"userMetadata": "not JSON"})
    )
    topic.send(product(3))
    topic.stream()
    assert not topic.merge().unchanged
    assert topic.merged().measure.rows == 3


def test_a_merge_after_maintenance(make_topic: MakeTopic) -> None:
    """Rows that maintenance has moved to new files would pass for new rows, or new ones for old."""
    topic = make_topic(PRODUCT)
    for keys in ((1, 2), (3, 4), (5, 6)):
        topic.send(*map(product, keys))
        topic.stream()
        if keys[0] != 3:
            topic.merge()
        DeltaTable(str(streamed.folder(PRODUCT, topic.settings))).optimize.compact()
    rows = [product(k) for k in range(1, 7)]
    topic.merge()
    assert topic.merged().measure.same_rows(held(PRODUCT, rows))
    assert topic.merged().excluded["duplicates"] == Measure()


def test_maintenance_keeps_what_merging_and_checks_still_need(
    make_topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a week without a merge, VACUUM would delete files that the next merge, or a check, has to read."""
    topic = make_topic(PRODUCT)
    monkeypatch.setattr(maintenance, "KEEP_HOURS", 0)
    monkeypatch.setattr(
        DeltaTable, "vacuum", _without_retention(DeltaTable.vacuum)
    )  # delta-rs refuses less than a week otherwise
    for keys in ((1, 2), (3, 4)):
        topic.send(*map(product, keys))
        topic.stream()
    topic.merge()
    cut = MERGED.extend(topic.at, PRODUCT, Cut())
    topic.send(product(5))
    topic.stream()
    maintenance.compact_lake(topic.at)
    assert MERGED.extend(topic.at, PRODUCT, Cut()).streamed == cut.streamed
    found = topic.merged()
    assert found.measure.rows == 4
    assert not found.problems
    topic.merge()
    assert topic.merged().measure.same_rows(held(PRODUCT, [product(k) for k in range(1, 6)]))


def _without_retention(vacuum):
    def run(*args, **kwargs):
        return vacuum(*args, **kwargs, enforce_retention_duration=False)

    return run


def test_typed_columns_and_batches(spark: SparkSession, make_topic: MakeTopic) -> None:
    """Companions would be wrong or hide what they cannot hold, or the loader would read other rows than Spark."""
    topic = make_topic(CLICK_STREAM)
    rows = [
        event("a", event_metadata="{'product_id': 1, 'quantity': 2, 'item_price': 3}"),
        event("b", event_metadata="{'product_id': oops}", event_time="12:30"),
        event("c"),
    ]
    topic.send(*rows)
    topic.stream()
    topic.merge()
    path = merge.folder(CLICK_STREAM, topic.settings)
    frame = spark.read.format("delta").load(str(path)).orderBy("event_id")
    assert [r.asDict() for r in frame.select(*CLICK_STREAM.names).collect()] == rows
    typed = frame.select(sf.col("event_time_ts").cast("string"), "metadata.product_id", "metadata.quantity").collect()
    assert [tuple(r) for r in typed] == [("2016-06-30 23:18:44.792905", 1, 2), (None,) * 3, (typed[2][0], None, None)]

    batches = list(delta.batches(DeltaTable(str(path)), CLICK_STREAM.names))
    assert sorted((r for b in batches for r in b.to_pylist()), key=lambda r: r["event_id"]) == rows
    hashes = [row_hash.total(row_hash.batch_hashes(b, CLICK_STREAM.ids)) for b in batches]
    assert sum(hashes) % row_hash.MODULUS == topic.merged().measure.checksum


def test_every_reader_finds_the_same_time(make_topic: MakeTopic) -> None:
    """An open end of 9999 or a year 0001 would be another year for other readers than Spark, or stop the run (A1)."""
    topic = make_topic(CLICK_STREAM)
    times = {"a": "9999-12-31T00:00:00Z", "b": "0001-01-01T00:00:00.000001Z", "c": "1582-10-04T23:59:59Z"}
    topic.send(*(event(key, event_time=text) for key, text in times.items()))
    topic.stream()
    topic.merge()
    table = DeltaTable(str(merge.folder(CLICK_STREAM, topic.settings)))
    files = [str(Path(table.table_uri) / name) for name in delta.files(table)["path"].to_pylist()]
    expected = {key: datetime.fromisoformat(text).replace(tzinfo=None) for key, text in times.items()}
    frame = table.to_pyarrow_table(columns=["event_id", "event_time_ts"])
    found = {
        "Arrow": zip(*(frame[name].to_pylist() for name in frame.column_names), strict=True),
        "polars": pl.read_parquet(files, columns=["event_id", "event_time_ts"]).iter_rows(),
        "DuckDB": duckdb.read_parquet(files).select("event_id, event_time_ts::TIMESTAMP").fetchall(),
    }
    for reader, rows in found.items():
        assert {key: time.replace(tzinfo=None) for key, time in rows} == expected, reader
    path = merge.folder(CLICK_STREAM, topic.settings)
    for names in (
        None,
        {table.file_uris()[0].rpartition("/")[2]: None},
        {},
    ):  # no file came where all rows were repeated
        assert companions.mismatches(topic.at, CLICK_STREAM, path, table, names) == []


def test_companions_are_verified_against_their_texts(make_topic: MakeTopic, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chart would show the wrong month, and everything would pass: nobody verifies what charts compute with."""
    monkeypatch.setattr(companions, "SAMPLE", 1)
    topic = make_topic(CLICK_STREAM)
    odd = ["2016-06-30 23:18:44", "2016-06-30", "12:30", "2016-13-01T00:00:00.000000Z", "2016-06-30T23:18:44+07:00"]
    data = "{'product_id': 1, 'quantity': 2, 'item_price': 3}"
    topic.send(*(event(f"e{n}", event_time=text, event_metadata=data) for n, text in enumerate(odd)), event("plain"))
    topic.stream()
    topic.merge()
    assert not topic.merged().problems
    path = str(merge.folder(CLICK_STREAM, topic.settings))
    for change, where, name in (
        ({"event_time_ts": "'2001-01-01T00:00:00Z'"}, "event_id = 'plain'", "event_time_ts"),
        ({"event_time_ts": "NULL"}, "event_id = 'e0'", "event_time_ts"),
        ({"metadata": "NULL"}, "event_id = 'e1'", "metadata"),
    ):
        before = DeltaTable(path).version()
        DeltaTable(path).update(change, predicate=where)
        (problem,) = topic.merged().problems
        assert f"expected {name} to be" in problem
        assert "in 1 rows" in problem
        DeltaTable(path).restore(before)
        assert not topic.merged().problems


def test_spark_types_new_rows_where_a_text_is_odd(make_topic: MakeTopic, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few usual rows would wait for Spark, or odd ones have no value since only Spark reads them."""
    asked: list[str] = []

    def counting(frame: DataFrame, table: Table, more: list[str]) -> DataFrame:
        asked.append(table.name)
        return typed(frame, table, more)

    monkeypatch.setattr(rewrite, "by_spark_typed", counting)
    topic = make_topic(CLICK_STREAM)
    data = "{'product_id': 1, 'quantity': 2, 'payment_status': None}"
    deliveries = [
        [
            event("a0", event_metadata=data),
            event("a1", event_time="2016-06-30", event_metadata=r"{'promo_code': '\xe9'}"),
        ],
        [event("b0", event_metadata=data), event("b1", event_time="12:30")],
        [
            event("c0", event_metadata=data),
            event("c1", event_time="2016-06-30", event_metadata=r"{'promo_code': '\xe9'}"),
        ],
    ]
    for number, rows in enumerate(deliveries):
        topic.send(*rows)
        topic.stream()
        topic.merge()
        assert not topic.merged().problems
        assert asked == ["click_stream"] * (number == 2)
    columns = ["event_id", "event_time_ts", "metadata"]
    found = DeltaTable(str(merge.folder(CLICK_STREAM, topic.settings))).to_pyarrow_table(columns=columns).to_pylist()
    by_key = {row.pop("event_id"): row for row in found}
    assert by_key["a0"] == by_key["b0"] == by_key["c0"]
    assert by_key["a0"]["metadata"]["quantity"] == 2
    assert by_key["b1"]["event_time_ts"] is None
    assert by_key["c1"] == by_key["a1"]
    assert by_key["c1"]["metadata"]["promo_code"] == "é"
    assert by_key["c1"]["event_time_ts"] == datetime(2016, 6, 30, tzinfo=UTC)


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
    (row,) = with_parsed(frame, "raw", "typed", "struct<text: string, number: bigint>").collect()
    assert row["typed"] == value


TEXTS: dict[str, dict[str, str | None]] = {
    "timestamp": {
        "2016-06-30T23:18:44.792905Z": "2016-06-30 23:18:44.792905+00",
        "9999-12-31T00:00:00Z": "9999-12-31 00:00:00.000000+00",
        "0001-01-01T00:00:00Z": "0001-01-01 00:00:00.000000+00",
        "2022-07-31T10:00:00": "2022-07-31 10:00:00.000000+00",
        "2022-07-31 10:00": "2022-07-31 10:00:00.000000+00",
        "2022-07-31T10:00:00+07": "2022-07-31 03:00:00.000000+00",
        "2022-07-31T10:00:00.5-02:30": "2022-07-31 12:30:00.500000+00",
        "2022-07-31": "2022-07-31 00:00:00.000000+00",
        "2022-02-30": None,
        "2022-07-31T24:00:00Z": None,
        "2022-07-31T10:00:60Z": None,
        "2022-07-31T10:00:00+19": None,
        "2022-07-31T10:00:00 UTC": None,
        "0000-01-01T00:00:00Z": None,
        "+10000-01-01": None,
        "12:30": None,
        "2020": None,
        "2022-07-31\n": None,
        "": None,
    },
    "date": {
        "1990-05-01": "1990-05-01",
        "0001-01-01": "0001-01-01",
        "1990-02-29": None,
        "1990-05-01 00:00:00": None,
        "1990-5-1": None,
        "0000-01-01": None,
        "1990-05-01\n": None,
    },
    "double": {
        "1.5": "1.5",
        "-6.25": "-6.25",
        "1e3": "1000.0",
        " 1.5": None,
        "NaN": None,
        "1d": None,
        "٣": None,
        "1.5\n": None,
    },
    "bigint": {"007": "7", "-1": "-1", "1.0": None, "9999999999999999999": None, "7\n": None},
    "boolean": {"true": "true", "false": "false", "yes": None, "1": None},
    "decimal(5,2)": {
        "1.5": "1.50",
        "-123.45": "-123.45",
        "007.1": "7.10",
        "0.1": "0.10",
        "1.235": None,
        "1234": None,
        "1.5\n": None,
    },
}  # fmt: skip
"""Type of a companion -> text -> its value as PostgreSQL writes it."""


def nested_texts(chance: random.Random, count: int) -> list[str | None]:
    """Texts of structs and arrays, right and wrong ones, in all forms that exports have them in."""
    inner = ["Baju", "", "it's", 'a "b"', "None of", "x\\y", "é\u2028", "True, False", "NaN", "tab\t"]
    numbers = ["0", "-5", "007", "1.5", "1e3", "3000000000", "9223372036854775808", "NaN", "1_000", "0x1", "true", "1."]

    def literal(text: str) -> str:
        return chance.choice([repr, json.dumps, lambda each: f"'{each}'", lambda each: f'"{each}"'])(text)

    def member() -> str:
        name = chance.choice(["text", "number", "real", "flag", "small", "Text", "other", "list"])
        null = chance.choice(["null", "None"])
        values = {
            "text": literal(chance.choice(inner)),
            "flag": chance.choice(["true", "False", "True", "1"]),
            "list": chance.choice(["[]", "['a', null]", '["a", "b"]', "[1]", "{}", "('a',)"]),
        }
        value = chance.choice([values.get(name, chance.choice(numbers)), chance.choice(numbers), null, null])
        return f"{literal(name)}{chance.choice([':', ': ', ' :  '])}{value}"

    def whole() -> str:
        text = "{" + chance.choice([", ", ","]).join(member() for _ in range(chance.randrange(4))) + "}"
        kind = chance.random()
        if kind < 0.05:
            return chance.choice(["", "null", "None", "[]", "5", text + "}", text + text, '1}{"value":2', text[:-1]])
        return chance.choice([text] * 8 + [f" {text}", text + "\n"])

    return [None if chance.random() < 0.03 else whole() for _ in range(count)]


def test_structs_that_are_read_without_spark(spark: SparkSession) -> None:
    """If this fails, a delivery's structs are others than those that a merge of the whole table makes of its texts."""
    parts = "text: string, number: bigint, real: double, flag: boolean, small: int, list: array<string>"
    texts = nested_texts(random.Random(20), 4000)
    frame = spark.createDataFrame(pa.table({"n": range(len(texts)), "raw": pa.array(texts, pa.string())}))
    of_spark = with_parsed(frame, "raw", "typed", f"struct<{parts}>").orderBy("n").toArrow()["typed"].combine_chunks()
    kind = pa.struct(
        [
            *(("text", pa.string()), ("number", pa.int64()), ("real", pa.float64()), ("flag", pa.bool_())),
            *(("small", pa.int32()), ("list", pa.list_(pa.string()))),
        ]
    )
    read = 0
    for text, value in zip(texts, of_spark.to_pylist(), strict=True):
        found = usual.nested(pa.array([text], pa.string()), kind)
        if found is not None:
            assert found.to_pylist() == [value], text
            read += text is not None
        assert not companions._is_read_as(text, {"text": "another"}, kind)
    assert read > 700, "what is usual is read here"
    confirmed = sum(companions._is_read_as(t, v, kind) for t, v in zip(texts, of_spark.to_pylist(), strict=True))
    assert confirmed > 1000, "and verified without Spark"
    several = [text for text in texts if usual.nested(pa.array([text], pa.string()), kind) is not None]
    together = usual.nested(pa.array(several, pa.string()), kind)
    assert together is not None
    assert together.to_pylist() == [of_spark[texts.index(text)].as_py() for text in several]


@pytest.mark.parametrize("kind", TEXTS)
def test_one_rule_decides_what_a_text_is(spark: SparkSession, addresses: Addresses, kind: str) -> None:
    """If this fails, lake and PostgreSQL hold different values of one text (B5), or an open end stops a run (A1)."""
    texts = list(TEXTS[kind])
    fields = [
        {"name": "n", "type": "long"},
        {"name": "raw", "type": "string", "parsed_as": {"name": "typed", "type": kind}},
    ]
    table = dataclasses.replace(PRODUCT, avsc={"type": "record", "name": "T", "fields": fields})
    rows = pa.RecordBatch.from_pydict({"n": list(range(len(texts))), "raw": texts}, schema=table.arrow)
    is_time = kind == "timestamp"
    shown = "date_format(typed, 'yyyy-MM-dd HH:mm:ss.SSSSSS+00')" if is_time else "CAST(typed AS string)"
    frame = with_parsed(spark.createDataFrame(pa.Table.from_batches([rows])), "raw", "typed", kind)
    of_spark = [row[0] for row in frame.orderBy("n").select(sf.expr(shown)).collect()]
    assert dict(zip(texts, of_spark, strict=True)) == TEXTS[kind]

    data, lost = postgres.to_csv(rows, table)
    assert lost == ({"typed": found} if (found := sum(value is None for value in TEXTS[kind].values())) else {})
    (column,) = [c for c in postgres.columns(table) if c.name == "typed"]
    with postgres.connect(addresses.postgres) as connection:
        connection.execute("SET timezone = 'UTC'")
        connection.execute(f"CREATE TEMP TABLE t (n bigint, typed {column.kind})".encode())
        with connection.cursor() as cursor, cursor.copy("COPY t FROM STDIN (FORMAT csv)") as copy:
            copy.write(data)
        shown = "to_char(typed, 'YYYY-MM-DD HH24:MI:SS.US+00')" if is_time else "typed::text"
        of_postgres = [row[0] for row in connection.execute(f"SELECT {shown} FROM t ORDER BY n".encode()).fetchall()]
    same = [None if v is None else float(v) if kind == "double" else v for v in of_postgres]
    assert same == [None if v is None else float(v) if kind == "double" else v for v in TEXTS[kind].values()]

    values = frame.orderBy("n").select("typed").toArrow().column("typed").combine_chunks()
    found = companions._Found()
    companions._compare(rows.column("raw"), values, table.columns[1], found)
    assert found.wrong == 0, found.example

    schema = pa.schema([("typed", values.type)])
    without_spark = [usual.typed(rows.slice(n, 1), table, schema) for n in range(len(texts))]
    assert sum(each is not None for each in without_spark) > len(texts) // 2, "what is usual is typed here"
    for n, each in enumerate(without_spark):
        assert each is None or each["typed"].to_pylist() == [values[n].as_py()], texts[n]
