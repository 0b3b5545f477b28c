"""The Kafka edge on the real stack: what the sensors see, a producer that never ends, and a stream that never ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from threading import Event, Thread

import dagster as dg
import pytest

from ecom_assets.core.settings import Settings, remember
from ecom_assets.dataset.shop import CLICK_STREAM, PRODUCT, TABLES
from ecom_assets.defs import jobs, sensors
from ecom_assets.defs.resources.hbase import HBaseResource
from ecom_assets.defs.resources.home import HomeResource
from ecom_assets.defs.resources.kafka import KafkaResource
from ecom_assets.defs.resources.spark import SparkConnectResource
from ecom_assets.flow import Flow
from ecom_assets.kafka import topic
from ecom_assets.lake import merged, streamed
from ecom_assets.servers.stack import Stack
from ecom_assets.serving import live as page
from ecom_assets_tests.shop import settings_for


@pytest.fixture(scope="module")
def live(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    made = settings_for(tmp_path_factory.mktemp("live"), stack.addresses(), "live").model_copy(update={"scale": 0.0005})
    remember(made)
    return made


@pytest.fixture(scope="module")
def flow(live: Settings) -> Iterator[Flow]:
    with Flow(live) as flow:
        yield flow


@pytest.fixture
def resource(live: Settings, monkeypatch: pytest.MonkeyPatch) -> HomeResource:
    """The home as Dagster gives it to a sensor."""
    for name in ("kafka", "spark", "hbase_thrift", "hbase_zookeeper", "postgres", "redis", "namespace", "home"):
        monkeypatch.setenv(f"ECOM_{name.upper()}", str(getattr(live, name)))
    return HomeResource(kafka=KafkaResource(), spark=SparkConnectResource(), hbase=HBaseResource())


def tick(sensor: dg.SensorDefinition, resource: HomeResource, cursor: str | None = None) -> dg.SensorExecutionData:
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(instance, cursor=cursor, resources={"home": resource}) as context,
    ):
        began = time.monotonic()
        told = sensor.evaluate_tick(context)
        assert time.monotonic() - began < 5, "a sensor must not keep the daemon waiting"
        return told


def test_the_sensors_follow_the_records(flow: Flow, resource: HomeResource) -> None:
    """If this fails, records lie in Kafka until somebody clicks, or tables are published half."""
    assert "chunked and produced" in str(tick(sensors.finished_ingestions, resource).skip_message)

    flow.acquire()
    for layer in ("expanded", "chunked", "topic"):
        for table in TABLES.values():
            flow.build(layer, table)
    (asked,) = tick(sensors.unread_records, resource).run_requests or []
    assert {key.path[-1] for key in asked.asset_selection or []} == set(TABLES)
    position = flow.standings()["click_stream"].position
    assert position is not None
    assert f"{CLICK_STREAM.topic(flow.settings.namespace)}[0] to {position.ends[0]}" in str(asked.run_key)
    assert "offsets of the topic are not streamed yet" in str(tick(sensors.finished_ingestions, resource).skip_message)
    seen = tick(sensors.topic_observations, resource)
    told = {e.asset_key.path[-1]: e.metadata for e in seen.asset_events}
    assert told["click_stream"]["rows"].value == flow.standings()["click_stream"].due
    assert told["click_stream"]["unread_offsets"].value > 0

    for table in TABLES.values():
        flow.build("streamed", table)
    assert "every committed record is in Delta" in str(tick(sensors.unread_records, resource).skip_message)
    (asked,) = tick(sensors.finished_ingestions, resource).run_requests or []
    assert {key.path[0] for key in asked.asset_selection or []} == {"merged", "hbase"}

    for layer in ("merged", "hbase"):
        for table in TABLES.values():
            flow.build(layer, table)
    done = tick(sensors.finished_ingestions, resource)
    assert "published" in str(done.skip_message)
    assert done.cursor, "the goal is reached, whoever reached it"


def test_a_shop_that_never_closes(flow: Flow, live: Settings) -> None:
    """If this fails, a live stream loses or doubles rows, or the proof does not know what was sent again."""
    table, kafka = CLICK_STREAM, flow.addresses.kafka
    stop, sent = Event(), Event()
    told: list[streamed.Live] = []
    failed: list[BaseException] = []

    def follow() -> None:
        try:
            streamed.follow(flow.spark, [table], live, kafka, interval=1, stop=stop, tell=told.extend)
        except BaseException as error:  # noqa: BLE001  told in the test's own thread
            failed.append(error)

    before = streamed.records(streamed.folder(table, live))
    follower = Thread(target=follow)
    follower.start()
    done = topic.simulate(table, live, kafka, 2000, sent, rows=5000)
    assert done.rows >= 5000
    assert done.seconds > 1.5, "a rate is a rate"
    deadline = time.monotonic() + 60
    while not failed and not (told and told[-1].new == done.rows and not told[-1].lag):
        assert time.monotonic() < deadline, told[-1:]
        time.sleep(0.2)
    assert streamed.is_followed(table, live)
    assert flow.build("streamed", table).rows == 0, "the bounded way waits for the other, and finds nothing"
    stop.set()
    follower.join(30)
    assert not failed
    assert not streamed.is_followed(table, live)
    assert streamed.records(streamed.folder(table, live)) == before + done.rows

    assert merged.due(table, live)
    for layer in ("merged", "hbase"):
        flow.build(layer, table)
    ((_, verdict),) = flow.reconcile(tables=[table.name])
    assert verdict.ok, verdict.faults
    proofs = {p.layer: p for p in verdict.proofs}
    assert proofs["topic"].aside["replayed"].rows == done.rows
    assert proofs["merged"].aside["duplicates"].rows == done.rows
    assert proofs["hbase"].measure.same_rows(proofs["raw"].measure)


def test_the_job_that_follows_topics(flow: Flow, live: Settings, resource: HomeResource) -> None:
    """If this fails, the live stream that Dagster runs brings in nothing, or does not end when it should."""
    before = streamed.records(streamed.folder(CLICK_STREAM, live))
    done = topic.simulate(CLICK_STREAM, live, flow.addresses.kafka, 2000, Event(), rows=1000)
    config = jobs.Following(interval=1, minutes=0.25, tables=[CLICK_STREAM.name])
    with dg.DagsterInstance.ephemeral() as instance:
        ended = jobs.follow.execute_in_process(
            instance=instance, run_config=dg.RunConfig({"topics_followed": config}), resources={"home": resource}
        )
    assert ended.success
    assert not streamed.is_followed(CLICK_STREAM, live)
    assert streamed.records(streamed.folder(CLICK_STREAM, live)) == before + done.rows


def test_the_live_page_tells_how_far_the_table_is_behind(flow: Flow, live: Settings) -> None:
    """If this fails, a stream that stands still looks as if it were up to date, or the other way round."""
    table, kafka = CLICK_STREAM, flow.addresses.kafka

    def seen() -> tuple[page.Stream, float]:
        stream, newest = page.stream(table, live), page.topic_newest(table, live, kafka)
        assert stream
        assert stream.newest
        assert newest
        return stream, (newest - stream.newest).total_seconds()

    flow.build("streamed", table)
    before, lag = seen()
    assert lag == 0
    done = topic.simulate(table, live, kafka, 2000, Event(), rows=300)
    behind, lag = seen()
    assert behind.rows == before.rows
    assert lag > 0
    flow.build("streamed", table)
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


def test_a_simulation_begins_where_it_is_told(flow: Flow, live: Settings) -> None:
    """If this fails, a mistyped chunk starts from the beginning without a word."""
    with pytest.raises(ValueError, match=r"expected a chunk part-999999\.csv, got \d+ chunks from part-000000\.csv"):
        topic.simulate(PRODUCT, live, flow.addresses.kafka, 10, Event(), start="part-999999.csv")


def test_a_topic_made_anew_behind_our_back_is_not_skipped(flow: Flow, live: Settings) -> None:
    """If this fails, a topic that lost its records passes for one that was read."""
    standing = flow.standings()["product"].position
    assert standing is not None
    assert streamed.unread(PRODUCT, live, standing.ends) == 0
    assert streamed.unread(PRODUCT, live, dict.fromkeys(standing.ends, 0)) > 0
