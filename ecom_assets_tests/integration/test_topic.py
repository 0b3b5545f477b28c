"""The topic layer against a real broker: exactly once, through crashes, and a measure that sees what is there."""

from __future__ import annotations

import multiprocessing
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from ecom_assets.core import avro, row_hash
from ecom_assets.core.addresses import Addresses
from ecom_assets.core.errors import TopicError
from ecom_assets.core.settings import Settings
from ecom_assets.csv import chunk
from ecom_assets.csv.records import DamagedError
from ecom_assets.dataset.model import Table
from ecom_assets.kafka import clients, ledger, producer, reader, topics, writer
from ecom_assets.kafka.clients import Clients
from ecom_assets.kafka.ledger import LedgerEntry
from ecom_assets.kafka.producer import ProduceResult
from ecom_assets.kafka.reader import Found
from ecom_assets.kafka.writer import Writer
from ecom_assets.paths import CHUNKED
from ecom_assets_tests.chunks import click_chunks, clicks, total, write_chunks
from ecom_assets_tests.tables import CLICK_STREAM, PRODUCT


@pytest.fixture
def own(settings: Settings, tmp_path: Path) -> Settings:
    """Settings of a namespace and a home of the test's own."""
    return settings.model_copy(update={"namespace": f"t{uuid.uuid4().hex[:10]}", "home": tmp_path, "partitions": 3})


@pytest.fixture
def kafka(addresses: Addresses) -> str:
    return addresses.kafka


def produce(
    settings: Settings, kafka: str, table: Table = CLICK_STREAM, progress: Callable[[int], None] | None = None
) -> ProduceResult:
    return producer.produce(CHUNKED, table, settings, kafka, progress)


def found(settings: Settings, kafka: str, table: Table = CLICK_STREAM) -> Found:
    """What a topic holds, from its beginning to its end."""
    access, name = Clients.of(settings, kafka), table.topic(settings.namespace)
    with clients.translated(access, f"read {name}", settings.home):
        spans = reader.whole({}, topics.ends(access.admin(), name))
        return sum(reader.measure(access, name, table, spans).values(), Found())


def exists(settings: Settings, kafka: str) -> bool:
    """Whether there is a topic."""
    return bool(topics.topic_id(Clients(kafka).admin(), CLICK_STREAM.topic(settings.namespace)))


def measured(settings: Settings, kafka: str, table: Table = CLICK_STREAM) -> tuple[int, int]:
    read = found(settings, kafka, table)
    assert read.bad.rows == 0
    return read.good.rows, read.good.checksum


def book(settings: Settings, kafka: str) -> list[LedgerEntry]:
    """The ledger's entries of the topic that there is."""
    access, name = Clients(kafka), ledger.topic_of(CLICK_STREAM, settings.namespace)
    admin = access.admin()
    mine = topics.topic_id(admin, CLICK_STREAM.topic(settings.namespace))
    read = ledger.entries(access, name, 0, topics.ends(admin, name).get(0, 0))
    return [entry for entry in read if entry.topic_id == mine]


