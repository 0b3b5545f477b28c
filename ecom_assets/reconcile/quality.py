"""Checks of data quality, in addition to the parity of layers.

What belongs here: one plain function per check, derived from the schemas and the declaration, each returning a finding
with samples of what is wrong. They read the Delta tables by DuckDB, an engine that has no part in building them. What
does not: parity of rows between layers; see ``core.boundary``.
"""

# ruff: noqa: S608 (every identifier comes from the contract and is quoted by `_q`; values never are in the text)
from __future__ import annotations

import json
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, cast

import duckdb
import pyarrow.compute as pc
from deltalake import DeltaTable

from ecom_assets.core import delivery
from ecom_assets.core.engine import Engine
from ecom_assets.core.errors import LakeError
from ecom_assets.core.layer import Cut, Measurement, OffsetSource
from ecom_assets.core.location import exists
from ecom_assets.core.measure import Measure
from ecom_assets.csv import expand
from ecom_assets.dataset.model import Reference, Table
from ecom_assets.hbase.layout import row_keys
from ecom_assets.hbase.thrift import Connection
from ecom_assets.lake import delta, merge, quarantine
from ecom_assets.lake.fates import PLACED

if TYPE_CHECKING:
    from ecom_assets.core.context import Context

MEMORY = "384MB"
"""Memory of a query; what needs more is spilled to disk, next to the lake."""
SAMPLES = 5
"""Rows that a check shows."""
FEW = 10
"""Up to so many rows never count as too large a share, however small the table."""
COMPARED = 5
"""Deliveries that the last one is compared with."""
VOLUME = 2.0
"""A delivery may have so many times the usual rows, or that part of them."""
BALANCE = 3.0
"""A region may hold so many times the rows of the average one; beyond, a warning."""


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        ok: Whether it passes.
        figures: Numbers and names, for people.
        samples: A few of the rows that are wrong.
        warn: A failure is worth a look, but no reason to stop.
    """

    ok: bool
    figures: dict[str, Any] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    warn: bool = False

    @property
    def sentence(self) -> str:
        """The figures as people read them."""
        return ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in self.figures.items())


@dataclass(frozen=True)
class Check:
    """One kind of check.

    Attributes:
        name: Its name in Dagster.
        layer: The layer whose assets it looks at.
        doc: What it requires, a sentence.
        run: Does it for one table.
    """

    name: str
    layer: str
    doc: str
    run: Callable[[Engine, Table], Finding]


def quarantine_share(engine: Engine, table: Table) -> Finding:
    """The share of quarantined records of the raw file is below the limit."""
    at, cut = engine.at, engine.cut(table, "expanded")
    raw, expanded = (engine.look_up(name, table, cut) for name in ("raw", "expanded"))
    bad, rows = expanded.excluded["quarantined"].rows, raw.measure.rows + raw.excluded_rows
    share = bad / rows if rows else 0.0
    limit = at.settings.quarantine_limit
    figures = {"quarantined": bad, "records": rows, "share": round(share, 6), "limit": limit}
    return Finding(bad <= max(FEW, limit * rows), figures, quarantine_samples(at, table, SAMPLES) if bad else [])


def quarantine_samples(at: Context, table: Table, rows: int) -> list[dict[str, Any]]:
    """The first quarantined records of raw files: file, line, reason, and the beginning of the raw text."""
    lines = (line for file in expand.quarantine_files(table, at.settings) for line in _json_lines(file, rows))
    return [bad | {"raw": bad["raw"][:200]} for bad in islice(lines, rows)]


def _json_lines(path: Path, rows: int) -> list[dict[str, Any]]:
    """The first objects of a file of JSON lines; none where there is no file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in islice(lines, rows)]


def volume(engine: Engine, table: Table) -> Finding:
    """The last delivery brought about as many rows as those before it; one that lacks the table brought none."""
    at, reached = engine.at, engine.reached("expanded", table)
    of = [each for each in delivery.deliveries(at.settings) if each.sequence <= reached]
    brought = at.books.builds_by_delivery("expanded")
    counts = [build.rows if (build := brought.get((table.name, str(each.sequence)))) else 0 for each in of]
    if len(counts) <= COMPARED:
        return Finding(True, {"deliveries": len(counts), "compared from the": COMPARED + 1}, warn=True)
    usual, last = median(counts[-1 - COMPARED : -1]), counts[-1]
    figures = {"delivery": of[-1].name, "rows": last, "usual rows": usual}
    return Finding(not usual or usual / VOLUME <= last <= usual * VOLUME, figures, warn=True)


