"""The layer hbase: what the engine calls, in terms of the modules next to it.

What belongs here: the class of the layer. What does not: how any of it is done, or when.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
from typing_extensions import override

from ecom_assets.core.books import Build
from ecom_assets.core.context import Context
from ecom_assets.core.errors import NotBuiltError
from ecom_assets.core.layer import Built, Changes, Cut, Layer, Measurement, Row, RowSource
from ecom_assets.core.progress import track
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.hbase import compare, descriptor, get, loads, rebuild, scan, verify
from ecom_assets.hbase.admin import admin_of
from ecom_assets.hbase.layout import row_keys


class HBaseLayer(Layer):
    """The serving store, loaded from the merged tables or from the expanded files: as a whole, or what has changed.

    Args:
        upstream: The layer that rows come from.
        path: Name of the path that it is part of: ``stream`` or ``bulk``.

    Attributes:
        source: As ``upstream``.
        path: As given.
    """

    name = "hbase"
    pool = "hbase"
    kinds = frozenset({"hbase"})
    description = "One row per row key, pre-split by quantiles; a null is an absent cell."

    def __init__(self, upstream: RowSource, path: str) -> None:
        self.upstream = self.source = upstream
        self.path = path

    @override
    def fingerprint(self, at: Context, table: Table) -> str:
        source = self.source.position(at, table, self.source.extend(at, table, Cut()))
        parts = [source, at.settings.namespace, at.addresses.hbase_zookeeper, self.path]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @override
    def declaration(self, at: Context, table: Table) -> Mapping[str, Any]:
        layout = table.hbase
        families = {family: list(columns) for family, columns in layout.families.items()}
        written = {"forms": list(layout.forms), "salt": layout.salt}
        as_text = not layout.salt and layout.forms == ("text",)  # the only kind of row key that homes had before
        return {"families": families, "row_key": list(layout.row_key)} | ({} if as_text else written)

    @override
    def exists(self, at: Context, table: Table) -> bool:
        return rebuild.complete(at, table)

    @override
    def build(self, at: Context, table: Table, *, repair: bool = False) -> Built:
        """Bring in what has changed since the last load; where that cannot be named, or with ``repair``, load all rows.

        See ``rebuild.change`` and ``rebuild.rebuild``.
        """
        # Before the cut: of what comes in between the two, the next load knows.
        sequence = at.books.state(f"{self.source.name}/{table.name}/reached") or 0
        cut = self.source.extend(at, table, Cut())
        last = None if repair else self._last(at, table)
        built = self._change(at, table, last, cut) if last else None
        if built is None:
            built = self._load(at, table, cut)
        loads.reached(at.books, table, sequence, built.notes["timestamp"])
        return built

    def _load(self, at: Context, table: Table, cut: Cut) -> Built:
        last = at.books.build(self.name, table.name)
        rows, regions = rebuild.rebuild(at, table, self.loader(at.settings), self.rows(at, table, cut))
        fixed = {} if cut.merged is None else {"merged": cut.merged}
        # What is published may be later than the cells; what is brought in next must be later than that.
        timestamp = max(loads.begin_whole(at.books, table), _timestamp(last) if last else 0)
        return Built(rows, notes={"cut": fixed, "regions": regions, "place": self._place(at), "timestamp": timestamp})

    def _change(self, at: Context, table: Table, last: Build, cut: Cut) -> Built | None:
        """Bring changes into the table that is there; ``None`` where only a load of all rows helps."""
        since, until = Cut(merged=last.notes["cut"]["merged"]), Cut(merged=cut.merged)
        changes = self.source.changes(at, table, since, until)
        if changes is None or 2 * changes.replaced > (self._count(at, table) or 2 * changes.replaced):
            return None
        steps = loads.begin(at.books, table, _position(last), str(cut.merged), _timestamp(last))

        def between(*cuts: Cut) -> Changes | None:
            return changes if cuts == (since, until) else self.source.changes(at, table, *cuts)

        rows = loads.follow(steps, since, between, partial(rebuild.change, at, table))
        if rows is None:
            return None
        notes = {**last.notes, "cut": {"merged": cut.merged}, "timestamp": steps[-1].timestamp}
        added = {"position": _position(last), "merged": since.merged, "timestamp": steps[0].timestamp}
        return Built(rows, notes=notes | {"added": added if len(steps) == 1 else {}})

    def _last(self, at: Context, table: Table) -> Build | None:
        """The last load, if changes can be brought into what it loaded."""
        last = at.books.build(self.name, table.name)
        if last is None or last.path != self.path or not last.notes["cut"].get("merged"):
            return None
        return last if last.notes.get("place") == self._place(at) and self.exists(at, table) else None

    def _place(self, at: Context) -> str:
        return f"{at.addresses.hbase_zookeeper} {at.settings.namespace}"

    def loader(self, settings: Settings) -> str:
        """How rows are loaded: as configured, else by HFiles; by Spark's tasks if the lake is in HDFS."""
        return settings.hbase_loader or ("spark" if settings.lake_uri and self.path == "stream" else "hfile")

    def rows(self, at: Context, table: Table, cut: Cut) -> rebuild.Rows:
        """What the table is loaded from, at a cut."""
        return rebuild.Rows(
            lambda: self.source.batches(at, table, cut),
            self._keys(at, table),
            lambda: self.source.frame(at, table, cut),
            self._count(at, table),
        )

    @override
    def extend(self, at: Context, table: Table, cut: Cut) -> Cut:
        """Fix the merged version that was loaded; a load from the expanded files fixes none.

        Raises:
            NotBuiltError: The table has not been loaded.
        """
        merged = self._build(at, table).notes["cut"].get("merged")
        return cut if merged is None else replace(cut, merged=merged)

    @override
    def position(self, at: Context, table: Table, cut: Cut) -> str:
        """Name the load that the table is of.

        Raises:
            NotBuiltError: The table has not been loaded.
        """
        return _position(self._build(at, table))

    @override
    def measure(self, at: Context, table: Table, cut: Cut) -> Measurement:
        """Read every cell back, and compare the table's descriptor with the declared one.

        Raises:
            NotBuiltError: The table has not been loaded.
            HBaseError: HBase did not respond after several tries.
        """
        built = self._build(at, table)
        excluded = self.source.left_out(at, table)
        with track(f"check: hbase/{table.name}", self._count(at, table)) as advance:
            found = scan.measure(table, at.settings, at.addresses, advance)
        problems = [*descriptor.problems(table, at.settings, at.addresses, admin_of(at)), *found.problems]
        if found.damaged > len(found.problems):
            problems.append(f"{found.damaged - len(found.problems):,} more damaged rows")
        return Measurement(
            table.name,
            self.name,
            found.measure,
            excluded,
            self.position(at, table, cut),
            problems=tuple(problems),
            build_seconds=built.seconds,
        )

    @override
    def derive(self, at: Context, table: Table, known: Measurement, cut: Cut) -> Measurement | None:
        """Read the rows alone that the last load has changed, before it and after it; see ``verify.changed``."""
        built = self._build(at, table)
        added = built.notes.get("added", {})
        if "merged" not in added:  # of an earlier version, or several loads at once
            return None
        if added["position"] != known.position or descriptor.problems(table, at.settings, at.addresses):
            return None
        changes = self.source.changes(at, table, Cut(merged=added["merged"]), Cut(merged=built.notes["cut"]["merged"]))
        if changes is None:
            return None
        found = verify.changed(at, table, changes, added["timestamp"], known.measure.before)
        return None if found is None else replace(known, measure=found, build_seconds=built.seconds)

    @override
    def differences(self, at: Context, table: Table, cut: Cut) -> Sequence[str]:
        count = self._count(at, table)
        with track(f"search: hbase/{table.name}", None if count is None else 2 * count) as advance:
            return compare.differences(
                table,
                lambda: self.source.batches(at, table, cut),
                self._keys(at, table),
                at.settings,
                at.addresses,
                progress=advance,
            )

    @override
    def delete(self, at: Context, table: Table) -> None:
        """Delete the table, and what loads that broke off have left of it.

        Raises:
            OwnedError: Another home owns the namespace.
        """
        rebuild.remove(at, table)

    @override
    def preview(self, at: Context, table: Table, rows: int) -> Sequence[Row]:
        if not self.exists(at, table):
            return ()
        return get.prefix(table, (), at.settings, at.addresses, rows)

    @override
    def stored_as(self, settings: Settings, table: Table) -> str:
        return table.hbase_table(settings.namespace)

    def _build(self, at: Context, table: Table) -> Build:
        built = at.books.build(self.name, table.name)
        if built is None:
            raise NotBuiltError(self.name, table.name)
        return built

    def _keys(self, at: Context, table: Table) -> pa.Array | pa.ChunkedArray:
        return row_keys(self.source.sample(at, table, list(table.hbase.row_key)), table)

    def _count(self, at: Context, table: Table) -> int | None:
        """Rows of the layer before, as last measured; for a progress bar."""
        known = at.books.last_measurement(self.source.name, table.name)
        return known.measure.rows if known else None


def _timestamp(built: Build) -> int:
    """That of the load; those of earlier versions did not note it, but none was later than its end."""
    return built.notes.get("timestamp", int(built.at.timestamp() * 1000))


def _position(built: Build) -> str:
    """Names what a load has made of the table."""
    return f"{built.fingerprint} {built.at.isoformat()}"