def read_all(name: str, kafka: str, isolation: str) -> list[tuple[int, int, bytes, bytes]]:
    """What another consumer sees: (partition, offset, key, value)."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": "test",
            "isolation.level": isolation,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    partitions = list(consumer.list_topics(name, 10).topics[name].partitions)
    consumer.assign([TopicPartition(name, p, OFFSET_BEGINNING) for p in partitions])
    found, ended, deadline = [], set(), time.monotonic() + 20
    while len(ended) < len(partitions):
        assert time.monotonic() < deadline
        for m in consumer.consume(1000, timeout=0.2):
            if m.error():
                ended.add(m.partition())
            else:
                found.append((m.partition(), m.offset(), m.key(), m.value()))
    consumer.close()
    return found


def send_plainly(name: str, kafka: str, messages: list[tuple[bytes | None, bytes | None]]) -> None:
    producer = Producer({"bootstrap.servers": kafka})
    for key, value in messages:
        producer.produce(name, value, key)
    assert producer.flush(20) == 0


@pytest.mark.parametrize("table", [CLICK_STREAM, PRODUCT], ids=lambda t: t.name)
def test_every_row_once_and_a_second_call_adds_nothing(own: Settings, kafka: str, table: Table) -> None:
    """If it failed, rows would be lost, changed or doubled on the plain way."""
    row = dict.fromkeys(PRODUCT.names) | {
        n: "ü, \n" for n in PRODUCT.names if PRODUCT.arrow.field(n).type == pa.string()
    }
    products = [
        pa.RecordBatch.from_pylist(
            [row | {"id": 7 * c + n, "year": None if n else -5, "season": None, "usage": ""} for n in range(7)],
            schema=PRODUCT.arrow,
        )
        for c in range(3)
    ]
    batches = products if table is PRODUCT else [clicks(20, 20 * n) for n in range(10)]
    chunks = write_chunks(batches, table, own)
    reported: list[int] = []

    first = produce(own, kafka, table, reported.append)
    assert (first.rows, first.chunks, first.skipped_chunks, first.unchanged) == (
        total(chunks)[0],
        len(chunks),
        0,
        False,
    )
    assert sum(reported) == first.rows
    assert measured(own, kafka, table) == total(chunks)
    assert first.bytes == found(own, kafka, table).good.bytes

    second = produce(own, kafka, table)
    assert (second.rows, second.skipped_chunks, second.unchanged) == (0, len(chunks), True)
    assert measured(own, kafka, table) == total(chunks)
    assert reader.head(Clients(kafka), table.topic(own.namespace), table, 3)[0].keys() == {
        *table.names,
        "_delivery",
        "_row",
        "_tombstone",
    }


def test_the_ledger_tells_what_is_in(own: Settings, kafka: str) -> None:
    """If it failed, a restart would not know which chunks to skip."""
    chunks = click_chunks(own)
    produce(own, kafka)
    entries = book(own, kafka)
    assert [e.chunk for e in entries] == chunks
    assert {e.attempt for e in entries} == {1}


def test_more_chunks_are_added(own: Settings, kafka: str) -> None:
    """If it failed, data that grows would need a new topic, or be sent twice."""
    click_chunks(own, count=4)
    produce(own, kafka)
    chunks = click_chunks(own, count=7)
    done = produce(own, kafka)
    assert (done.chunks, done.skipped_chunks) == (3, 4)
    assert measured(own, kafka) == total(chunks)


def test_one_key_stays_in_one_partition_in_order(own: Settings, kafka: str) -> None:
    """If it failed, a consumer would see the events of a session out of order."""
    click_chunks(own, count=12)
    produce(own, kafka)
    partitions, events = defaultdict(set), defaultdict(list)
    for partition, _, key, value in read_all(CLICK_STREAM.topic(own.namespace), kafka, "read_committed"):
        row = avro.decode(pa.array([value]), CLICK_STREAM).to_pylist()[0]
        assert row["session_id"].encode() == key
        partitions[key].add(partition)
        events[key].append(row["event_id"])
    assert len(partitions) > 3
    assert all(len(p) == 1 for p in partitions.values())
    assert len({next(iter(p)) for p in partitions.values()}) == own.partitions
    assert all(e == sorted(e) for e in events.values())


KILLED = """
import os, sys, signal
from pathlib import Path
from ecom_assets.paths import CHUNKED
from ecom_assets.kafka import producer
from ecom_assets.core.settings import Settings
from ecom_assets_tests.tables import CLICK_STREAM

settings = Settings.model_validate_json(sys.argv[1])
producer.TRANSACTION_CHUNKS = 2
sent = 0
send = producer._send

def send_and_die(client, attempt, **what):
    global sent
    send(client, attempt, **what)
    sent += 1
    if sent == 3:
        client.flush(20)
        print("in mid-transaction", flush=True)
        signal.pause()

producer._send = send_and_die
producer.produce(CHUNKED, CLICK_STREAM, settings, sys.argv[2])
"""


def test_a_killed_producer_leaves_nothing_behind(own: Settings, kafka: str) -> None:
    """If it failed, a crash would lose the chunks in flight or send them twice."""
    chunks = click_chunks(own, count=10, rows=20)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, own.model_dump_json(), kafka], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "in mid-transaction\n"
        process.send_signal(signal.SIGKILL)
    done = produce(own, kafka)
    assert (done.skipped_chunks, done.chunks) == (4, 6)
    assert measured(own, kafka) == total(chunks)
    # The control: the rows of the killed transaction are in the log, for those who do not look at commits.
    name = CLICK_STREAM.topic(own.namespace)
    assert len(read_all(name, kafka, "read_uncommitted")) == 200 + 40
    assert len(read_all(name, kafka, "read_committed")) == 200


def test_a_newer_producer_fences_the_older(own: Settings, kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it failed, a hanging run that wakes up next to its successor would double rows."""
    chunks = click_chunks(own, count=4)
    send = producer._send

    def overtaken(client: Producer, attempt: int, **what: Any) -> None:
        send(client, attempt, **what)
        monkeypatch.setattr(producer, "_send", send)
        produce(own, kafka)

    monkeypatch.setattr(producer, "_send", overtaken)
    with pytest.raises(TopicError, match=r"another producer that fenced this one"):
        produce(own, kafka)
    assert measured(own, kafka) == total(chunks)