def freshness(engine: Engine, table: Table) -> Finding:
    """The topic's last record is not too old."""
    at, topics = engine.at, cast("OffsetSource", engine.layer("topic"))
    offsets, chunked = topics.offsets(at, [table]).get(table.name), at.books.build("chunked", table.name)
    if offsets is None or offsets.last is None:
        empty = offsets is not None and chunked is not None and not chunked.rows
        return Finding(empty, {"expected": "a record", "got": "none"}, warn=True)
    hours = (time.time() - offsets.last) / 3600
    limit = at.settings.fresh_hours
    figures = {"hours_since_last_record": round(hours, 3), "limit_hours": limit}
    return Finding(hours <= limit, figures, warn=True)


def conflicts(engine: Engine, table: Table) -> Finding:
    """No two different rows share a primary key, but for the few that the declaration tolerates."""
    merged = engine.layer("merged")
    found = engine.look_up(merged.name, table, merged.extend(engine.at, table, Cut()))

    def samples() -> list[dict[str, Any]]:
        path = quarantine.folder(table, engine.at.settings)
        if not exists(path):
            return []
        columns = ["source", "line_or_offset", "key", "raw", "reason"]
        kept = DeltaTable(str(path)).to_pyarrow_dataset()
        return kept.head(SAMPLES, columns=columns, filter=pc.field("stage") == "merge").to_pylist()

    return _bounded(table, found, samples)


def conflicts_at_load(engine: Engine, table: Table) -> Finding:
    """The same where HBase is loaded without a merged layer; behind one, a load leaves nothing out."""
    path = engine.at.settings.quarantine / f"{table.name}.conflicts.jsonl"

    def samples() -> list[dict[str, Any]]:
        return [{name: str(value) for name, value in row.items()} for row in _json_lines(path, SAMPLES)]

    return _bounded(table, engine.look_up("hbase", table, Cut()), samples)


def _bounded(table: Table, found: Measurement, samples: Callable[[], list[dict[str, Any]]]) -> Finding:
    """Whether a layer leaves out no more conflicts than the declaration tolerates."""
    left, rows = found.excluded.get("conflicts", Measure()).rows, found.measure.rows
    figures: dict[str, Any] = {"conflicts": left, "tolerated_share": table.conflicts_tolerated}
    if left <= table.conflicts_tolerated * (rows + left):
        return Finding(True, figures)
    said = {
        "finding": f"the key is not unique: {left:,} of {rows + left:,} rows share one with another, different row",
        "remedy": "declare a primary_key that is unique, or the share of conflicts_tolerated; or correct the source and"
        " take another home",
    }
    return Finding(False, figures | {"primary_key": table.key, "rows": rows} | said, samples())


_DELTA = {"bigint": "long", "int": "integer"}
"""Types that Delta calls otherwise than Spark's SQL does."""


def schema(engine: Engine, table: Table) -> Finding:
    """The merged table's columns and types are those of the contract; texts with a typed companion are of its type."""
    found = _delta(table, engine)
    got = {f.name: f.type.to_json().strip('"') for f in found.schema().fields}
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
    untyped = {raw: f"{_q(raw)} IS NOT NULL AND {_q(typed)} IS NULL" for raw, typed in companions.items()}
    samples: list[dict[str, Any]] = []
    with _query(engine, rows=table) as query:
        counted = [
            "count(*) AS _rows",  # no column begins with an underscore
            *(f"count(*) FILTER (WHERE {condition}) AS {_q(raw)}" for raw, condition in untyped.items()),
        ]
        counts = query(f"SELECT {', '.join(counted)} FROM rows")[0]
        rows = counts.pop("_rows")
        for raw, count in counts.items():
            if count:
                shown = ", ".join(map(_q, dict.fromkeys([*table.primary_key, raw])))
                samples += query(f"SELECT {shown} FROM rows WHERE {untyped[raw]} LIMIT {SAMPLES}")
    # The text itself is passed on unchanged, so a few untyped values are no reason to stop.
    few = max(FEW, engine.at.settings.quarantine_limit * rows)
    figures = {"columns": len(got)} | {f"untyped {raw}": n for raw, n in counts.items() if n}
    return Finding(all(count <= few for count in counts.values()), figures, samples[:SAMPLES])


