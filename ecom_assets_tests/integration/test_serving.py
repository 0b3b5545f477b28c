"""Serving on real servers: right numbers, right versions, one computation for many, and servers that go away."""

from __future__ import annotations

import ast
import dataclasses
import math
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import psutil
import psycopg
import pyarrow as pa
import pytest
import redis
from deltalake import DeltaTable, write_deltalake

from ecom_assets.core.errors import OwnedError
from ecom_assets.core.location import local
from ecom_assets.core.ownership import Owner
from ecom_assets.core.settings import Settings
from ecom_assets.core.settings import load as load_settings
from ecom_assets.csv import expand
from ecom_assets.dashboard import figures
from ecom_assets.dashboard.figures import Choice
from ecom_assets.dataset.chart import Bars
from ecom_assets.defs.assets.serving import serving_assets
from ecom_assets.defs.names import Names
from ecom_assets.defs.resources.hbase import HBaseResource
from ecom_assets.defs.resources.home import HomeResource, home_resource
from ecom_assets.defs.resources.kafka import KafkaResource
from ecom_assets.defs.resources.spark import SparkConnectResource
from ecom_assets.lake import merge
from ecom_assets.paths import HBASE, open_home
from ecom_assets.servers.stack import Stack
from ecom_assets.serving import analysis, index, live, lookup, postgres, publication
from ecom_assets.serving import queries as queries_module
from ecom_assets.serving.cache import Cache
from ecom_assets.serving.engines import size
from ecom_assets.serving.postgres import PostgresError
from ecom_assets.serving.publication import NotPublishedError
from ecom_assets.serving.queries import BadQuestionError, Queries, Snapshot
from ecom_assets_tests.tables import CLICK_STREAM, CUSTOMER, ORDERS, PRODUCT, SHOP, TABLES

YEARS, CATEGORY = "Years", "Category of products"
"""The filters of the shop's overview."""

EVER: Choice = {YEARS: (1900, 2999)}
CHOICES: dict[str, Choice] = {
    "all": EVER,
    "some years": {YEARS: (2018, 2020)},
    "one category": {YEARS: (1900, 2999), CATEGORY: "Footwear"},
    "both": {YEARS: (2019, 2021), CATEGORY: "Apparel"},
    "no year with data": {YEARS: (1901, 1902), CATEGORY: "Apparel"},
}


@pytest.fixture
def resource(shop: Settings, monkeypatch: pytest.MonkeyPatch) -> HomeResource:
    """The shop's home as Dagster gives it to an asset."""
    for name in ("kafka", "spark", "hbase_thrift", "hbase_zookeeper", "postgres", "redis", "namespace", "home"):
        monkeypatch.setenv(f"ECOM_{name.upper()}", str(getattr(shop, name)))
    systems = {"kafka": KafkaResource(), "spark": SparkConnectResource(), "hbase": HBaseResource()}
    return home_resource(load_settings, SHOP)(**systems)


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


def frame(asked: Snapshot, question: str, title: str, choice: Choice = EVER) -> pl.DataFrame:
    """What a chart shows."""
    query = SHOP.queries[question]
    return figures.shown(title, query.charts[title], query, figures.chosen(query, asked.ask(question).table, choice))


def shown(asked: Snapshot, question: str, title: str, choice: Choice = EVER) -> dict[Any, int]:
    """The bars of a chart."""
    return dict(frame(asked, question, title, choice).select(pl.nth(0, 1)).iter_rows())


@pytest.mark.parametrize(
    ("file", "column", "question", "title"),
    [
        ("customer", "gender", "customers", "Gender"),
        ("customer", "device_type", "customers", "Device"),
        ("product", "masterCategory", "catalogue", "Master category"),
        ("product", "subCategory", "catalogue", "Sub-category"),
        ("product", "usage", "catalogue", "Usage"),
        ("click_stream", "traffic_source", "events", "Traffic source"),
        ("click_stream", "event_name", "events", "Events by kind"),
        ("transactions", "payment_method", "bookings", "Payment method"),
    ],
)
def test_a_chart_shows_the_files_numbers(shop: Settings, file: str, column: str, question: str, title: str) -> None:
    """If this fails, people see wrong numbers."""
    assert shown(Queries(shop).snapshot(), question, title) == counted(raw(shop, file), column)


