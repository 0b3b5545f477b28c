"""Columns that identify the rows of a table: found on a sample of them, verified on all.

What belongs here: which columns are tried, and in which order. What does not: whether they differ (``hashes``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod

import numpy as np

from ecom_assets.dataset.discovery.hashes import Hashes
from ecom_assets.dataset.discovery.infer import Column
from ecom_assets.dataset.discovery.names import looks_like_key, says_when

_SAMPLE, _FIRST = 100_000, 2_000
"""Rows of the sample, and those of it that are tried first."""

_MOST_COLUMNS = 40
"""Columns to combine; those that look like keys first."""

_MOST_COLUMNS_OF_KEY = 3

_MOST_TRIED = 20
"""Combinations that are verified on all rows; the sample has ruled out nearly all others."""

_FEW = 100
"""Rows below which columns may differ by chance."""


@dataclass(frozen=True)
class Key:
    """A key that was found.

    Attributes:
        columns: Its columns.
        hashes: Their hashes.
        doubts: Why it may not be the one that is meant, each a clause.
    """

    columns: tuple[str, ...]
    hashes: Hashes
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Candidate:
    place: int
    name: str
    hashes: Hashes

    @property
    def likely(self) -> bool:
        return looks_like_key(self.name) or not self.place

    @property
    def rank(self) -> tuple[bool, bool, bool, int]:
        """What is tried first is least."""
        return not self.likely, not looks_like_key(self.name), says_when(self.name), self.place


def usable(column: Column) -> bool:
    """Whether a column can be part of a key: of a kind that is one, and never null or empty."""
    return column.hashes is not None and not column.nulls and not column.empty


def find(columns: Sequence[Column], rows: int) -> Key | None:
    """Find the primary key of a table.

    Columns that are called like keys, and the first one, are tried before all others; fewer columns before more,
    moments after others, and those further left first.

    Args:
        columns: The columns, with hashes.
        rows: Rows of the table.

    Returns:
        The key, whose values differ in every row; ``None`` if none was found.
    """
    candidates = sorted(
        (
            _Candidate(place, column.name, column.hashes)
            for place, column in enumerate(columns)
            if column.hashes is not None and usable(column)
        ),
        key=lambda each: each.rank,
    )[:_MOST_COLUMNS]
    search = _Search(candidates)
    if not rows or not search.possible():
        return None
    likely = [each for each in candidates if each.likely]
    for group in (*_groups(likely), *_groups(candidates)):
        if search.unique(group):
            ordered = sorted(group, key=lambda each: each.place)
            doubts = tuple(_doubts(ordered, likely, search, rows))
            return Key(tuple(each.name for each in ordered), _joined(ordered), doubts)
    return None


def nearest(columns: Sequence[Column]) -> tuple[str, int] | None:
    """The column that comes closest to a key, and its rows that repeat an earlier one's value."""
    tried = [(c.hashes.repeated(), c.name) for c in columns if c.hashes is not None and usable(c)]
    return min(((name, repeated) for repeated, name in tried), key=lambda each: each[1], default=None)


def _groups(candidates: Sequence[_Candidate]) -> Iterator[tuple[_Candidate, ...]]:
    for size in range(1, _MOST_COLUMNS_OF_KEY + 1):
        yield from combinations(candidates, size)


def _joined(group: Sequence[_Candidate]) -> Hashes:
    return Hashes.joined([each.hashes for each in group])


def _doubts(group: Sequence[_Candidate], likely: Sequence[_Candidate], search: _Search, rows: int) -> Iterator[str]:
    if rows < _FEW:
        yield f"only {rows:,} row{'s' * (rows != 1)}"
        return
    if not any(looks_like_key(each.name) for each in group):
        yield "not called like a key"
    others = [each for each in likely if each not in group]
    if len(group) == 1 and (unique := [each.name for each in others if search.unique((each,))]):
        yield f"unique as well: {', '.join(unique)}"
    if len(group) > 1 and (alike := _alike(group, likely, search)):
        yield f"unique as well: {', '.join(each.name for each in alike)} together"
    if len(group) > 1 and (constant := [each.name for each in others if search.constant(each)]):
        yield f"{', '.join(constant)} may be part of it, but has one value only"


def _alike(group: Sequence[_Candidate], likely: Sequence[_Candidate], search: _Search) -> tuple[_Candidate, ...] | None:
    """As many other columns that are a key too."""
    others = (each for each in combinations(likely, len(group)) if set(each) != set(group))
    return next((each for each in others if search.unique(each)), None)


class _Search:
    """Remembers what is known of candidates, and verifies only what a sample has not ruled out."""

    def __init__(self, candidates: Sequence[_Candidate]) -> None:
        self._samples = {each.name: each.hashes.sample(_SAMPLE) for each in candidates}
        self._distinct = {name: len(np.unique(sample)) for name, sample in self._samples.items()}
        self._verified: dict[frozenset[str], bool] = {}

    def possible(self) -> bool:
        """Whether the rows of the sample differ at all; if not, no columns need to be combined."""
        return bool(self._samples) and _differ(_mixed(list(self._samples.values())))

    def constant(self, candidate: _Candidate) -> bool:
        """Whether a column has one value in the sample."""
        return self._distinct[candidate.name] == 1

    def unique(self, group: Sequence[_Candidate]) -> bool:
        """Whether all rows differ in some columns."""
        names = [each.name for each in group]
        samples = [self._samples[name] for name in names]
        if prod(self._distinct[name] for name in names) < len(samples[0]):
            return False
        for most in (_FIRST, _SAMPLE):
            if not _differ(_mixed([sample[:most] for sample in samples])):
                return False
        known = frozenset(names)
        if known not in self._verified:
            if len(self._verified) >= _MOST_TRIED:
                return False
            self._verified[known] = not _joined(group).repeated()
        return self._verified[known]


def _differ(hashes: np.ndarray) -> bool:
    ordered = np.sort(hashes)
    return not (ordered[1:] == ordered[:-1]).any()


def _mixed(samples: Sequence[np.ndarray]) -> np.ndarray:
    """One number per row of several."""
    total = samples[0].copy()
    for place, sample in enumerate(samples[1:], 1):
        total += sample * np.uint64(2 * place + 1)
    return total
