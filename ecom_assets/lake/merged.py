"""The merged layer: typed Delta tables, one row per primary key.

What belongs here: the layer, what it holds at a cut, and its rows for HBase. What does not: how rows are merged; see
``merge``.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ecom_assets.core.boundary import shown
from ecom_assets.core.errors import LakeError, NotBuiltError
from ecom_assets.core.layer import Built, Changes, Cut, Layer, Measurement, Row, RowSource
from ecom_assets.core.location import exists, remove
from ecom_assets.core.measure import Measure
from ecom_assets.core.progress import track
from ecom_assets.core.settings import Settings
from ecom_assets.core.spark import reachable
from ecom_assets.dataset.model import Table
from ecom_assets.lake import changes, companions, delta, history, merge, owner, quarantine, rewrite, streamed
from ecom_assets.lake.delta import Version

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from ecom_assets.core.context import Context

FORM = 3
"""Raised when this room builds other rows or columns from the same input, so that tables are merged again."""


KNOWN_CHANGES = 8
"""Differences of two versions that are known at a time."""


class MergedLayer(RowSource):
    """One row per primary key, with typed companions.

    Args:
        upstream: The streamed tables.
    """

    name = "merged"
    pool = "spark"
    kinds = frozenset({"spark", "delta"})
    replaceable = True
    description = "One row per primary key, typed columns next to the source text."

    def __init__(self, upstream: Layer) -> None:
        self.upstream = upstream
        self._changes: OrderedDict[tuple[str, str, str], Changes] = OrderedDict()

    def fingerprint(self, at: Context, table: Table) -> str:
        """The version of the streamed table."""
        return str(self._streamed(at, table))

    def _streamed(self, at: Context, table: Table) -> Version:
        version = delta.rows_version(streamed.folder(table, at.settings))
        if version is None:
            raise NotBuiltError("streamed", table.name)
        return version

    def declaration(self, at: Context, table: Table) -> Mapping[str, Any]:  # noqa: ARG002
        """The primary key, what a further row of it does, and the schema, companions included."""
        schema = hashlib.sha256(repr((FORM, table.avsc)).encode()).hexdigest()[:16]
        mode = {"write": table.write, "version": table.version, "history": table.history}
        return {"primary key": table.key, "schema": schema, **mode, "deleted_if": repr(table.deleted_if or "")}

    def exists(self, at: Context, table: Table) -> bool:
        """Whether there is a Delta table."""
        return exists(merge.folder(table, at.settings))

    def build(self, at: Context, table: Table, *, repair: bool = False) -> Built:
        """Merge what has come in; all of it where that is not enough.

        Raises:
            LakeError: There is no streamed table.
        """
        owner.register(at)
        version, path = self._streamed(at, table), merge.folder(table, at.settings)
        if not repair and exists(path) and merge.merged_version(delta.latest(path), version.id) == version:
            return Built(unchanged=True)
        rewrite.gather(path)
        rewrite.gather(history.folder(table, at.settings))
        with track(f"{self.name}/{table.name}", None), reachable(f"the merge of {table.name}"):
            left = (merge.rebuild if repair else merge.merge)(at, table, version)
        return Built(delta.records(path), notes={reason: measure.rows for reason, measure in shown(left).items()})

    def extend(self, at: Context, table: Table, cut: Cut) -> Cut:
        """Fix the version, unless a later layer did, and the version of the streamed table that it holds."""
        path = merge.folder(table, at.settings)
        version = Version.parse(cut.merged) if cut.merged else delta.rows_version(path)
        if version is None:
            raise NotBuiltError(self.name, table.name)
        source = merge.merged_version(delta.at_version(path, version), self._streamed(at, table).id)
        if source is None:
            raise LakeError(
                f"merged/{table.name}: expected to be built from the streamed table in"
                f" {streamed.folder(table, at.settings)}, got one built from another, which is gone",
                f"materialize merged/{table.name} again",
            )
        return replace(cut, merged=str(version), streamed=str(source))

    def position(self, at: Context, table: Table, cut: Cut) -> str:  # noqa: ARG002
        """The version of the Delta table."""
        return cut.merged or ""

    def measure(self, at: Context, table: Table, cut: Cut) -> Measurement:
        """Read the table back without Spark, and find again by Spark what merging left out."""
        path = merge.folder(table, at.settings)
        version = Version.parse(cut.merged or "")
        with track(f"verification: {self.name}/{table.name}", None), reachable(f"the check of merged/{table.name}"):
            held = delta.at_version(path, version)
            found = delta.measure(table, held)
            problems = companions.mismatches(at, table, path, held)
            left = merge.left_out(at, table, Version.parse(cut.streamed or ""))
            if version == delta.rows_version(path):
                problems += _misplaced(at, table, left, whole=True)
        return Measurement(
            table.name,
            self.name,
            found,
            shown(left),
            position=self.position(at, table, cut),
            problems=tuple(problems),
        )

    def derive(self, at: Context, table: Table, known: Measurement, cut: Cut) -> Measurement | None:
        """Read the files alone in which the table differs, and judge again what was streamed since."""
        path, now = merge.folder(table, at.settings), Version.parse(cut.streamed or "")
        try:
            before, held = (
                delta.at_version(path, Version.parse(position)) for position in (known.position, cut.merged or "")
            )
            gone, came = delta.difference(before, held)
            with track(f"verification: {self.name}/{table.name}", None), reachable(f"the check of {table.name}"):
                found, lost = delta.measure(table, held, names=came), delta.measure(table, before, names=gone)
                more = merge.left_since(at, table, before, now)
                if more is None or companions.mismatches(at, table, path, held, came):
                    return None
                left = {reason: known.excluded.get(reason, Measure()) + each for reason, each in more.items()}
                if _misplaced(at, table, left):
                    return None
        except (LakeError, FileNotFoundError):
            return None  # another table, or files of that time were deleted
        return replace(known, measure=known.measure.before + found - lost, excluded=shown(left), problems=())

    def delete(self, at: Context, table: Table) -> None:
        """Delete the table, its history and its quarantine."""
        owner.register(at)
        quarantine.replace(None, table, at.settings, "merge")
        remove(merge.folder(table, at.settings))
        history.replace(None, table, at.settings)

    def preview(self, at: Context, table: Table, rows: int) -> Sequence[Row]:
        """The first few rows, without companions."""
        return delta.head(merge.folder(table, at.settings), table.names, rows)

    def stored_as(self, settings: Settings, table: Table) -> str:
        """The Delta table's folder."""
        return str(merge.folder(table, settings))

    # Rows for HBase

    def batches(self, at: Context, table: Table, cut: Cut) -> Iterable[pa.RecordBatch]:
        """All rows at the cut, in flat memory."""
        found = delta.at_version(merge.folder(table, at.settings), Version.parse(cut.merged or ""))
        return delta.batches(found, table.names)

    def changes(self, at: Context, table: Table, since: Cut, cut: Cut) -> Changes | None:
        """The rows in which two versions of the table differ; ``None`` if it was rebuilt since."""
        path = merge.folder(table, at.settings)
        try:
            before, now = (delta.at_version(path, Version.parse(each.merged or "")) for each in (since, cut))
        except LakeError:
            return None
        key = (str(path), str(since.merged), str(cut.merged))  # HBase, its check and its indexes ask for the same
        if key not in self._changes:
            self._changes[key] = changes.between(table, before, now)
            while len(self._changes) > KNOWN_CHANGES:
                self._changes.popitem(last=False)
        return self._changes[key]

    def sample(self, at: Context, table: Table, columns: Sequence[str]) -> pa.Table:
        """Some columns of about 100,000 rows."""
        return delta.sample(delta.latest(merge.folder(table, at.settings)), list(columns))

    def frame(self, at: Context, table: Table, cut: Cut) -> DataFrame:
        """The table's own columns at the cut as a Spark frame."""
        path = merge.folder(table, at.settings)
        number = delta.at_version(path, Version.parse(cut.merged or "")).version()
        return merge.read(at.spark, table, path, number)

    def left_out(self, at: Context, table: Table) -> Mapping[str, Measure]:  # noqa: ARG002
        """Nothing: what merging leaves out is part of this layer's own measurement."""
        return {}


def _misplaced(at: Context, table: Table, left: merge.Left, *, whole: bool = False) -> list[str]:
    """Where quarantine or history hold other rows than those that merging leaves out."""
    due = {"conflicts": (left["conflicts"], quarantine.folder(table, at.settings))}
    kept = {"conflicts": merge.in_quarantine(at, table)}
    if table.history:
        due["former versions"] = left["superseded"] + left["deleted"], history.folder(table, at.settings)
        kept["former versions"] = history.measure(table, at.settings, at.books, whole=whole)
    return [
        f"merged/{table.name}: expected {rows.rows:,} {what} with checksum {rows.hex} in {path}, got"
        f" {kept[what].rows:,} with {kept[what].hex}"
        for what, (rows, path) in due.items()
        if not kept[what].same_rows(rows)
    ]
