"""A data set whose rows change: random deliveries of it, and what its tables must come to by plain Python."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deltalake import DeltaTable
from psycopg import sql

from ecom_assets.core.settings import Settings
from ecom_assets.dataset.loader import load
from ecom_assets.hbase import get, loads
from ecom_assets.hbase.loads import NotHeldError
from ecom_assets.lake import delta, history, merge
from ecom_assets.paths import open_home
from ecom_assets.serving import postgres
from ecom_assets_tests.state import State
from ecom_assets_tests.topics import Row

DECLARED = """
dataset: changing
tables:
  people:
    primary_key: [id]
    write: merge
    deleted_if: {column: status, values: [gone]}
    history: true
    conflicts_tolerated: 1
    hbase: {row_key: [id], families: {a: [status, number], b: [note]}}
    indexes:
      people_by_number: {row_key: [number, id]}
  members:
    primary_key: [id]
    write: merge
    version: number
    hbase: {row_key: [id, status], families: {a: "*"}}
  prices:
    primary_key: [id]
    write: replace
    history: true
    conflicts_tolerated: 1
    hbase: {row_key: [id], families: {a: [status], b: [number, note]}}
  events:
    primary_key: [id]
    hbase: {row_key: [id], families: {a: "*"}}
"""
FIELDS = [
    {"name": "id", "type": "string"},
    {"name": "status", "type": "string"},
    {"name": "number", "type": "long"},
    {"name": "note", "type": ["null", "string"], "default": None},
]


TABLES = ("people", "members", "prices", "events")
KEYS = 40
EVENTS = 10_000
"""Keys of events."""
STATUSES, NUMBERS, NOTES = ("on", "off", "gone"), 4, (None, "", "a", "é,\n")
LONG_AGO = 1_700_000_000


@dataclass(frozen=True)
class Part:
    """What a delivery has for one table.

    Attributes:
        rows: New and changed rows.
        again: An earlier file of the table, by its number among them, whose rows come again; none if not given.
        without: Of the prices, each delivery of which is the whole table: keys that it does not have any more.
    """

    rows: tuple[Row, ...]
    again: int | None = None
    without: frozenset[str] = frozenset()


def row(key: int, status: str, number: int, note: str | None) -> Row:
    """A row of a table whose rows change."""
    return {"id": f"k{key}", "status": status, "number": number, "note": note}


def event(number: int) -> Row:
    """The row under a key of events: the same one for ever."""
    return {"id": f"e{number}", "status": "on", "number": number, "note": None}


class Changing:
    """A source of deliveries, next to the declaration of their tables.

    Args:
        folder: Where to; made here.
        seed: Of what is drawn.

    Attributes:
        declaration: Folder of the declaration.
        source: Folder of the files.
        states: Table -> what it must be after all deliveries so far.
        sequence: That of the last delivery.
        past: Table and sequence -> its rows after that delivery.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.declaration, self.source = folder / "changing", folder / "source"
        self.declaration.mkdir(parents=True)
        (self.declaration / "dataset.yaml").write_text(DECLARED, encoding="utf-8")
        for name in TABLES:
            schema = {"type": "record", "name": name.capitalize(), "fields": FIELDS}
            (self.declaration / f"{name}.avsc").write_text(json.dumps(schema), encoding="utf-8")
        self.dataset = load(self.declaration)
        self.states = {name: State(table) for name, table in self.dataset.tables.items()}
        self.past: dict[tuple[str, int], Counter[str]] = {}
        self.chance, self.sequence, self.days = random.Random(seed), 0, 0
        self.sent: dict[str, list[list[Row]]] = {name: [] for name in TABLES}
        self._write(self.source, {name: list(self._some(name, 30)) for name in TABLES})

    def deliver(self, parts: Mapping[str, Part] | None = None) -> None:
        """Write the files of one more delivery: some tables, with new rows, changed ones, and those of before.

        Args:
            parts: Table -> what the delivery has for it; drawn if not given.
        """
        files = {}
        for name, part in (self._drawn() if parts is None else parts).items():
            rows, before = list(part.rows), self.sent[name]
            if part.again is not None:
                again = before[part.again % len(before)]
                rows = [*again, *rows] if name == "events" else [*rows, *again]
            if name == "prices":
                there = [row for (key,), (row, _) in self.states[name].rows.items() if key not in part.without]
                rows = [*there, *rows]
            files[name] = rows
        self.days += 1
        self._write(self.source / f"{self.days:04}", files)

    def _drawn(self) -> dict[str, Part]:
        draw, parts = self.chance, {}
        for name in draw.sample(TABLES, draw.randint(1, len(TABLES))):
            rows = self._some(name, draw.choice([1, 3, 12]))
            again = draw.randrange(len(self.sent[name])) if draw.random() < 0.5 else None
            parts[name] = Part(rows, again, frozenset(f"k{n}" for n in range(KEYS) if draw.random() < 0.2))
        return parts

    def _some(self, name: str, count: int) -> tuple[Row, ...]:
        return tuple(self._row(name) for _ in range(count))

    def _row(self, name: str) -> Row:
        draw = self.chance
        if name == "events":
            return event(draw.randrange(EVENTS))
        return row(draw.randrange(KEYS), draw.choice(STATUSES), draw.randrange(NUMBERS), draw.choice(NOTES))

    def _write(self, folder: Path, files: Mapping[str, list[Row]]) -> None:
        """Write files, and take those whose content is new: others are recognized, and are part of no delivery."""
        new = {name: rows for name, rows in files.items() if not self._is_known(name, rows)}
        if new and self.days:
            self.sequence += 1
        folder.mkdir(parents=True)
        for name, rows in files.items():
            lines = [
                ",".join(str(field["name"]) for field in FIELDS),
                *(",".join(map(_field, row.values())) for row in rows),
            ]
            file = folder / f"{name}.csv"
            file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            os.utime(file, (LONG_AGO, LONG_AGO))
        for name, rows in new.items():
            self.sent[name].append(rows)
            self.states[name].deliver(self.sequence, rows)
        for name, state in self.states.items():
            self.past[name, self.sequence] = tally(row for row, _ in state.rows.values())

    def _is_known(self, name: str, rows: list[Row]) -> bool:
        before = self.sent[name]
        return rows in (before[-1:] if self.dataset.tables[name].write == "replace" else before)


