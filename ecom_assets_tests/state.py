"""What a table must come to, delivery by delivery, in plain Python: the reference for every write mode."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ecom_assets.core.boundary import LEFT_OUT
from ecom_assets.dataset.model import Table
from ecom_assets_tests.topics import Row

Key = tuple[object, ...]


@dataclass
class State:
    """A table after some deliveries.

    Attributes:
        table: The table.
        rows: Primary key -> its row, and the sequence of the delivery that brought it.
        left: Reason -> rows that were left out.
        history: Former versions: row, the delivery that brought it, the one that ended it.
    """

    table: Table
    rows: dict[Key, tuple[Row, int]] = field(default_factory=dict)
    left: dict[str, list[Row]] = field(default_factory=lambda: {reason: [] for reason in LEFT_OUT})
    history: list[tuple[Row, int, int]] = field(default_factory=list)
    _newest: dict[Key, int] = field(default_factory=dict)

    def deliver(self, sequence: int, rows: Iterable[Row]) -> None:
        """Take the rows of a delivery, in their order."""
        seen = set()
        for row in rows:
            key = self._key(row)
            seen.add(key)
            self._put(key, row, sequence)
        if self.table.write == "replace":
            for key in self.rows.keys() - seen:
                self._end(key, "deleted", sequence)

    def bury(self, key: Key, sequence: int) -> None:
        """Take a tombstone."""
        self._end(key, "deleted", sequence)
        columns = dict.fromkeys(self.table.names)
        self.left["deletions"].append(columns | dict(zip(self.table.primary_key, key, strict=True)))

    def _put(self, key: Key, row: Row, sequence: int) -> None:
        table = self.table
        there = self.rows.get(key, (None, 0))[0]
        column, values = table.deleted_if or ("", ())
        deletes = bool(column) and str(row[column]) in values
        if table.write == "append":
            if there is not None:
                self.left["duplicates" if there == row else "conflicts"].append(row)
                return
        elif table.version and self._is_stale(key, row[table.version], deletes=deletes):
            self.left["stale"].append(row)
            return
        elif deletes:
            self._end(key, "deleted", sequence)
            self.left["deletions"].append(row)
            return
        elif there == row:
            self.left["duplicates"].append(row)
            return
        else:
            self._end(key, "superseded", sequence)
        self.rows[key] = (row, sequence)

    def _is_stale(self, key: Key, version: int | None, *, deletes: bool) -> bool:
        newest = self._newest.get(key)
        if version is None:
            return newest is not None and not deletes
        if newest is not None and version < newest:
            return True
        self._newest[key] = version
        return False

    def _end(self, key: Key, reason: str, sequence: int) -> None:
        if key in self.rows:
            row, since = self.rows.pop(key)
            self.left[reason].append(row)
            self.history.append((row, since, sequence))

    def _key(self, row: Row) -> Key:
        return tuple(row[name] for name in self.table.primary_key)
