"""The dashboard in a real browser, at the width of a desk and of a phone: every page, every chart, a filter, faults."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from ecom_assets.pipeline.manifest import write_json
from ecom_assets.services.stack import Stack
from ecom_assets.serving import publication
from ecom_assets.serving.queries import Queries
from ecom_assets.settings import Settings

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
SECONDS = 30_000
"""Milliseconds within which something must be on the page; a busy machine has but two cores for browser and server."""

ERRORS = ("[data-testid=stException]", "[data-testid=stAlertContentError]", "[data-testid=stAlertContentWarning]")

CHARTS = (
    "revenue", "map", "funnel", "promo", "gender", "device", "age", "category", "subcategory", "usage", "event",
    "source", "payment", "years",
)  # fmt: skip
PAGES = {
    "": ("The shop at a glance", CHARTS),
    "live": ("Live", ("lag", "arrivals", "events")),
    "lookup": ("Look-up", ("customer", "orders", "session")),
    "proof": ("Proof", ("ways",)),
}


@pytest.fixture(scope="module")
def address(shop: Settings) -> Iterator[str]:
    """The dashboard of the small shop, as `ecom dashboard` starts it."""
    Queries(shop).snapshot().warm()
    stack = Stack(shop)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("kafka", "spark", "hbase_thrift", "hbase_zookeeper", "postgres", "redis"):
            patch.setenv(f"ECOM_{name.upper()}", getattr(shop, name))
        stack.up(also=("dashboard",))
    yield stack.address("dashboard")
    stack.down()
    assert not any(s.service == "dashboard" for s in stack.status())


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not program:
        pytest.fail("expected Chromium on this machine, found none: `apt-get install chromium`, or put one on the PATH")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])


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
def test_every_page_shows_all_it_has(address: str, page: Page, path: str) -> None:
    """If this fails, a page is broken for everyone."""
    title, cards = PAGES[path]
    page.goto(f"{address}/{path}")
    expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible(timeout=SECONDS)
    settled(page)
    for key in cards:
        card = page.locator(f".st-key-card-{key}")
        expect(card).to_be_visible()
        if path == "" or key == "arrivals":
            expect(card.locator("[data-testid=stVegaLiteChart] :is(canvas, svg)").first).to_be_visible()
    # Nothing stands out of the page to the side.
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_filter_changes_what_is_shown(address: str, page: Page) -> None:
    """The numbers must follow the choice, and a choice without data must be said."""
    page.goto(address)
    settled(page)
    revenue = page.locator(".st-key-card-revenue h3")
    before = revenue.inner_text()
    page.get_by_role("combobox", name="Category").click()
    page.get_by_role("option", name="Accessories").click()
    expect(page.get_by_text("Revenue of Accessories by month")).to_be_visible()
    settled(page)
    assert revenue.inner_text() != before
    expect(page.locator(".st-key-card-top")).to_contain_text("Accessories")


def test_a_look_up_answers_and_tells_what_is_wrong(address: str, page: Page) -> None:
    """A wrong number must lead to a sentence, a right one to orders."""
    page.goto(f"{address}/lookup")
    settled(page)
    expect(page.locator(".st-key-card-orders")).to_contain_text("orders")
    box = page.get_by_label("Customer number")
    for text, said in (("999999999", "There is no customer 999999999"), ("x; --", "Expected a customer number")):
        box.fill(text)
        box.press("Enter")
        expect(page.get_by_text(said)).to_be_visible()
    assert page.locator("[data-testid=stException]").count() == 0


def test_an_unpublished_home_says_what_to_do(shop: Settings, address: str, browser: Browser) -> None:
    """The first thing that many will see."""
    path = publication.file(shop)
    before = path.read_text()
    page = browser.new_page()
    try:
        path.unlink()
        page.goto(address)
        expect(page.get_by_text("Nothing is published")).to_be_visible(timeout=SECONDS)
        expect(page.get_by_text("ecom run")).to_be_visible()
    finally:
        path.write_text(before)
        page.close()


def test_a_failed_proof_is_red(shop: Settings, address: str, browser: Browser) -> None:
    """An error box on the proof page is what a damaged layer must look like."""
    proofs: list[Path] = []
    page = browser.new_page()
    measure: dict[str, Any] = {"rows": 1, "checksum": "0" * 16, "bytes": 0, "seconds": 0.0}
    try:
        for layer, rows in (("raw", 2), ("expanded", 1)):
            proof: dict[str, Any] = {
                "table": "customer",
                "layer": layer,
                "measure": measure | {"rows": rows},
                "aside": {},
            }
            proof |= {"copies": [measure | {"rows": rows}] if layer != "raw" else [], "last_copy": None}
            proofs.append(shop.manifests / layer / "customer.proof.json")
            write_json(proofs[-1], proof | {"problems": [], "build_seconds": 0.0, "faults": []})
        page.goto(f"{address}/proof")
        expect(page.locator("[data-testid=stAlertContentError]")).to_contain_text("expected 2 rows, got 1")
    finally:
        for path in proofs:
            path.unlink()
        page.close()
