"""The dashboard in a real browser, at the width of a desk and of a phone: every page, every chart, a filter, faults."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pytest
import redis
from deltalake import DeltaTable, write_deltalake
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from ecom_assets.core.books import Books
from ecom_assets.core.settings import Settings, load, remember
from ecom_assets.dashboard import charts, figures
from ecom_assets.dashboard.figures import Choice
from ecom_assets.dataset.chart import Columns
from ecom_assets.dataset.loader import bundled
from ecom_assets.lake import merge
from ecom_assets.lake.live_days import LiveRows
from ecom_assets.paths import open_home
from ecom_assets.servers.dashboard import Dashboard
from ecom_assets.servers.stack import Stack
from ecom_assets.serving import analysis, lookup, postgres, publication
from ecom_assets.serving.queries import Queries
from ecom_assets.source import synthetic
from ecom_assets_tests.programs import chromium
from ecom_assets_tests.runs import ecom, environment
from ecom_assets_tests.shop import settings_for
from ecom_assets_tests.tables import CUSTOMER, ORDERS, SHOP, TABLES

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
SECONDS = 30_000
"""Milliseconds within which something must be on the page; a busy machine has but two cores for browser and server."""

ERRORS = ("[data-testid=stException]", "[data-testid=stAlertContentError]", "[data-testid=stAlertContentWarning]")

SHAPES = ".stHtml :is(.plot, .bars, .steps, .map) i, .stHtml .rows td"
"""What charts are drawn with."""

CHARTS = tuple(
    re.sub(r"[^A-Za-z0-9_-]", "-", f"{name}-{title}") for name, query in SHOP.queries.items() for title in query.charts
)
PAGES = {
    "": ("The shop at a glance", CHARTS),
    "live": ("Live", ("lag", "arrivals", "records")),
    "lookup": ("Lookup", ("customer", "orders_by_customer")),
    "reconciliation": (
        "Reconciliation",
        ("report-customer", "report-product", "report-transactions", "report-click_stream", "live-days", "quarantine",
         "ways", "checks", "runs"),
    ),
}  # fmt: skip
SAID: dict[str, tuple[str | re.Pattern[str], ...]] = {
    "": (re.compile(r"Redis, computed by DuckDB · .* old · [\d.]+ ms · \d+% hits"), re.compile(r"Published \d")),
    "live": ("Behind the topic", "0 s", re.compile("Read from Delta's logs")),
    "lookup": (re.compile(r"(HBase|Redis, computed by HBase) · .* old · [\d.]+ ms"), re.compile(r"\d+ rows")),
    "reconciliation": (
        re.compile(r"All layers reconcile: [\d,]+ rows verified, 1 in quarantine"),
        "1 row, and why",
        re.compile(r"✓ (\d+) of \1 answers computed on both paths, all equal"),
        re.compile(r"✓ \d+ passed, 0 warn, 0 failed"),
        "Rows that other producers sent, by day (UTC)",
    ),
}
"""The text of a page, next to its plots."""
SERVERS = ("kafka", "spark", "hbase_thrift", "hbase_zookeeper", "postgres", "redis")


@contextmanager
def dashboard_of(settings: Settings) -> Generator[str]:
    """The dashboard of a home, as `ecom dashboard` starts it."""
    stack = Stack(settings)
    with pytest.MonkeyPatch.context() as patch:
        for name in SERVERS:
            patch.setenv(f"ECOM_{name.upper()}", getattr(settings, name))
        stack.up(also=("dashboard",))
    try:
        yield stack.address("dashboard")
    finally:
        stack.down()
    assert not any(s.service == "dashboard" for s in stack.status())


@contextmanager
def started(**environment: str) -> Generator[str]:
    """The dashboard alone, which asks none of its servers whether it is there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    servers = {name: environment[f"ECOM_{name.upper()}"] for name in SERVERS if f"ECOM_{name.upper()}" in environment}
    server = Dashboard(load(home=Path(environment["ECOM_HOME"]), **servers))
    server.make_folders()
    server.prepare({"http": port})
    process = subprocess.Popen(
        server.command({"http": port}), cwd=server.folder, env=os.environ | server.environment | environment
    )
    try:
        address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while not server.answers(address):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def address(shop: Settings) -> Iterator[str]:
    """The dashboard of the small shop."""
    Queries(shop).snapshot().warm()
    with dashboard_of(shop) as address:
        yield address


