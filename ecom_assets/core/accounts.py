"""What each delivery did to a table, as the checks of two neighboring states found it.

What belongs here: the difference of two states that were both verified, kept in the books under the last delivery
between them. What does not: measuring, and comparing layers (``engine``, ``boundary``).

Both states balance with the layer before them, so their difference does, too: received = inserted + duplicates +
conflicts + stale + deletions + those that superseded; after = before + inserted - superseded - deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ecom_assets.core.books import Books
from ecom_assets.core.boundary import LEFT_OUT
from ecom_assets.core.layer import Measurement
from ecom_assets.core.measure import Measure
from ecom_assets.dataset.model import Table

ENDED = ("superseded", "deleted")
"""Reasons of rows that were in the table before."""


@dataclass(frozen=True)
class Account:
    """What some deliveries, mostly one, did to a table.

    Attributes:
        first: The sequence of the first of them.
        last: That of the last of them.
        before: The table's rows before.
        after: Its rows after.
        left: Reason -> rows that are left out since; those of ``ENDED`` were in the table before, or came and went.
    """

    first: int
    last: int
    before: Measure
    after: Measure
    left: Mapping[str, Measure]

    @property
    def inserted(self) -> Measure:
        """Rows that came into the table, those that superseded others included."""
        return sum((self.left[reason] for reason in ENDED), self.after) - self.before

    @property
    def received(self) -> Measure:
        """Rows that the layer before got."""
        return sum((each for reason, each in self.left.items() if reason not in ENDED), self.inserted)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that ``from_json`` reads."""
        left = {reason: each.to_json() for reason, each in self.left.items() if each.rows}
        return {
            "first": self.first,
            "last": self.last,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "left": left,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Account:
        """Read what ``to_json`` wrote."""
        left = {r: Measure.from_json(data["left"][r]) if r in data["left"] else Measure() for r in LEFT_OUT}
        before, after = Measure.from_json(data["before"]), Measure.from_json(data["after"])
        return cls(data["first"], data["last"], before, after, left)


def record(books: Books, found: Measurement, reached: int) -> None:
    """Record what a layer was verified to hold after a delivery, and so what that one did.

    Nothing is recorded of a layer that leaves no rows out. A state that differs without a further delivery, by rows of
    other producers, counts towards the next one.

    Args:
        books: The home's books.
        found: What the layer holds.
        reached: The sequence of the last delivery that is in it.
    """
    if not found.excluded.keys() & set(LEFT_OUT):
        return
    key = f"{found.layer}/{found.table}/verified"
    known = books.state(key)
    if known and known["reached"] >= reached:
        return
    before = Measure.from_json(known["measure"]) if known else Measure()
    was = {r: Measure.from_json(m) for r, m in known["excluded"].items()} if known else {}
    left = {r: found.excluded.get(r, Measure()) - was.get(r, Measure()) for r in LEFT_OUT}
    account = Account(1 + known["reached"] if known else 0, reached, before, found.measure, left)
    books.set_state(_key(found.layer, found.table, reached), account.to_json())
    excluded = {r: each.to_json() for r, each in found.excluded.items() if r in LEFT_OUT}
    books.set_state(key, {"reached": reached, "measure": found.measure.to_json(), "excluded": excluded})


def of(books: Books, layer: str, table: Table) -> list[Account]:
    """The accounts of a table in the order of deliveries."""
    return [Account.from_json(each) for _, each in sorted(books.states(_key(layer, table.name)).items())]


def _key(layer: str, table: str, sequence: int | None = None) -> str:
    return f"{layer}/{table}/account/{'' if sequence is None else f'{sequence:09d}'}"
