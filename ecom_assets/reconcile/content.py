"""Checks of what merged tables hold: columns, primary keys, references.

What belongs here: what these checks look for. Each has two ways to the same finding: by everything, and by what is new
since it passed (``since``). A check that does not pass by what is new reads everything, and only then fails.
"""

# ruff: noqa: S608 (every identifier comes from the contract and is quoted by `quoted`; values never are in the text)
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ecom_assets.core.engine import Engine
from ecom_assets.core.location import exists
from ecom_assets.core.sql import quoted
from ecom_assets.dataset.model import Reference, Table
from ecom_assets.lake import delta, merge
from ecom_assets.lake.fates import PLACED
from ecom_assets.lake.repeats import KeysOf, come_again
from ecom_assets.reconcile.dangling import Dangling, Search
from ecom_assets.reconcile.finding import FEW, SAMPLES, Finding
from ecom_assets.reconcile.since import ROWS, Difference, Held, Query, passed, query, since

_DELTA = {"bigint": "long", "int": "integer"}
"""Types that Delta calls otherwise than Spark's SQL does."""


def schema(engine: Engine, table: Table, *, whole: bool = False) -> Finding:
    """The merged table's columns and types are those of the contract; texts with a typed companion are of its type."""
    held = Held.of(table, engine.at.settings)
    got = {f.name: f.type.to_json().strip('"') for f in held.delta.schema().fields}
    expected = {c.name: _DELTA.get(c.kind.spark, c.kind.spark) for c in table.columns}
    expected |= {name: kind for name, (kind, _) in PLACED.items()}
    companions = {c.name: c.parsed_as[0] for c in table.columns if c.parsed_as}
    wrong = [
        f"{n}: expected {kind}, got {got.get(n, 'no such column')}"
        for n, kind in expected.items()
        if got.get(n) != kind
    ]
    wrong += [f"{n}: expected a typed companion of a column, got none" for n in companions.values() if n not in got]
    wrong += [
        f"{n}: expected no such column, got {got[n]}" for n in got.keys() - expected.keys() - set(companions.values())
    ]
    if wrong:
        return Finding(False, {"wrong": wrong})
    untyped = {raw: f"{quoted(raw)} IS NOT NULL AND {quoted(typed)} IS NULL" for raw, typed in companions.items()}
    counted = {raw: f"count(*) FILTER (WHERE {condition})" for raw, condition in untyped.items()}
    sums = _Sums(engine, table, "schema", counted)
    counts, new = sums.of(held, whole=whole)
    rows = counts.pop(ROWS)
    # The text itself is passed on unchanged, so a few untyped values are no reason to stop.
    few = max(FEW, engine.at.settings.quarantine_limit * rows)
    ok = all(0 <= count <= few for count in counts.values())
    if new and not ok:
        return schema(engine, table, whole=True)
    sums.record(held, {ROWS: rows, **counts} if ok else None)
    samples: list[dict[str, Any]] = []
    with query(engine.at.settings, rows=new.came if new else held) as ask:
        for raw, count in counts.items():
            if count:
                shown = ", ".join(map(quoted, dict.fromkeys([*table.primary_key, raw])))
                samples += ask(f"SELECT {shown} FROM rows WHERE {untyped[raw]} LIMIT {SAMPLES}")
    figures = {"columns": len(got)} | {f"untyped {raw}": n for raw, n in counts.items() if n}
    return Finding(ok, figures, samples[:SAMPLES])


