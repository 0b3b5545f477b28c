"""The loads of a table one after the other: the timestamp of each, and the delivery that it brought the table to.

What belongs here: what the books keep of that, for those who load (the layer, indexes) and those who read as of a load.
What does not: cells (see ``rebuild`` and ``get``).

A load that changes a table hides the rows that are gone by markers at T - 1 and writes new ones at T, where T is at
least 2 above that of the load before, whatever the clock shows. So a reader with T as the end of its time range sees
the state before, and one with T + 1 the state after, however much of the load is in HBase. An entire load has no past:
its cells get the timestamp of the table's first one, so that a reader with any end sees it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ecom_assets.core.books import Books
from ecom_assets.core.errors import HBaseError
from ecom_assets.core.layer import Changes, Cut
from ecom_assets.dataset.model import Table

KEPT = 300
"""Loads of a table that the books name, for readers of the past."""


class NotHeldError(HBaseError):
    """A state that HBase does not hold any more, or not yet."""


@dataclass(frozen=True)
class Step:
    """A part of a load.

    Attributes:
        merged: Version of the merged table that it brings the table to.
        timestamp: Of its cells, milliseconds since the epoch.
    """

    merged: str
    timestamp: int


def next_timestamp(last: int) -> int:
    """The timestamp of the load that follows one."""
    return max(last + 2, int(time.time() * 1000))


def begin(books: Books, table: Table, position: str, merged: str, last: int) -> list[Step]:
    """Plan a load: one step, or, where an attempt broke off, its steps once more and what has come in since.

    What the attempt has written must be written again: of a row that it added and that is gone by now, nothing else
    would know.

    Args:
        books: The home's books.
        table: The table or index.
        position: Names what it holds now, as of its last complete load.
        merged: Version of the merged table that it is to be brought to.
        last: Timestamp of its last complete load.
    """
    key = f"hbase/{table.name}/steps"
    known = books.state(key)
    steps = [Step(*each) for each in known["steps"]] if known and known["position"] == position else []
    if not steps or steps[-1].merged != merged:
        steps.append(Step(merged, next_timestamp(steps[-1].timestamp if steps else last)))
        books.set_state(key, {"position": position, "steps": [[each.merged, each.timestamp] for each in steps]})
    return steps


def follow(
    steps: Sequence[Step],
    since: Cut,
    changes: Callable[[Cut, Cut], Changes | None],
    change: Callable[[Changes, int], int],
) -> int | None:
    """Take the steps of a load.

    Args:
        steps: The steps.
        since: What the table holds now.
        changes: How the rows differ between two cuts.
        change: Brings changes in, with a timestamp; returns rows.

    Returns:
        Rows of all steps; ``None`` if the changes of one cannot be named.
    """
    rows = 0
    for step in steps:
        until = Cut(merged=step.merged)
        found = changes(since, until)
        if found is None:
            return None
        rows += change(found, step.timestamp)
        since = until
    return rows


def whole_timestamp(books: Books, table: Table) -> int | None:
    """The timestamp of cells of entire loads of a table; ``None`` before the first one."""
    return books.state(f"hbase/{table.name}/whole")


def begin_whole(books: Books, table: Table) -> int:
    """The timestamp of an entire load: that of the first one."""
    known = whole_timestamp(books, table)
    if known is None:
        known = int(time.time() * 1000)
        books.set_state(f"hbase/{table.name}/whole", known)
    return known


def forget_past(books: Books, table: Table) -> None:
    """Note that a table has no past any more, before an entire load takes its place."""
    books.set_state(_deliveries(table), None)


def reached(books: Books, table: Table, sequence: int, timestamp: int) -> None:
    """Note that a load has brought a table to a delivery, from the one that it had reached before."""
    known = [each for each in _known(books, table) if each[1] != timestamp]
    before = books.state(_reached(table))
    books.set_state(_deliveries(table), [*known, [sequence, timestamp, -1 if before is None else before]][-KEPT:])


def last_timestamp(books: Books, table: Table) -> int | None:
    """The timestamp of the last complete load of a table or index; ``None`` before the first."""
    known = _known(books, table)
    return known[-1][1] if known else None


def as_of(books: Books, table: Table, sequence: int) -> int:
    """The end of the time range in which readers see a table as a delivery left it.

    Raises:
        NotHeldError: The delivery is not loaded yet, or was loaded at once with others, or the table was loaded as a
            whole since.
    """
    known, newest = _known(books, table), books.state(_reached(table))
    what = f"HBase table {table.name}: expected its state as of delivery {sequence}, got"
    if newest is None or sequence > newest:
        last = "no delivery" if newest is None else f"delivery {newest}"
        raise NotHeldError(f"{what} {last} as the last one that is loaded")
    if not known or sequence < known[0][0]:
        oldest = f"that of delivery {known[0][0]}" if known else "none"
        raise NotHeldError(f"{what} {oldest} as the oldest one; a load of the whole table leaves no earlier state")
    for until, _, before in known[1:]:
        if before < sequence < until:
            raise NotHeldError(
                f"{what} those of {before} and {until}; the deliveries between the two were loaded at once"
            )
    return 1 + max(timestamp for loaded, timestamp, _ in known if loaded <= sequence)


def _known(books: Books, table: Table) -> Sequence[tuple[int, int, int]]:
    """Delivery, timestamp, and the delivery reached before, of each load."""
    return books.state(_deliveries(table)) or []


def _deliveries(table: Table) -> str:
    return f"hbase/{table.name}/deliveries"


def _reached(table: Table) -> str:
    """Key of the last delivery that the table has reached, loaded or without rows for it; who builds it sets that."""
    return f"hbase/{table.name}/reached"