def test_ages_years_revenue_and_funnel_are_the_files(shop: Settings) -> None:
    """If this fails, a chart that takes more than counting differs from the same computed another way."""
    asked = Queries(shop).snapshot()
    bookings, customers, clicks = raw(shop, "transactions"), raw(shop, "customer"), raw(shop, "click_stream")
    today = max(bookings["created_at"])[:10]
    steps = Counter(
        (int(today[:4]) - int(b[:4]) - (today[5:] < b[5:])) // 5 * 5 for b in customers["birthdate"].to_list()
    )
    assert shown(asked, "customers", "Age") == steps
    assert shown(asked, "bookings", "Transactions per year") == Counter(int(t[:4]) for t in bookings["created_at"])
    paid = bookings.filter(pl.col("payment_status") == "Success")
    net = paid.select(
        pl.col("total_amount").cast(pl.Int64) + pl.col("promo_amount").cast(pl.Int64)
        - pl.col("shipment_fee").cast(pl.Int64)
    ).sum().item()  # fmt: skip
    assert sum(shown(asked, "revenue", "Revenue by month").values()) == net
    reached = [clicks.filter(pl.col("event_name") == e)["session_id"].n_unique() for e in ("HOMEPAGE", "ADD_TO_CART")]
    came = frame(asked, "funnel", "From home page to payment")["came"].to_list()
    assert came[:2] == reached
    assert (
        came[3]
        == clicks.filter(pl.col("event_metadata").fill_null("").str.contains("'payment_status': 'Success'"))[
            "session_id"
        ].n_unique()
    )
    promo = Counter(c for c in bookings["promo_code"].to_list() if c)
    assert shown(asked, "bookings", "Promotions") == promo
    assert frame(asked, "shipments", "Where bookings are shipped to")["bookings"].sum() == bookings.height
    assert figures.count(asked.ask("counts").table, "click_stream") == clicks.height


def within(time: str, chosen: Choice) -> bool:
    """Whether a moment lies in the years that are chosen."""
    first, last = chosen[YEARS]
    return int(first) <= int(time[:4]) <= int(last)


def sold(settings: Settings, chosen: Choice) -> Iterator[tuple[dict[str, str], dict[str, str], dict[str, int]]]:
    """Paid items of the files that a choice takes: the booking, the product, and the item."""
    products = {row["id"]: row for row in raw(settings, "product").to_dicts()}
    for booking in raw(settings, "transactions").to_dicts():
        for item in ast.literal_eval(booking["product_metadata"]):
            product = products.get(str(item["product_id"]), {"masterCategory": None})
            if (
                booking["payment_status"] == "Success"
                and within(booking["created_at"], chosen)
                and chosen.get(CATEGORY, "") in ("", product["masterCategory"])
            ):
                yield booking, product, item


@pytest.mark.parametrize("chosen", CHOICES.values(), ids=CHOICES)
def test_what_was_sold_is_the_files_month_by_month(shop: Settings, chosen: Choice) -> None:
    """If this fails, a filter shows the revenue or the best products of something else than its label."""
    months: Counter[str] = Counter()
    units: Counter[int] = Counter()
    earned: Counter[int] = Counter()
    for booking, _, item in sold(shop, chosen):
        value = item["quantity"] * item["item_price"]
        months[booking["created_at"][:7]] += value
        units[item["product_id"]] += item["quantity"]
        earned[item["product_id"]] += value
    asked = Queries(shop).snapshot()
    revenue = shown(asked, "revenue", "Revenue by month", chosen)
    assert {f"{month:%Y-%m}": amount for month, amount in revenue.items()} == months
    best = sorted(earned, key=lambda number: (-earned[number], number))[:20]
    shown_best = frame(asked, "top_products", "Products that earned most", chosen)
    assert shown_best.select("units", "amount").rows() == [(units[n], earned[n]) for n in best]
    names = {int(row["id"]): row["productDisplayName"] for row in raw(shop, "product").to_dicts()}
    assert shown_best["name"].to_list() == [names[n] for n in best]


