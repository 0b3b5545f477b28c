"""The layer topic on a real broker: cuts that no transaction crosses, measurements by difference, and refusals."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic

from ecom_assets.core import avro, row_hash
from ecom_assets.core.addresses import Addresses
from ecom_assets.core.books import Build
from ecom_assets.core.context import Context
from ecom_assets.core.errors import NotBuiltError, OwnedError, TopicError, is_transient
from ecom_assets.core.layer import Cut, Measurement
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Dataset
from ecom_assets.kafka import clients, ledger, producer, reader
from ecom_assets.kafka import cut as cuts
from ecom_assets.kafka.clients import Clients
from ecom_assets.kafka.layer import TopicLayer
from ecom_assets.paths import CHUNKED as CHUNKS
from ecom_assets_tests.chunks import click_chunks, clicks, total
from ecom_assets_tests.tables import CLICK_STREAM, PRODUCT

TOPIC = TopicLayer(CHUNKS)


def context(settings: Settings, addresses: Addresses) -> Context:
    return Context(settings, Dataset.of("test", CLICK_STREAM, PRODUCT), lambda: addresses)


@pytest.fixture
def at(settings: Settings, addresses: Addresses, tmp_path: Path) -> Iterator[Context]:
    """A home and a namespace of the test's own."""
    own = settings.model_copy(update={"namespace": f"t{uuid.uuid4().hex[:10]}", "home": tmp_path, "partitions": 3})
    with context(own, addresses) as at:
        yield at


def name(at: Context) -> str:
    return TOPIC.stored_as(at.settings, CLICK_STREAM)


def fixed(at: Context) -> Cut:
    return TOPIC.extend(at, CLICK_STREAM, Cut())


