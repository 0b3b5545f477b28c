"""What is measured: each step of the project and what others would use for it, on the same servers.

``harness.py`` takes turns and compares, ``report.py`` reports what came out, ``stage.py`` has the servers and the rows;
each other module is a step or two, made by functions that ``STEPS`` names. ``ecom bench`` runs them. ``serving.py``
is a command of its own. A further step is one more such function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from benchmarks import deliveries, expansion, hbase, kafka, stream, whole
from benchmarks.harness import Result, Step, measure
from benchmarks.stage import Stage
from ecom_assets.core.progress import track

STEPS: dict[str, Callable[[Stage], AbstractContextManager[Step]]] = {
    "produce": kafka.produce,
    "consume": kafka.consume,
    "stream": stream.stream,
    "hbase": hbase.load,
    "read_back": hbase.read_back,
    "expand": expansion.expand,
    "whole": whole.whole,
    "delivery": deliveries.delivery,
    "many_deliveries": deliveries.many,
}
"""Name -> prepares the step, and clears up behind it."""

LONG = frozenset({"many_deliveries"})
"""Steps that are measured only where they are named: each takes longer than all others together."""


def chosen(only: Iterable[str]) -> list[str]:
    """The steps to measure, in their order: those named, or else all that are not ``LONG``."""
    named = set(only)
    return [name for name in STEPS if (name in named if named else name not in LONG)]


def run(stage: Stage, names: Iterable[str], repeats: int) -> list[Result]:
    """Measure some steps, one after the other.

    Args:
        stage: The servers and the rows.
        names: Which of ``STEPS``.
        repeats: Rounds that count; as many more as a step asks for come before, to warm up.

    Returns:
        What each came to, in the same order.
    """
    results = []
    due = list(names)
    with track("steps", len(due), "steps") as advance:
        for name in due:
            with STEPS[name](stage) as step:
                results.append(measure(step, repeats))
            advance(1)
    return results
