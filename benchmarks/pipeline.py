"""The pipeline as a run does it, through ``Engine``: every layer of every table built and verified, and timed.

What belongs here: one pass through the layers. What does not: what comes before it, and what it is compared with.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from ecom_assets.core.engine import Engine
from ecom_assets.core.progress import hushed
from ecom_assets.paths import LAYERS
from ecom_assets_tests.tables import TABLES


@dataclass(frozen=True)
class Pass:
    """One pass through all layers.

    Attributes:
        rows: Rows that the last layer got.
        held: Rows that it holds.
        seconds: Time it took.
        built: Layer -> seconds of its builds.
        verified: Layer -> seconds of its checks.
    """

    rows: int
    held: int
    seconds: float
    built: Mapping[str, float]
    verified: Mapping[str, float]


def through(stream: Engine) -> Pass:
    """Build and verify every layer.

    Raises:
        RuntimeError: A layer does not hold what it should.
    """
    built, verified = dict.fromkeys(LAYERS, 0.0), dict.fromkeys(LAYERS, 0.0)
    rows, held, began = 0, 0, time.perf_counter()
    with hushed():
        for layer in LAYERS:
            for table in TABLES.values():
                at = time.perf_counter()
                done = stream.build(layer, table)
                between = time.perf_counter()
                found = stream.verify(layer, table)
                built[layer] += between - at
                verified[layer] += time.perf_counter() - between
                if found.mismatches:
                    raise RuntimeError(f"{layer}/{table.name}: {found.mismatches[0]}")
                if layer == LAYERS[-1]:
                    rows, held = rows + done.rows, held + found.measurement.measure.rows
    return Pass(rows, held, time.perf_counter() - began, built, verified)
