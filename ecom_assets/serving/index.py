"""Indexes, second ways to the rows of a table: tables of their own in HBase, built and checked here.

What belongs here: what is done with the whole index. What does not: reading it for a page (see ``lookup``).

They are built like the layer hbase: rows stream through sorted files, so memory stays flat, and the new index is
swapped in while people read the old one; where the changes of the table can be named, they are brought into the index
that is there.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pyarrow as pa

from ecom_assets.core import locks, row_hash
from ecom_assets.core.context import Context
from ecom_assets.core.layer import Built, Changes, Cut
from ecom_assets.core.measure import Measure
from ecom_assets.dataset.model import Index
from ecom_assets.hbase import descriptor, loads, rebuild, scan, verify
from ecom_assets.hbase.admin import admin_of
from ecom_assets.hbase.layer import HBaseLayer
from ecom_assets.hbase.layout import row_keys


def state_key(index: Index) -> str:
    """Key of what the books keep of an index; so it is forgotten with the table that it is an index of."""
    return f"hbase/{index.of.name}/{index.name}"


def build_index(at: Context, index: Index, hbase: HBaseLayer) -> Built:
    """Build an index of the rows that HBase holds, if these have changed or its last check failed.

    Args:
        at: Connections and settings.
        index: The index.
        hbase: The layer that its table was loaded by.

    Raises:
        HomeError: Another process deletes or repairs in the home.
        NotBuiltError: Its table is not in HBase yet.
        HBaseError: HBase refused, or did not respond.
    """
    with locks.shared(at.settings, f"the build of serving/{index.name}"):
        sequence = at.books.state(f"{hbase.name}/{index.of.name}/reached") or 0
        built = _build_index(at, index, hbase, sequence)
        at.books.set_state(f"{hbase.name}/{index.name}/reached", sequence)
        return built


def _build_index(at: Context, index: Index, hbase: HBaseLayer, sequence: int) -> Built:
    table = index.of
    cut, position = hbase.extend(at, table, Cut()), hbase.position(at, table, Cut())
    last = at.books.state(state_key(index))
    declared = [list(index.hbase.row_key), list(index.hbase.forms), index.hbase.salt]
    now: dict[str, Any] = {"position": position, "row_key": declared, "merged": cut.merged, "mismatches": []}
    if last and last.get("row_key") == declared and not last["mismatches"] and rebuild.complete(at, index):
        if last["position"] == position:
            return Built(last["rows"], unchanged=True)
        since = last.get("merged")
        if since and (built := _change(at, index, hbase, last, cut)):
            at.books.set_state(state_key(index), {**now, "verified": last.get("verified"), **built.notes})
            loads.reached(at.books, index, sequence, built.notes["timestamp"])
            return replace(built, notes={})
    rows = rebuild.Rows(
        lambda: _entries(index, hbase.source.batches(at, table, cut)),
        row_keys(hbase.source.sample(at, table, list(index.hbase.row_key)), index),
    )
    loaded, _ = rebuild.rebuild(at, index, hbase.loader(at.settings), rows)
    timestamp = max(loads.begin_whole(at.books, index), (last or {}).get("timestamp", 0))
    at.books.set_state(state_key(index), now | {"rows": loaded, "timestamp": timestamp})
    loads.reached(at.books, index, sequence, timestamp)
    return Built(loaded)


def _change(at: Context, index: Index, hbase: HBaseLayer, last: Mapping[str, Any], cut: Cut) -> Built | None:
    """Bring changes of the table into the index that is there; ``None`` where only a build of all of it helps."""
    rows = last["rows"]

    @lru_cache(maxsize=1)  # to name them, files are read
    def changes(since: Cut, until: Cut) -> Changes | None:
        found = hbase.source.changes(at, index.of, since, until)
        if found is None or 2 * found.replaced > last["rows"]:
            return None
        return _of_index(index, found)

    def change(found: Changes, timestamp: int) -> int:
        nonlocal rows
        done = rebuild.change(at, index, found, timestamp)
        rows += done - 2 * found.replaced
        return done

    since = Cut(merged=last["merged"])
    if changes(since, Cut(merged=cut.merged)) is None:
        return None
    before = last.get("timestamp", int(time.time() * 1000))
    steps = loads.begin(at.books, index, last["position"], str(cut.merged), before)
    done = loads.follow(steps, since, changes, change)
    if done is None:
        return None
    added = {"merged": last["merged"], "timestamp": steps[0].timestamp} if len(steps) == 1 else None
    return Built(done, notes={"rows": rows, "timestamp": steps[-1].timestamp, "added": added})


def check_index(at: Context, index: Index, hbase: HBaseLayer, *, whole: bool = False) -> list[str]:
    """Read the index back and compare it with its table; one that fails is built again next time.

    Args:
        at: Connections and settings.
        index: The index.
        hbase: The layer that its table was loaded by.
        whole: Read every row of it; else, if that was done before, only those that have changed since. Without any
            news, it is read as a whole, like a layer.

    Returns:
        What differs, a sentence each; empty if it holds the same rows.

    Raises:
        NotBuiltError: Its table is not in HBase yet.
        HBaseError: HBase did not respond.
    """
    last = at.books.state(state_key(index))
    if last is None:
        return [f"serving/{index.name}: expected it to be built, got nothing; materialize it first"]
    table, cut, key = index.of, hbase.extend(at, index.of, Cut()), state_key(index)
    reached = at.books.state(f"{hbase.name}/{index.name}/reached")

    def verified(found: Measure) -> dict[str, Any]:
        return {"merged": last["merged"], "measure": found.to_json(), "reached": reached}

    if not whole and (found := _changed(at, index, hbase, last, cut)):
        at.books.set_state(key, last | {"verified": verified(found)})
        return []
    due = Measure()
    for batch in _entries(index, hbase.source.batches(at, table, cut)):
        due += Measure(batch.num_rows, row_hash.total(row_hash.batch_hashes(batch, index.ids)))
    read = scan.measure(index, at.settings, at.addresses)
    mismatches = [*descriptor.problems(index, at.settings, at.addresses, admin_of(at)), *read.problems]
    if not read.measure.same_rows(due):
        mismatches.append(
            f"{index.name}: expected {due.rows:,} rows with checksum {due.hex},"
            f" got {read.measure.rows:,} with {read.measure.hex}; the next build replaces the index"
        )
    at.books.set_state(
        key, last | {"mismatches": mismatches, "verified": None if mismatches else verified(read.measure)}
    )
    return mismatches


def _changed(at: Context, index: Index, hbase: HBaseLayer, last: Mapping[str, Any], cut: Cut) -> Measure | None:
    """What the index holds, by what it was verified to hold and what changed; ``None`` if unknown or not right."""
    verified, added = last.get("verified"), last.get("added")
    if not verified or not verified["merged"] or last["mismatches"] or last["merged"] != cut.merged:
        return None
    if descriptor.problems(index, at.settings, at.addresses):
        return None
    known = Measure.from_json(verified["measure"])
    if verified["merged"] == last["merged"]:  # a delivery has come that does not touch it; without one, all is read
        came = at.books.state(f"{hbase.name}/{index.name}/reached") != verified.get("reached")
        return known if came else None
    if not added or added["merged"] != verified["merged"]:
        return None
    changes = hbase.source.changes(at, index.of, Cut(merged=verified["merged"]), Cut(merged=last["merged"]))
    if changes is None:
        return None
    return verify.changed(at, index, _of_index(index, changes), added["timestamp"], known)


def _of_index(index: Index, found: Changes) -> Changes:
    """Changes of a table as those of its index."""
    return Changes(lambda: _entries(index, found.new()), lambda: _entries(index, found.old()), found.replaced)


def _entries(index: Index, rows: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The index's rows of some rows of its table."""
    for batch in rows:
        yield pa.RecordBatch.from_arrays(batch.select(index.names).columns, schema=index.arrow)
