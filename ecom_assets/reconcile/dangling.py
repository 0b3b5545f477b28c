"""Values of a merged table that lead nowhere: the search behind the check ``references``.

What belongs here: the search among all rows, and among what is new since it passed. What does not: how many such values
are tolerable, and what people see of them; see ``content``.
"""

# ruff: noqa: S608 (every identifier comes from the contract and is quoted by `quoted`; values never are in the text)
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ecom_assets.core.settings import Settings
from ecom_assets.core.sql import quoted
from ecom_assets.dataset.model import Reference, Table
from ecom_assets.reconcile.finding import SAMPLES
from ecom_assets.reconcile.since import ROWS, Held, Query, passed, query, since

KEPT = 100
"""Dangling values that the books keep; with more of them, everything is looked up each time."""


@dataclass(frozen=True)
class Dangling:
    """What became of the values of a reference.

    Attributes:
        used: How many there are.
        nowhere: How many of them lead nowhere.
        values: Those as texts, each with its number; ``None`` if they are more than ``KEPT``.
        samples: A few of their rows.
    """

    used: int
    nowhere: int
    values: Counter[tuple[str, ...]] | None = field(default_factory=Counter)
    samples: list[dict[str, Any]] = field(default_factory=list)


class Search:
    """Looks for values that lead nowhere. A null refers to nothing.

    Args:
        settings: The home.
        table: The table that refers.
        reference: To what.
        rows: Its rows.
        others: Those of the other table.
    """

    def __init__(self, settings: Settings, table: Table, reference: Reference, rows: Held, others: Held) -> None:
        self._settings, self._table, self._rows, self._others = settings, table, rows, others
        # No column begins with an underscore, so that none is called like one of ours.
        self._names = [f"_value{n or ''}" for n in range(len(reference.columns))]
        values = [_path(table, path) for path in reference.columns]
        self._select = ", ".join(f"{value} AS {name}" for value, name in zip(values, self._names, strict=True))
        self._values = ", ".join(self._names)
        self._targets = ", ".join(
            f"{quoted(column)} AS {name}" for column, name in zip(reference.to, self._names, strict=True)
        )
        self._texts = ", ".join(f"CAST({name} AS VARCHAR) AS _text{name}" for name in self._names)
        self._asked = (self._select, reference.table, self._targets)

    def whole(self) -> Dangling:
        """Look up all values."""
        with query(self._settings, rows=self._rows, others=self._others) as ask:
            used = self._used("rows")
            nowhere = self._lacking(used, self._there("others"))
            count = _count(ask, nowhere)
            few = self._few(ask, nowhere) if count else []  # reads keys besides, and so takes longer than the count
            return Dangling(_count(ask, used), count, self._by_value(few), self._samples(few))

    def new(self, entry: Mapping[str, Any] | None) -> Dangling | None:
        """Look up the values of new rows, and those that led nowhere when the check passed.

        All others lead where they did, unless the other table has lost something.

        Args:
            entry: What the books have of it.

        Returns:
            What became of all values; ``None`` where all must be looked up.
        """
        differences = since(entry, self._asked, self._rows, self._others)
        if differences is None or entry is None:
            return None
        (own, there), (used, dangling) = differences, entry["found"]
        columns = [pa.array([row[n] for row in dangling], pa.string()) for n in range(len(self._names))]
        counts = pa.array([row[-1] for row in dangling], pa.int64())
        known = pa.table([*columns, counts], [*self._names, ROWS])
        new = {"came": own.came, "gone": own.gone, "gained": there.came, "lost": there.gone}
        with query(self._settings, others=self._others, known=known, **new) as ask:
            gained = self._there("gained")
            if ask(f"SELECT * FROM {self._lacking(self._there('lost'), gained)} LIMIT 1"):
                return None
            came, gone = self._used("came"), self._used("gone")
            # DuckDB compares a text with a value of another type as such a value.
            ask(f"CREATE TEMP TABLE still AS SELECT * FROM {self._lacking('known', gained)}")
            # The other table may be large, and most new values lead to what came there with them.
            ask(f"CREATE TEMP TABLE sought AS SELECT DISTINCT {self._values} FROM {self._lacking(came, gained)}")
            ask(f"CREATE TEMP TABLE missing AS SELECT * FROM {self._lacking('sought', self._met('sought', 'others'))}")
            few = self._few(ask, self._among(came, "missing"))
            values = self._by_value(few)
            if values is None:
                return None
            for row in ask(f"SELECT {self._texts}, {ROWS} FROM still"):
                values[self._text(row)] += row[ROWS]
            for row in ask(f"SELECT {self._texts}, count(*) AS {ROWS} FROM {self._among(gone, 'still')} GROUP BY ALL"):
                values[self._text(row)] -= row[ROWS]
            used += _count(ask, came) - _count(ask, gone)
        if any(count < 0 for count in values.values()):
            return None  # the books know of other rows
        total = values.total()
        return Dangling(used, total, +values if total <= KEPT else None, self._samples(few))

    def entry(self, found: Dangling) -> dict[str, Any] | None:
        """What the books keep of it; ``None`` if that would be too much."""
        if found.values is None:
            return None
        values = [[*value, count] for value, count in sorted(found.values.items())]
        return passed([found.used, values], self._asked, self._rows, self._others)

    # SQL

    def _used(self, view: str) -> str:
        """The values in a view of the table, next to the primary keys of their rows."""
        key = ", ".join(f"{quoted(column)} AS _key{n}" for n, column in enumerate(self._table.primary_key))
        return self._filled(f"SELECT {self._select}, {key} FROM {view}")

    def _there(self, view: str) -> str:
        """What can be referred to in a view of the other table."""
        return self._filled(f"SELECT {self._targets} FROM {view}")

    def _filled(self, sql: str) -> str:
        return f"(SELECT * FROM ({sql}) WHERE {' AND '.join(f'{name} IS NOT NULL' for name in self._names)})"

    def _met(self, values: str, view: str) -> str:
        """What some values refer to in a view of the other table, which may be larger than memory."""
        return f"(SELECT DISTINCT {self._values} FROM {self._among(self._there(view), values)})"

    def _among(self, values: str, others: str) -> str:
        return f"(SELECT * FROM {values} SEMI JOIN {others} USING ({self._values}))"

    def _lacking(self, values: str, others: str) -> str:
        return f"(SELECT * FROM {values} ANTI JOIN {others} USING ({self._values}))"

    def _few(self, ask: Query, values: str) -> list[dict[str, Any]]:
        """Some rows whose values lead nowhere, with these as texts besides: all, up to ``KEPT``, or one more."""
        key = [f"_key{n}" for n in range(len(self._table.primary_key))]
        return ask(f"SELECT {', '.join([*key, *self._names])}, {self._texts} FROM {values} LIMIT {KEPT + 1}")

    def _by_value(self, few: list[dict[str, Any]]) -> Counter[tuple[str, ...]] | None:
        return Counter(map(self._text, few)) if len(few) <= KEPT else None

    def _text(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(row[f"_text{name}"] for name in self._names)

    def _samples(self, few: list[dict[str, Any]]) -> list[dict[str, Any]]:
        shown = {f"_key{n}": column for n, column in enumerate(self._table.primary_key)}
        shown |= {name: name for name in self._names}
        return [{to: row[name] for name, to in shown.items()} for row in few[:SAMPLES]]


def _count(ask: Query, values: str) -> int:
    return ask(f"SELECT count(*) AS n FROM {values}")[0]["n"]


def _path(table: Table, path: str) -> str:
    """What a reference's path leads to, as SQL."""
    if path in table.names:
        return quoted(path)
    head, _, member = path.partition(".")
    kind = next(c.parsed_as[1] for c in table.columns if c.parsed_as and c.parsed_as[0] == head)
    values = f"unnest({quoted(head)})" if kind.startswith("array") else quoted(head)
    return f"{values}.{quoted(member)}" if member else values
