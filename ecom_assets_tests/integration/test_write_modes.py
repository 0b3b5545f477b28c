"""Write modes: what a further row of a key does, on the real Kafka and Spark, against plain Python."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import asdict, replace
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from ecom_assets.core import delivery
from ecom_assets.core.books import Build
from ecom_assets.core.boundary import LEFT_OUT
from ecom_assets.core.delivery import Delivery
from ecom_assets.core.layer import Cut, Measurement
from ecom_assets.core.measure import Measure
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.lake import delta, fates, history, increment, merge, rewrite
from ecom_assets.lake.fates import Deliveries
from ecom_assets.paths import MERGED
from ecom_assets_tests.state import State
from ecom_assets_tests.tables import PRODUCT
from ecom_assets_tests.topics import MakeTopic, Row, Topic, held, product

APPENDED = replace(PRODUCT, write="append", history=False)
MERGED_BY_ORDER = replace(PRODUCT, deleted_if=("usage", ("gone",)))
MERGED_BY_VERSION = replace(MERGED_BY_ORDER, version="year")
REPLACED = replace(PRODUCT, write="replace")
MODES = [
    pytest.param(APPENDED, id="append"),
    pytest.param(replace(PRODUCT, history=True), id="merge"),
    pytest.param(MERGED_BY_ORDER, id="merge with deletions"),
    pytest.param(MERGED_BY_VERSION, id="merge by version"),
    pytest.param(REPLACED, id="replace"),
]


def some_row(chance: random.Random, keys: int) -> Row:
    """A row that often repeats another one."""
    usage = chance.choice(["a", "b", "b", "gone"])
    return product(chance.randrange(keys), usage=usage, year=chance.choice([None, 1, 2, 3]))


def tally(rows: list[Row]) -> Counter[str]:
    return Counter(json.dumps(row, sort_keys=True) for row in rows)


@pytest.mark.parametrize("table", MODES)
def test_each_row_has_the_fate_that_its_mode_says(table: Table, spark: SparkSession) -> None:
    """A row would stay or go for a reason that people were not given, or the reason would hang on Spark's order."""
    chance = random.Random(5)
    state = State(table)
    deliveries = Deliveries({n: n * 1_000_000 for n in (1, 2, 4, 7, 9)})
    sent: list[Row] = []
    for sequence in deliveries.sequences:
        rows = [some_row(chance, 60) for _ in range(50)]
        state.deliver(sequence, rows)
        sent += [{**row, "_delivery": sequence, "_row": n} for n, row in enumerate(rows)]
    chance.shuffle(sent)
    schema = pa.schema([*table.arrow, pa.field("_delivery", pa.int64()), pa.field("_row", pa.int64())])
    frame = spark.createDataFrame(pa.Table.from_pylist(sent, schema=schema))
    record = {"_topic": "''", "_partition": "0", "_offset": "0L", "_tombstone": "false"}
    frame = frame.withColumns({name: sf.expr(value) for name, value in record.items()})
    frame = frame.withColumn("_timestamp", sf.expr("timestamp_micros(0)"))
    found = fates.judged(fates.placed(frame, deliveries), table, deliveries).collect()

    def of(fate: str) -> list[Row]:
        return [{name: row[name] for name in table.names} for row in found if row["_fate"] == fate]

    assert len(found) == len(sent)
    assert tally(of(fates.STAYS)) == tally([row for row, _ in state.rows.values()])
    for reason in LEFT_OUT:
        assert tally(of(reason)) == tally(state.left[reason]), reason
    ended = Counter((row["id"], row["_delivery"], row["_until_delivery"]) for row in found if row["_until"] is not None)
    assert ended == Counter((row["id"], since, until) for row, since, until in state.history)
    times = {row["_until_delivery"]: row["_until"].timestamp() for row in found if row["_until"] is not None}
    assert all(time == max(0, sequence) for sequence, time in times.items())


def accept(table: Table, sequence: int, topic: Topic, rows: int) -> None:
    """Record a delivery of a table in a home, as accepting and chunking it do."""
    settings: Settings = topic.settings
    folder = delivery.folder(settings, sequence)
    folder.mkdir(parents=True)
    (folder / table.csv).touch()
    at = datetime.fromtimestamp(1_600_000_000 + sequence, UTC).isoformat()
    (folder / delivery.RECORD).write_text(json.dumps(asdict(Delivery(sequence, f"day {sequence}", at, ()))))
    topic.at.books.record_build(Build("chunked", table.name, str(sequence), rows=rows), str(sequence))