def _field(value: object) -> str:
    """A field of a CSV file: a null is nothing at all, a text is quoted."""
    return "" if value is None else '"' + str(value).replace('"', '""') + '"'


def check(made: Changing, settings: Settings) -> None:
    """See that Delta, HBase, its index and PostgreSQL hold the very rows of the states."""
    with open_home(settings) as at:
        was_there = bool(postgres.version(settings.postgres or at.addresses.postgres, settings))
        loaded = postgres.load(settings, at.dataset, settings.postgres or at.addresses.postgres)
        due_rows = {name: len(state.rows) for name, state in made.states.items()}
        assert {name: each.rows for name, each in loaded.items()} == due_rows
        assert not (was_there and any(each.left for each in loaded.values())), "changes alone were brought in"
        with postgres.connect(settings.postgres or at.addresses.postgres) as connection:
            for name, table in at.dataset.tables.items():
                state = made.states[name]
                due = tally([row for row, _ in state.rows.values()])
                lake = delta.batches(delta.opened(merge.folder(table, settings)), table.names)
                assert tally(row for batch in lake for row in batch.to_pylist()) == due, f"merged/{name}"
                stored = get.prefix(table, (), settings, at.addresses, 100_000)
                assert tally(stored) == due, f"hbase/{name}"
                query = sql.SQL("SELECT {} FROM {}").format(
                    sql.SQL(", ").join(map(sql.Identifier, table.names)), sql.Identifier(settings.namespace, name)
                )
                for sequence in range(made.sequence + 1):
                    try:
                        before = loads.as_of(at.books, table, sequence)
                    except NotHeldError:
                        assert sequence < made.sequence
                        continue
                    stored = get.prefix(table, (), settings, at.addresses, 100_000, before=before)
                    assert tally(stored) == made.past[name, sequence], f"hbase/{name} as of {sequence}"
                loaded = [dict(zip(table.names, row, strict=True)) for row in connection.execute(query)]
                assert tally(loaded) == due, f"postgres/{name}"
                for index in table.indexes:
                    entries = get.prefix(at.dataset.indexes[index], (), settings, at.addresses, 100_000)
                    keys = Counter((str(row["number"]), row["id"]) for row, _ in state.rows.values())
                    assert Counter((entry["number"], entry["id"]) for entry in entries) == keys, index
                if table.history:
                    kept = DeltaTable(str(history.folder(table, settings))) if state.history else None
                    spans = kept.to_pyarrow_table().to_pylist() if kept else []
                    assert Counter((row["id"], row["delivery"], row["ended_by"]) for row in spans) == Counter(
                        (row["id"], since, until) for row, since, until in state.history
                    ), f"history/{name}"


def tally(rows: Iterable[Mapping[str, object]]) -> Counter[str]:
    """Rows by their texts, each as often as it is there."""
    return Counter(json.dumps({k: None if v is None else str(v) for k, v in sorted(row.items())}) for row in rows)
