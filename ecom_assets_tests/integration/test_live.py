"""The Kafka edge on the real stack: what the sensors see, a producer that never ends, and a stream that never ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from threading import Event, Thread

import dagster as dg
import pytest

from ecom_assets.core.engine import Engine
from ecom_assets.core.errors import TopicError
from ecom_assets.core.settings import Settings, remember
from ecom_assets.core.settings import load as load_settings
from ecom_assets.dataset.model import Table
from ecom_assets.definitions import defs
from ecom_assets.defs import jobs, state
from ecom_assets.defs.names import Names
from ecom_assets.defs.resources.hbase import HBaseResource
from ecom_assets.defs.resources.home import HomeResource, home_resource
from ecom_assets.defs.resources.kafka import KafkaResource
from ecom_assets.defs.resources.spark import SparkConnectResource
from ecom_assets.lake import delta, follow, live_days, query, streamed
from ecom_assets.lake.query import Place
from ecom_assets.paths import INGESTION, TOPIC, engine, open_home
from ecom_assets.reconcile import report
from ecom_assets.servers.stack import Stack
from ecom_assets.serving import live as page
from ecom_assets_tests.shop import settings_for
from ecom_assets_tests.tables import CLICK_STREAM, PRODUCT, SHOP, TABLES


@pytest.fixture(scope="module")
def live(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    made = settings_for(tmp_path_factory.mktemp("live"), stack.addresses(), "live").model_copy(update={"scale": 0.0005})
    remember(made)
    return made


@pytest.fixture(scope="module")
def stream(live: Settings) -> Iterator[Engine]:
    with open_home(live) as at:
        yield engine(at, "stream")


@pytest.fixture
def resource(live: Settings, monkeypatch: pytest.MonkeyPatch) -> HomeResource:
    """The home as Dagster gives it to a sensor."""
    for name in ("kafka", "spark", "hbase_thrift", "hbase_zookeeper", "postgres", "redis", "namespace", "home"):
        monkeypatch.setenv(f"ECOM_{name.upper()}", str(getattr(live, name)))
    systems = {"kafka": KafkaResource(), "spark": SparkConnectResource(), "hbase": HBaseResource()}
    return home_resource(load_settings, SHOP)(**systems)


def tick(sensor: str, resource: HomeResource, cursor: str | None = None) -> dg.SensorExecutionData:
    loaded = defs()
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(instance, cursor=cursor, definitions=loaded, resources={"home": resource}) as context,
    ):
        began = time.monotonic()
        ticked = loaded.resolve_sensor_def(sensor).evaluate_tick(context)
        assert time.monotonic() - began < 5, "a sensor must not keep the daemon waiting"
        return ticked


def build(stream: Engine, *layers: str) -> None:
    for layer in layers:
        for table in TABLES.values():
            stream.build(layer, table)


def live_rows(stream: Engine, table: Table) -> int:
    """Rows of other producers that were counted, of all days."""
    return sum(each.rows for each in live_days.days(stream.at.books, table.name).values())


def test_the_sensors_follow_the_records(stream: Engine, resource: HomeResource) -> None:
    """If this fails, records stay in Kafka until somebody clicks, or tables are published half."""
    assert "start the job" in str(tick("due_files", resource).skip_message)
    assert "chunked and produced" in str(tick("unpublished_versions", resource).skip_message)

    build(stream, "raw")
    (requested,) = tick("due_files", resource).run_requests or []
    assert {key.path[0] for key in requested.asset_selection or []} == set(INGESTION)
    build(stream, *INGESTION)
    assert "every file is in the topics" in str(tick("due_files", resource).skip_message)
    (requested,) = tick("unread_records", resource).run_requests or []
    assert {key.path[-1] for key in requested.asset_selection or []} == set(TABLES)
    seen = state.progress(stream.at)["click_stream"]
    assert seen.offsets
    assert f"{CLICK_STREAM.topic(stream.at.settings.namespace)}[0] to {seen.offsets.ends[0]}" in str(requested.run_key)
    assert "offsets are not streamed yet" in str(tick("unpublished_versions", resource).skip_message)
    observed = {e.asset_key.path[-1]: e.metadata for e in tick("topic_observations", resource).asset_events}
    assert observed["click_stream"]["rows"].value == seen.expected
    assert observed["click_stream"]["unread_offsets"].value > 0

    build(stream, "streamed")
    assert "every committed record is in Delta" in str(tick("unread_records", resource).skip_message)
    (requested,) = tick("unpublished_versions", resource).run_requests or []
    assert {key.path[0] for key in requested.asset_selection or []} == {"merged", "hbase", "reconciliation", "serving"}

    build(stream, "merged", "hbase")
    (requested,) = tick("unpublished_versions", resource).run_requests or []
    assert {key.path[0] for key in requested.asset_selection or []} == {"reconciliation", "serving"}


def test_a_shop_that_never_closes(stream: Engine, live: Settings) -> None:
    """If this fails, a live stream loses or doubles rows, or the report does not know what was sent again."""
    table = CLICK_STREAM
    stop, sent = Event(), Event()
    seen: list[follow.Live] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            follow.follow(stream.at, [table], TOPIC, interval=1, stop=stop, report=seen.extend)
        except BaseException as error:  # noqa: BLE001  raised in the test's own thread
            failed.append(error)

    before = delta.records(streamed.folder(table, live))
    follower = Thread(target=run)
    follower.start()
    done = TOPIC.simulate(stream.at, table, sent, rate=2000, rows=5000)
    assert done.rows >= 5000
    assert done.seconds > 1.5, "a rate is a rate"
    deadline = time.monotonic() + 60
    while not failed and not (seen and seen[-1].new == done.rows and not seen[-1].lag):
        assert time.monotonic() < deadline, seen[-1:]
        time.sleep(0.2)
    assert streamed.is_followed(table, live)
    assert stream.build("streamed", table).rows == 0, "the bounded build waits for the other, and finds nothing"
    stop.set()
    follower.join(30)
    assert not failed
    assert not streamed.is_followed(table, live)
    assert delta.records(streamed.folder(table, live)) == before + done.rows

    assert stream.due("merged", table)
    for layer in ("merged", "hbase"):
        stream.build(layer, table)
    ((_, verdict),) = report.reconcile(stream, [table])
    assert verdict.ok, verdict.mismatches
    found = {m.layer: m for m in verdict.measurements}
    assert found["topic"].excluded["replayed"].rows == done.rows
    assert found["merged"].excluded["duplicates"].rows == done.rows
    assert found["hbase"].measure.same_rows(found["raw"].measure)


def test_it_is_reconciled_while_a_producer_and_a_stream_work(stream: Engine) -> None:
    """If this fails, checks compare two moments, fail, and have sound layers rebuilt."""
    table, stop, failed = CLICK_STREAM, Event(), []

    def guarded(work: Callable[[], object]) -> Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  raised in the test's own thread
                failed.append(error)

        thread = Thread(target=run)
        thread.start()
        return thread

    threads = [
        guarded(lambda: TOPIC.simulate(stream.at, table, stop, rate=1000)),
        guarded(lambda: follow.follow(stream.at, [table], TOPIC, interval=1, stop=stop, report=lambda _: None)),
    ]
    checkpoint = Place.of(table, stream.at.settings).checkpoint / "metadata"
    try:
        pending = []
        for _ in range(2):
            for layer in ("merged", "hbase"):
                stream.build(layer, table)
                verified = stream.verify(layer, table)
                assert not verified.mismatches, verified.mismatches
            assert not stream.verify("streamed", table).mismatches
            assert not stream.verify("topic", table).mismatches
            ((_, verdict),) = report.reconcile(stream, [table])
            assert verdict.ok, verdict.mismatches
            topic = next(m for m in verdict.measurements if m.layer == "topic")
            pending.append(topic.excluded["pending"].rows)
            assert not failed, failed
        assert any(pending), "records came in behind the cut"
        kept = checkpoint.read_text()
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not failed, failed
    assert checkpoint.read_text() == kept


def test_the_job_that_follows_topics(stream: Engine, live: Settings, resource: HomeResource) -> None:
    """If this fails, the live stream that Dagster runs brings in nothing, ends too late, or counts no live rows."""
    stream.build("streamed", CLICK_STREAM)  # what earlier tests have left in the topic
    before, counted = delta.records(streamed.folder(CLICK_STREAM, live)), live_rows(stream, CLICK_STREAM)
    done = TOPIC.simulate(stream.at, CLICK_STREAM, Event(), rate=2000, rows=1000, fresh=True)
    config = jobs.Following(interval=1, minutes=0.25, tables=[CLICK_STREAM.name])
    with dg.DagsterInstance.ephemeral() as instance:
        ended = jobs.follow_job(Names(), dg.in_process_executor).execute_in_process(
            instance=instance, run_config=dg.RunConfig({"topics_followed": config}), resources={"home": resource}
        )
    assert ended.success
    assert not streamed.is_followed(CLICK_STREAM, live)
    assert delta.records(streamed.folder(CLICK_STREAM, live)) == before + done.rows
    assert live_rows(stream, CLICK_STREAM) == counted + done.rows


def test_the_live_page_tells_how_far_the_table_is_behind(stream: Engine, live: Settings) -> None:
    """If this fails, a stream that stands still looks as if it were up to date, or the other way round."""
    table, kafka = CLICK_STREAM, stream.at.addresses.kafka

    def seen() -> tuple[page.Stream, float]:
        stream, newest = page.stream(table, live), page.topic_newest(table, live, kafka)
        assert stream
        assert stream.newest
        assert newest
        return stream, (newest - stream.newest).total_seconds()

    stream.build("streamed", table)
    before, lag = seen()
    assert lag == 0
    done = TOPIC.simulate(stream.at, table, Event(), rate=2000, rows=300)
    behind, lag = seen()
    assert behind.rows == before.rows
    assert lag > 0
    stream.build("streamed", table)
    after, lag = seen()
    assert lag == 0
    assert after.rows == before.rows + done.rows
    assert sum(rows for at, rows in after.commits if at > before.commits[-1][0]) == done.rows
    now = datetime.now(UTC)
    assert after.rate(now) * 60 >= done.rows
    assert after.rate(now + timedelta(minutes=2)) == 0
    last = page.last_records(table, live, 5)
    assert last[0]["_timestamp"] == after.newest
    assert [r["_timestamp"] for r in last] == sorted((r["_timestamp"] for r in last), reverse=True)


def test_a_simulation_begins_where_it_is_told(stream: Engine, live: Settings) -> None:
    """If this fails, a mistyped chunk starts from the beginning without a word."""
    with pytest.raises(TopicError, match=r"expected a chunk part-999999\.csv, got \d+ chunks from part-000000\.csv"):
        TOPIC.simulate(stream.at, PRODUCT, Event(), rate=10, start="part-999999.csv")


def test_a_topic_that_was_created_again_is_not_skipped(stream: Engine, live: Settings) -> None:
    """If this fails, a topic that lost its records passes for one that was read."""
    ends = TOPIC.offsets(stream.at, [PRODUCT])["product"].ends
    place, topic = Place.of(PRODUCT, live), TOPIC.stored_as(live, PRODUCT)
    assert query.unread(place, PRODUCT, topic, ends) == 0
    assert query.unread(place, PRODUCT, topic, dict.fromkeys(ends, 0)) > 0
