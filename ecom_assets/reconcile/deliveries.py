"""How far each delivery and each live day has come, and what it brought.

What belongs here: putting together what the books know of them, for people. What does not: which files of a
source are deliveries (``source.acceptance``), and whether a layer is right (``report``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ecom_assets.core import accounts, delivery
from ecom_assets.core.accounts import Account
from ecom_assets.core.delivery import Delivery
from ecom_assets.core.engine import Engine
from ecom_assets.lake import live_days
from ecom_assets.lake.live_days import LiveRows

FIRST = "first files"
"""What the delivery is called that a home was begun with."""


@dataclass(frozen=True)
class Progress:
    """A delivery on its way.

    Attributes:
        sequence: Its number; 0 for the first files.
        name: Its name.
        at: When it was accepted, ISO 8601 in UTC; empty for the first files.
        tables: Table -> good rows and quarantined records that it brought; ``None`` where they are not known yet.
        layer: The last layer that all its tables have passed; empty if there is none.
        accounts: Table -> what it did to the table, as far as that was verified.
    """

    sequence: int
    name: str
    at: str
    tables: dict[str, tuple[int, int] | None]
    layer: str
    accounts: dict[str, Account]

    def counted(self) -> dict[str, dict[str, int]]:
        """Table -> rows that it inserted, and those that were left out or ended, by reason; zeros are left out."""
        return {
            table: {
                "inserted": account.inserted.rows,
                **{reason: m.rows for reason, m in account.left.items() if m.rows},
            }
            for table, account in self.accounts.items()
        }

    @property
    def accepted(self) -> str:
        """When it was accepted, to the second, for people."""
        return self.at[:19].replace("T", " ")


@dataclass(frozen=True)
class LiveDay:
    """Rows that other producers put into the topics on a day.

    Attributes:
        day: The day, ISO 8601, in UTC.
        tables: Table -> its rows.
        layer: The last layer that all of them have passed.
    """

    day: str
    tables: dict[str, LiveRows]
    layer: str


def progress(engine: Engine) -> list[Progress]:
    """The deliveries of a home in order, the first files included if they are loaded."""
    at = engine.at
    brought = {
        key: (build.rows, int(build.notes.get("quarantined", 0)))
        for key, build in at.books.builds_by_delivery("expanded").items()
    }

    later = delivery.deliveries(at.settings)
    known = _accounts(engine, later)

    def of(sequence: int, name: str, accepted: str, tables: Sequence[str]) -> Progress:
        rows = {table: brought.get((table, str(sequence))) for table in tables}
        did = {table: known[table, sequence] for table in tables if (table, sequence) in known}
        return Progress(sequence, name, accepted, rows, _passed(engine, sequence, tables), did)

    first = [table for table in at.dataset.tables if at.books.build(engine.layers[0].name, table)]
    return [
        *([of(0, FIRST, "", first)] if first else []),
        *(of(each.sequence, each.name, each.at, [file.table for file in each.files]) for each in later),
    ]


def _accounts(engine: Engine, later: Sequence[Delivery]) -> dict[tuple[str, int], Account]:
    """Table and delivery -> what it did; what several did at once is with the last that has rows of the table."""
    found = {}
    for table in engine.at.dataset.tables.values():
        touching = [0, *(each.sequence for each in later if table.name in {file.table for file in each.files})]
        for layer in engine.layers:
            for account in accounts.of(engine.at.books, layer.name, table):
                if its := [sequence for sequence in touching if account.first <= sequence <= account.last]:
                    found[table.name, its[-1]] = account
    return found


def _passed(engine: Engine, sequence: int, tables: Sequence[str]) -> str:
    """The last layer that some tables of a delivery have passed."""
    touched = [engine.at.dataset.tables[name] for name in tables if name in engine.at.dataset.tables]
    passed = ""
    for layer in engine.layers if touched else ():
        if any(engine.reached(layer.name, table) < sequence for table in touched):
            break
        passed = layer.name
    return passed


def live(engine: Engine) -> list[LiveDay]:
    """The live days of a home in order."""
    by_day: dict[str, dict[str, LiveRows]] = {}
    for table in engine.at.dataset.tables:
        for day, rows in live_days.days(engine.at.books, table).items():
            by_day.setdefault(day, {})[table] = rows
    order = (*live_days.LAYERS, engine.layers[-1].name)
    return [
        LiveDay(day, tables, min((_held(engine, *each) for each in tables.items()), key=order.index))
        for day, tables in sorted(by_day.items())
    ]


def _held(engine: Engine, table: str, rows: LiveRows) -> str:
    """The last layer that has all live rows of a table and day."""
    books, (_, streamed, merged) = engine.at.books, live_days.LAYERS
    version = live_days.held(books, table).get(merged)
    if version is None or version.number < rows.version:
        return streamed
    last, before = (books.build(layer, table) for layer in (engine.layers[-1].name, merged))
    # A load that ended after the merge has its rows: loads and merges of a table take turns.
    return engine.layers[-1].name if last and before and last.at > before.at else merged
