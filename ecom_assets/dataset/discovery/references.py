"""Columns that refer to the key of a table: proposed by their names, verified by their values.

What belongs here: which columns are compared, and which of several tables is taken. What does not: names themselves
(``names``), and the comparison (``hashes``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from ecom_assets.dataset.discovery import names
from ecom_assets.dataset.discovery.candidates import Key
from ecom_assets.dataset.discovery.hashes import Hashes
from ecom_assets.dataset.discovery.infer import Column

TOLERATED = 0.01
"""Share of values that may lead nowhere in a reference that is still proposed."""


@dataclass(frozen=True)
class Source:
    """A table that is looked at.

    Attributes:
        name: Its name.
        columns: Its columns.
        key: Its primary key.
        rows: Its rows.
    """

    name: str
    columns: tuple[Column, ...]
    key: Key
    rows: int

    def column(self, name: str) -> Column:
        """A column by its name."""
        return next(each for each in self.columns if each.name == name)

    @property
    def words(self) -> dict[str, names.Words]:
        """The words of its columns' names."""
        return names.plain([each.name for each in self.columns])


@dataclass(frozen=True)
class Reference:
    """A reference that was found.

    Attributes:
        columns: Columns that refer.
        table: The table that they refer to.
        to: Its columns.
        rows: Rows that refer to something.
        missing: Those of them that lead nowhere.
    """

    columns: tuple[str, ...]
    table: str
    to: tuple[str, ...]
    rows: int
    missing: int

    @property
    def tolerated(self) -> float:
        """The share that leads nowhere, rounded up to a thousandth."""
        return ceil(1000 * self.missing / self.rows) / 1000

    @property
    def label(self) -> str:
        """The reference as people read it."""
        return f"{', '.join(self.columns)} -> {self.table}"


def find(tables: Sequence[Source]) -> dict[str, list[Reference]]:
    """Find what the columns of some tables refer to.

    Returns:
        Table -> its references, those of single columns first.
    """
    single = {table.name: list(_single(table, tables)) for table in tables}
    compound: list[tuple[str, Reference]] = []
    for table in tables:
        taken = {(other, found.table) for other, found in compound}
        compound += [
            (table.name, found) for found in _compound(table, tables) if (found.table, table.name) not in taken
        ]
    return {name: [*found, *(each for other, each in compound if other == name)] for name, found in single.items()}


def _single(table: Source, tables: Sequence[Source]) -> Iterator[Reference]:
    """The references of its columns, one each."""
    words = table.words
    for column in table.columns:
        if column.hashes is None or column.empty:
            continue
        fitting = []
        for other in tables:
            score = _resemblance(words[column.name], other)
            if score and len(other.key.columns) == 1 and other.column(other.key.columns[0]).avro == column.avro:
                fitting.append((-score, other.rows, other.name, other))
        if table.key.columns == (column.name,):
            # Of two tables that share a key, the one whose name fits better owns it.
            own = _resemblance(words[column.name], table)
            fitting = [each for each in fitting if _owns(each[3]) > _owns(table) and -each[0] >= own]
        else:
            fitting = [each for each in fitting if each[3] is not table or column.name not in table.key.columns]
        pairs = [((column.name,), column.hashes, other) for *_, other in sorted(fitting, key=lambda each: each[:3])]
        if found := _best(pairs):
            yield found


def _compound(table: Source, tables: Sequence[Source]) -> Iterator[Reference]:
    """Its references to keys of several columns, one for each choice of its columns."""
    found: dict[tuple[str, ...], list[tuple[tuple[str, ...], Hashes, Source]]] = {}
    for other in sorted(tables, key=lambda each: (-names.kinship(table.name, each.name), each.rows)):
        if other is not table and len(other.key.columns) > 1 and (columns := _counterparts(table, other)):
            joined = Hashes.joined([column.hashes for column in columns if column.hashes is not None])
            chosen = tuple(column.name for column in columns)
            found.setdefault(tuple(sorted(chosen)), []).append((chosen, joined, other))
    for pairs in found.values():
        if best := _best(pairs):
            yield best


def _counterparts(table: Source, other: Source) -> list[Column] | None:
    """For each column of another table's key, the one of this table that is called most like it."""
    words, theirs = table.words, other.words
    chosen: list[Column] = []
    for name in other.key.columns:
        avro = other.column(name).avro
        scored = [
            (_likeness(words[each.name], theirs[name], other), -place, each)
            for place, each in enumerate(table.columns)
            if each.hashes is not None and not each.empty and each.avro == avro and each not in chosen
        ]
        score, _, best = max(scored, key=lambda each: each[:2], default=(0.0, 0, None))
        if not score or best is None:
            return None
        chosen.append(best)
    return chosen


def _likeness(words: names.Words, key: names.Words, other: Source) -> float:
    """How well a name fits a part of a key, which may be as short as `no`: the other parts say what it belongs to."""
    return 1.0 if words == key else names.resemblance(words, other.name, key)


def _best(pairs: Sequence[tuple[tuple[str, ...], Hashes, Source]]) -> Reference | None:
    """The first table where all values are found; else the first where nearly all are."""
    nearly = None
    for columns, hashes, other in pairs:
        rows, missing = hashes.missing_in(other.key.hashes)
        found = Reference(columns, other.name, other.key.columns, rows, missing)
        if rows and not missing:
            return found
        if rows and missing <= TOLERATED * rows:
            nearly = nearly or found
    return nearly


def _resemblance(words: names.Words, other: Source) -> float:
    if len(other.key.columns) > 1:
        return 0.0
    return names.resemblance(words, other.name, other.words[other.key.columns[0]])


def _owns(table: Source) -> float:
    """How well a table's name fits its own key."""
    key = names.words(table.key.columns[0])
    owner = names.words(table.name)
    return len(set(owner) & set(key)) / len(owner) if owner else 0.0
