"""The layer hbase: what the engine calls, in terms of the modules next to it.

What belongs here: the class of the layer. What does not: how any of it is done, or when.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
from typing_extensions import override

from ecom_assets.core.books import Build
from ecom_assets.core.context import Context
from ecom_assets.core.errors import NotBuiltError
from ecom_assets.core.layer import Built, Cut, Layer, Measurement, Row, RowSource
from ecom_assets.core.progress import track
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.hbase import compare, descriptor, get, rebuild, scan
from ecom_assets.hbase.layout import row_keys


class HBaseLayer(Layer):
    """The serving store, loaded from the merged tables or from the expanded files: as a whole, or what is new.

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
        """Add what has come in since the last load; where rows have changed, or with ``repair``, load all of them.

        See ``rebuild.append`` and ``rebuild.rebuild``.
        """
        cut = self.source.extend(at, table, Cut())
        last = None if repair else self._last(at, table)
        since_last = Cut(merged=last.notes["cut"]["merged"]) if last else Cut()
        changes = self.source.changes(at, table, since_last, cut) if last else None
        if last and changes and not changes.replaced:
            since = self._begin_adding(at, table, last)
            rows = rebuild.append(at, table, changes.new(), max(since, int(time.time() * 1000)))
            begun = {"position": _position(last), "timestamp": since}
            return Built(rows, notes={**last.notes, "cut": {"merged": cut.merged}, "added": begun})
        rows, regions = rebuild.rebuild(at, table, self.loader(at.settings), self.rows(at, table, cut))
        fixed = {} if cut.merged is None else {"merged": cut.merged}
        return Built(rows, notes={"cut": fixed, "regions": regions, "place": self._place(at)})

    def _last(self, at: Context, table: Table) -> Build | None:
        """The last load, if rows can be added to what it loaded."""
        last = at.books.build(self.name, table.name)
        if last is None or last.path != self.path or not last.notes["cut"].get("merged"):
            return None
        return last if last.notes.get("place") == self._place(at) and self.exists(at, table) else None

    def _begin_adding(self, at: Context, table: Table, last: Build) -> int:
        """A timestamp behind those of all that was loaded, and before those of what is added now.

        Where an attempt broke off, it is that of the first one, whose cells are of this load too.
        """
        key, position = f"{self.name}/{table.name}/adding", _position(last)
        known = at.books.state(key)
        if known and known["position"] == position:
            return int(known["timestamp"])
        since = max(1 + int(last.at.timestamp() * 1000), int(time.time() * 1000))  # whatever the clock says
        at.books.set_state(key, {"position": position, "timestamp": since})
        return since

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
        problems = [*descriptor.problems(table, at.settings, at.addresses), *found.problems]
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
        """Read the cells alone that the last load has added to what is known."""
        built = self._build(at, table)
        since = built.notes.get("added", {})
        if since.get("position") != known.position or descriptor.problems(table, at.settings, at.addresses):
            return None
        try:
            with track(f"check: hbase/{table.name}", None) as advance:
                found = scan.measure(table, at.settings, at.addresses, advance, since=since["timestamp"])
        except scan.OutOfReachError:
            return None
        if found.damaged:
            return None
        return replace(known, measure=known.measure.before + found.measure, build_seconds=built.seconds)

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


def _position(built: Build) -> str:
    """Names what a load has made of the table."""
    return f"{built.fingerprint} {built.at.isoformat()}"
