"""The continuous stream: every table's query, kept running until it is to stop.

What belongs here: several queries at once, their restarts, and their state for display. What does not: the query of one
table; see ``query``. The bounded build of the streamed layer has the same checkpoints, so either resumes where the
other stopped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Self

from ecom_assets.core import locks
from ecom_assets.core.errors import EcomError, LakeError, is_transient
from ecom_assets.core.location import exists, last_commit
from ecom_assets.dataset.model import Table
from ecom_assets.lake import delta, live_days, owner, query, streamed
from ecom_assets.lake.query import Place

if TYPE_CHECKING:
    from pyspark.sql.streaming import StreamingQuery

    from ecom_assets.core.context import Context
    from ecom_assets.core.layer import OffsetSource

LOOK_SECONDS = 1.0
"""Seconds between two looks at the queries."""

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Seconds before a failed query is started again: the first pause; it doubles up to the longest."""

GIVE_UP_SECONDS = 600.0
"""Seconds without a running query after which the stream ends with the query's error."""

log = logging.getLogger("ecom_assets")


@dataclass(frozen=True)
class Live:
    """The state of a table's continuous stream.

    Attributes:
        table: Name of the table.
        rows: Records in the streamed table.
        new: Those of them that came in since the stream was started.
        lag: Offsets in the topic that have not come in yet.
        waits_for: Why the query does not run at the moment; empty if it does.
    """

    table: str
    rows: int
    new: int
    lag: int
    waits_for: str = ""


class Followed:
    """A table's query, restarted after transient failures; stopped when its ``with`` block ends.

    Args:
        at: Connections and settings.
        table: The table; no other process may stream it.
        source: Its topic.
        interval: Seconds between the starts of two micro-batches.
    """

    def __init__(self, at: Context, table: Table, source: OffsetSource, interval: float) -> None:
        self.table = table
        self._at = at
        self._source = source
        self._trigger = {"processingTime": f"{interval} seconds"}
        self._place = Place.of(table, at.settings)
        self._before = delta.records(self._place.table)
        self._counted: tuple[object, ...] = ()
        self._running = ExitStack()
        self._query: StreamingQuery | None = None
        self._error: EcomError | None = None
        self._down_since: float | None = None
        self._pause, self._next = FIRST_PAUSE, 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(EcomError):  # what ends the whole stream is raised already
            self._running.close()

    def look(self) -> None:
        """Start the query if it does not run and its pause is over.

        Raises:
            LakeError, TopicError: The query failed for good, or could not be started for ten minutes.
        """
        try:
            if self._query is not None:
                if self._query.isActive:
                    self._error, self._down_since, self._pause = None, None, FIRST_PAUSE
                    self._count()
                    return
                self._query = None
                self._running.close()  # raises what ended the query
                raise LakeError(f"table {self.table.name}: its stream has ended without an error", transient=True)
            if time.monotonic() >= self._next:
                self._query = self._running.enter_context(
                    query.running(self._at, self.table, self._source, self._place, self._trigger)
                )
        except EcomError as error:
            now = time.monotonic()
            self._down_since = self._down_since or now
            if not is_transient(error) or now - self._down_since > GIVE_UP_SECONDS:
                raise
            log.warning("table %s: %s; started again in %.0f s", self.table.name, error, self._pause)
            self._error, self._next = error, now + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def state(self, ends: dict[int, int] | None) -> Live:
        """How far it is; without end offsets the lag is unknown and reported as 0."""
        rows = delta.records(self._place.table)
        topic = self._source.stored_as(self._at.settings, self.table)
        lag = query.unread(self._place, self.table, topic, ends) if ends else 0
        reason = str(self._error).partition("\n")[0] if self._error else ""
        return Live(self.table.name, rows, rows - self._before, lag, reason)

    def stop(self) -> None:
        """Stop the query; a micro-batch that is cut off is done again by the next stream."""
        self._query = None
        self._running.close()
        if exists(self._place.table):
            streamed.quarantine_undecoded(self._at, self.table)
            self._count()

    def _count(self) -> None:
        """Count the live rows of the last micro-batches."""
        if (commit := last_commit(self._place.table)) != self._counted:
            live_days.record(self._at, self.table)
            self._counted = commit


def follow(
    at: Context,
    tables: Iterable[Table],
    source: OffsetSource,
    *,
    interval: float,
    stop: Event,
    report: Callable[[list[Live]], object],
) -> None:
    """Stream new records of topics until it is to stop; waits for brokers that are away for a while.

    Args:
        at: Connections and settings.
        tables: Which tables.
        source: Their topics.
        interval: Seconds between the starts of two micro-batches.
        stop: Ends the queries.
        report: Called about once a second with the state of each table.

    Raises:
        LakeError: Another process streams a table, or a query failed for good.
        TopicError: Kafka was away for ten minutes.
    """
    owner.register(at)
    with ExitStack() as held:
        held.enter_context(locks.shared(at.settings, "the continuous stream"))
        for table in (chosen := list(tables)):
            if not (lock := streamed.try_lock(table, at.settings)):
                raise LakeError(f"table {table.name}: another process streams it already", "stop that one first")
            held.enter_context(lock)
        followed = [held.enter_context(Followed(at, table, source, interval)) for table in chosen]
        while True:
            for each in followed:
                each.look()
            try:
                ends = {name: dict(o.ends) for name, o in source.offsets(at, chosen).items()}
            except EcomError as error:
                if not is_transient(error):
                    raise
                ends = {}
            report([each.state(ends.get(each.table.name)) for each in followed])
            if stop.wait(LOOK_SECONDS):
                break
        for each in followed:
            each.stop()
