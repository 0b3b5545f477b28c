"""The pipeline end to end, from CSV to verified HBase: the verification's share of its time, and ten times the rows.

Through ``Engine``, as Dagster's assets do it, on servers that are warm. The files' generation does not count: a shop
has its files. Pipeline time is that of building the layers; verification time comes on top of it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

from benchmarks.harness import Goal, Ratio, Sample, Step
from benchmarks.pipeline import through
from benchmarks.stage import Stage
from ecom_assets.core.engine import Engine
from ecom_assets.core.progress import hushed
from ecom_assets.paths import LAYERS, engine, open_home
from ecom_assets.source.synthetic import facts
from ecom_assets_tests.tables import TABLES

VERIFICATION = "proof"
"""Name of its part; it stays as it is, so that results can be compared with those of the history."""


@contextmanager
def whole(stage: Stage) -> Generator[Step]:
    """All tables through all layers, at two sizes."""
    with ExitStack() as opened:
        engines = {}
        for name, rows in (("small", stage.rows // 10), ("large", stage.rows)):
            settings = stage.home(name, scale=rows / sum(facts.ROWS.values()))
            stream = engine(opened.enter_context(open_home(settings)), "stream")
            with hushed():
                for table in TABLES.values():
                    stream.build(LAYERS[0], table)
            engines[f"{rows:,} rows"] = stream
        one, ten = engines

        yield Step(
            "whole",
            "rows",
            {name: lambda stream=stream: _run(stream) for name, stream in engines.items()},
            (
                Ratio("proof_share", lambda samples: verification_share(samples[ten]), Goal(0.25, at_most=True)),
                Ratio(
                    "growth_10x", lambda samples: samples[ten].seconds / samples[one].seconds, Goal(10.5, at_most=True)
                ),
            ),
        )
        for stream in engines.values():
            _reset(stream)


def verification_share(sample: Sample) -> float:
    """Verification time / pipeline time."""
    return sample.parts[VERIFICATION] / sum(seconds for part, seconds in sample.parts.items() if part != VERIFICATION)


def _reset(stream: Engine) -> None:
    for table in TABLES.values():
        stream.reset(LAYERS[1], table)


def _run(stream: Engine) -> Sample:
    """Build and verify every layer; the files are there already."""
    with hushed():
        _reset(stream)
    done = through(stream)
    parts = {layer: done.built[layer] for layer in LAYERS[1:]} | {VERIFICATION: sum(done.verified.values())}
    return Sample(done.held, done.seconds, parts)
