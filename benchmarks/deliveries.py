"""What a delivery costs, next to the first load of the same home: through all layers, verified.

Through ``Engine``, on servers that are warm; the precomputed results and the publication come on top of either. A
delivery adds events, and for 1,000 rows also customers and products, which are merged.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import contextmanager

from benchmarks.harness import Goal, Ratio, Sample, Step
from benchmarks.stage import Stage
from ecom_assets.core.engine import Engine
from ecom_assets.core.progress import hushed
from ecom_assets.paths import LAYERS, engine, open_home
from ecom_assets.source.synthetic import facts
from ecom_assets_tests.exports import Shop
from ecom_assets_tests.tables import TABLES

FIRST, PERCENT, THOUSAND = "first load", "1 % of the rows", "1,000 rows"
SETTLED = 60
"""Seconds since a file was written, by which it counts as complete."""


@contextmanager
def delivery(stage: Stage) -> Generator[Step]:
    """A first load, and deliveries that come after it."""
    source = stage.folder / "exports"
    source.mkdir()
    shop = Shop(source, stage.rows / sum(facts.ROWS.values()))
    with open_home(stage.home("deliveries", source=str(source))) as at:
        stream = engine(at, "stream")

        def first() -> Sample:
            with hushed():
                for table in TABLES.values():
                    if at.books.build(LAYERS[1], table.name):
                        stream.reset(LAYERS[1], table)
            return _run(stream)

        def of(rows: int, *tables: str) -> Sample:
            day = shop.deliver(rows // len(tables), *tables)
            then = time.time() - SETTLED
            for file in day.iterdir():
                os.utime(file, (then, then))
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
        for table in TABLES.values():
            stream.reset(LAYERS[1], table)


def _run(stream: Engine) -> Sample:
    """Build and verify every layer, as a run does.

    Raises:
        RuntimeError: A layer does not hold what it should.
    """
    parts = dict.fromkeys(LAYERS, 0.0)
    rows, began = 0, time.perf_counter()
    with hushed():
        for layer in LAYERS:
            at = time.perf_counter()
            for table in TABLES.values():
                built = stream.build(layer, table)
                rows += built.rows if layer == LAYERS[-1] else 0
                if mismatches := stream.verify(layer, table).mismatches:
                    raise RuntimeError(f"{layer}/{table.name}: {mismatches[0]}")
            parts[layer] = time.perf_counter() - at
    return Sample(max(rows, 1), time.perf_counter() - began, parts)