@pytest.mark.parametrize("chosen", CHOICES.values(), ids=CHOICES)
def test_every_filtered_chart_is_the_files(shop: Settings, chosen: Choice) -> None:
    """If this fails, the years that a person chose are not those that the charts show."""
    asked = Queries(shop).snapshot()
    bookings = [b for b in raw(shop, "transactions").to_dicts() if within(b["created_at"], chosen)]
    clicks = raw(shop, "click_stream").to_dicts()
    years = shown(asked, "bookings", "Transactions per year", chosen)
    assert years == Counter(int(b["created_at"][:4]) for b in bookings)
    methods = Counter(b["payment_method"] for b in bookings)
    assert shown(asked, "bookings", "Payment method", chosen) == methods
    promo = Counter(b["promo_code"] for b in bookings if b["promo_code"])
    assert shown(asked, "bookings", "Promotions", chosen) == promo
    query = SHOP.queries["bookings"]
    promotions, table = query.charts["Promotions"], asked.ask("bookings").table
    assert isinstance(promotions, Bars)
    part = sum(promo.values()) / len(bookings) if bookings else 0.0
    summary = figures.summary(promotions, figures.chosen(query, table, chosen))
    assert summary == {"total": len(bookings), "given": pytest.approx(part)}

    def square(degrees: str) -> float:
        return math.floor(float(degrees) * 2) / 2 + 0.25

    squares = Counter((square(b["shipment_location_lat"]), square(b["shipment_location_long"])) for b in bookings)
    places = frame(asked, "shipments", "Where bookings are shipped to", chosen)
    places = places.select("latitude", "longitude", "bookings")
    assert {(latitude, longitude): n for latitude, longitude, n in places.iter_rows()} == squares

    for column, title in {"event_name": "Events by kind", "traffic_source": "Traffic source"}.items():
        counted_ = Counter(c[column] for c in clicks if within(c["event_time"], chosen))
        assert shown(asked, "events", title, chosen) == counted_
    begun: dict[str, str] = {}
    reached: dict[str, set[str]] = {step: set() for step in ("HOMEPAGE", "ADD_TO_CART", "BOOKING", "paid")}
    for click in clicks:
        session = click["session_id"]
        begun[session] = min(begun.get(session, "9"), click["event_time"])
        reached.setdefault(click["event_name"], set()).add(session)
        if click["event_name"] == "BOOKING" and "'Success'" in (click["event_metadata"] or ""):
            reached["paid"].add(session)
    inside = {session for session, time in begun.items() if within(time, chosen)}
    steps = [len(reached[step] & inside) for step in ("HOMEPAGE", "ADD_TO_CART", "BOOKING", "paid")]
    funnel = frame(asked, "funnel", "From home page to payment", chosen)
    assert funnel["came"].to_list() == steps
    assert funnel["share"].to_list() == pytest.approx([n / len(inside) if inside else 0.0 for n in steps])
    goods = [p for p in raw(shop, "product").to_dicts() if chosen.get(CATEGORY, "") in ("", p["masterCategory"])]
    usage = Counter(p["usage"] or figures.UNKNOWN for p in goods)
    assert shown(asked, "catalogue", "Usage", chosen) == usage


