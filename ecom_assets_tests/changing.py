"""A data set whose rows change: random deliveries of it, and what its tables must come to by plain Python."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from deltalake import DeltaTable
from psycopg import sql

from ecom_assets.core.settings import Settings
from ecom_assets.dataset.loader import load
from ecom_assets.hbase import get, loads
from ecom_assets.hbase.loads import NotHeldError
from ecom_assets.lake import history, merge
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
LONG_AGO = 1_700_000_000


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
        self.chance, self.sequence, self.sent = random.Random(seed), 0, list[tuple[str, list[Row]]]()
        for name in TABLES:
            self._deliver(name, self._some(name, 30))
        self._keep()

    def deliver(self) -> None:
        """Write the files of one more delivery: some tables, with new rows, changed ones, and those of before."""
        self.sequence += 1
        for name in self.chance.sample(TABLES, self.chance.randint(1, len(TABLES))):
            rows = self._some(name, self.chance.choice([1, 3, 12]))
            if again := [old for table, old in self.sent if table == name and self.chance.random() < 0.1]:
                rows = [*rows, *again[0]] if name != "events" else [*again[0], *rows]
            if name == "prices":
                there = [row for row, _ in self.states[name].rows.values() if self.chance.random() < 0.8]
                rows = [*there, *rows]
            self._deliver(name, rows)
        self._keep()

    def _keep(self) -> None:
        for name, state in self.states.items():
            self.past[name, self.sequence] = tally(row for row, _ in state.rows.values())

    def _some(self, name: str, count: int) -> list[Row]:
        return [self._row(name) for _ in range(count)]

    def _row(self, name: str) -> Row:
        draw = self.chance
        if name == "events":  # a row under each key, for ever
            number = draw.randrange(10_000)
            return {"id": f"e{number}", "status": "on", "number": number, "note": None}
        return {
            "id": f"k{draw.randrange(KEYS)}",
            "status": draw.choice(["on", "off", "gone"]),
            "number": draw.randrange(4),
            "note": draw.choice([None, "", "a", "é,\n"]),
        }

    def _deliver(self, name: str, rows: list[Row]) -> None:
        self.sent.append((name, rows))
        self.states[name].deliver(self.sequence, rows)
        lines = [
            ",".join(str(field["name"]) for field in FIELDS),
            *(",".join(map(_field, row.values())) for row in rows),
        ]
        folder = self.source / f"{self.sequence:04}" if self.sequence else self.source
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{name}.csv"
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        os.utime(file, (LONG_AGO, LONG_AGO))


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
                lake = DeltaTable(str(merge.folder(table, settings))).to_pyarrow_table(columns=table.names)
                assert tally(lake.to_pylist()) == due, f"merged/{name}"
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