@pytest.fixture(scope="module")
def verified(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home that went all the way, with a bad row, on both paths."""
    source = tmp_path_factory.mktemp("source")
    synthetic.generate(source, 0.0005, 3)
    with (source / CUSTOMER.csv).open("a") as file:
        file.write("short,row\n")
    env = environment(tmp_path_factory.mktemp("whole"), stack.addresses(), "seen")
    code, _, err = ecom(env, "run", "--source", str(source), "--json")
    assert code == 0, err
    settings = load(home=Path(env["ECOM_HOME"]), **{name: env[f"ECOM_{name.upper()}"] for name in SERVERS})
    postgres.load(settings, SHOP, settings.postgres)
    with open_home(settings) as at:
        for name in SHOP.queries:
            analysis.analyse(at.spark, settings, SHOP, settings.postgres, name)
            analysis.keep(name, settings, settings.redis)
        ends = ("2026-11-28T12:00:00+00:00", "2026-11-28T13:00:00+00:00")
        at.books.set_state("streamed/click_stream/live/2026-11-28", asdict(LiveRows("2026-11-28", 5, *ends, 2)))
    return settings


@pytest.fixture(scope="module")
def whole(verified: Settings) -> Iterator[str]:
    """The dashboard of that home."""
    with dashboard_of(verified) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])


@pytest.fixture(params=SIZES)
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A new tab, as wide as a desk's or a phone's."""
    width, height = SIZES[request.param]
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(SECONDS)
    asked: list[str] = []

    def hear(request: Request) -> None:
        asked.append(request.url)

    page.on("request", hear)
    yield page
    strangers = [url for url in asked if url.startswith("http") and "127.0.0.1" not in url]
    assert not strangers, f"the page asked other hosts: {strangers}"
    page.close()


def settled(page: Page) -> None:
    """Wait until the page has run to its end, and fail on any error box."""
    page.wait_for_function(
        "document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'"
        " && !document.querySelector('[data-testid=stSkeleton]')",
        timeout=SECONDS,
    )
    for box in (
        "[data-testid=stException]",
        "[data-testid=stAlertContentError]",
        "[data-testid=stAlertContentWarning]",
    ):
        assert page.locator(box).count() == 0, page.locator(box).first.inner_text()


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p or "overview")
def test_every_page_shows_all_it_has(whole: str, page: Page, path: str) -> None:
    """If this fails, a page is broken for everyone."""
    title, cards = PAGES[path]
    page.goto(f"{whole}/{path}")
    expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible(timeout=SECONDS)
    settled(page)
    for key in cards:
        card = page.locator(f".st-key-card-{key}")
        expect(card).to_be_visible()
        if path == "" or key == "arrivals":
            expect(card.locator(SHAPES).filter(visible=True).first).to_be_visible()
    for land in page.locator(".map img").all():
        assert land.evaluate("image => image.complete && image.naturalWidth > 0"), "the map has no land"
    for text in SAID[path]:
        expect(page.get_by_text(text).first).to_be_visible()
    # Nothing stands out of the page to the side.
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_filters_change_what_is_shown(shop: Settings, address: str, page: Page) -> None:
    """The numbers must follow the choice, of a category and of years."""
    asked = Queries(shop).snapshot()
    query, table = SHOP.queries["revenue"], asked.ask("revenue").table
    chart = query.charts["Revenue by month"]
    assert isinstance(chart, Columns)
    years = figures.options((SHOP.queries[name], asked.ask(name).table) for name in ("events", "bookings"))["Years"]

    def earned(first: int | str, last: int | str, category: str = "") -> str:
        choice: Choice = {"Years": (int(first), int(last)), "Category of products": category}
        return f"Rp {charts.short(figures.summary(chart, figures.chosen(query, table, choice))['total'])}"

    page.goto(address)
    settled(page)
    revenue = page.locator(".st-key-card-revenue-Revenue-by-month .summary")
    expect(revenue).to_have_text(earned(years[0], years[-1]))
    page.get_by_role("combobox", name="Category").click()
    page.get_by_role("option", name="Accessories").click()
    expect(page.locator(".st-key-card-revenue-Revenue-by-month")).to_contain_text("Accessories")
    settled(page)
    expect(revenue).to_have_text(earned(years[0], years[-1], "Accessories"))
    best = page.locator(".st-key-card-top_products-Products-that-earned-most td:nth-child(2)")
    assert set(best.all_inner_texts()) == {"Accessories"}
    first, last = page.get_by_role("slider").all()
    for _ in range(2):
        first.press("ArrowRight")
    last.press("ArrowLeft")
    expect(revenue).to_have_text(earned(years[2], years[-2], "Accessories"))
    expect(page.get_by_text(f"{years[2]}–{years[-2]} · Accessories").first).to_be_visible()
    settled(page)