def test_spark_duckdb_and_postgres_give_the_same_answers(shop: Settings, queries: Queries) -> None:
    """The two paths and the two engines must never contradict one another on a page."""
    published = publication.latest(shop, queries.books)
    for name, question in SHOP.queries.items():
        spark = queries.spark.compute(question, published)
        assert spark.num_rows, name
        assert analysis.same(spark, queries.duckdb.compute(question, published)), name
    loaded = postgres.load(shop, SHOP, shop.postgres)
    assert {name: done.rows for name, done in loaded.items()} == {name: raw(shop, name).height for name in TABLES}
    assert not any(done.unparsed or done.orphans for done in loaded.values())
    assert postgres.load(shop, SHOP, shop.postgres) == {}  # the same files again: nothing to do
    with open_home(shop) as at:
        for name in SHOP.queries:
            result, unchanged = analysis.analyse(at.spark, shop, SHOP, shop.postgres, name)
            assert not unchanged
            assert analysis.same(result.table, queries.duckdb.compute(SHOP.queries[name], published)), name
            assert analysis.analyse(at.spark, shop, SHOP, shop.postgres, name)[1]
            analysis.keep(name, shop, shop.redis)
    kept, left = queries.cache.get(f"analysis:{name}")
    assert kept
    assert kept.table == result.table
    assert 0 < left <= analysis.TTL


def test_another_home_is_refused_by_postgres_and_redis(shop: Settings, tmp_path: Path) -> None:
    """Two homes of one namespace would replace each other's tables and answers."""
    other = shop.model_copy(update={"home": tmp_path})
    postgres.load(shop, SHOP, shop.postgres)
    with pytest.raises(OwnedError, match=f"(?s)PostgreSQL schema .*{tmp_path}.*{shop.home}"):
        postgres.load(other, SHOP, shop.postgres)
    cache = Cache(shop.redis, shop.namespace)
    redis.Redis.from_url(shop.redis).flushdb()
    for _ in range(2):
        cache.register(Owner.of(shop))
    with pytest.raises(OwnedError, match=f"(?s)Redis keys {shop.namespace}:.*{tmp_path}.*{shop.home}"):
        cache.register(Owner.of(other))
    cache.close()


def test_the_second_time_redis_answers_and_a_flush_costs_time_alone(shop: Settings, queries: Queries) -> None:
    """An emptied cache may slow a page down, never break or change it."""
    without_spark(queries)
    first, second = queries.snapshot().ask("counts"), queries.snapshot().ask("counts")
    assert (first.source, second.source, second.computed_by) == ("DuckDB", "Redis", "DuckDB")
    assert second.table == first.table
    assert second.hit_ratio == 0.5
    redis.Redis.from_url(shop.redis).flushdb()
    third = queries.snapshot().ask("counts")
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


