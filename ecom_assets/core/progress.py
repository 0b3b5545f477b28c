"""Progress of long work: one place that work reports to, wherever it is shown.

The command line draws bars; elsewhere (Dagster's UI, a service) a line is logged every
few seconds. Work only reports what it does and how far it is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

Advance = Callable[[int], object]
"""Called with the units done since the last call, by one thread at a time."""

log = logging.getLogger("ecom_assets")

LOG_EVERY = 10.0
"""Seconds between two logged lines of one piece of work."""

_bars: Progress | None = None
_hushed = False


@contextmanager
def bars(console: Console) -> Generator[Progress]:
    """Draw the progress of all work inside as bars on a console."""
    global _bars  # noqa: PLW0603  one console, one display
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]} {task.fields[rate]}"),
        TimeElapsedColumn(),
        console=console,
    ) as display:
        _bars = display
        try:
            yield display
        finally:
            _bars = None


@contextmanager
def track(what: str, total: int | None, unit: str = "rows") -> Generator[Callable[[int], None]]:
    """Follow one piece of work.

    Args:
        what: Its name, for people.
        total: Units in all, if known.
        unit: What is counted.

    Yields:
        A function to be called with the units done since its last call.
    """
    began = logged = time.perf_counter()
    done = 0
    display = _bars
    task = display.add_task(what, total=total, unit=unit, rate="") if display else None

    def advance(units: int) -> None:
        nonlocal done, logged
        done += units
        now = time.perf_counter()
        if display is not None and task is not None:
            rate = f"{done / max(now - began, 1e-3):,.0f}/s" if done else ""
            display.update(task, advance=units, rate=rate)
        elif now - logged > LOG_EVERY:
            logged = now
            of = f" of {total:,}" if total else ""
            log.info("%s: %s%s %s, %s/s", what, f"{done:,}", of, unit, f"{done / (now - began):,.0f}")

    try:
        yield advance
    finally:
        if display is not None and task is not None:
            display.remove_task(task)


@contextmanager
def hushed() -> Generator[None]:
    """Log no line for the work inside; progress bars are still drawn."""
    global _hushed  # noqa: PLW0603  as above
    _hushed = True
    try:
        yield
    finally:
        _hushed = False


def note(text: str) -> None:
    """Report in one line that a piece of work is done."""
    if _hushed:
        return
    if _bars is not None:
        _bars.console.print(text, highlight=False, markup=False)
    else:
        log.info(text)