def test_a_look_up_answers_and_tells_what_is_wrong(address: str, page: Page) -> None:
    """A wrong number must lead to a sentence, a right one to orders."""
    page.goto(f"{address}/lookup")
    settled(page)
    expect(page.locator(".st-key-card-orders_by_customer")).to_contain_text("rows")
    box = page.get_by_label("customer_id")
    for text, message in (
        ("999999999", "There is no row with customer_id 999999999"),
        ("x; --", "Expected a whole number as customer_id"),
    ):
        box.fill(text)
        box.press("Enter")
        expect(page.get_by_text(message)).to_be_visible()
    assert page.locator("[data-testid=stException]").count() == 0
    page.get_by_text("Events", exact=True).click()
    expect(page.locator(".st-key-card-click_stream")).to_contain_text("By event_time, event_id, ascending.")
    settled(page)


def test_rows_as_of_a_delivery(address: str, page: Page) -> None:
    """If this fails, the page shows the rows of today as those of another day."""
    for as_of, *messages in (
        ("7", "Rows as of delivery 7.", "expected its state as of delivery 7, got"),  # the shop has no deliveries
        ("monday", "Expected the number of a delivery as as_of, got 'monday'"),
    ):
        page.goto(f"{address}/lookup?as_of={as_of}")
        for message in messages:
            expect(page.get_by_text(message).first).to_be_visible(timeout=SECONDS)
        assert page.locator("[data-testid=stException]").count() == 0
        expect(page.locator(".st-key-card-orders_by_customer")).to_have_count(0)


