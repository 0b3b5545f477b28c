"""The query service under load and the pages in a browser: a cache cold and warm, p50 and p99.

`python -m benchmarks.serving --home HOME --users 16 --seconds 10`; the home must be published and its stack up. One
user asks each question alone, then each user is a thread that asks what a page asks, one question after the other.
Cold: Redis has just been flushed and all users miss at once, so that one computation serves them all. Orders are read
from HBase each time.

With `--pages` a headless Chromium opens the pages of `ecom dashboard` instead: first with Redis flushed, then several
times over. A page is there when its last part is, every chart is drawn and nothing runs any more.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from ecom_assets.core.settings import Settings, load
from ecom_assets.servers.stack import Stack
from ecom_assets.serving import lookup
from ecom_assets.serving.queries import Queries
from ecom_assets_tests.tables import ORDERS, SHOP

HITS = 200
"""Answers from Redis that one user asks for."""

PAGES = {
    "": "bookings-Transactions-per-year .plot i",
    "live": "records canvas",
    "lookup": "orders_by_customer canvas",
    "reconciliation": "runs canvas",
}
"""Path of a page -> what is drawn last."""

IS_THERE = """part => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'
    && document.querySelector('.st-key-card-' + part)
    && !document.querySelector('[data-testid=stSkeleton]')
    && [...document.querySelectorAll('[data-testid=stDataFrame]')].every(c => c.querySelector('canvas'))"""


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(".ecom"))
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--pages", action="store_true", help="time the pages in a browser instead")
    parser.add_argument("--repeats", type=int, default=5, help="how often a warm page is opened")
    given = parser.parse_args()
    os.environ["ECOM_HOME"] = str(given.home)
    settings = load()
    reported = {"cores": os.cpu_count(), "load_before": round(os.getloadavg()[0], 1)}
    reported |= pages(settings, given.repeats) if given.pages else service(settings, given)
    print(json.dumps(reported, indent=1))


def service(settings: Settings, given: argparse.Namespace) -> dict[str, Any]:
    """The query service: one user, then many."""
    rng, queries = random.Random(0), Queries(settings)
    at = queries.addresses
    ids = lookup.examples(ORDERS, settings, at, 100) or sys.exit("expected orders in HBase, found none; `ecom run`")
    names = list(SHOP.queries)

    def ask(name: str) -> float:
        return timed(lambda: queries.snapshot().ask(name))

    flush(settings)
    reported: dict[str, Any] = {"miss_ms": {name: round(ask(name)) for name in names}}
    reported |= {"hit_ms": summary([ask(rng.choice(names)) for _ in range(HITS)])}
    flush(settings)
    began = time.perf_counter()
    cold = users(given.users, lambda: [ask(name) for name in names])
    reported |= {"users": given.users}
    reported |= {"cold_page_s": round(time.perf_counter() - began, 2), "cold_ms": summary(cold)}
    warm = for_a_while(given, lambda: ask(rng.choice(names)))
    reported |= {"warm_ms": summary(warm), "warm_answers_per_s": round(len(warm) / given.seconds)}
    reads = for_a_while(given, lambda: timed(lambda: lookup.through(ORDERS, rng.choice(ids), settings, at)))
    reported |= {"hbase_orders_ms": summary(reads), "hbase_reads_per_s": round(len(reads) / given.seconds)}
    queries.close()
    return reported


def pages(settings: Settings, repeats: int) -> dict[str, Any]:
    """Seconds that each page takes in a browser, from the click to the last chart."""
    address = Stack(settings).address("dashboard")
    with browser() as tab:

        def opened(path: str) -> float:
            def page() -> None:
                tab.goto(f"{address}/{path}")
                tab.wait_for_function(IS_THERE, arg=PAGES[path])

            return timed(page) / 1000

        def chosen(option: str) -> float:
            def choice() -> None:
                tab.get_by_role("combobox", name="Category").click()
                tab.get_by_role("option", name=option).click()
                tab.locator(".st-key-card-revenue-Revenue-by-month", has_text=option).wait_for()
                tab.wait_for_function(IS_THERE, arg=PAGES[""])

            return timed(choice) / 1000

        opened("")  # the browser's own cache, the server's imports
        reported: dict[str, Any] = {}
        for path in PAGES:
            flush(settings)
            cold = opened(path)
            reported[path or "overview"] = {
                "cold_s": round(cold, 2),
                "warm_s": spread([opened(path) for _ in range(repeats)]),
            }
        opened("")
        options = ["Apparel", "Footwear"] * repeats
        reported["overview, filtered"] = {"warm_s": spread([chosen(option) for option in options[: max(repeats, 2)]])}
    return reported


@contextmanager
def browser() -> Generator[Any]:
    """A tab of the system's Chromium."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not program:
        sys.exit("expected Chromium on this machine, found none: `apt-get install chromium`, or put one on the PATH")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        tab = chromium.new_page(viewport={"width": 1280, "height": 900})
        tab.set_default_timeout(300_000)
        yield tab
        chromium.close()


def flush(settings: Settings) -> None:
    """Empty Redis."""
    with Redis.from_url(Stack(settings).address("redis")) as client:
        client.flushdb()


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that something took."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def users(count: int, session: Callable[[], list[float]]) -> list[float]:
    """Let some users do the same at the same time; returns all they measured."""
    measured: list[float] = []
    start = threading.Barrier(count)

    def user() -> None:
        start.wait()
        measured.extend(session())

    threads = [threading.Thread(target=user) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return measured


def for_a_while(given: argparse.Namespace, ask: Callable[[], float]) -> list[float]:
    """Let users ask until the time is over."""
    end = time.monotonic() + given.seconds

    def session() -> list[float]:
        mine = []
        while time.monotonic() < end:
            mine.append(ask())
        return mine

    return users(given.users, session)


def summary(milliseconds: list[float]) -> dict[str, float]:
    """The figures that count."""
    cut = statistics.quantiles(milliseconds, n=100)
    return {"p50": round(cut[49], 2), "p99": round(cut[98], 2), "max": round(max(milliseconds), 2)}


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and range."""
    return {
        "median": round(statistics.median(seconds), 2),
        "min": round(min(seconds), 2),
        "max": round(max(seconds), 2),
    }


if __name__ == "__main__":
    main()