def test_several_processes_produce_one_topic(own: Settings, kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it failed, more cores would lose chunks, or send them twice."""
    monkeypatch.setattr(producer, "TRANSACTION_CHUNKS", 2)
    own = own.model_copy(update={"producers": 3})
    chunks = click_chunks(own, count=40)
    reported: list[int] = []
    done = produce(own, kafka, progress=reported.append)
    assert (done.chunks, done.rows, done.skipped_chunks) == (40, sum(c.rows for c in chunks), 0)
    assert sum(reported) == done.rows
    assert measured(own, kafka) == total(chunks)
    entries = book(own, kafka)
    assert len({e.transaction.partition("/")[0] for e in entries}) > 1, "one process did it all"
    assert len({e.transaction for e in entries}) == 20
    assert produce(own, kafka).unchanged


def test_a_process_that_is_killed_is_told_and_made_good(
    own: Settings, kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it failed, a run would hang without one of its processes, or what that one had sent would be doubled."""
    monkeypatch.setattr(producer, "TRANSACTION_CHUNKS", 1)
    own = own.model_copy(update={"producers": 2})
    chunks = click_chunks(own, count=60)

    def kill(_: int) -> None:
        for child in multiprocessing.active_children()[:1]:
            child.kill()

    with pytest.raises(TopicError, match=r"(?s)processes to produce it, got one that was ended.*run again"):
        produce(own, kafka, progress=kill)
    assert produce(own, kafka).skipped_chunks < 60
    assert measured(own, kafka) == total(chunks)


@pytest.mark.parametrize("workers", [producer.WORKERS, 1], ids=["all", "control"])
def test_a_new_run_fences_all_processes_of_the_last(
    own: Settings, kafka: str, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """If it failed, a process that outlived its run would put chunks in next to the next run."""
    chunks = click_chunks(own, count=4)
    produce(own, kafka)
    left = Writer(Clients(kafka, own.kafka_config), CLICK_STREAM, own, 2)
    monkeypatch.setattr(producer, "WORKERS", workers)

    def send(client: Producer, _: int) -> None:
        client.produce(CLICK_STREAM.topic(own.namespace), b"late", b"k", partition=0)
        client.flush(20)
        assert produce(own, kafka).unchanged

    if workers == 1:
        left.transact(send)
        assert found(own, kafka).bad.rows == 1
    else:
        with pytest.raises(TopicError, match="another producer that fenced this one"):
            left.transact(send)
        assert measured(own, kafka) == total(chunks)


def failing(code: int) -> KafkaException:
    return KafkaException(KafkaError(code, "made to fail"))


@pytest.mark.parametrize(
    "error", [failing(KafkaError._MSG_TIMED_OUT), KeyboardInterrupt()], ids=["transient", "ctrl-c"]
)
def test_an_attempt_that_fails_is_aborted(
    own: Settings, kafka: str, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """If it failed, rows of a failed attempt would be committed together with those of the next one."""
    chunks = click_chunks(own, count=4)
    monkeypatch.setattr(writer, "BACKOFF", 0.01)
    send, attempts = producer._send, []

    def failing_first(client: Producer, attempt: int, **what: Any) -> None:
        send(client, attempt, **what)
        attempts.append(attempt)
        if len(attempts) == 1:
            client.flush(20)
            raise error

    monkeypatch.setattr(producer, "_send", failing_first)
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            produce(own, kafka)
        assert measured(own, kafka) == (0, 0)
        produce(own, kafka)
        assert attempts == [1, 1]
    else:
        produce(own, kafka)
        assert attempts == [1, 2]
        assert {e.attempt for e in book(own, kafka)} == {2}
    assert measured(own, kafka) == total(chunks)


@pytest.mark.parametrize(
    ("code", "stall", "attempts"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, 90, 1),
        (KafkaError._MSG_TIMED_OUT, 90, writer.ATTEMPTS),
        (KafkaError._MSG_TIMED_OUT, 0, 1),
    ],
    ids=["lasting", "transient", "transient for long"],
)
def test_retries_are_bounded(
    own: Settings, kafka: str, monkeypatch: pytest.MonkeyPatch, code: int, stall: int, attempts: int
) -> None:
    """If it failed, an error that does not pass would be tried for ever, or a short one not at all."""
    click_chunks(own, count=2)
    monkeypatch.setattr(clients, "STALL_SECONDS", stall)
    monkeypatch.setattr(writer, "BACKOFF", 0.01)
    made: list[int] = []

    def always_failing(_: Producer, attempt: int, **__: Any) -> None:
        made.append(attempt)
        raise failing(code)

    monkeypatch.setattr(producer, "_send", always_failing)
    with pytest.raises(TopicError, match=rf"(?s)produce {own.namespace}\.click_stream, got made to fail.*ECOM_KAFKA"):
        produce(own, kafka)
    assert len(made) == attempts


def test_a_full_queue_is_waited_for(own: Settings, kafka: str) -> None:
    """If it failed, a fast reader would lose rows to a full queue, or run out of memory."""
    chunks = click_chunks(own, count=10, rows=50)
    small = own.model_copy(update={"kafka_config": {"queue.buffering.max.messages": "20", "linger.ms": "1"}})
    produce(small, kafka)
    assert measured(own, kafka) == total(chunks)


@pytest.mark.parametrize("what", ["other rows", "no file"])
def test_a_damaged_chunk_stops_and_is_not_committed(
    own: Settings, kafka: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """If it failed, rows that the manifest does not vouch for would reach the topic."""
    monkeypatch.setattr(producer, "TRANSACTION_CHUNKS", 3)
    chunks = click_chunks(own, count=6)
    path = chunk.folder(CLICK_STREAM, own) / chunks[4].name
    whole = path.read_bytes()
    if what == "no file":
        path.unlink()
    else:
        path.write_bytes(whole.replace(b"CLICK", b"CLACK", 1))
    named = str(path) if what == "no file" else f"chunked/click_stream/{chunks[4].name}"
    with pytest.raises(DamagedError, match=re.escape(named)):
        produce(own, kafka)
    assert measured(own, kafka) in {(0, 0), total(chunks[:3])}

    path.write_bytes(whole)
    produce(own, kafka)
    assert measured(own, kafka) == total(chunks)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(
            lambda d: d.replace(b"CLICK", b"CLACK", 1), r"expected 2 rows with checksum .* got 2", id="changed"
        ),
        pytest.param(lambda d: d[: d[:-1].rindex(b"\n") + 1], r"expected 2 rows with .* got 1 rows", id="row-lost"),
        pytest.param(lambda d: d + d.splitlines(keepends=True)[1], r"expected 2 rows with .* got 3", id="row-more"),
        pytest.param(lambda d: d[:-40], r"line 3: expected 6 fields", id="cut"),
        pytest.param(lambda d: d[5:], r"expected the header", id="header"),
    ],
)
def test_each_kind_of_damage_is_said_with_its_file(
    tmp_path: Path, settings: Settings, damage: Callable[[bytes], bytes], message: str
) -> None:
    """If it failed, a damage that leaves the sums of its neighbours right would pass, or the wrong file be named."""
    own = settings.model_copy(update={"home": tmp_path})
    batches = [clicks(2, 2 * n + 1).set_column(5, "event_metadata", pa.array(["x"] * 2)) for n in range(3)]
    chunks = write_chunks([b.cast(CLICK_STREAM.arrow) for b in batches], CLICK_STREAM, own)
    folder = chunk.folder(CLICK_STREAM, own)
    path = folder / chunks[1].name
    path.write_bytes(damage(path.read_bytes()))
    data = CHUNKED.read(own, CLICK_STREAM, chunks)
    with pytest.raises(DamagedError, match=rf"chunked/click_stream/{path.name}.*{message}"):
        producer.load(CHUNKED, CLICK_STREAM, chunks, data)


def test_a_chunk_without_a_last_line_end_is_whole(own: Settings, kafka: str) -> None:
    """If it failed, chunks parsed together would run into one another."""
    chunks = click_chunks(own, count=3)
    path = chunk.folder(CLICK_STREAM, own) / chunks[1].name
    path.write_bytes(path.read_bytes()[:-1])
    produce(own, kafka)
    assert measured(own, kafka) == total(chunks)


def test_a_ledger_is_read_from_where_it_was_known(own: Settings, kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it failed, each delivery would read the entries of all before it, or those of other chunks would count."""
    starts: list[int] = []
    entries = ledger.entries

    def noted(access: Clients, topic: str, start: int, end: int, leader: Any) -> Iterator[ledger.LedgerEntry]:
        starts.append(start)
        return entries(access, topic, start, end, leader)

    monkeypatch.setattr(ledger, "entries", noted)

    def again(known: ledger.Sent | None) -> ProduceResult:
        return producer.produce(CHUNKED, CLICK_STREAM, own, kafka, sent=known)

    click_chunks(own, count=4)
    assert again(None).rows == 80
    sent = again(None).sent
    assert sent
    assert sent.chunks == 4
    chunks = click_chunks(own, count=7)
    done = again(sent)
    assert (done.rows, done.skipped_chunks) == (60, 4)
    assert measured(own, kafka) == total(chunks)
    assert starts == [0, 0, sent.offset]
    assert again(sent).unchanged, "the entries behind it count, too"
    write_chunks([clicks(20, 990), *(clicks(20, 20 * n) for n in range(1, 7))], CLICK_STREAM, own)
    with pytest.raises(TopicError, match="the chunks were built again from other data"):
        again(sent)
    producer.delete(CLICK_STREAM, own, kafka)
    assert again(sent).chunks == 7, "the topic is another one"


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        pytest.param([clicks(5), clicks(5, 99)], "got 5 rows with checksum", id="other-rows"),
        pytest.param([clicks(5)], "got no such chunk in the layer before", id="fewer"),
    ],
)
def test_chunks_made_anew_from_other_data_are_refused(
    own: Settings, kafka: str, batches: list[pa.RecordBatch], message: str
) -> None:
    """If it failed, a topic would hold a mixture of two data sets and be called done."""
    old = write_chunks([clicks(5), clicks(5, 5)], CLICK_STREAM, own)
    produce(own, kafka)
    write_chunks(batches, CLICK_STREAM, own)
    with pytest.raises(
        TopicError, match=rf"(?s)click_stream, chunk part-000001\.csv.*{message}.*ecom reset topic.*--home {own.home}"
    ):
        produce(own, kafka)
    assert measured(own, kafka) == total(old)


def test_delete_and_produce_again(own: Settings, kafka: str) -> None:
    """If it failed, a rebuilt topic would stay empty, or hold what was deleted."""
    click_chunks(own)
    produce(own, kafka)
    producer.delete(CLICK_STREAM, own, kafka)
    assert not exists(own, kafka)
    assert book(own, kafka) == []
    chunks = write_chunks([clicks(9, 1000)], CLICK_STREAM, own)
    assert produce(own, kafka).chunks == 1
    assert measured(own, kafka) == total(chunks)
    assert exists(own, kafka)


def test_a_topic_deleted_by_others_is_filled_again(own: Settings, kafka: str) -> None:
    """If it failed, a crash within delete would leave a ledger with rows which are gone."""
    chunks = click_chunks(own)
    produce(own, kafka)
    name = CLICK_STREAM.topic(own.namespace)
    admin = Clients(kafka).admin()
    admin.delete_topics([name])[name].result()
    assert book(own, kafka) == []
    assert produce(own, kafka).chunks == len(chunks)
    assert measured(own, kafka) == total(chunks)


def test_a_foreign_record_is_named_and_not_fatal(own: Settings, kafka: str) -> None:
    """If it failed, one foreign record would hide all rows from the reconciliation, or count as a row."""
    chunks = click_chunks(own)
    produce(own, kafka)
    name = CLICK_STREAM.topic(own.namespace)
    send_plainly(name, kafka, [(b"a", b"not avro"), (b"b", None)])
    poison = [(p, o, v) for p, o, _, v in read_all(name, kafka, "read_committed") if v in (None, b"not avro")]

    read = found(own, kafka)
    assert (read.good.rows, read.good.checksum) == total(chunks)
    expected = sum(row_hash.row_hash(enumerate((str(p).encode(), str(o).encode(), v))) for p, o, v in poison)
    assert (read.bad.rows, read.bad.checksum) == (2, expected % row_hash.MODULUS)
    assert len(read.named) == 2
    for partition, offset, value in poison:
        (sentence,) = [s for s in read.named if s.startswith(f"topic {name}[{partition}], offset {offset}: ")]
        assert ("tombstone" if value is None else "8 bytes that are none, got b'not avro'") in sentence


def test_bad_records_are_counted_beyond_those_named(own: Settings, kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it failed, a flood of bad records would fill the memory, or not be counted."""
    monkeypatch.setattr(reader, "NAMED", 3)
    click_chunks(own, count=1)
    produce(own, kafka)
    send_plainly(CLICK_STREAM.topic(own.namespace), kafka, [(None, b"x")] * 8)
    read = found(own, kafka)
    assert (read.bad.rows, len(read.named), read.good.rows) == (8, 3, 20)


def test_a_foreign_record_in_the_ledger_is_an_error(own: Settings, kafka: str) -> None:
    """If it failed, a ledger that cannot be trusted would be taken as empty and all be sent twice."""
    click_chunks(own, count=1)
    produce(own, kafka)
    send_plainly(ledger.topic_of(CLICK_STREAM, own.namespace), kafka, [(b"who", b"?")])
    with pytest.raises(TopicError, match=r"\.click_stream\.ledger, partition 0, offset \d+: expected a ledger entry"):
        produce(own, kafka)


def test_the_measure_waits_for_an_open_transaction(own: Settings, kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it failed, a measure right after a commit, or beside a producer, would miss rows that are in."""
    chunks = click_chunks(own, count=2)
    produce(own, kafka)
    name = CLICK_STREAM.topic(own.namespace)
    other = Clients(kafka).producer(f"{own.namespace}.other", lambda *_: None)
    other.init_transactions(20)
    other.begin_transaction()
    other.produce(name, avro.encode(clicks(1), CLICK_STREAM)[0], b"session-0")
    other.flush(20)
    monkeypatch.setattr(clients, "STALL_SECONDS", 0.5)
    with pytest.raises(TopicError, match=r"expected to read up to offset \d+, got to .* no further for 0\.5 s"):
        found(own, kafka)
    monkeypatch.undo()
    other.abort_transaction(20)
    assert measured(own, kafka) == total(chunks)


def test_rows_that_the_broker_dropped_are_missed(own: Settings, kafka: str) -> None:
    """If it failed, a loss at the beginning of a topic would go unseen, or hang the measure."""
    chunks = click_chunks(own)
    produce(own, kafka)
    name = CLICK_STREAM.topic(own.namespace)
    first = [m for m in read_all(name, kafka, "read_committed") if m[0] == 1][:5]
    admin = Clients(kafka).admin()
    at = TopicPartition(name, 1, first[-1][1] + 1)
    admin.delete_records([at])[at].result()
    rows, checksum = measured(own, kafka)
    lost = row_hash.total(
        row_hash.batch_hashes(avro.decode(pa.array([m[3] for m in first]), CLICK_STREAM), CLICK_STREAM.ids)
    )
    assert (rows + 5, (checksum + lost) % row_hash.MODULUS) == total(chunks)


def test_a_missing_topic_holds_nothing(own: Settings, kafka: str) -> None:
    """If it failed, a look at a fresh home would be an error, or make a topic."""
    assert measured(own, kafka) == (0, 0)
    assert topics.ends(Clients(kafka).admin(), CLICK_STREAM.topic(own.namespace)) == {}
    assert book(own, kafka) == []
    assert reader.head(Clients(kafka), CLICK_STREAM.topic(own.namespace), CLICK_STREAM, 5) == []
    assert not exists(own, kafka)


def test_a_topic_never_expires(own: Settings, kafka: str) -> None:
    """If it failed, the broker would drop rows after a week."""
    click_chunks(own, count=1)
    produce(own, kafka)
    name = CLICK_STREAM.topic(own.namespace)
    assert set(topics.ends(Clients(kafka).admin(), name)) == set(range(own.partitions))
    for each in (name, ledger.topic_of(CLICK_STREAM, own.namespace)):
        assert topics.FOREVER.items() <= topic_configs(each, kafka).items()


def topic_configs(name: str, kafka: str) -> dict[str, str]:
    from confluent_kafka.admin import ConfigResource

    resource = ConfigResource(ConfigResource.Type.TOPIC, name)
    admin = Clients(kafka).admin()
    entries = admin.describe_configs([resource])[resource].result()
    return {key: entry.value for key, entry in entries.items()}


def test_no_broker_is_said_with_its_address(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it failed, a wrong address would hang, or not be named."""
    click_chunks(own, count=1)
    monkeypatch.setattr(clients, "ADMIN_SECONDS", 1)
    with pytest.raises(TopicError, match=r"(?s)Kafka at 127\.0\.0\.1:1: .*ecom status --home.*ECOM_KAFKA"):
        produce(own, "127.0.0.1:1")


def test_secrets_are_not_shown() -> None:
    """If it failed, a password would stand in a log or a traceback."""
    assert "hunter2" not in repr(Clients("k:1", {"sasl.password": "hunter2"}))
