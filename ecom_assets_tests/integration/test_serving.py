"""Serving on real servers: right numbers, right versions, one computation for many, and servers that go away."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import polars as pl
import psycopg
import pyarrow as pa
import pytest
import redis
from deltalake import DeltaTable, write_deltalake

from ecom_assets.dashboard import figures
from ecom_assets.dashboard.figures import Filter
from ecom_assets.pipeline import expand, merged
from ecom_assets.pipeline.flow import Flow
from ecom_assets.services.stack import Stack
from ecom_assets.serving import analysis, live, lookup, postgres, publication
from ecom_assets.serving.cache import Cache
from ecom_assets.serving.postgres import PostgresError
from ecom_assets.serving.publication import NotPublishedError
from ecom_assets.serving.queries import BadQuestionError, Queries
from ecom_assets.serving.questions import QUESTIONS
from ecom_assets.settings import Settings
from ecom_assets.tables import CLICK_STREAM, PRODUCT, TABLES

EVER = Filter(1900, 2999)
SOME_YEARS = {"first_year": 2018, "last_year": 2020, "category": "Apparel"}


@pytest.fixture
def queries(shop: Settings) -> Iterator[Queries]:
    """The query service on an empty cache."""
    redis.Redis.from_url(shop.redis).flushdb()
    service = Queries(shop)
    yield service
    service.close()


def without_spark(service: Queries) -> Queries:
    """Quick enough to compute hundreds of times."""
    service._no_spark_until = float("inf")
    return service


def raw(settings: Settings, name: str) -> pl.DataFrame:
    """A raw file as text, read by another reader than the project's."""
    frame = pl.read_csv(settings.raw / f"{name}.csv", infer_schema=False, truncate_ragged_lines=True)
    return frame.with_columns(pl.all().replace("NA", None)) if name == "product" else frame


def counted(frame: pl.DataFrame, column: str) -> dict[str, int]:
    """How often each value comes, a null by the name it has on the page."""
    return dict(Counter(v if v is not None else figures.UNKNOWN for v in frame[column].to_list()))


def shown(frame: pl.DataFrame) -> dict[Any, int]:
    """The bars of a chart."""
    return dict(frame.select(frame.columns[:2]).iter_rows())


@pytest.mark.parametrize(
    ("file", "column", "question", "name", "value"),
    [
        ("customer", "gender", "customers", "gender", "customers"),
        ("customer", "device_type", "customers", "device_type", "customers"),
        ("product", "masterCategory", "catalogue", "category", "products"),
        ("product", "subCategory", "catalogue", "subcategory", "products"),
        ("product", "usage", "catalogue", "usage", "products"),
        ("click_stream", "traffic_source", "events", "traffic_source", "events"),
        ("click_stream", "event_name", "events", "event_name", "events"),
        ("transactions", "payment_method", "bookings", "payment_method", "bookings"),
    ],
)
def test_a_chart_shows_the_files_numbers(
    shop: Settings, file: str, column: str, question: str, name: str, value: str
) -> None:
    """If this fails, people see wrong numbers."""
    answer = Queries(shop).snapshot().ask(question)
    assert shown(figures.share(answer.table, name, value, EVER)) == counted(raw(shop, file), column)


