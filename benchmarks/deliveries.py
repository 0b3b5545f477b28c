"""What a delivery costs: next to the first load of the same home, and after many others. Through all layers, verified.

Through ``Engine``, on servers that are warm; the precomputed results and the publication come on top of either. A
delivery adds events; for 1,000 rows also customers and products, and one of many also changes customers.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import Goal, Ratio, Sample, Step
from benchmarks.pipeline import through
from benchmarks.stage import Stage
from ecom_assets.core.engine import Engine
from ecom_assets.core.progress import hushed, note, track
from ecom_assets.paths import LAYERS, engine, open_home
from ecom_assets.source.synthetic import facts
from ecom_assets_tests.exports import Shop
from ecom_assets_tests.tables import CUSTOMER, TABLES

FIRST, PERCENT, THOUSAND = "first load", "1 % of the rows", "1,000 rows"
EARLY, LATE = "the tenth delivery", "the last delivery"
EVENTS, CUSTOMERS = 8, 2
"""Rows of one of many deliveries."""
AROUND = 5
"""Deliveries whose median counts: those around the tenth, and the last ones."""
TENTH = 10 + AROUND // 2
"""The last one of those around the tenth."""
SETTLED = 60
"""Seconds since a file was written, by which it counts as complete."""
ROWS, SUFFIXES = "files of rows", frozenset({".csv", ".parquet", ".jsonl"})
"""What a home has for its rows, by their suffixes; all else in it is state, and so is Delta's log."""
KB = 1000


@contextmanager
def delivery(stage: Stage) -> Generator[Step]:
    """A first load, and deliveries that come after it."""
    with _opened(stage, "deliveries") as (shop, stream):

        def first() -> Sample:
            with hushed():
                for table in TABLES.values():
                    if stream.at.books.build(LAYERS[1], table.name):
                        stream.reset(LAYERS[1], table)
            return _run(stream)

        def of(rows: int, *tables: str) -> Sample:
            _settle(shop.deliver(rows // len(tables), *tables))
            return _run(stream)

        yield Step(
            "delivery",
            "rows",
            {
                FIRST: first,
                PERCENT: lambda: of(stage.rows // 100, "click_stream"),
                THOUSAND: lambda: of(1000, "customer", "product", "click_stream"),
            },
            (
                Ratio("delivery_1_percent", lambda s: s[PERCENT].seconds / s[FIRST].seconds, Goal(0.06, at_most=True)),
                Ratio("delivery_1000_rows", lambda s: s[THOUSAND].seconds / s[FIRST].seconds),
            ),
        )


@contextmanager
def many(stage: Stage) -> Generator[Step]:
    """Many small deliveries, one after the other: the last one compared with the tenth, and the state they leave."""
    with _opened(stage, "many") as (shop, stream):
        customers = [line for line in shop.lines[CUSTOMER.name][1:] if b'"' not in line]
        left = Counter[str]()

        def one() -> Sample:
            day = shop.deliver(EVENTS, "click_stream")
            chosen = [customers[(CUSTOMERS * shop.days + k) % len(customers)] for k in range(CUSTOMERS)]
            changed = shop.changed(CUSTOMER.name, "first_name", f"v{shop.days}".encode(), chosen)
            (day / CUSTOMER.csv).write_bytes(changed)
            _settle(day)
            return _run(stream)

        def until(last: int) -> Sample:
            """Bring in deliveries; returns the one of the last few whose time is their median."""
            samples = []
            with track(f"deliveries up to {last:,}", last - shop.days, "deliveries") as advance:
                while shop.days < last:
                    samples.append(one())
                    if shop.days % AROUND == 0:
                        parts = ", ".join(f"{layer} {seconds:.1f}" for layer, seconds in samples[-1].parts.items())
                        note(f"  delivery {shop.days:,}: {samples[-1].seconds:.1f} s ({parts})")
                    advance(1)
            return sorted(samples[-AROUND:], key=lambda sample: sample.seconds)[AROUND // 2]

        def early() -> Sample:
            _run(stream)
            found = until(TENTH)
            left.subtract(_sizes(stream.at.settings.home))
            return found

        def late() -> Sample:
            found = until(stage.deliveries)
            left.update(_sizes(stream.at.settings.home))
            for kind, size in sorted(left.items()):
                note(f"  {kind}: {size / KB / (stage.deliveries - TENTH):.1f} KB a delivery")
            return found

        def grown(*kinds: str) -> float:
            return sum(left[kind] for kind in kinds) / KB / (stage.deliveries - TENTH)

        yield Step(
            "many_deliveries",
            "rows",
            {EARLY: early, LATE: late},
            (
                Ratio("delivery_growth", lambda s: s[LATE].seconds / s[EARLY].seconds, Goal(1.5, at_most=True)),
                Ratio("delivery_state_kb", lambda _: grown(*left.keys() - {ROWS}), Goal(20, at_most=True)),
                Ratio("delivery_data_kb", lambda _: grown(ROWS)),
            ),
            warm_ups=0,
            repeats=1,
        )


@contextmanager
def _opened(stage: Stage, name: str) -> Generator[tuple[Shop, Engine]]:
    """A home with a shop as its source, none of whose files are loaded."""
    source = stage.folder / f"{name}_exports"
    source.mkdir()
    shop = Shop(source, stage.rows / sum(facts.ROWS.values()), day="day-{}")
    with open_home(stage.home(name, source=str(source))) as at:
        stream = engine(at, "stream")
        yield shop, stream
        for table in TABLES.values():
            stream.reset(LAYERS[1], table)


def _sizes(home: Path) -> Counter[str]:
    """Bytes in a home: of its files of rows, of Delta's logs, and of state, by the folder."""
    found = Counter[str]()
    for path in home.rglob("*"):
        parts = path.relative_to(home).parts
        is_log = "_delta_log" in parts
        kind = "Delta's logs" if is_log else ROWS if path.suffix in SUFFIXES else f"state in {parts[0]}"
        if path.is_file():
            found[kind] += path.stat().st_size
    return found


def _settle(day: Path) -> None:
    then = time.time() - SETTLED
    for file in day.iterdir():
        os.utime(file, (then, then))


def _run(stream: Engine) -> Sample:
    """Bring in what is new; builds and checks count together."""
    done = through(stream)
    return Sample(
        max(done.rows, 1), done.seconds, {layer: done.built[layer] + done.verified[layer] for layer in LAYERS}
    )
