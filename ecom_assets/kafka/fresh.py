"""Rows of a simulation: those of chunks, with keys and times of their own, as if they had just come in.

What belongs here: which columns are renewed, and how. What does not: rate, order and the ledger (``simulate``).

A column of the primary key is renewed unless it refers to another table, in which a new value would find nothing. Each
new key is one that no row has: a random UUID, the time in microseconds (counted on where that is taken), or the old
text with that number behind it. Times move so that the latest of a group is now; days, such as birthdays, stay.
"""

from __future__ import annotations

import time
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from ecom_assets.core import values
from ecom_assets.core.errors import TopicError
from ecom_assets.dataset.kind import INSTANT, TIMESTAMP, UUID
from ecom_assets.dataset.model import Column, Table


class Renewer:
    """Turns rows of a table into new ones, as often as needed.

    Args:
        table: The table.

    Raises:
        TopicError: No column of its primary key can be renewed.
    """

    def __init__(self, table: Table) -> None:
        referring = {column for reference in table.references for column in reference.columns}
        fixed = {column for layout in table.layouts for column in layout.widths}
        self._keys = [
            place
            for place, column in enumerate(table.columns)
            if column.name in table.primary_key
            and column.name not in referring
            and (column.kind.name in ("long", "uuid") or (column.kind.is_plain and column.name not in fixed))
        ]
        self._times = [place for place, column in enumerate(table.columns) if _is_time(column, table)]
        self._last = 0
        if not self._keys:
            raise TopicError(
                f"{table.name}: expected a column of the primary key ({table.key}) that can have new values, got none:"
                " each refers to another table, or has a type or a width that leaves no room",
                "send its rows once more with --again, or simulate another table with --table",
            )

    def renewed(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Rows with new keys, and times that end now."""
        now = time.time_ns() // 1000
        first = max(now, self._last + 1)
        self._last = first + rows.num_rows
        columns = list(rows.columns)
        for place in self._keys:
            columns[place] = _new_keys(columns[place], first)
        shift = None
        for place in self._times:
            moments = _moments(columns[place])
            if shift is None and (latest := pc.max(moments).as_py()) is not None:
                shift = now - latest
            if shift is not None:
                columns[place] = _shifted(columns[place], moments, shift)
        return pa.RecordBatch.from_arrays(columns, schema=rows.schema)


def _is_time(column: Column, table: Table) -> bool:
    if column.name in table.primary_key and column.kind.is_plain:
        return False
    return pa.types.is_timestamp(column.kind.arrow) or bool(column.parsed_as and column.parsed_as[1] == "timestamp")


def _new_keys(old: pa.Array, first: int) -> pa.Array:
    """Keys that no row has; ``first`` and as many numbers behind it as there are rows are not taken."""
    numbers = pa.array(range(first, first + len(old)), pa.int64())
    if pa.types.is_integer(old.type):
        return numbers
    if pc.all(pc.match_substring_regex(old, UUID.whole), min_count=0).as_py():
        return pa.array([str(uuid4()) for _ in range(len(old))])
    return pc.binary_join_element_wise(old, numbers.cast(pa.string()), "~")


def _moments(column: pa.Array) -> pa.Array:
    """Times as microseconds since 1970; null where a text is none."""
    if pa.types.is_string(column.type):
        column = values.parse(column, TIMESTAMP)
    return column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64())


def _shifted(column: pa.Array, moments: pa.Array, shift: int) -> pa.Array:
    """Times later by some microseconds; what is none stays as it is."""
    later = pc.add(moments, shift)
    if not pa.types.is_string(column.type):
        return later.cast(pa.timestamp("us", column.type.tz)).cast(column.type)
    return pc.coalesce(values.texts(later.cast(INSTANT)).cast(pa.string()), column)
