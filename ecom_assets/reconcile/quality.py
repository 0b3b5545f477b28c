"""Checks of what the data is, beside the proof that none of it is lost.

What belongs here: one plain function per check, made from the schemas and the declaration, each
giving a verdict with samples of what is wrong. They read the Delta tables by DuckDB, an engine
that has no part in making them. What does not: parity of rows between layers; see ``sheet``.
"""

# ruff: noqa: S608 (every identifier comes from the contract and is quoted by `_q`; values never are in the text)
from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import duckdb
from deltalake import DeltaTable

from ecom_assets.core.errors import LakeError
from ecom_assets.dataset.model import Reference, Table
from ecom_assets.dataset.shop import TABLES
from ecom_assets.hbase import table as hbase
from ecom_assets.hbase.thrift import Connection
from ecom_assets.lake import merged
from ecom_assets.lake.streamed import exists

if TYPE_CHECKING:
    from ecom_assets.flow import Flow

MEMORY = "1GB"
"""Memory of a query; what needs more goes to disk, beside the lake."""
SAMPLES = 5
"""Rows that a check shows."""
FEW = 10
"""So many rows are no share worth speaking of, however small the table."""
BALANCE = 3.0
"""A region may hold so many times the rows of the average one."""


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        ok: Whether it passes.
        told: Numbers and names, for people.
        samples: A few of the rows that are wrong.
        warn: A failure is worth a look, but no reason to stop.
    """

    ok: bool
    told: dict[str, Any] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    warn: bool = False


@dataclass(frozen=True)
class Check:
    """One kind of check.

    Attributes:
        name: Its name in Dagster.
        layer: The layer whose assets it looks at.
        doc: What it demands, a sentence.
        run: Does it for one table.
    """

    name: str
    layer: str
    doc: str
    run: Callable[[Flow, Table], Finding]


def quarantine_share(flow: Flow, table: Table) -> Finding:
    """Of the raw file's records, not too many may have been set aside."""
    proof = flow.proof("expanded", table)
    raw = flow.proof("raw", table)
    if not proof or not raw:
        return Finding(False, {"expected": "a proof of raw and expanded", "got": "none; run their parity checks first"})
    bad, rows = proof.aside["quarantined"].rows, raw.measure.rows + raw.aside_rows
    share = bad / rows if rows else 0.0
    told = {"quarantined": bad, "records": rows, "share": round(share, 6), "limit": flow.settings.quarantine_limit}
    ok = bad <= max(FEW, flow.settings.quarantine_limit * rows)
    return Finding(ok, told, flow.quarantine_samples(table, SAMPLES) if bad else [])


def freshness(flow: Flow, table: Table) -> Finding:
    """The topic's last record must not be too old."""
    standing = flow.standings()[table.name]
    position = standing.position
    if position is None or position.last is None:
        empty = position is not None and standing.due == 0
        return Finding(empty, {"expected": "a record", "got": "none"}, warn=True)
    hours = (time.time() - position.last) / 3600
    told = {"hours_since_last_record": round(hours, 3), "limit": flow.settings.fresh_hours}
    return Finding(hours <= flow.settings.fresh_hours, told, warn=True)


def schema(flow: Flow, table: Table) -> Finding:
    """The merged table's columns and types are those of the contract; texts with a typed companion are of its type."""
    delta = _delta(table, flow)
    got = {f.name: f.type.to_json().strip('"') for f in delta.schema().fields}
    expected = {c.name: c.avro for c in table.columns}  # Delta names these types as Avro does
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
    with _query(flow, rows=table) as query:
        counted = [
            "count(*) AS rows",
            *(f"count(*) FILTER (WHERE {said}) AS {_q(raw)}" for raw, said in untyped.items()),
        ]
        counts = query(f"SELECT {', '.join(counted)} FROM rows")[0]
        rows = counts.pop("rows")
        for raw, count in counts.items():
            if count:
                samples += query(
                    f"SELECT {_q(table.primary_key)}, {_q(raw)} FROM rows WHERE {untyped[raw]} LIMIT {SAMPLES}"
                )
    # The text itself goes on unharmed, so a few that cannot be typed are no reason to stop.
    few = max(FEW, flow.settings.quarantine_limit * rows)
    told = {"columns": len(got)} | {f"untyped {raw}": n for raw, n in counts.items() if n}
    return Finding(all(count <= few for count in counts.values()), told, samples[:SAMPLES])


def primary_key(flow: Flow, table: Table) -> Finding:
    """No two rows share a primary key, and no column that must be filled is null."""
    key = _q(table.primary_key)
    required = [c.name for c in table.columns if not c.nullable]
    with _query(flow, rows=table) as query:
        nulls = query(
            "SELECT "
            + ", ".join(["count(*) AS rows", *(f"count(*) - count({_q(n)}) AS {_q(n)}" for n in required)])
            + " FROM rows"
        )[0]
        rows = nulls.pop("rows")
        null = {n: count for n, count in nulls.items() if count}
        doubled = query(
            f"SELECT count(*) AS keys, coalesce(sum(n), 0)::BIGINT AS rows FROM"
            f" (SELECT count(*) AS n FROM rows GROUP BY {key} HAVING n > 1)"
        )[0]
        samples = []
        if doubled["keys"]:
            samples += query(f"SELECT {key}, count(*) AS rows FROM rows GROUP BY {key} HAVING rows > 1 LIMIT {SAMPLES}")
        for name in null:
            samples += query(f"SELECT * FROM rows WHERE {_q(name)} IS NULL LIMIT {SAMPLES}")
    told = {"rows": rows, "keys that come more than once": doubled["keys"], "nulls where there must be none": null}
    return Finding(not doubled["keys"] and not null, told, samples[:SAMPLES])


