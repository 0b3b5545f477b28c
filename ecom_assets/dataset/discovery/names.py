"""What names of columns and tables have in common: which look like keys, and which resemble the key of another table.

What belongs here: names alone. What does not: values, by which every guess that starts here is verified
(``candidates``, ``references``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

_KEY_WORDS = {"id", "key", "sk", "no", "code", "uuid", "guid", "pk"}
"""Last words of names that identify something."""

_VAGUE = _KEY_WORDS | {"name", "date", "time", "type", "value", "title"}
"""Words that say nothing without the one before: `id` alone resembles the key of no table."""

_MOMENTS = {"date", "time", "day", "month", "year", "timestamp"}
"""Words of names that say when, such as ``returned_date_sk``."""

_SAME = {"number": "no", "num": "no", "nr": "no"}
"""Words that mean another one."""

_SHORTEST = 3
"""Letters of an abbreviation at least: `addr` is one of `address`, `a` is not."""

Words = tuple[str, ...]


@cache
def words(name: str) -> Words:
    """The words of a name in lower case and singular: ``billingAddresses_ID`` is `billing`, `address`, `id`."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    return tuple(_singular(word) for word in re.split(r"[^A-Za-z0-9]+", spaced.lower()) if word)


def looks_like_key(name: str) -> bool:
    """Whether a name ends as names of keys do."""
    return not _KEY_WORDS.isdisjoint(words(name)[-1:])


def says_when(name: str) -> bool:
    """Whether a name is one of a moment: two of these may well identify each row, but by chance."""
    return not _MOMENTS.isdisjoint(words(name))


def plain(columns: Sequence[str]) -> dict[str, Words]:
    """The words of a table's columns, without the one that all of them begin with, such as `ss` of ``ss_item_sk``."""
    split = {name: words(name) for name in columns}
    first = {each[:1] for each in split.values()}
    if len(split) > 1 and len(first) == 1 and all(len(each) > 1 for each in split.values()):
        return {name: each[1:] for name, each in split.items()}
    return split


def resemblance(column: Words, table: str, key: Words) -> float:
    """How well a column's name fits the key of a table, 1 at best, 0 if not at all.

    The name may say more in front: ``sold_date_sk`` is one of ``date_sk``. A key that is called as in every table, such
    as ``id``, goes by the name of the table.

    Args:
        column: Words of the column, plain.
        table: Name of the table.
        key: Words of its key, plain.
    """
    owner = words(table)
    forms = [(*owner, *key[-1:])] if key[-1:] != owner[-1:] else []
    if len(key) > 1 or not set(key) <= _VAGUE:
        forms.append(key)
    scores = [_ending(column, form, owner) for form in forms]
    if column == owner:  # ``store`` may well be one's id
        scores.append(0.7)
    return max(scores, default=0.0)


def kinship(table: str, other: str) -> int:
    """How many words two tables share: `store_returns` and `store_sales` belong together."""
    return len(set(words(table)) & set(words(other)))


def _ending(column: Words, form: Words, owner: Words) -> float:
    """The share of a column's words that are those of a form, which it must end with."""
    if not form or len(column) < len(form):
        return 0.0
    alike = [_alike(mine, other, owner) for mine, other in zip(column[-len(form) :], form, strict=True)]
    return sum(alike) / len(column) if all(alike) else 0.0


def _alike(word: str, other: str, owner: Words) -> float:
    if word == other:
        return 1.0
    if min(len(word), len(other)) >= _SHORTEST and (word.startswith(other) or other.startswith(word)):
        return 0.8
    # `cdemo` is the `demo` of a table whose name begins with a c.
    initial = word.removesuffix(other)
    if len(other) >= _SHORTEST and initial != word and "_".join(owner).startswith(initial):
        return 0.9
    return 0.0


def _singular(word: str) -> str:
    if word in _SAME:
        return _SAME[word]
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word