def test_ages_years_revenue_and_funnel_are_the_files(shop: Settings) -> None:
    """The charts that take more than counting, computed another way."""
    asked = Queries(shop).snapshot()
    bookings, customers, clicks = raw(shop, "transactions"), raw(shop, "customer"), raw(shop, "click_stream")
    today = max(bookings["created_at"])[:10]
    steps = Counter(
        (int(today[:4]) - int(b[:4]) - (today[5:] < b[5:])) // 5 * 5 for b in customers["birthdate"].to_list()
    )
    assert shown(figures.ages(asked.customers().table)) == steps
    assert shown(figures.per_year(asked.bookings().table)) == Counter(int(t[:4]) for t in bookings["created_at"])
    paid = bookings.filter(pl.col("payment_status") == "Success")
    net = paid.select(
        pl.col("total_amount").cast(pl.Int64) + pl.col("promo_amount").cast(pl.Int64)
        - pl.col("shipment_fee").cast(pl.Int64)
    ).sum().item()  # fmt: skip
    assert figures.over_time(asked.revenue().table, EVER)["amount"].sum() == net
    reached = [clicks.filter(pl.col("event_name") == e)["session_id"].n_unique() for e in ("HOMEPAGE", "ADD_TO_CART")]
    funnel = figures.funnel(asked.funnel().table, EVER)
    assert funnel["sessions"].to_list()[:2] == reached
    assert (
        funnel["sessions"].to_list()[3]
        == clicks.filter(pl.col("event_metadata").fill_null("").str.contains("'payment_status': 'Success'"))[
            "session_id"
        ].n_unique()
    )
    promo = Counter(c for c in bookings["promo_code"].to_list() if c)
    assert shown(figures.promotions(asked.bookings().table, EVER)) == promo
    assert figures.places(asked.shipments().table, EVER)["bookings"].sum() == bookings.height
    assert figures.count(asked.counts().table, "click_stream") == clicks.height


def test_spark_duckdb_and_postgres_give_the_same_answers(shop: Settings, queries: Queries) -> None:
    """The two ways and the two engines must never contradict one another on a page."""
    published = publication.latest(shop)
    for name, question in QUESTIONS.items():
        asked = {} if not question.parameters else SOME_YEARS
        spark = queries.spark.compute(question, asked, published)
        assert spark.num_rows, name
        assert analysis.same(spark, queries.duckdb.compute(question, asked, published)), name
    loaded = postgres.load(shop, shop.postgres)
    assert {name: done.rows for name, done in loaded.items()} == {name: raw(shop, name).height for name in TABLES}
    assert not any(done.unparsed or done.orphans for done in loaded.values())
    assert postgres.load(shop, shop.postgres) == {}  # the same files again: nothing to do
    with Flow(shop) as flow:
        for name in analysis.ANALYSES:
            result, unchanged = analysis.analyse(flow.spark, shop, shop.postgres, name)
            assert not unchanged
            assert analysis.same(result.table, queries.duckdb.compute(QUESTIONS[name], {}, published)), name
            assert analysis.analyse(flow.spark, shop, shop.postgres, name)[1]
            analysis.keep(name, shop, shop.redis)
    kept, left = queries.cache.get(f"analysis:{name}")
    assert kept
    assert kept.table == result.table
    assert 0 < left <= analysis.TTL


def test_the_second_time_redis_answers_and_a_flush_costs_time_alone(shop: Settings, queries: Queries) -> None:
    """An emptied cache may slow a page down, never break or change it."""
    without_spark(queries)
    first, second = queries.snapshot().counts(), queries.snapshot().counts()
    assert (first.source, second.source, second.computed_by) == ("DuckDB", "Redis", "DuckDB")
    assert second.table == first.table
    assert second.hit_ratio == 0.5
    redis.Redis.from_url(shop.redis).flushdb()
    third = queries.snapshot().counts()
    assert (third.source, third.table) == ("DuckDB", first.table)


def test_of_many_who_miss_one_computes(shop: Settings) -> None:
    """Without this, a hundred open pages start a hundred Spark jobs when data is published."""
    redis.Redis.from_url(shop.redis).flushdb()
    computed = []

    def compute() -> tuple[pa.Table, str, bool]:
        computed.append(1)
        time.sleep(0.3)
        return pa.table({"n": [1]}), "test", True

    # Caches of their own, as if in as many processes.
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: Cache(shop.redis, "many").answer("k", compute), range(12)))
    assert len(computed) == 1
    assert Counter(a.source for a in answers) == {"test": 1, "Redis": 11}