def references(flow: Flow, table: Table) -> Finding:
    """What a row refers to exists, but for the few that the contract tolerates."""
    told: dict[str, Any] = {}
    samples: list[dict[str, Any]] = []
    ok = complete = True
    for reference in table.references:
        if not exists(merged.folder(TABLES[reference.table], flow.settings)):
            told[reference.told] = f"merged/{reference.table} is not there yet"
            complete = False
            continue
        dangling, of, shown = _dangling(flow, table, reference)
        told[reference.told] = f"{dangling:,} of {of:,} dangle"
        samples += [{"reference": reference.told} | row for row in shown]
        ok &= dangling <= (max(FEW, reference.tolerated * of) if reference.tolerated else 0)
    return Finding(ok and complete, told, samples[:SAMPLES], warn=ok)


def health(flow: Flow, table: Table) -> Finding:
    """Every region of the HBase table is served, and none holds far more rows than the others."""
    name = table.hbase_table(flow.settings.namespace)
    with Connection(flow.addresses.hbase_thrift) as connection:
        if name.encode() not in connection.happybase.tables():
            return Finding(False, {"expected": f"an HBase table {name}", "got": "none; materialise it"})
        regions = connection.happybase.table(name).regions()
    starts = sorted(r["start_key"] for r in regions)
    unserved = [r["name"].decode("utf-8", "backslashreplace") for r in regions if not r["server_name"]]
    told: dict[str, Any] = {"regions": len(regions), "not served": unserved}
    path = merged.folder(table, flow.settings)
    if not exists(path):  # the bulk route has no merged table to take a sample of
        return Finding(bool(regions) and not unserved, told)
    keys = hbase.row_keys(merged.sample_keys(path, list(table.hbase.row_key), 10_000), table).to_pylist()
    share = _fullest(keys, starts)
    told["rows of the fullest region, in those of the average"] = round(share, 2)
    return Finding(
        bool(regions) and not unserved and share <= BALANCE, told, [{"region from": s} for s in starts[:SAMPLES]]
    )


def _fullest(keys: list[bytes], starts: list[bytes]) -> float:
    """Rows of the fullest region, as a multiple of the average."""
    if not keys or not starts:
        return 1.0
    rows = Counter(bisect_right(starts, key) for key in keys)
    return max(rows.values()) * len(starts) / len(keys)


CHECKS = (
    Check("quarantine_share", "expanded", "Of the raw file's records, not too many were set aside.", quarantine_share),
    Check("freshness", "topic", "The topic's last record is not too old.", freshness),
    Check("schema", "merged", "Columns and types are those of the contract.", schema),
    Check("primary_key", "merged", "The primary key is unique, and what must be filled is.", primary_key),
    Check("references", "merged", "What a row refers to exists.", references),
    Check("health", "hbase", "Every region is served, and none is far larger than the others.", health),
)
"""All kinds of checks, beside parity."""


def _dangling(flow: Flow, table: Table, reference: Reference) -> tuple[int, int, list[dict[str, Any]]]:
    """Values that lead nowhere: how many, of how many, and a few of them."""
    head, _, member = reference.path.partition(".")
    values = _q(head)
    if member:
        listed = next(c.parsed_as[1] for c in table.columns if c.parsed_as and c.parsed_as[0] == head).startswith(
            "array"
        )
        values = f"{f'unnest({values})' if listed else values}.{_q(member)}"
    with _query(flow, rows=table, others=TABLES[reference.table]) as query:
        used = f"SELECT {values} AS value, {_q(table.primary_key)} AS key FROM rows"
        there = f"SELECT {_q(reference.column)} FROM others"
        counted = query(
            f"SELECT count(*) AS used, count(*) FILTER (WHERE NOT value IN ({there})) AS dangling"
            f" FROM ({used}) WHERE value IS NOT NULL"
        )[0]
        samples = []
        if counted["dangling"]:
            samples = query(
                f"SELECT key AS {_q(table.primary_key)}, value FROM ({used})"
                f" WHERE value IS NOT NULL AND NOT value IN ({there}) LIMIT {SAMPLES}"
            )
    return counted["dangling"], counted["used"], samples


def _q(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _delta(table: Table, flow: Flow) -> DeltaTable:
    path = merged.folder(table, flow.settings)
    if not exists(path):
        raise LakeError(f"merged/{table.name}: expected a Delta table in {path}, got none; materialise it first")
    return DeltaTable(str(path))


@contextmanager
def _query(flow: Flow, **tables: Table) -> Generator[Callable[[str], list[dict[str, Any]]]]:
    """A function that queries merged tables under the names given, in bounded memory."""
    spill = flow.settings.home / "spill"
    with duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": str(spill)}) as connection:
        for name, table in tables.items():
            connection.register(name, _delta(table, flow).to_pyarrow_dataset())
        yield lambda sql: connection.sql(sql).to_arrow_table().to_pylist()