def primary_key(engine: Engine, table: Table) -> Finding:
    """No two rows share a primary key, and no column that must be filled is null."""
    key = _key(table)
    required = [c.name for c in table.columns if not c.nullable]
    with _query(engine, rows=table) as query:
        nulls = query(
            "SELECT "
            + ", ".join(["count(*) AS _rows", *(f"count(*) - count({_q(n)}) AS {_q(n)}" for n in required)])
            + " FROM rows"
        )[0]
        rows = nulls.pop("_rows")
        null = {n: count for n, count in nulls.items() if count}
        doubled = query(
            f"SELECT count(*) AS keys, coalesce(sum(n), 0)::BIGINT AS rows FROM"
            f" (SELECT count(*) AS n FROM rows GROUP BY {key} HAVING count(*) > 1)"
        )[0]
        samples = []
        if doubled["keys"]:
            samples += query(
                f"SELECT {key}, count(*) AS _rows FROM rows GROUP BY {key} HAVING count(*) > 1 LIMIT {SAMPLES}"
            )
        for name in null:
            samples += query(f"SELECT * FROM rows WHERE {_q(name)} IS NULL LIMIT {SAMPLES}")
    figures = {"rows": rows, "keys that come more than once": doubled["keys"], "nulls where there must be none": null}
    return Finding(not doubled["keys"] and not null, figures, samples[:SAMPLES])


def references(engine: Engine, table: Table) -> Finding:
    """What a row refers to exists, but for the few that the contract tolerates."""
    figures: dict[str, Any] = {}
    samples: list[dict[str, Any]] = []
    ok = complete = True
    for reference in table.references:
        there = merge.folder(engine.at.dataset.tables[reference.table], engine.at.settings)
        if not delta.records(there):
            state = "is empty" if exists(there) else "has not been built yet"
            figures[reference.label] = f"merged/{reference.table} {state}"
            complete = False
            continue
        dangling, of, shown = _dangling(engine, table, reference)
        figures[reference.label] = f"{dangling:,} of {of:,} dangle"
        samples += [{"reference": reference.label} | row for row in shown]
        ok &= dangling <= (max(FEW, reference.tolerated * of) if reference.tolerated else 0)
    return Finding(ok and complete, figures, samples[:SAMPLES], warn=ok)


def health(engine: Engine, table: Table) -> Finding:
    """Every region of the HBase table is served, and none holds far more rows than the others."""
    name = table.hbase_table(engine.at.settings.namespace)
    with Connection(engine.at.addresses.hbase_thrift) as connection:
        if name.encode() not in connection.happybase.tables():
            return Finding(False, {"expected": f"an HBase table {name}", "got": "none; materialize it"})
        regions = connection.happybase.table(name).regions()
    starts = sorted(r["start_key"] for r in regions)
    unserved = [r["name"].decode("utf-8", "backslashreplace") for r in regions if not r["server_name"]]
    figures: dict[str, Any] = {"regions": len(regions), "not served": unserved}
    path = merge.folder(table, engine.at.settings)
    if not exists(path):  # the bulk path has no merged table to take a sample of
        return Finding(bool(regions) and not unserved, figures)
    keys = row_keys(delta.sample(path, list(table.hbase.row_key), 10_000), table).to_pylist()
    share = _fullest(keys, starts)
    figures["rows of the fullest region, in those of the average"] = round(share, 2)
    served = bool(regions) and not unserved
    # Keys that grow from day to day all go to the last region, until HBase splits it: no reason to stop.
    return Finding(served and share <= BALANCE, figures, [{"region from": s} for s in starts[:SAMPLES]], warn=served)


def _fullest(keys: list[bytes], starts: list[bytes]) -> float:
    """Rows of the fullest region, as a multiple of the average."""
    if not keys or not starts:
        return 1.0
    rows = Counter(bisect_right(starts, key) for key in keys)
    return max(rows.values()) * len(starts) / len(keys)