def test_readers_never_see_a_mix_of_versions(shop: Settings, queries: Queries) -> None:
    """A publication while pages are read: each page shows all of one version, and in the end the new one."""
    without_spark(queries)
    folder = merged.folder(PRODUCT, shop)
    rows = pa.table(DeltaTable(str(folder)).to_pyarrow_table())
    sizes = {rows.num_rows}
    stop = threading.Event()
    pages: list[tuple[int, int, int]] = []

    def read() -> None:
        while not stop.is_set():
            asked = queries.snapshot()
            counts = figures.count(asked.counts().table, "product")
            catalogue = figures.share(asked.catalogue().table, "category", "products")["products"].sum()
            usage = figures.share(asked.catalogue().table, "usage", "products")["products"].sum()
            pages.append((counts, int(catalogue), int(usage)))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    try:
        for less in range(1, 6):
            write_deltalake(str(folder), rows.slice(less * 5), mode="overwrite")
            time.sleep(0.2)  # written, not published: nobody may see it
            publication.publish(shop)
            sizes.add(rows.num_rows - less * 5)
            time.sleep(0.2)
    finally:
        stop.set()
        for reader in readers:
            reader.join()
        write_deltalake(str(folder), rows, mode="overwrite")
        publication.publish(shop)
    assert all(len(set(page)) == 1 for page in pages), "a page mixed two versions"
    assert {page[0] for page in pages} <= sizes
    assert len({page[0] for page in pages}) > 2
    assert figures.count(queries.snapshot().counts().table, "product") == rows.num_rows


def test_without_redis_answers_are_slower_and_the_same(shop: Settings, queries: Queries) -> None:
    """A cache that is down must not take the pages with it."""
    without_spark(queries)
    expected = queries.snapshot().catalogue().table
    alone = without_spark(Queries(shop.model_copy(update={"redis": "redis://127.0.0.1:1/0"})))
    began = time.monotonic()
    answers = [alone.snapshot().catalogue() for _ in range(3)]
    assert {a.source for a in answers} == {"DuckDB"}
    assert all(a.table == expected for a in answers)
    assert time.monotonic() - began < 10


def test_without_spark_duckdb_answers(shop: Settings, queries: Queries) -> None:
    """A page must not depend on the biggest of the servers."""
    alone = Queries(shop.model_copy(update={"spark": "sc://127.0.0.1:1", "redis": "redis://127.0.0.1:1/0"}))
    answer = alone.snapshot().catalogue()
    assert answer.source == "DuckDB"
    assert analysis.same(answer.table, without_spark(queries).snapshot().catalogue().table)


def test_a_customer_and_a_session_are_the_files(shop: Settings, queries: Queries) -> None:
    """The look-up must show all orders of a customer, the latest first, and a session in the order of time."""
    bookings, clicks = raw(shop, "transactions"), raw(shop, "click_stream")
    number = bookings["customer_id"].mode().sort()[0]
    own = bookings.filter(pl.col("customer_id") == number).sort("created_at", descending=True)
    orders = queries.snapshot().orders_of(number)
    assert orders.source == "HBase"
    assert orders.table["booking_id"].to_pylist() == own["booking_id"].to_list()
    assert orders.table["product_metadata"].to_pylist() == own["product_metadata"].to_list()
    assert queries.snapshot().orders_of(number).source == "Redis"
    session = own["session_id"][0]
    events = queries.snapshot().events_of(session).table
    expected = clicks.filter(pl.col("session_id") == session).sort("event_time", "event_id")
    assert events["event_id"].to_pylist() == expected["event_id"].to_list()
    (row,) = queries.snapshot().customer(number).table.to_pylist()
    assert row == raw(shop, "customer").filter(pl.col("customer_id") == number).to_dicts()[0]
    with Flow(shop) as flow:
        assert lookup.prove_index(flow) == []
    assert lookup.examples(shop, queries.addresses).keys() == {"customer", "session"}


