"""Checks of data quality, in addition to the parity of layers.

What belongs here: all of them by name, and a plain function for each that looks at something else than the rows of
merged tables, which returns a finding with samples of what is wrong. What does not: those rows (``content``), and
parity of rows between layers (``core.boundary``).
"""

from __future__ import annotations

import json
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow.compute as pc
from deltalake import DeltaTable

from ecom_assets.core import delivery
from ecom_assets.core.engine import Engine
from ecom_assets.core.layer import Cut, Measurement, OffsetSource
from ecom_assets.core.location import exists
from ecom_assets.core.measure import Measure
from ecom_assets.csv import expand
from ecom_assets.dataset.model import Table
from ecom_assets.hbase.layout import row_keys
from ecom_assets.hbase.thrift import Connection
from ecom_assets.lake import delta, merge, quarantine
from ecom_assets.reconcile.content import primary_key, references, schema
from ecom_assets.reconcile.finding import FEW, SAMPLES, Finding
from ecom_assets.reconcile.since import Held, passed, since

if TYPE_CHECKING:
    from ecom_assets.core.context import Context

COMPARED = 5
"""Deliveries that the last one is compared with."""
VOLUME = 2.0
"""A delivery may have so many times the usual rows, or that part of them."""
BALANCE = 3.0
"""A region may hold so many times the rows of the average one; beyond, a warning."""
SAMPLED = 10_000
"""Rows of a sample from which those of regions are estimated."""


@dataclass(frozen=True)
class Check:
    """One kind of check.

    Attributes:
        name: Its name in Dagster.
        layer: The layer whose assets it looks at.
        doc: What it requires, a sentence.
        run: Does it for one table.
        whole: The same by everything, where `run` reads what is new alone.
    """

    name: str
    layer: str
    doc: str
    run: Callable[[Engine, Table], Finding]
    whole: Callable[[Engine, Table], Finding] | None = None


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

    return _bounded(engine, table, found, samples)


def conflicts_at_load(engine: Engine, table: Table) -> Finding:
    """The same where HBase is loaded without a merged layer; behind one, a load leaves nothing out."""
    path = engine.at.settings.quarantine / f"{table.name}.conflicts.jsonl"

    def samples() -> list[dict[str, Any]]:
        return [{name: str(value) for name, value in row.items()} for row in _json_lines(path, SAMPLES)]

    return _bounded(engine, table, engine.look_up("hbase", table, Cut()), samples)


def _bounded(engine: Engine, table: Table, found: Measurement, samples: Callable[[], list[dict[str, Any]]]) -> Finding:
    """Whether a layer leaves out no more conflicts than the declaration tolerates.

    Where rows change, this holds for the first files alone: a key that is too narrow shows there, as rows that
    supersede one another, unless a version is declared by which one of them counts.
    """
    first = table.write != "append" and not table.version and engine.reached(found.layer, table) <= 0
    reasons = ("conflicts", "superseded") if first else ("conflicts",)
    left, rows = sum(found.excluded.get(reason, Measure()).rows for reason in reasons), found.measure.rows
    figures: dict[str, Any] = {"conflicts": left, "tolerated_share": table.conflicts_tolerated}
    if left <= table.conflicts_tolerated * (rows + left):
        return Finding(True, figures)
    said = {
        "finding": f"the key is not unique: {left:,} of {rows + left:,} rows share one with another, different row",
        "remedy": "declare a primary_key that is unique, or the share of conflicts_tolerated; or correct the source and"
        " take another home",
    }
    return Finding(False, figures | {"primary_key": table.key, "rows": rows} | said, samples())


def health(engine: Engine, table: Table, *, whole: bool = False) -> Finding:
    """Every region of the HBase table is served, and none holds far more rows than the others."""
    name, settings = table.hbase_table(engine.at.settings.namespace), engine.at.settings
    with Connection(engine.at.addresses.hbase_thrift) as connection:
        if name.encode() not in connection.happybase.tables():
            return Finding(False, {"expected": f"an HBase table {name}", "got": "none; materialize it"})
        regions = connection.happybase.table(name).regions()
    starts = sorted(r["start_key"] for r in regions)
    unserved = [r["name"].decode("utf-8", "backslashreplace") for r in regions if not r["server_name"]]
    figures: dict[str, Any] = {"regions": len(regions), "not served": unserved}
    if not exists(merge.folder(table, settings)):  # the bulk path has no merged table to take a sample of
        return Finding(bool(regions) and not unserved, figures)
    held, books, key = Held.of(table, settings), engine.at.books, f"hbase/{table.name}/passed/health"
    entry = None if whole else books.state(key)
    new = since(entry, starts, held)
    if new and entry:
        gone, came = (_by_region(part, table, starts) for part in (new[0].gone, new[0].came))
        rows = np.array(entry["found"]) - gone + came
    else:
        rows = _by_region(held, table, starts)
    share = float(rows.max() * len(starts) / rows.sum()) if rows.sum() else 1.0
    figures["rows of the fullest region, in those of the average"] = round(share, 2)
    served = bool(regions) and not unserved
    books.set_state(key, passed(rows.tolist(), starts, held))
    # Keys that grow from day to day all go to the last region, until HBase splits it: no reason to stop.
    return Finding(served and share <= BALANCE, figures, [{"region from": s} for s in starts[:SAMPLES]], warn=served)


def _by_region(held: Held, table: Table, starts: list[bytes]) -> np.ndarray:
    """How many rows each region has, estimated by a sample; shape ``(regions,)``."""
    sample = delta.sample(held.delta, list(table.hbase.row_key), SAMPLED, held.files)
    found = Counter(bisect_right(starts, key) for key in row_keys(sample, table).to_pylist())
    rows = np.zeros(len(starts))
    for place, count in found.items():
        rows[max(place, 1) - 1] += count * held.rows / len(sample)
    return rows


def _of_rows(name: str, doc: str, run: Callable[..., Finding]) -> Check:
    """A check of the rows of merged tables."""
    return Check(name, "merged", doc, run, partial(run, whole=True))


CHECKS = (
    Check("quarantine_share", "expanded", "The share of quarantined records is below the limit.", quarantine_share),
    Check("volume", "expanded", "The last delivery is about as large as those before it.", volume),
    Check("freshness", "topic", "The topic's last record is not too old.", freshness),
    _of_rows("schema", "Columns and types are those of the contract.", schema),
    _of_rows("primary_key", "The primary key is unique and required columns are not null.", primary_key),
    Check("conflicts", "merged", "No two different rows share a primary key, beyond what is declared.", conflicts),
    _of_rows("references", "Foreign keys resolve.", references),
    Check("conflicts", "hbase", "No two different rows share a primary key where no layer merges.", conflicts_at_load),
    Check(
        "health",
        "hbase",
        "Every region is served; a warning if one is far larger than the others.",
        health,
        partial(health, whole=True),
    ),
)
"""All kinds of checks, in addition to parity."""