CHECKS = (
    Check("quarantine_share", "expanded", "The share of quarantined records is below the limit.", quarantine_share),
    Check("volume", "expanded", "The last delivery is about as large as those before it.", volume),
    Check("freshness", "topic", "The topic's last record is not too old.", freshness),
    Check("schema", "merged", "Columns and types are those of the contract.", schema),
    Check("primary_key", "merged", "The primary key is unique and required columns are not null.", primary_key),
    Check("conflicts", "merged", "No two different rows share a primary key, beyond what is declared.", conflicts),
    Check("references", "merged", "Foreign keys resolve.", references),
    Check("conflicts", "hbase", "No two different rows share a primary key where no layer merges.", conflicts_at_load),
    Check("health", "hbase", "Every region is served; a warning if one is far larger than the others.", health),
)
"""All kinds of checks, in addition to parity."""


def _dangling(engine: Engine, table: Table, reference: Reference) -> tuple[int, int, list[dict[str, Any]]]:
    """Values that lead nowhere: how many, of how many, and a few of them. A null refers to nothing."""
    # No column begins with an underscore, so that none is called like one of ours.
    names = [f"_value{n or ''}" for n in range(len(reference.columns))]
    values = ", ".join(f"{_values(table, path)} AS {name}" for path, name in zip(reference.columns, names, strict=True))
    key = ", ".join(f"{_q(column)} AS _key{n}" for n, column in enumerate(table.primary_key))
    with _query(engine, rows=table, others=engine.at.dataset.tables[reference.table]) as query:
        used = (
            f"(SELECT * FROM (SELECT {values}, {key} FROM rows)"
            f" WHERE {' AND '.join(f'{name} IS NOT NULL' for name in names)})"
        )
        targets = ", ".join(f"{_q(column)} AS _to{n}" for n, column in enumerate(reference.to))
        there = f"(SELECT DISTINCT {targets}, true AS _found FROM others)"
        alike = " AND ".join(f"{name} = _to{n}" for n, name in enumerate(names))
        joined = f"{used} LEFT JOIN {there} ON {alike}"
        counted = query(f"SELECT count(*) AS used, count(*) FILTER (WHERE _found IS NULL) AS dangling FROM {joined}")[0]
        samples = []
        if counted["dangling"]:
            shown = [f"_key{n} AS {_q(column)}" for n, column in enumerate(table.primary_key)]
            samples = query(f"SELECT {', '.join([*shown, *names])} FROM {joined} WHERE _found IS NULL LIMIT {SAMPLES}")
    return counted["dangling"], counted["used"], samples


def _values(table: Table, path: str) -> str:
    """What a reference's path leads to, as SQL."""
    if path in table.names:
        return _q(path)
    head, _, member = path.partition(".")
    kind = next(c.parsed_as[1] for c in table.columns if c.parsed_as and c.parsed_as[0] == head)
    values = f"unnest({_q(head)})" if kind.startswith("array") else _q(head)
    return f"{values}.{_q(member)}" if member else values


def _key(table: Table) -> str:
    return ", ".join(map(_q, table.primary_key))


def _q(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _delta(table: Table, engine: Engine) -> DeltaTable:
    path = merge.folder(table, engine.at.settings)
    if not exists(path):
        raise LakeError(f"merged/{table.name}: expected a Delta table in {path}, got none; materialize it first")
    return DeltaTable(str(path))


@contextmanager
def _query(engine: Engine, **tables: Table) -> Generator[Callable[[str], list[dict[str, Any]]]]:
    """A function that queries merged tables under the names given, in bounded memory."""
    spill = engine.at.settings.home / "spill"
    config: dict[str, Any] = {"memory_limit": MEMORY, "temp_directory": str(spill), "threads": 2}
    config["preserve_insertion_order"] = False  # it would hold back rows of one thread for those of another
    with duckdb.connect(config=config) as connection:
        for name, table in tables.items():
            found, folder = _delta(table, engine), merge.folder(table, engine.at.settings)
            files = [str(folder / path) for path in delta.files(found)["path"].to_pylist()]
            # DuckDB's own reader counts toward its limit; a scan by Arrow reads row groups ahead, gigabytes of them.
            if files and isinstance(folder, Path):
                connection.read_parquet(files, union_by_name=True).create_view(name)
            else:
                connection.register(name, found.to_pyarrow_dataset())
        yield lambda sql: connection.sql(sql).to_arrow_table().to_pylist()