def plain(measurement: Measurement | None) -> Measurement:
    """A measurement without the time it took."""
    assert measurement is not None
    return replace(measurement, measure=replace(measurement.measure, seconds=0.0))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the records that are read, by call."""
    read: list[int] = []
    records = reader.records

    def counting(*arguments: Any) -> Iterator[Any]:
        for part in records(*arguments):
            read.append(len(part))
            yield part

    monkeypatch.setattr(reader, "records", counting)
    return read


def simulating(at: Context, stop: Event, rate: float = 2000) -> Thread:
    thread = Thread(target=lambda: TOPIC.simulate(at, CLICK_STREAM, stop, rate=rate))
    thread.start()
    return thread


def test_a_build_and_its_measurement(at: Context) -> None:
    """If it failed, a topic would not equal its chunks, or a second build would add to it."""
    chunks = click_chunks(at.settings)
    with pytest.raises(NotBuiltError):
        TOPIC.fingerprint(at, CLICK_STREAM)
    at.books.record_build(Build("chunked", "click_stream", "one"))
    first = TOPIC.fingerprint(at, CLICK_STREAM)
    assert not TOPIC.exists(at, CLICK_STREAM)
    empty = TOPIC.measure(at, CLICK_STREAM, fixed(at))
    assert (empty.measure.rows, empty.problems) == (0, ())

    built = TOPIC.build(at, CLICK_STREAM)
    assert (built.rows, built.unchanged, built.notes["chunks"]) == (200, False, 10)
    assert TOPIC.build(at, CLICK_STREAM).unchanged
    assert TOPIC.exists(at, CLICK_STREAM)
    cut = fixed(at)
    assert TOPIC.extend(at, CLICK_STREAM, cut) is cut
    found = TOPIC.measure(at, CLICK_STREAM, cut)
    assert (found.measure.rows, found.measure.checksum) == total(chunks)
    assert found.position == TOPIC.position(at, CLICK_STREAM, cut) == TOPIC.position(at, CLICK_STREAM, fixed(at))
    assert found.problems == ()
    assert {reason: m.rows for reason, m in found.excluded.items()} == {"quarantined": 0}
    assert Measurement.from_json(found.to_json()).position == found.position
    assert len(TOPIC.preview(at, CLICK_STREAM, 3)) == 3
    assert TOPIC.offsets(at, [CLICK_STREAM, PRODUCT]).keys() == {"click_stream"}
    assert TOPIC.offsets(at, [CLICK_STREAM])["click_stream"].ends == cut.ends

    at.books.record_build(Build("chunked", "click_stream", "two"))
    assert TOPIC.fingerprint(at, CLICK_STREAM) != first
    TOPIC.delete(at, CLICK_STREAM)
    assert not TOPIC.exists(at, CLICK_STREAM)
    assert at.books.states("topic/") == {}


def test_no_transaction_crosses_a_cut(at: Context) -> None:
    """If it failed, a reconciliation would fail at random while records come in."""
    click_chunks(at.settings)
    TOPIC.build(at, CLICK_STREAM)
    stop = Event()
    thread = simulating(at, stop)
    seen, longest = [], 0.0
    known = None
    try:
        deadline = time.monotonic() + 60
        while len(set(seen)) <= 10 and time.monotonic() < deadline:
            began = time.perf_counter()
            cut = fixed(at)
            longest = max(longest, time.perf_counter() - began)
            found = TOPIC.measure(at, CLICK_STREAM, cut)
            totals = TOPIC.ledger_totals(at, CLICK_STREAM)
            assert totals.offset >= (cut.ledger or 0)
            replayed = found.excluded["replayed"].rows if "replayed" in found.excluded else 0
            assert found.measure.rows == 200 + replayed
            assert found.problems == ()
            if known:
                assert plain(TOPIC.derive(at, CLICK_STREAM, known, cut)) == plain(found)
            known = found
            seen.append(found.measure.rows)
            time.sleep(0.05)
    finally:
        stop.set()
        thread.join(30)
    assert len(set(seen)) > 10, "rows came in all the time"
    assert longest < 3
    final = TOPIC.measure(at, CLICK_STREAM, fixed(at))
    totals = TOPIC.ledger_totals(at, CLICK_STREAM)
    assert final.measure.same_rows(totals.delivered)
    assert totals.own.rows == 200


@pytest.mark.parametrize("locked", [True, False], ids=["locked", "control"])
def test_a_cut_waits_for_the_transaction_under_way(at: Context, monkeypatch: pytest.MonkeyPatch, locked: bool) -> None:
    """If it failed, a cut between a transaction's rows and its ledger record would count one without the other."""

    @contextmanager
    def unlocked(_: object) -> Generator[None]:
        yield

    if not locked:
        monkeypatch.setattr(cuts.TransactionLock, "cut", unlocked)
    click_chunks(at.settings)
    TOPIC.build(at, CLICK_STREAM)
    send, cut = producer._send, []
    fixing = Thread(target=lambda: cut.append(fixed(at)))

    def in_two_parts(client: Producer, attempt: int, **what: Any) -> None:
        rows: dict[str, Any] = what | {"entries": []}
        records: dict[str, Any] = what | {"load": producer.Load([], [], [])}
        send(client, attempt, **rows)
        client.flush(20)
        fixing.start()
        time.sleep(3)
        send(client, attempt, **records)

    monkeypatch.setattr(producer, "_send", in_two_parts)
    TOPIC.simulate(at, CLICK_STREAM, Event(), rate=10, rows=1)
    fixing.join(60)
    found = TOPIC.measure(at, CLICK_STREAM, cut[0])
    assert found.measure.rows == 220
    assert ("replayed" in found.excluded) == locked