def test_what_hbase_says_while_it_is_loaded_is_not_kept(shop: Settings, queries: Queries) -> None:
    """HBase has no versions: an answer from the middle of a load would stay for a week."""
    asked = queries.snapshot()
    path = shop.manifests / "hbase" / "transactions.build.json"
    before = path.read_text()
    try:
        path.write_text('{"inputs": "2", "route": "stream"}')
        assert [asked.orders_of("1").source for _ in range(2)] == ["HBase", "HBase"]
    finally:
        path.write_text(before)
    assert [asked.orders_of("1").source for _ in range(2)] == ["HBase", "Redis"]


def test_bad_questions_are_told(shop: Settings, queries: Queries, settings: Settings) -> None:
    """A wrong id, a missing table, an empty home: a sentence that says what and what to do."""
    asked = queries.snapshot()
    for ask, text in ((asked.orders_of, "12; DROP"), (asked.customer, ""), (asked.events_of, "a|b")):
        with pytest.raises(BadQuestionError, match=r"expected a .* such as"):
            ask(text)
    assert asked.customer("999999999").table.num_rows == 0
    assert asked.events_of("none").table.num_rows == 0
    with pytest.raises(NotPublishedError, match="`ecom run`"):
        Queries(settings).snapshot()
    bulk_only = dataclasses.replace(asked.published, merged=dict.fromkeys(TABLES, ""))
    with pytest.raises(NotPublishedError, match="no merged table"):
        queries.duckdb.compute(QUESTIONS["catalogue"], {}, bulk_only)
    gone = dataclasses.replace(asked.published, merged=asked.published.merged | {"product": "other@0"})
    with pytest.raises(NotPublishedError, match="not there any more"):
        queries.duckdb.compute(QUESTIONS["catalogue"], {}, gone)
    elsewhere = shop.model_copy(update={"namespace": "nowhere"})
    with pytest.raises(lookup.LookupUnavailableError, match="holds no table nowhere_customers"):
        lookup.customer("1", elsewhere, queries.addresses)
    with pytest.raises(PostgresError, match="holds no table"):
        list(postgres.parts(shop.postgres, PRODUCT, elsewhere, 2))


def test_live_tells_the_newest_records(shop: Settings) -> None:
    """The live page reads logs and the newest file alone, and must still be right."""
    stream = live.stream(CLICK_STREAM, shop)
    assert stream
    assert stream.rows == raw(shop, "click_stream").height
    (last,) = live.last_records(CLICK_STREAM, shop, 1)
    assert last["_offset"] == stream.rows - 1
    assert last["event_id"] == raw(shop, "click_stream")["event_id"][-1]
    assert live.topic_newest(CLICK_STREAM, shop, shop.kafka) is None


def test_postgres_killed_mid_copy_keeps_the_old_tables(shop: Settings, stack: Stack) -> None:
    """A load that dies must leave the tables from before, whole, and the next one must succeed."""
    postgres.load(shop, shop.postgres)
    before = postgres.version(shop.postgres, shop)
    rows = raw(shop, "product").height
    file = expand.files(PRODUCT, shop)[0]
    os.utime(file)  # other files, as far as the loader can tell
    (pid,) = [s.pid for s in stack.status() if s.service == "postgres"]
    assert pid

    def kill(table: str, _: int) -> None:
        if table == "click_stream":
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(PostgresError, match="the tables from before are untouched"):
        postgres.load(shop, shop.postgres, kill)
    stack.up()
    assert postgres.version(shop.postgres, shop) == before
    with psycopg.connect(shop.postgres) as connection:
        assert connection.execute("SELECT count(*) FROM shop.product").fetchone() == (rows,)
    assert postgres.load(shop, shop.postgres)["product"].rows == rows
    assert postgres.version(shop.postgres, shop) != before


def test_thrift_restarted_under_a_look_up(shop: Settings, stack: Stack, queries: Queries) -> None:
    """While it is gone a sentence says so; once it is back the same service goes on."""
    (pid,) = [s.pid for s in stack.status() if s.service == "thrift"]
    assert pid
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(lookup.LookupUnavailableError, match="`ecom up` starts them"):
        queries.snapshot().orders_of("2")
    assert time.monotonic() - began < 15
    stack.up()
    assert queries.snapshot().orders_of("2").source == "HBase"