def primary_key(engine: Engine, table: Table, *, whole: bool = False) -> Finding:
    """No two rows share a primary key, and no column that must be filled is null."""
    settings, key = engine.at.settings, ", ".join(map(quoted, table.primary_key))
    held, required = Held.of(table, settings), [c.name for c in table.columns if not c.nullable]
    sums = _Sums(engine, table, "primary_key", {n: f"count(*) - count({quoted(n)})" for n in required}, key)
    counts, new = sums.of(held, whole=whole)
    rows = counts.pop(ROWS)
    null = {n: count for n, count in counts.items() if count}
    # Keys of files that stayed differ, or the check had not passed; another file's may meet them.
    if new and (null or come_again(table, settings, _keys(new.stayed), _keys(new.came))):
        return primary_key(engine, table, whole=True)
    doubled, samples = 0, []
    if not new:
        with query(settings, rows=held) as ask:
            alike = f"SELECT {key}, count(*) AS {ROWS} FROM rows GROUP BY {key} HAVING count(*) > 1"
            doubled = ask(f"SELECT count(*) AS keys FROM ({alike})")[0]["keys"]
            if doubled:
                samples += ask(f"{alike} LIMIT {SAMPLES}")
            for name in null:
                samples += ask(f"SELECT * FROM rows WHERE {quoted(name)} IS NULL LIMIT {SAMPLES}")
    ok = not doubled and not null
    sums.record(held, {ROWS: rows, **counts} if ok else None)
    figures = {"rows": rows, "keys that come more than once": doubled, "nulls where there must be none": null}
    return Finding(ok, figures, samples[:SAMPLES])


def references(engine: Engine, table: Table, *, whole: bool = False) -> Finding:
    """What a row refers to exists, but for the few that the contract tolerates."""
    settings, books, key = engine.at.settings, engine.at.books, _key(table, "references")
    last, now = {} if whole else books.state(key) or {}, {}
    figures: dict[str, Any] = {}
    samples: list[dict[str, Any]] = []
    ok = complete = True
    for reference in table.references:
        there = engine.at.dataset.tables[reference.table]
        path = merge.folder(there, settings)
        if not delta.records(path):
            state = "is empty" if exists(path) else "has not been built yet"
            figures[reference.label] = f"merged/{reference.table} {state}"
            complete = False
            continue
        search = Search(settings, table, reference, Held.of(table, settings), Held.of(there, settings))
        found = search.new(last.get(reference.label))
        if found is None or not _tolerable(found, reference):
            found = search.whole()
        figures[reference.label] = f"{found.nowhere:,} of {found.used:,} dangle"
        samples += [{"reference": reference.label} | row for row in found.samples]
        if not _tolerable(found, reference):
            ok = False
        elif entry := search.entry(found):
            now[reference.label] = entry
    books.set_state(key, now or None)
    return Finding(ok and complete, figures, samples[:SAMPLES], warn=ok)


def _tolerable(found: Dangling, reference: Reference) -> bool:
    return found.nowhere <= (max(FEW, reference.tolerated * found.used) if reference.tolerated else 0)


class _Sums:
    """Counts of a merged table's rows.

    Args:
        engine: Connections and settings.
        table: The table.
        check: The check that needs them.
        counted: Name -> SQL of what is counted, next to the rows.
        about: What else the check looks for.
    """

    def __init__(self, engine: Engine, table: Table, check: str, counted: Mapping[str, str], about: str = "") -> None:
        self._at, self._key = engine.at, _key(table, check)
        self._sql = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in {ROWS: "count(*)", **counted}.items())
        self._asked = (self._sql, about)

    def of(self, held: Held, *, whole: bool) -> tuple[dict[str, int], Difference | None]:
        """Count rows: those that are new, if the last check passed, and all else.

        Returns:
            The counts of all rows, and what is new if that alone was read.
        """
        entry = None if whole else self._at.books.state(self._key)
        new = since(entry, self._asked, held)
        if new is None or entry is None:
            with query(self._at.settings, rows=held) as ask:
                return self._count(ask, "rows"), None
        with query(self._at.settings, gone=new[0].gone, came=new[0].came) as ask:
            gone, came = self._count(ask, "gone"), self._count(ask, "came")
        return {name: count - gone[name] + came[name] for name, count in entry["found"].items()}, new[0]

    def record(self, held: Held, counts: Mapping[str, int] | None) -> None:
        """Keep the counts of a check that passed; ``None``: it did not."""
        self._at.books.set_state(self._key, None if counts is None else passed(counts, self._asked, held))

    def _count(self, ask: Query, view: str) -> dict[str, int]:
        return ask(f"SELECT {self._sql} FROM {view}")[0]


def _keys(held: Held) -> KeysOf:
    return KeysOf(held.delta, files=held.files)


def _key(table: Table, check: str) -> str:
    """Under which the books keep what a check found."""
    return f"merged/{table.name}/passed/{check}"