def test_differences_equal_measurements_both_ways(at: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it failed, a check after a few new rows would read the whole topic, or come to another result."""
    click_chunks(at.settings, count=50)
    TOPIC.build(at, CLICK_STREAM)
    early = fixed(at)
    producer_ = Producer({"bootstrap.servers": at.addresses.kafka})
    for partition in range(3):
        producer_.produce(name(at), b"not avro", b"k", partition=partition)
    producer_.flush(20)
    TOPIC.simulate(at, CLICK_STREAM, Event(), rate=10_000, rows=300)
    late = fixed(at)
    assert early.ends
    assert late.ends
    halfway = {p: (early.ends[p] + end) // 2 for p, end in late.ends.items()}
    some = {0: early.ends[0] - 7, 2: halfway[2]}  # a partition that was not read at all, and offsets within batches
    options = [
        early,
        replace(early, read=early.ends),
        replace(early, read={0: early.ends[0] - 7}),
        late,
        replace(late, read=halfway),
        replace(late, read=early.ends),
        replace(late, read=late.ends),
        replace(late, read=some),
    ]
    measured = [plain(TOPIC.measure(at, CLICK_STREAM, cut)) for cut in options]
    assert [m.measure.rows for m in measured[3:]] == [1000 + measured[3].excluded["replayed"].rows] * 5
    assert measured[6].excluded["pending"].rows == 0
    assert measured[6].excluded["quarantined"].rows == measured[3].excluded["quarantined"].rows == 3
    assert measured[5].excluded["pending"].rows == measured[3].excluded["replayed"].rows
    assert measured[5].excluded["quarantined"].rows == 0
    assert all(m.problems == () for m in measured)
    read = counted(monkeypatch)
    for known in measured:
        for cut, expected in zip(options, measured, strict=True):
            assert plain(TOPIC.derive(at, CLICK_STREAM, known, cut)) == expected
    read.clear()
    TOPIC.derive(at, CLICK_STREAM, measured[1], replace(late, read=late.ends))
    # Rows and bad records that came in, and entries of the ledger before and behind what the books remember.
    assert sum(read) <= measured[3].excluded["replayed"].rows + 3 + 20


def test_a_measurement_of_another_topic_leads_nowhere(at: Context) -> None:
    """If it failed, a topic that was deleted, or lost its first records, would pass for what it was."""
    click_chunks(at.settings)
    TOPIC.build(at, CLICK_STREAM)
    cut = fixed(at)
    known = TOPIC.measure(at, CLICK_STREAM, cut)
    admin = Clients(at.addresses.kafka).admin()
    gone = TopicPartition(name(at), 0, 5)
    admin.delete_records([gone])[gone].result()
    assert TOPIC.position(at, CLICK_STREAM, cut) != known.position
    assert TOPIC.derive(at, CLICK_STREAM, known, cut) is None
    assert TOPIC.measure(at, CLICK_STREAM, cut).measure.rows < 200
    TOPIC.delete(at, CLICK_STREAM)
    TOPIC.build(at, CLICK_STREAM)
    again = fixed(at)
    assert TOPIC.derive(at, CLICK_STREAM, known, again) is None
    assert plain(TOPIC.measure(at, CLICK_STREAM, again)).measure == plain(known).measure
    assert TOPIC.derive(at, CLICK_STREAM, replace(known, position="an older edition's"), again) is None
    ahead = replace(again, read={p: end + 9 for p, end in (again.ends or {}).items()})
    assert "another topic of this name was read" in TOPIC.measure(at, CLICK_STREAM, ahead).problems[0]


def test_ledger_totals_run_on(at: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it failed, each look would read the whole ledger, or count an entry twice."""
    chunks = click_chunks(at.settings, count=30)
    TOPIC.build(at, CLICK_STREAM)
    first = TOPIC.ledger_totals(at, CLICK_STREAM)
    assert (first.entries, first.own.rows, first.own.checksum) == (30, *total(chunks))
    early = fixed(at)
    TOPIC.simulate(at, CLICK_STREAM, Event(), rate=10_000, start=chunks[4].name, rows=60)
    second = TOPIC.ledger_totals(at, CLICK_STREAM)
    assert 3 <= second.entries <= 110
    assert (second.own, second.replayed.rows % 20) == (first.own, 0)
    assert second.replayed.rows == 20 * second.entries
    assert TOPIC.ledger_totals(at, CLICK_STREAM).entries == 0
    assert "replayed" not in TOPIC.measure(at, CLICK_STREAM, early).excluded, "entries behind an older cut do not count"
    assert TOPIC.ledger_totals(at, CLICK_STREAM).entries == 0, "and what is remembered does not go back"

    at.books.set_state("topic/click_stream/ledger", None)
    whole = TOPIC.ledger_totals(at, CLICK_STREAM)
    assert (whole.own, whole.replayed, whole.entries) == (second.own, second.replayed, 30 + second.entries)
    TOPIC.delete(at, CLICK_STREAM)
    assert TOPIC.ledger_totals(at, CLICK_STREAM).delivered.rows == 0


def test_a_lost_ledger_is_refused(at: Context) -> None:
    """If it failed, all chunks would be sent once more into a topic that has them."""
    click_chunks(at.settings)
    TOPIC.build(at, CLICK_STREAM)
    TOPIC.ledger_totals(at, CLICK_STREAM)
    admin = Clients(at.addresses.kafka).admin()
    book = ledger.topic_of(CLICK_STREAM, at.settings.namespace)
    admin.delete_topics([book])[book].result()
    with pytest.raises(TopicError, match=rf"(?s)rows that the ledger does not know.*--home {at.settings.home}"):
        TOPIC.build(at, CLICK_STREAM)
    with pytest.raises(TopicError, match=r"(?s)expected the ledger of .* that was read before.*ecom reset topic"):
        TOPIC.ledger_totals(at, CLICK_STREAM)


def test_foreign_rows_are_named_only_if_the_ledger_does_not_vouch_for_the_rest(at: Context) -> None:
    """If it failed, a foreign record would be reported at the layer behind, or a tolerated one fail every check."""
    click_chunks(at.settings)
    TOPIC.build(at, CLICK_STREAM)
    out = Producer({"bootstrap.servers": at.addresses.kafka})
    out.produce(name(at), b"not avro", b"k", partition=1)
    out.flush(20)
    cut = fixed(at)
    found = TOPIC.measure(at, CLICK_STREAM, cut)
    offset = (cut.ends or {})[1] - 1
    assert found.excluded["quarantined"].rows == 1
    assert found.excluded["quarantined"].checksum == row_hash.row_hash(
        enumerate((b"1", str(offset).encode(), b"not avro"))
    )
    assert found.problems == ()

    (live,) = avro.encode(clicks(1, 5000), CLICK_STREAM)
    out.produce(name(at), live, b"k", partition=0)
    out.flush(20)
    more = TOPIC.derive(at, CLICK_STREAM, found, fixed(at))
    assert more
    assert more.excluded["live"].rows == 1, "no delivery brought it"
    assert (more.measure - more.excluded["live"]).same_rows(found.measure)

    place = pa.RecordBatch.from_arrays([pa.array([0]), pa.array([7])], schema=avro.PLACE)
    (forged,) = avro.encode(clicks(1, 5001), CLICK_STREAM, place)  # as if a delivery had brought it
    out.produce(name(at), forged, b"k", partition=0)
    out.flush(20)
    cut = fixed(at)
    assert TOPIC.derive(at, CLICK_STREAM, found, cut) is None, "a difference cannot name what it did not read"
    (problem,) = TOPIC.measure(at, CLICK_STREAM, cut).problems
    assert f"{name(at)}[1], offset {offset}: expected one Avro record of click_stream, got 8 bytes" in problem


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("cleanup.policy", "compact"),
        ("max.message.bytes", "1000"),
        ("retention.ms", "3600000"),
        ("retention.bytes", "9"),
    ],
)
def test_a_topic_made_beforehand_with_other_settings_is_refused(at: Context, setting: str, value: str) -> None:
    """If it failed, compaction would keep one event of each session, and nobody would notice."""
    chunks = click_chunks(at.settings)
    admin = Clients(at.addresses.kafka).admin()
    good = {"retention.ms": "-1", "max.message.bytes": str(clients.MAX_MESSAGE)}
    topic = NewTopic(name(at), 2, 1, config=good | {setting: value})
    admin.create_topics([topic])[name(at)].result()
    (problem,) = TOPIC.check_settings(at, CLICK_STREAM)
    assert f"expected {setting}=" in problem
    assert f"got {value}" in problem
    assert f"kafka-configs --bootstrap-server {at.addresses.kafka} --alter" in problem
    with pytest.raises(TopicError, match=f"{setting}=.*got {value}"):
        TOPIC.build(at, CLICK_STREAM)
    assert TOPIC.measure(at, CLICK_STREAM, fixed(at)).problems == (problem,)

    wanted = problem.partition("--add-config ")[2].rstrip("`").partition("=")[2]
    entry = ConfigEntry(setting, wanted, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, name(at), incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result()
    deadline = time.monotonic() + 10
    while TOPIC.check_settings(at, CLICK_STREAM):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert TOPIC.build(at, CLICK_STREAM).rows == total(chunks)[0]


def test_added_partitions_are_measured(at: Context) -> None:
    """If it failed, rows in partitions that were added later would be missed, or read as lost."""
    click_chunks(at.settings, count=4)
    TOPIC.build(at, CLICK_STREAM)
    old = fixed(at)
    known = TOPIC.measure(at, CLICK_STREAM, old)
    admin = Clients(at.addresses.kafka).admin()
    admin.create_partitions([NewPartitions(name(at), 5)])[name(at)].result()
    chunks = click_chunks(at.settings, count=12)
    deadline = time.monotonic() + 10
    while len(TOPIC.offsets(at, [CLICK_STREAM])["click_stream"].ends) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    TOPIC.build(at, CLICK_STREAM)
    cut = replace(fixed(at), read=old.ends)
    found = TOPIC.measure(at, CLICK_STREAM, cut)
    assert (found.measure.rows, found.measure.checksum) == total(chunks)
    assert found.excluded["pending"].rows == 160
    assert any((cut.ends or {}).get(p) for p in (3, 4)), "the new partitions hold something"
    assert plain(TOPIC.derive(at, CLICK_STREAM, known, cut)) == plain(found)
    assert plain(TOPIC.derive(at, CLICK_STREAM, found, old)) == plain(known)


def test_another_home_is_refused(at: Context, addresses: Addresses, tmp_path: Path) -> None:
    """If it failed, a second home would delete or mix up the first one's topics without a word."""
    click_chunks(at.settings)
    TOPIC.build(at, CLICK_STREAM)
    other = at.settings.model_copy(update={"home": tmp_path / "other"})
    click_chunks(other)
    with context(other, addresses) as there:
        works: list[Callable[[], object]] = [
            lambda: TOPIC.build(there, CLICK_STREAM),
            lambda: TOPIC.delete(there, CLICK_STREAM),
            lambda: TOPIC.simulate(there, CLICK_STREAM, Event(), rate=100, rows=1),
        ]
        for work in works:
            with pytest.raises(
                OwnedError, match=rf"(?s)topics {at.settings.namespace}\.\*.*{other.home}.*{at.settings.home}"
            ):
                work()
    assert TOPIC.build(at, CLICK_STREAM).unchanged


KILLED = """
import sys
from threading import Event
from ecom_assets.paths import CHUNKED as CHUNKS
from ecom_assets.core.settings import Settings
from ecom_assets_tests.tables import CLICK_STREAM
from ecom_assets.kafka import producer
from ecom_assets.kafka.simulate import simulate

send, count = producer._send, 0

def hang(client, attempt, **what):
    global count
    send(client, attempt, **what)
    count += 1
    if count == 5:
        client.flush(20)
        print("in mid-transaction", flush=True)
        Event().wait()

producer._send = hang
simulate(CHUNKS, CLICK_STREAM, Settings.model_validate_json(sys.argv[1]), sys.argv[2], Event(), rate=2000)
"""


def test_a_killed_producer_does_not_spoil_a_cut(at: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it failed, a cut would wait for ever for a dead producer's lock, or count half of its transaction."""
    click_chunks(at.settings)
    TOPIC.build(at, CLICK_STREAM)
    arguments = [at.settings.model_dump_json(), at.addresses.kafka]
    with subprocess.Popen([sys.executable, "-c", KILLED, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "in mid-transaction\n"
        monkeypatch.setattr(clients, "STALL_SECONDS", 1)
        with pytest.raises(TopicError, match="got one under way for 1 s") as busy:
            fixed(at)
        assert is_transient(busy.value)
        process.send_signal(signal.SIGKILL)
    with pytest.raises(TopicError, match=r"(?s)got one that is still open.*find-hanging") as open_:
        fixed(at)
    assert is_transient(open_.value)
    monkeypatch.undo()
    TOPIC.simulate(at, CLICK_STREAM, Event(), rate=10_000, rows=40)  # fences the dead one, which aborts it
    cut = fixed(at)
    found = TOPIC.measure(at, CLICK_STREAM, cut)
    totals = TOPIC.ledger_totals(at, CLICK_STREAM)
    assert found.measure.same_rows(totals.delivered)
    assert found.excluded["replayed"] == totals.replayed
    assert totals.replayed.rows >= 4 * 20 + 40


def test_a_foreign_open_transaction_behind_a_cut_does_not_stop_it(at: Context) -> None:
    """If it failed, somebody else's transaction would stop every check, though it lies behind the cut."""
    chunks = click_chunks(at.settings)
    TOPIC.build(at, CLICK_STREAM)
    cut = fixed(at)
    other = Clients(at.addresses.kafka).producer(f"{at.settings.namespace}.other", lambda *_: None)
    other.init_transactions(20)
    other.begin_transaction()
    other.produce(name(at), b"late", b"k", partition=0)
    other.flush(20)
    found = TOPIC.measure(at, CLICK_STREAM, cut)
    assert (found.measure.rows, found.measure.checksum) == total(chunks)
    other.commit_transaction(20)
    after = TOPIC.measure(at, CLICK_STREAM, fixed(at))
    assert after.excluded["quarantined"].rows == 1


def test_the_lock_costs_little(at: Context) -> None:
    """If it failed, each transaction would wait for a lock longer than for its commit."""
    lock = cuts.TransactionLock(at.settings, CLICK_STREAM)
    began = time.perf_counter()
    for _ in range(1000):
        with lock.transaction():
            pass
    assert (time.perf_counter() - began) / 1000 < 0.0005


def test_producers_cannot_starve_a_cut(at: Context) -> None:
    """If it failed, overlapping transactions of several processes would keep a cut waiting for ever."""
    lock = cuts.TransactionLock(at.settings, CLICK_STREAM)
    stop, done = Event(), []

    def overlap() -> None:
        mine = cuts.TransactionLock(at.settings, CLICK_STREAM)
        while not stop.is_set():
            with mine.transaction():
                stop.wait(0.05)
                done.append(1)

    threads = [Thread(target=overlap) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            began = time.monotonic()
            with lock.cut():
                before = len(done)
                time.sleep(0.05)
                assert len(done) == before, "nobody is in"
            assert time.monotonic() - began < 1
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)


def test_workers_hold_the_lock_in_their_processes(at: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it failed, a cut during a build by several processes would split their transactions."""
    monkeypatch.setattr(producer, "TRANSACTION_CHUNKS", 1)
    several = at.settings.model_copy(update={"producers": 2})
    chunks = click_chunks(several, count=60, rows=100)
    with context(several, at.addresses) as there:
        build = Thread(target=lambda: TOPIC.build(there, CLICK_STREAM))
        build.start()
        seen = []
        while build.is_alive():
            cut = fixed(there)
            found = TOPIC.measure(there, CLICK_STREAM, cut)
            seen.append(found.measure.rows)
            assert found.measure.rows % 100 == 0, "whole chunks only"
            assert found.measure.rows == 100 * sum(1 for _ in _entries(there, cut))
            time.sleep(0.05)
        build.join()
        assert TOPIC.measure(there, CLICK_STREAM, fixed(there)).measure.rows == total(chunks)[0]


def _entries(at: Context, cut: Cut) -> Iterator[ledger.LedgerEntry]:
    book = ledger.topic_of(CLICK_STREAM, at.settings.namespace)
    return ledger.entries(Clients(at.addresses.kafka), book, 0, cut.ledger or 0)
