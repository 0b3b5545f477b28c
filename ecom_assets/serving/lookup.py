"""Single rows straight from HBase: by their row key, by the beginning of it, or through an index.

What belongs here: what rows can be found by, and point and prefix reads through Thrift. What does not: scans of a table
(``hbase.scan``), and how an index is built (``index``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import happybase
from thriftpy2.thrift import TException

from ecom_assets.core.errors import EcomError
from ecom_assets.core.home import hint
from ecom_assets.dataset.model import Dataset, Index, Table
from ecom_assets.hbase import get, thrift
from ecom_assets.hbase.get import SwapError
from ecom_assets.hbase.layout import Layout

if TYPE_CHECKING:
    from ecom_assets.core.addresses import Addresses
    from ecom_assets.core.settings import Settings

T = TypeVar("T")
Row = dict[str, str | None]
Ends = Mapping[str, int | None]
"""Table or index -> the end of the time range in which its cells are read; ``None``, or not there: all of them."""

ATTEMPTS = 4
"""Tries per lookup, about three seconds in all: a person is waiting."""

SWAP_SECONDS = 5.0
"""How long a lookup waits for a table that is being swapped."""

MOST = 1000
"""Most rows that a lookup shows."""


class LookupUnavailableError(EcomError):
    """HBase cannot be read now; the message names the remedy."""


@dataclass(frozen=True)
class Key:
    """What rows are found by.

    Attributes:
        column: The first column of a row key.
        places: The tables and indexes that a value of it leads to, tables first.
    """

    column: str
    places: tuple[Table, ...]


def keys(dataset: Dataset) -> list[Key]:
    """All that rows can be found by: columns that hold the same keys are one, so that a value finds all that is its."""
    found: dict[tuple[str, str], list[Table]] = {}
    for place in [*dataset.tables.values(), *dataset.indexes.values()]:
        found.setdefault(_keys_of(place, dataset), []).append(place)
    return [Key(places[0].hbase.row_key[0], tuple(places)) for places in found.values()]


def _keys_of(place: Table, dataset: Dataset) -> tuple[str, str]:
    """Names the keys that the first column of a row key holds: by their domain, or the column that they come from."""
    table, column = place.of if isinstance(place, Index) else place, place.hbase.row_key[0]
    for reference in table.references:
        if reference.columns == (column,):
            table, column = dataset.tables[reference.table], reference.to[0]
            break
    domain = table.domains.get(column)
    return ("", domain) if domain else (table.name, column)


def row(table: Table, key: str, settings: Settings, addresses: Addresses, ends: Ends | None = None) -> Row | None:
    """The row under a row key of one column, or ``None`` if there is none."""
    return next(iter(_get(table, [Layout(table).key([key])], settings, addresses, ends or {})), None)


def under(
    table: Table, value: str, settings: Settings, addresses: Addresses, limit: int = MOST, *, ends: Ends | None = None
) -> list[Row]:
    """The rows whose row key begins with a value of its first column, in the order of the row key."""
    return _prefix(table, [value], settings, addresses, limit, ends=ends or {})


def through(index: Index, value: str, settings: Settings, addresses: Addresses, ends: Ends | None = None) -> list[Row]:
    """The rows of a table that an index finds under a value of its first column, the last of the index first."""
    found = under(index, value, settings, addresses, ends=ends)
    layout = Layout(index.of)
    keys = [layout.key([str(entry[name]) for name in index.of.hbase.row_key]) for entry in reversed(found)]
    return _get(index.of, keys, settings, addresses, ends or {})


def examples(
    table: Table, settings: Settings, addresses: Addresses, count: int = 1, ends: Ends | None = None
) -> list[str]:
    """Values of the first column of the row key that are there: those of the first rows."""
    first = table.hbase.row_key[0]
    return list(
        dict.fromkeys(str(row[first]) for row in _prefix(table, [], settings, addresses, count, ends=ends or {}))
    )


def _get(table: Table, keys: list[bytes], settings: Settings, addresses: Addresses, ends: Ends) -> list[Row]:
    """Those rows that are there of some keys, in the order of these, in one call."""
    layout, end = Layout(table), ends.get(table.name)
    families = None if end is None else list(layout.families)  # without them happybase would ask for them each time
    if not keys:
        return []

    def read(source: happybase.Table) -> list[Row]:
        found = dict(source.rows(keys, families, timestamp=end))
        return [layout.record(key, found[key]) for key in keys if found.get(key)]

    return _read(table, settings, addresses, read)


def _prefix(
    table: Table, values: list[str], settings: Settings, addresses: Addresses, limit: int, *, ends: Ends
) -> list[Row]:
    layout = Layout(table)
    start, end = layout.key(values), ends.get(table.name)

    def read(source: happybase.Table) -> list[Row]:
        found = source.scan(row_prefix=start, limit=limit, batch_size=min(limit, 200), timestamp=end)
        return [layout.record(key, cells) for key, cells in found]

    return _read(table, settings, addresses, read)


def _read(table: Table, settings: Settings, addresses: Addresses, read: Callable[[happybase.Table], T]) -> T:
    name = table.hbase_table(settings.namespace)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return get.reading(name, addresses.hbase_thrift, read, SWAP_SECONDS)
        except SwapError as error:
            raise LookupUnavailableError(str(error).replace("\nRemedy: ", "; ")) from error
        except (OSError, TException) as error:
            text = thrift.message(error)
            if "TableNotFound" in text:
                raise LookupUnavailableError(
                    f"HBase holds no table {name}; `{hint('run', settings)}` loads it,"
                    f" `{hint('dev', settings)}` shows what is missing"
                ) from error
            if attempt < ATTEMPTS and thrift.transient(error):
                time.sleep(0.25 * 2**attempt)
                continue
            where = ":".join(map(str, addresses.hbase_thrift))
            raise LookupUnavailableError(
                f"HBase does not answer at {where} ({text.strip().splitlines()[0] if text.strip() else error!r});"
                f" `{hint('status', settings)}` shows which servers run, `{hint('up', settings)}` starts them"
            ) from error
    raise AssertionError("unreachable")