def test_thrift_and_redis_killed_under_a_page(shop: Settings, stack: Stack, address: str, page: Page) -> None:
    """The same open page must say that a server is gone, go on without a cache, and work when both are back."""

    def kill(name: str) -> None:
        (pid,) = [s.pid for s in stack.status() if s.service == name]
        assert pid
        os.kill(pid, signal.SIGKILL)

    redis.Redis.from_url(shop.redis).flushdb()
    Queries(shop).snapshot().warm()
    first, second = lookup.examples(ORDERS, shop, Queries(shop).addresses, 100)[-2:]
    page.goto(f"{address}/lookup")
    settled(page)
    box = page.get_by_label("customer_id")
    kill("thrift")
    box.fill(first)
    box.press("Enter")
    gone = page.locator("[data-testid=stAlertContentWarning]").first
    expect(gone).to_contain_text("HBase does not answer", timeout=SECONDS)
    expect(gone).to_contain_text("ecom up")
    assert page.locator("[data-testid=stException]").count() == 0
    stack.up()
    box.fill(second)
    box.press("Enter")
    expect(page.get_by_text(f"customer_id {second}", exact=True).first).to_be_visible(timeout=SECONDS)
    settled(page)
    expect(page.locator(".st-key-card-orders_by_customer")).to_contain_text("row")
    kill("redis")
    menu = page.get_by_test_id("stExpandSidebarButton")
    if menu.is_visible():  # a phone has the pages behind it
        menu.click()
    page.get_by_role("link", name="Overview").click()
    years = page.locator(".st-key-card-bookings-Transactions-per-year")
    expect(years.locator(SHAPES).filter(visible=True).first).to_be_visible(timeout=2 * SECONDS)
    settled(page)
    expect(page.get_by_text(re.compile("^DuckDB · ")).first).to_be_visible()
    stack.up()


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory, shop: Settings) -> Iterator[str]:
    """The dashboard of the small shop, none of whose servers is there."""
    home = tmp_path_factory.mktemp("lonely") / "home"
    shutil.copytree(shop.home, home)
    known = json.loads((home / "home.json").read_text())
    (home / "home.json").write_text(json.dumps({k: v for k, v in known.items() if k not in SERVERS}))
    nowhere = dict.fromkeys(("ECOM_KAFKA", "ECOM_HBASE_THRIFT", "ECOM_HBASE_ZOOKEEPER"), "127.0.0.1:1")
    nowhere |= {
        "ECOM_SPARK": "sc://127.0.0.1:1",
        "ECOM_POSTGRES": "postgresql://ecom:secret@127.0.0.1:1/postgres",
        "ECOM_REDIS": "redis://:secret@127.0.0.1:1/0",
    }
    with started(ECOM_HOME=str(home), **nowhere) as address:
        yield address


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "DuckDB ·"),
        ("live", "Kafka does not answer at 127.0.0.1:1"),
        ("lookup", "HBase does not answer at 127.0.0.1:1"),
        ("reconciliation", "The PostgreSQL path has not been run yet, or Redis is not available"),
    ],
    ids=["overview", "live", "lookup", "reconciliation"],
)
def test_without_any_server_pages_name_what_is_missing(lonely: str, page: Page, path: str, message: str) -> None:
    """After a restart of the machine people must read what to do, and still see what needs no server."""
    page.goto(f"{lonely}/{path}")
    expect(page.get_by_text(message).first).to_be_visible(timeout=2 * SECONDS)
    if path == "":
        settled(page)
    elif path in ("live", "lookup"):
        expect(page.get_by_text("ecom status").first).to_be_visible()
    for box in ("[data-testid=stException]", "[data-testid=stAlertContentError]"):
        assert page.locator(box).count() == 0
    assert "secret" not in page.content()


