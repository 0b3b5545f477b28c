"""The whole way, from CSV to a proven HBase: what of its time the proof takes, and what ten times the rows take.

Through ``Flow``, as Dagster's assets go, on servers that are warm. The files' generation does not count: a shop has
its files. Pipeline time is that of making the layers; proof time comes on top of it.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

from benchmarks.harness import Goal, Ratio, Sample, Step
from benchmarks.stage import Stage
from ecom_assets.core.progress import hushed
from ecom_assets.dataset.shop import LAYERS, TABLES
from ecom_assets.flow import Flow
from ecom_assets.source import facts

PROOF = "proof"


@contextmanager
def whole(stage: Stage) -> Generator[Step]:
    """All tables through all layers, at two sizes."""
    with ExitStack() as opened:
        flows = {}
        for name, rows in (("small", stage.rows // 10), ("large", stage.rows)):
            settings = stage.home(name, scale=rows / sum(facts.ROWS.values()))
            flow = opened.enter_context(Flow(settings))
            with hushed():
                flow.acquire()
            flows[f"{rows:,} rows"] = flow
        one, ten = flows

        yield Step(
            "whole",
            "rows",
            {name: lambda flow=flow: _carry(flow) for name, flow in flows.items()},
            (
                Ratio("proof_share", lambda samples: proof_share(samples[ten]), Goal(0.25, at_most=True)),
                Ratio(
                    "growth_10x", lambda samples: samples[ten].seconds / samples[one].seconds, Goal(10.5, at_most=True)
                ),
            ),
        )
        for flow in flows.values():
            _reset(flow)


def proof_share(sample: Sample) -> float:
    """Proof time / pipeline time."""
    return sample.parts[PROOF] / sum(seconds for part, seconds in sample.parts.items() if part != PROOF)


def _reset(flow: Flow) -> None:
    for table in TABLES.values():
        flow.reset(LAYERS[1], table)


def _carry(flow: Flow) -> Sample:
    """Make and prove every layer.

    Raises:
        RuntimeError: A layer does not hold what it should.
    """
    parts = dict.fromkeys([*LAYERS[1:], PROOF], 0.0)
    rows = 0
    with hushed():
        _reset(flow)
        began = time.perf_counter()
        for layer in LAYERS:
            for table in TABLES.values():
                if layer != LAYERS[0]:
                    parts[layer] += flow.build(layer, table).seconds
                at = time.perf_counter()
                proof, wrong = flow.prove(layer, table)
                parts[PROOF] += time.perf_counter() - at
                if wrong:
                    raise RuntimeError(f"{layer}/{table.name}: {wrong[0]}")
                rows += proof.measure.rows if layer == LAYERS[-1] else 0
    return Sample(rows, time.perf_counter() - began, parts)
