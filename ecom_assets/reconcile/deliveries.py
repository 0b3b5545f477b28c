"""How far each delivery has come, and what it brought.

What belongs here: putting together what the books know of deliveries, for people. What does not: which files of a
source are deliveries (``source.acceptance``), and whether a layer is right (``report``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ecom_assets.core import accounts, delivery
from ecom_assets.core.accounts import Account
from ecom_assets.core.delivery import Delivery
from ecom_assets.core.engine import Engine

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