def check(topic: Topic, state: State) -> Measurement:
    """See that the merged table, what was left out of it and its history are what they must be."""
    table = topic.table
    cut = MERGED.extend(topic.at, table, Cut())
    found = MERGED.measure(topic.at, table, cut)
    assert found.problems == ()
    path = merge.folder(table, topic.settings)
    columns = [*table.names, "_delivery"]
    rows = [row for batch in delta.batches(DeltaTable(str(path)), columns) for row in batch.to_pylist()]
    by_spark = [row.asDict() for row in topic.at.spark.read.format("delta").load(str(path)).select(*columns).collect()]
    assert tally(by_spark) == tally(rows)
    sequences = {row["id"]: row.pop("_delivery") for row in rows}
    assert tally(rows) == tally([row for row, _ in state.rows.values()])
    assert sequences == {row["id"]: sequence for row, sequence in state.rows.values()}
    assert found.measure.same_rows(held(table, rows))
    for reason in LEFT_OUT:
        left = found.excluded.get(reason, Measure())
        assert left.same_rows(held(table, state.left[reason])), (reason, left.rows, len(state.left[reason]))
    if table.history and state.history:
        kept = DeltaTable(str(history.folder(table, topic.settings))).to_pyarrow_table().to_pylist()
        spans = Counter((row["id"], row["delivery"], row["ended_by"]) for row in kept)
        assert spans == Counter((row["id"], since, until) for row, since, until in state.history)
    return found


@pytest.mark.parametrize(
    ("table", "marked"),
    [
        *(pytest.param(*mode.values, True, id=f"{mode.id}, deletion vectors, files gathered") for mode in MODES),
        pytest.param(MERGED_BY_ORDER, False, id="merge with deletions, files written again"),
        pytest.param(REPLACED, False, id="replace, files written again"),
    ],
)
def test_merging_what_is_new_comes_to_the_same_as_merging_all(
    table: Table, make_topic: MakeTopic, monkeypatch: pytest.MonkeyPatch, *, marked: bool
) -> None:
    """A table would depend on how often it was merged, or a check of what is new would see less than one of all."""
    if marked:
        monkeypatch.setattr(increment, "MARKED_ROWS", 1)
        monkeypatch.setattr(increment, "MARKED_SHARE", 1.0)
        monkeypatch.setattr(rewrite, "SMALL_FILES", 1)  # small files are gathered before each step
    chance = random.Random(11)
    topic, state = make_topic(table), State(table)
    rows = [product(key) for key in range(300)]
    derived = 0
    known: Measurement | None = None
    cut = Cut()
    for sequence in range(3):
        if sequence:
            rows = following(state, chance)
            accept(table, sequence, topic, len(rows))
        state.deliver(sequence, rows)
        topic.deliver(sequence, *rows)
        topic.stream()
        topic.merge()
        before, cut = cut, MERGED.extend(topic.at, table, Cut())
        whole = check(topic, state)
        if known:
            if new := MERGED.derive(topic.at, table, known, cut):
                derived += 1
                assert new.measure.same_rows(whole.measure)
                assert rows_of(new) == rows_of(whole)
            changes = MERGED.changes(topic.at, table, before, cut)
            assert changes
            came = sum((held(table, batch.to_pylist()) for batch in changes.new()), Measure())
            gone = sum((held(table, batch.to_pylist()) for batch in changes.old()), Measure())
            assert gone.rows == changes.replaced
            assert (known.measure + came - gone).same_rows(whole.measure)
        known = replace(whole, position=cut.merged or "")
    assert bool(derived) == (table.write != "replace" and not table.version)
    topic.merge(repair=True)
    check(topic, state)


def test_rows_of_other_producers_come_after_the_deliveries_before_them(make_topic: MakeTopic) -> None:
    """A shop could not change or delete a row by Kafka alone, or a delivery of before would undo it."""
    topic, state = make_topic(PRODUCT), State(PRODUCT)
    topic.deliver(0, *(rows := [product(key) for key in range(20)]))
    state.deliver(0, rows)
    topic.stream()
    topic.merge()
    topic.send(*(rows := [product(1, usage="live"), product(21)]))
    topic.bury("2", "21", "99", "no number")
    state.deliver(0, rows)
    for key in (2, 21, 99):
        state.bury((key,), 0)
    topic.stream()
    topic.merge()
    found = check(topic, state)
    assert topic.streamed().excluded["quarantined"].rows == 1, "a tombstone under what is no key"
    assert found.excluded["deletions"].rows == 3
    topic.deliver(0, product(1, usage="of before"), first=20)  # sent late, and yet before what is live
    state.left["superseded"].append(product(1, usage="of before"))
    state.history.append((product(1, usage="of before"), 0, 0))
    topic.stream()
    topic.merge()
    check(topic, state)
    topic.merge(repair=True)
    check(topic, state)


def following(state: State, chance: random.Random) -> list[Row]:
    """The rows of a further delivery."""
    rows = [some_row(chance, 320) for _ in range(60)]
    match state.table.write:
        case "replace":
            there = [row for row, _ in state.rows.values() if chance.random() < 0.9]
            return list({row["id"]: row for row in [*there, *rows]}.values())
        case "append":
            new = {row["id"]: row for row in rows if (row["id"],) not in state.rows}
            return [*new.values(), *(row for row, _ in list(state.rows.values())[:5])]
    return rows


def rows_of(found: Measurement) -> dict[str, tuple[int, int]]:
    """What was left out, without how long it took to find."""
    return {reason: (measure.rows, measure.checksum) for reason, measure in found.excluded.items()}