@pytest.fixture(scope="module")
def empty(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The dashboard of a home in which nothing has been made."""
    settings = settings_for(tmp_path_factory.mktemp("empty"), stack.addresses(), "empty")
    remember(settings)
    with dashboard_of(settings) as address:
        yield address


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "Nothing is published"),
        ("live", "Nothing has been streamed yet"),
        ("lookup", "Nothing is published"),
        ("reconciliation", "Nothing has been verified yet"),
    ],
    ids=["overview", "live", "lookup", "reconciliation"],
)
def test_an_empty_home_shows_what_to_do(empty: str, page: Page, path: str, message: str) -> None:
    """The first thing that many will see."""
    page.goto(f"{empty}/{path}")
    expect(page.get_by_text(message).first).to_be_visible(timeout=SECONDS)
    expect(page.get_by_text("ecom run").first).to_be_visible()
    settled(page)


def test_a_missing_layer_is_said(shop: Settings, address: str, page: Page) -> None:
    """The bulk path builds no merged tables: the overview has nothing to show, and must say why."""
    with Books.open(shop) as books:
        before = books.state(publication.KEY)
        try:
            books.set_state(publication.KEY, before | {"merged": dict.fromkeys(TABLES, "")})
            page.goto(address)
            expect(page.get_by_text("There is no merged table")).to_be_visible(timeout=SECONDS)
            expect(page.get_by_text("ecom run")).to_be_visible()
            settled(page)
        finally:
            books.set_state(publication.KEY, before)


def test_empty_tables_are_shown_as_such(shop: Settings, address: str, page: Page) -> None:
    """A shop that has sold nothing yet is no fault: zeros and sentences, no error box."""
    folders = [merge.folder(table, shop) for table in TABLES.values()]
    rows = [pa.table(DeltaTable(str(folder)).to_pyarrow_table()) for folder in folders]
    try:
        for folder, table in zip(folders, rows, strict=True):
            write_deltalake(str(folder), table.slice(0, 0), mode="overwrite")
        with Books.open(shop) as books:
            publication.publish(shop, SHOP, books)
        page.goto(address)
        expect(page.get_by_text("There is nothing to show").first).to_be_visible(timeout=2 * SECONDS)
        settled(page)
        for counter in page.get_by_test_id("stMetricValue").all():
            expect(counter).to_have_text("0")
        assert page.locator(SHAPES).count() == 0
    finally:
        for folder, table in zip(folders, rows, strict=True):
            write_deltalake(str(folder), table, mode="overwrite")
        with Books.open(shop) as books:
            publication.publish(shop, SHOP, books)


def test_pages_are_dark_where_the_system_is(address: str, browser: Browser) -> None:
    """If this fails, people who work in the dark are blinded, or read dark text on a dark page."""
    seen = {}
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(address)
        expect(page.locator(SHAPES).first).to_be_visible(timeout=SECONDS)
        settled(page)
        read = "(e, name) => getComputedStyle(e)[name].match(/\\d+/g).slice(0, 3).reduce((sum, n) => sum + +n, 0)"
        card = page.locator("[class*=st-key-card-]").first
        seen[scheme] = {
            "page": page.locator("[data-testid=stApp]").evaluate(read, "backgroundColor"),
            "card": card.evaluate(read, "backgroundColor"),
            "text": page.locator(".steps span").first.evaluate(read, "color"),
        }
        page.close()
    light, dark = seen["light"], seen["dark"]
    assert min(light["page"], light["card"], dark["text"]) > 600
    assert max(dark["page"], dark["card"], light["text"]) < 200


def test_a_declaration_that_vanished_is_said(tmp_path: Path, page: Page) -> None:
    """If this fails, the dashboard ends in a traceback when somebody moves the folder of a declaration."""
    folder = tmp_path / "library"
    shutil.copytree(bundled() / "shop", folder)
    remember(load(home=tmp_path / "home", dataset=str(folder)))
    with started(ECOM_HOME=str(tmp_path / "home")) as address:
        shutil.rmtree(folder)
        for path in PAGES:
            page.goto(f"{address}/{path}")
            gone = page.locator("[data-testid=stAlertContentWarning]").first
            expect(gone).to_contain_text(f"Data set in {folder}", timeout=SECONDS)
            assert page.locator("[data-testid=stException], [data-testid=stAlertContentError]").count() == 0


def test_a_failed_check_is_red(verified: Settings, whole: str, browser: Browser) -> None:
    """An error box on the reconciliation page is what a damaged layer must look like."""
    page = browser.new_page()
    with Books.open(verified) as books:
        before = books.verification("expanded", "customer")
        assert before
        try:
            books.record_verification(replace(before, mismatches=("expected 2 rows, got 1",)))
            page.goto(f"{whole}/reconciliation")
            error = page.locator("[data-testid=stAlertContentError]")
            expect(error).to_contain_text("expected 2 rows, got 1", timeout=SECONDS)
        finally:
            books.record_verification(before)
            page.close()