@pytest.mark.parametrize("engine", ["Spark", "DuckDB"])
def test_readers_never_see_a_mix_of_versions(
    shop: Settings, queries: Queries, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publication while pages are read: each page shows all of one version, and in the end the new one."""
    if engine == "DuckDB":
        without_spark(queries)
    monkeypatch.setattr(queries_module, "SMALL_BYTES", 0)
    folder = merge.folder(PRODUCT, shop)
    rows = pa.table(DeltaTable(str(folder)).to_pyarrow_table())
    sizes = {rows.num_rows}
    stop = threading.Event()
    pages: list[tuple[int, int, int]] = []

    def read() -> None:
        while not stop.is_set():
            asked = queries.snapshot()
            counts = figures.count(asked.ask("counts").table, "product")
            catalogue = sum(shown(asked, "catalogue", "Master category").values())
            usage = sum(shown(asked, "catalogue", "Usage").values())
            pages.append((counts, catalogue, usage))

    def wait(done: Callable[[], bool], expected: str) -> None:
        deadline = time.monotonic() + 60
        while not done():
            assert time.monotonic() < deadline, f"expected {expected}, got {pages[-4:]}"
            assert all(reader.is_alive() for reader in readers), "a page failed"
            time.sleep(0.01)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    try:
        for less in range(1, 4):
            write_deltalake(str(folder), rows.slice(less * 5), mode="overwrite")
            # Written, not published, and no answer is known any more: nobody may see it.
            redis.Redis.from_url(shop.redis).flushdb()
            seen, size = len(pages), rows.num_rows - less * 5
            wait(lambda: len(pages) >= seen + 2 * len(readers), "more pages")  # noqa: B023  called at once
            assert {page[0] for page in pages} <= sizes, "a page shows what is not published"
            sizes.add(size)
            publication.publish(shop, SHOP, queries.books)
            wait(lambda: any(page[0] == size for page in pages[-4:]), f"pages of {size} products")  # noqa: B023
    finally:
        stop.set()
        for reader in readers:
            reader.join()
        write_deltalake(str(folder), rows, mode="overwrite")
        publication.publish(shop, SHOP, queries.books)
    assert all(len(set(page)) == 1 for page in pages), "a page mixed two versions"
    assert {page[0] for page in pages} <= sizes
    assert {page[0] for page in pages} >= sizes - {rows.num_rows}
    answer = queries.snapshot().ask("counts")
    assert figures.count(answer.table, "product") == rows.num_rows
    assert answer.computed_by == engine


def test_small_tables_do_not_wait_for_spark(queries: Queries, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a small shop waits ten seconds for what takes one, or a large one is read by a single process."""
    published = queries.snapshot().published
    found, by = queries.compute("counts", published)
    assert by == "DuckDB"
    held = size(SHOP.queries["counts"], published, queries.settings, SHOP)
    monkeypatch.setattr(queries_module, "SMALL_BYTES", (held - 1) // queries_module.ON_DISK)
    assert queries.compute("counts", published) == (found, "Spark")


def test_who_reads_during_a_publication_does_not_wait(shop: Settings, queries: Queries, resource: HomeResource) -> None:
    """Without this, the first people after a publication wait until Spark has read all tables."""
    queries.snapshot().warm()
    folder = merge.folder(PRODUCT, shop)
    rows = pa.table(DeltaTable(str(folder)).to_pyarrow_table())
    stop, seen, sources = threading.Event(), set[int](), Counter[str]()
    reader = Queries(shop)

    def read() -> None:
        while not stop.is_set():
            asked = reader.snapshot()
            answers = {name: asked.ask(name) for name in SHOP.queries}
            sources.update(a.source for a in answers.values())
            seen.add(figures.count(answers["counts"].table, "product"))

    thread = threading.Thread(target=read)
    try:
        write_deltalake(str(folder), rows.slice(3), mode="overwrite")
        thread.start()
        while not seen:
            time.sleep(0.01)
        with dg.DagsterInstance.ephemeral() as instance:
            names = Names()
            done = dg.materialize(
                serving_assets(SHOP, names),
                selection=[names.precomputed, names.publication],
                instance=instance,
                resources={"home": resource},
            )
        assert done.success
        deadline = time.monotonic() + 30
        while rows.num_rows - 3 not in seen and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        stop.set()
        thread.join()
        write_deltalake(str(folder), rows, mode="overwrite")
        publication.publish(shop, SHOP, queries.books)
    assert seen == {rows.num_rows, rows.num_rows - 3}
    assert set(sources) == {"Redis"}
    assert reader.cache._misses == 0, "somebody waited for an answer"
    reader.close()


def test_an_answer_to_another_text_is_none(shop: Settings, queries: Queries, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers outlive the program: another version of it may ask otherwise, and must not get what was kept before."""
    without_spark(queries)
    assert [queries.snapshot().ask("counts").source for _ in range(2)] == ["DuckDB", "Redis"]
    other = "SELECT 'product' AS name, CAST(7 AS BIGINT) AS n"
    declared = queries.dataset.queries
    monkeypatch.setitem(declared, "counts", dataclasses.replace(declared["counts"], sql=other))
    answer = queries.snapshot().ask("counts")
    assert (answer.source, figures.count(answer.table, "product")) == ("DuckDB", 7)


def test_without_redis_answers_are_slower_and_the_same(shop: Settings, queries: Queries) -> None:
    """A cache that is down must not take the pages with it."""
    without_spark(queries)
    expected = queries.snapshot().ask("catalogue").table
    alone = without_spark(Queries(shop.model_copy(update={"redis": "redis://127.0.0.1:1/0"})))
    began = time.monotonic()
    answers = [alone.snapshot().ask("catalogue") for _ in range(3)]
    assert {a.source for a in answers} == {"DuckDB"}
    assert all(a.table == expected for a in answers)
    assert time.monotonic() - began < 10


def test_redis_killed_under_the_service(shop: Settings, stack: Stack, queries: Queries) -> None:
    """The same process must go on without it, and take to it again when it is back."""
    without_spark(queries)
    expected = queries.snapshot().ask("catalogue").table
    (pid,) = [s.pid for s in stack.status() if s.service == "redis"]
    assert pid
    os.kill(pid, signal.SIGKILL)
    try:
        answers = [queries.snapshot().ask("catalogue") for _ in range(3)]
        with pytest.raises(ConnectionError, match="Redis does not answer"):
            Cache(shop.redis, "x").put("k", expected, "test")
    finally:
        stack.up()
    assert {a.source for a in answers} == {"DuckDB"}
    assert all(a.table == expected for a in answers)
    deadline = time.monotonic() + 30
    while queries.snapshot().ask("catalogue").source != "Redis":
        assert time.monotonic() < deadline, "Redis is back, and is not asked"
        time.sleep(0.2)
    assert queries.snapshot().ask("catalogue").table == expected


def test_without_spark_duckdb_answers(shop: Settings, queries: Queries) -> None:
    """A page must not depend on the biggest of the servers."""
    alone = Queries(shop.model_copy(update={"spark": "sc://127.0.0.1:1", "redis": "redis://127.0.0.1:1/0"}))
    answer = alone.snapshot().ask("catalogue")
    assert answer.source == "DuckDB"
    assert analysis.same(answer.table, without_spark(queries).snapshot().ask("catalogue").table)


def test_a_customer_and_a_session_are_the_files(shop: Settings, queries: Queries) -> None:
    """The look-up must show all orders of a customer, the latest first, and a session in the order of time."""
    bookings, clicks = raw(shop, "transactions"), raw(shop, "click_stream")
    number = bookings["customer_id"].mode().sort()[0]
    own = bookings.filter(pl.col("customer_id") == number).sort("created_at", descending=True)
    orders = queries.snapshot().through("orders_by_customer", number)
    assert orders.source == "HBase"
    assert orders.table["booking_id"].to_pylist() == own["booking_id"].to_list()
    assert orders.table["product_metadata"].to_pylist() == own["product_metadata"].to_list()
    assert queries.snapshot().through("orders_by_customer", number).source == "Redis"
    session = own["session_id"][0]
    events = queries.snapshot().under("click_stream", session).table
    expected = clicks.filter(pl.col("session_id") == session).sort("event_time", "event_id")
    assert events["event_id"].to_pylist() == expected["event_id"].to_list()
    (row,) = queries.snapshot().row("customer", number).table.to_pylist()
    assert row == raw(shop, "customer").filter(pl.col("customer_id") == number).to_dicts()[0]
    with open_home(shop) as at:
        assert index.check_index(at, ORDERS, HBASE["stream"]) == []
    assert lookup.examples(ORDERS, shop, queries.addresses)


def test_what_hbase_says_while_it_is_loaded_is_not_kept(shop: Settings, queries: Queries) -> None:
    """HBase has no versions: an answer from the middle of a load would stay for a week."""
    asked = queries.snapshot()
    before = queries.books.build("hbase", "transactions")
    assert before
    try:
        queries.books.record_build(dataclasses.replace(before, fingerprint="another load"))
        assert [asked.through("orders_by_customer", "1").source for _ in range(2)] == ["HBase", "HBase"]
    finally:
        queries.books.record_build(before)
    assert [asked.through("orders_by_customer", "1").source for _ in range(2)] == ["HBase", "Redis"]


def test_bad_questions_are_told(shop: Settings, queries: Queries, settings: Settings) -> None:
    """A wrong id, a missing table, an empty home: a sentence with the cause and the remedy."""
    asked = queries.snapshot()
    for ask, name, value, text in (
        (asked.through, "orders_by_customer", "12; DROP", "expected a whole number as customer_id, got '12; DROP'"),
        (asked.row, "customer", "", "expected a whole number as customer_id, got ''"),
        (asked.under, "click_stream", "", "expected a text as session_id, got ''"),
        (asked.row, "customer", "9" * 19, "expected a whole number as customer_id, got '9999999999999999999'"),
    ):
        with pytest.raises(BadQuestionError, match=text):
            ask(name, value)
    assert asked.row("customer", "999999999").table.num_rows == 0
    assert asked.under("click_stream", "none").table.num_rows == 0
    with pytest.raises(NotPublishedError, match="`ecom run"):
        Queries(settings).snapshot()
    bulk_only = dataclasses.replace(asked.published, merged=dict.fromkeys(TABLES, ""))
    with pytest.raises(NotPublishedError, match="no merged table"):
        queries.duckdb.compute(SHOP.queries["catalogue"], bulk_only)
    gone = dataclasses.replace(asked.published, merged=asked.published.merged | {"product": "other@0"})
    with pytest.raises(NotPublishedError, match="not there any more"):
        queries.duckdb.compute(SHOP.queries["catalogue"], gone)
    elsewhere = shop.model_copy(update={"namespace": "nowhere"})
    with pytest.raises(lookup.LookupUnavailableError, match="holds no table nowhere_customers"):
        lookup.row(CUSTOMER, "1", elsewhere, queries.addresses)
    with pytest.raises(PostgresError, match="holds no table"):
        list(postgres.parts(shop.postgres, PRODUCT, elsewhere, 2))
    with pytest.raises(PostgresError, match=r"does not take a connection: .* `ecom status"):
        postgres.load(shop, SHOP, "postgresql://ecom:secret@127.0.0.1:1/postgres")
    with pytest.raises(ConnectionError, match=r"Kafka does not answer at 127.0.0.1:1 .* `ecom status"):
        live.topic_newest(CLICK_STREAM, shop, "127.0.0.1:1")


def test_live_tells_the_newest_records(shop: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The live page reads logs and the newest file alone, nothing while no record comes, and must still be right."""
    stream = live.stream(CLICK_STREAM, shop)
    assert stream
    assert stream.rows == raw(shop, "click_stream").height
    (last,) = live.last_records(CLICK_STREAM, shop, 1)
    assert last["_offset"] == stream.rows - 1
    assert last["event_id"] == raw(shop, "click_stream")["event_id"][-1]
    assert live.topic_newest(CLICK_STREAM, shop, shop.kafka) is None
    monkeypatch.setattr(live, "DeltaTable", None)
    assert live.stream(CLICK_STREAM, shop) == stream
    assert live.last_records(CLICK_STREAM, shop, 1) == [last]


def test_postgres_killed_mid_copy_keeps_the_old_tables(shop: Settings, stack: Stack) -> None:
    """A load that dies must leave the tables from before, whole, and the next one must succeed."""
    postgres.load(shop, SHOP, shop.postgres)
    before = postgres.version(shop.postgres, shop)
    rows = raw(shop, "product").height
    file = local(expand.files(PRODUCT, shop)[0])
    os.utime(file)  # other files, as far as the loader can tell
    (pid,) = [s.pid for s in stack.status() if s.service == "postgres"]
    server = psutil.Process(pid)

    def kill(table: str, _: int) -> None:
        if table == "click_stream" and server.is_running():
            # One that serves a connection learns of its server's end only when it waits: it might finish the load.
            for process in (server, *server.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    with pytest.raises(PostgresError, match="the tables from before are untouched"):
        postgres.load(shop, SHOP, shop.postgres, kill)
    stack.up()
    assert postgres.version(shop.postgres, shop) == before
    with psycopg.connect(shop.postgres) as connection:
        assert connection.execute("SELECT count(*) FROM shop.product").fetchone() == (rows,)
    assert postgres.load(shop, SHOP, shop.postgres)["product"].rows == rows
    assert postgres.version(shop.postgres, shop) != before


def test_postgres_has_types_keys_and_indexes_and_is_replaced_at_once(shop: Settings) -> None:
    """Readers must see whole tables while they are reloaded, with exactly the rows and checksum that are reported."""
    postgres.load(shop, SHOP, shop.postgres)
    before = postgres.version(shop.postgres, shop)
    rows = {name: raw(shop, name).height for name in TABLES}
    seen: list[tuple[str, dict[str, int]]] = []

    def counts() -> dict[str, int]:
        query = " UNION ALL ".join(f"SELECT '{name}', count(*) FROM shop.{name}" for name in TABLES)
        with psycopg.connect(shop.postgres) as reader:
            return dict(reader.execute(query.encode()).fetchall())

    def look(*_: object) -> None:
        seen.append((postgres.version(shop.postgres, shop), counts()))

    os.utime(local(expand.files(PRODUCT, shop)[0]))  # other files, as far as the loader can tell
    postgres.load(shop, SHOP, shop.postgres, look)
    assert len(seen) >= len(TABLES)
    assert all(reported == (before, rows) for reported in seen)
    assert counts() == rows
    assert postgres.version(shop.postgres, shop) != before

    with psycopg.connect(shop.postgres) as connection:
        kinds = dict(connection.execute(
            "SELECT table_name || '.' || column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = 'shop'"
        ).fetchall())  # fmt: skip
        constraints = {row[0] for row in connection.execute(
            "SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE connamespace = 'shop'::regnamespace AND contype IN ('p', 'f')"
        ).fetchall()}  # fmt: skip
        indexes = [row[0] for row in connection.execute(
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'shop'"
        ).fetchall()]  # fmt: skip
        schemas = connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'shop\\_\\_%'").fetchone()
    assert schemas == (0,), "what a load needed is gone"
    assert kinds["transactions.created_at_ts"] == "timestamp with time zone"
    assert kinds["transactions.items"] == kinds["click_stream.metadata"] == "jsonb"
    assert kinds["customer.birthdate_date"] == "date"
    assert kinds["transactions.total_amount"] == "bigint"
    for table in TABLES.values():
        assert f"shop.{table.name} PRIMARY KEY ({table.key})" in constraints
    assert "shop.transactions FOREIGN KEY (customer_id) REFERENCES shop.customer(customer_id)" in constraints
    for wanted in ("click_stream USING btree (session_id)", "transactions USING btree (customer_id)",
                   "transactions USING brin (created_at_ts)", "click_stream USING brin (event_time_ts)"):  # fmt: skip
        assert any(wanted in index for index in indexes), (wanted, indexes)


def test_thrift_restarted_under_a_look_up(shop: Settings, stack: Stack, queries: Queries) -> None:
    """While it is gone an error names it; once it is back the same service resumes."""
    (pid,) = [s.pid for s in stack.status() if s.service == "thrift"]
    assert pid
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(lookup.LookupUnavailableError, match=r"`ecom up.*` starts them"):
        queries.snapshot().through("orders_by_customer", "2")
    assert time.monotonic() - began < 15
    stack.up()
    assert queries.snapshot().through("orders_by_customer", "2").source == "HBase"
