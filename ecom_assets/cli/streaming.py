"""Commands that run until Ctrl-C: ``stream``, which follows the topics, and ``simulate``, which feeds them.

What belongs here: their options, the lock they hold, and what they show while they run.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table as Grid

from ecom_assets.cli.console import console, inform, right, succeeded
from ecom_assets.cli.interrupts import stop_on_signal
from ecom_assets.cli.options import Home, Tables, configure_existing, known_tables
from ecom_assets.core import locks

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecom_assets.lake.follow import Live


def stream(
    *,
    home: Home = None,
    table: Tables = None,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between the starts of two micro-batches.")] = 5.0,
) -> None:
    """Continuously stream new Kafka records into Delta and show progress until Ctrl-C.

    Shares checkpoints with `ecom run` and the `stream` job: each resumes where the other stopped.
    """
    settings = configure_existing(home=home)
    from rich.live import Live as Display

    from ecom_assets.lake.follow import follow
    from ecom_assets.paths import TOPIC, open_home

    names = known_tables(table, settings)
    grid = _progress(interval)
    with (
        locks.shared(settings, "ecom stream", log=inform),
        open_home(settings) as at,
        stop_on_signal() as stop,
        Display(console=console, refresh_per_second=2) as display,
    ):
        follow(
            at,
            [at.dataset.tables[name] for name in names],
            TOPIC,
            interval=interval,
            stop=stop,
            report=lambda states: display.update(grid(states)),
        )
    succeeded("stopped; unread records are streamed next time")


def _progress(interval: float) -> Callable[[list[Live]], Grid]:
    """What makes the table that is shown while a stream runs."""
    began = time.monotonic()
    last: dict[str, tuple[float, int]] = {}

    def grid(states: list[Live]) -> Grid:
        figures = map(right, ("rows in Delta", "new", "rows/s", "unread offsets"))
        title = f"Streaming every {interval:g} s, Ctrl-C stops"
        shown = Grid("table", *figures, "", title=title, title_justify="left")
        now = time.monotonic()
        for each in states:
            at, rows = last.get(each.table, (began, each.rows - each.new))
            if now - at >= interval or each.table not in last:
                last[each.table] = (now, each.rows)
            rate = (each.rows - rows) / max(now - at, 1e-3)
            shown.add_row(
                each.table, f"{each.rows:,}", f"{each.new:,}", f"{rate:,.0f}", f"{each.lag:,}", each.waits_for
            )
        return shown

    return grid


def simulate(
    *,
    home: Home = None,
    table: Annotated[
        str | None,
        typer.Option(metavar="TABLE", help="The table whose rows are sent.", show_default="the last one declared"),
    ] = None,
    rate: Annotated[float, typer.Option(min=1, help="Rows per second.")] = 1000,
    start: Annotated[
        str, typer.Option("--from", metavar="CHUNK", help="Chunk to begin with, such as part-000010.csv.")
    ] = "",
    rows: Annotated[
        int | None, typer.Option(min=1, help="Approximate number of rows to send.", show_default="unlimited")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Send the same rows once more, which merging collapses, and not new ones.")
    ] = False,
) -> None:
    """Send a table's rows into its topic at a chosen rate, as a live source would, until Ctrl-C.

    Unsent rows are produced first; then they come round again in a loop, with new keys and times that end now. The
    ledger counts what was sent, so all layers still reconcile.
    """
    settings = configure_existing(home=home)
    from ecom_assets.core.progress import bars, track
    from ecom_assets.paths import TOPIC, open_home

    name = known_tables([table] if table else None, settings)[-1]
    with (
        bars(console),
        locks.shared(settings, "ecom simulate", log=inform),
        open_home(settings) as at,
        stop_on_signal() as stop,
        track(f"topic/{name}", rows) as advance,
    ):
        done = TOPIC.simulate(
            at,
            at.dataset.tables[name],
            stop,
            rate=rate,
            start=start,
            rows=rows,
            fresh=not again,
            progress=advance,
        )
    succeeded(
        f"sent {done.rows:,} rows in {done.chunks:,} chunks in {done.seconds:.0f} s"
        f" ({done.rows / max(done.seconds, 1e-3):,.0f} rows/s)"
    )
