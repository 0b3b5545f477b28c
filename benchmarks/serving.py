"""The query service under load: users on loopback, the cache cold and warm, p50 and p99.

`python benchmarks/serving.py --home HOME --users 16 --seconds 10`; the home must be published and its stack up. Each
user is a thread that asks what a page asks, one question after the other. Cold: Redis has just been flushed and all
users miss at once, so that one computation serves them all. Orders are read from HBase each time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from redis import Redis

from ecom_assets.services.stack import Stack
from ecom_assets.serving import lookup
from ecom_assets.serving.queries import Queries
from ecom_assets.serving.questions import QUESTIONS
from ecom_assets.settings import load

NAMES = [name for name, question in QUESTIONS.items() if not question.parameters]


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".ecom"))
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    os.environ["ECOM_HOME"] = str(given.home)
    settings, rng = load(), random.Random(0)
    service = Queries(settings)
    at = service.addresses
    ids = lookup.sample_customers(settings, at) or sys.exit("expected orders in HBase, found none; `ecom run`")
    with Redis.from_url(Stack(settings).address("redis")) as client:
        client.flushdb()

    def ask(name: str) -> float:
        return timed(lambda: service.snapshot().ask(name))

    began = time.perf_counter()
    cold = users(given.users, lambda: [ask(name) for name in NAMES])
    told = {"users": given.users, "cores": os.cpu_count(), "load_before": round(os.getloadavg()[0], 1)}
    told |= {"cold_page_s": round(time.perf_counter() - began, 2), "cold_ms": summary(cold)}
    warm = for_a_while(given, lambda: ask(rng.choice(NAMES)))
    told |= {"warm_ms": summary(warm), "warm_answers_per_s": round(len(warm) / given.seconds)}
    reads = for_a_while(given, lambda: timed(lambda: lookup.orders(rng.choice(ids), settings, at)))
    told |= {"hbase_orders_ms": summary(reads), "hbase_reads_per_s": round(len(reads) / given.seconds)}
    service.close()
    print(json.dumps(told, indent=1))


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


if __name__ == "__main__":
    main()
