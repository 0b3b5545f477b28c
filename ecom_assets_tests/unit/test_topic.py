"""Arithmetic on a topic's offsets: differences between any two positions, and totals of a ledger."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st

from ecom_assets.core.context import Context
from ecom_assets.core.errors import NotBuiltError
from ecom_assets.core.layer import Chunk
from ecom_assets.core.measure import Measure
from ecom_assets.core.quarantine import topic_record_hash
from ecom_assets.core.row_hash import MODULUS
from ecom_assets.core.settings import load
from ecom_assets.kafka import clients, ledger, producer
from ecom_assets.kafka.layer import TopicLayer
from ecom_assets.kafka.ledger import REPLAY, LedgerEntry, Totals
from ecom_assets.kafka.measurement import Position, Sums, steps
from ecom_assets.kafka.producer import Load
from ecom_assets.kafka.reader import Found, Span
from ecom_assets.paths import CHUNKED as CHUNKS
from ecom_assets_tests.tables import CLICK_STREAM, SHOP

FIRST = {0: 0, 1: 7, 2: 0}
"""Partition -> first offset of the topic here."""

offsets = st.dictionaries(st.sampled_from(list(FIRST)), st.integers(0, 30))
positions = st.builds(
    lambda ends, read: Position("id", FIRST, ends, read), offsets, st.one_of(st.none(), offsets)
)  # fmt: skip


def held(span: Span) -> Found:
    """What a range of the topic holds here: every fifth offset is of a bad record, every third of none."""
    found = Found()
    for offset in range(span.start, span.end):
        one = Measure(1, hash((span.partition, offset)) % MODULUS, offset)
        if offset % 5 == 0:
            found += Found(bad=one)
        elif offset % 3:
            found += Found(good=one)
    return found


def walked(start: Sums, before: Position, wanted: Position) -> Sums:
    path = steps(before, wanted)
    return start.along(path, {step.span: held(step.span) for step in path})


@given(positions, positions)
def test_a_difference_leads_to_what_a_measurement_finds(one: Position, other: Position) -> None:
    """If it failed, a check that reads only what is new would come to another result than one that reads all."""
    nothing = Position("id", FIRST)
    expected = walked(Sums(), nothing, other)
    assert walked(walked(Sums(), nothing, one), one, other) == expected
    first = walked(Sums(), nothing, one)
    known = first.measurement(CLICK_STREAM, "t", one, totals=Totals(), problems=(), seconds=1.0)
    before = Position.from_text(known.position)
    assert before
    assert before.leads_to(other)
    found = walked(Sums.of(known), before, other)
    assert replace(found, named=()) == expected
    ends = sum((held(Span(p, f, other.bounds(p, f)[0])).good for p, f in FIRST.items()), Measure())
    assert (found.rows.rows, found.rows.checksum) == (ends.rows, ends.checksum)


def test_a_position_that_lost_records_leads_nowhere() -> None:
    """If it failed, records that the broker has deleted would still count."""
    here = Position("id", FIRST, {0: 9, 1: 9})
    assert not here.leads_to(Position("id", FIRST | {1: 8}, {0: 9, 1: 9}))
    assert not here.leads_to(Position("other", FIRST, {0: 9, 1: 9}))
    assert here.leads_to(Position("id", FIRST | {3: 0}, {0: 9, 1: 9, 3: 4}))
    assert Position.from_text("version 7") is None
    assert Position.from_text("[]") is None


@given(st.lists(st.tuples(st.integers(0, 99), st.booleans(), st.booleans())), st.data())
def test_totals_of_a_ledger_run_both_ways(entries: list[tuple[int, bool, bool]], data: st.DataObject) -> None:
    """If it failed, totals would depend on the offset that the books remember."""

    def read(start: int, end: int) -> Iterator[LedgerEntry]:
        for number, (rows, replay, mine) in enumerate(entries[start:end]):
            chunk = Chunk(f"{REPLAY if replay else ''}{number}", rows, 1, MODULUS - rows)
            yield LedgerEntry("t", chunk, "mine" if mine else "other", "", 1)

    one, other = (data.draw(st.integers(0, len(entries))) for _ in range(2))
    direct = ledger.totals_at(Totals(), other, "mine", read)
    around = ledger.totals_at(ledger.totals_at(Totals(), one, "mine", read), other, "mine", read)
    assert replace(around, entries=0) == replace(direct, entries=0)
    assert around.entries == abs(one - other)
    assert direct.own.rows == sum(rows for rows, replay, mine in entries[:other] if mine and not replay)
    assert Totals.from_json(direct.to_json()) == replace(direct, entries=0)


def test_the_hash_of_a_bad_record_depends_on_its_place() -> None:
    """If it failed, two bad records could be exchanged, or a tombstone pass for an empty value."""
    hashes = {
        topic_record_hash(p, o, v) for p, o, v in [(0, 1, b"x"), (1, 0, b"x"), (0, 11, b"x"), (0, 1, b""), (0, 1, None)]
    }
    assert len(hashes) == 5


def test_the_layer_can_be_sent_to_processes() -> None:
    """If it failed, several processes could not produce a topic."""
    assert isinstance(pickle.loads(pickle.dumps(TopicLayer(CHUNKS))), TopicLayer)


def test_entries_go_into_the_partition_that_is_read() -> None:
    """If it failed, an entry's key would decide where it goes, and those of other partitions would never be read."""
    sent: list[tuple[object, ...]] = []

    class Recording:
        def produce(self, *message: object) -> None:
            sent.append(message)

    chunks = [Chunk(f"part-{number:06d}.csv", 1, 9, number) for number in range(40)]
    entries = [LedgerEntry("click_stream", chunk, "id", "run/0", 1) for chunk in chunks]
    load = Load(chunks, [b"k"], [b"v"])
    producer._send(cast("Producer", Recording()), 2, topic="t", load=load, ledger="t.ledger", entries=entries)
    booked = [message for message in sent if message[0] == "t.ledger"]
    assert len(booked) == 40
    assert {message[3] for message in booked} == {0}
    assert sent[0] == ("t", b"v", b"k"), "rows go to the partition of their key"


def test_a_topic_without_chunks_says_where_to_begin(tmp_path: Path) -> None:
    """If it failed, who materializes a topic in a new home would be led from one missing layer to the next."""
    with (
        Context(load(home=tmp_path), SHOP, lambda: pytest.fail("no server is needed")) as at,
        pytest.raises(NotBuiltError, match=r"(?s)chunked/click_stream.*start the job `ingest`"),
    ):
        TopicLayer(CHUNKS).fingerprint(at, CLICK_STREAM)


def test_what_kafka_tries_again_by_itself_is_not_said(caplog: pytest.LogCaptureFixture) -> None:
    """If this fails, a run on a new broker begins with warnings that mean nothing."""
    for end in ("Coordinator load in progress: retrying", "Coordinator load in progress: giving up"):
        clients._log.warning("GETPID [%s] Failed to acquire a transactional id: %s", "producer-1", end)
    assert [record.getMessage().rpartition(" ")[2] for record in caplog.records] == ["up"]
