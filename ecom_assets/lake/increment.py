"""Merging what is new: the rows that were streamed since the last merge, next to those under their keys.

What belongs here: which rows they concern, and the commit that changes the merged table. What does not: a merge of all
rows (``merge``), the verdict on each (``judged``), and how files are written (``rewrite``). Its cost follows the new
rows and the files that they change. Spark types the new rows; the rest is done here, since a job of Spark takes longer
than all of it where few rows come.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from ecom_assets.core.accounts import ENDED
from ecom_assets.core.boundary import LEFT_OUT
from ecom_assets.core.errors import LakeError
from ecom_assets.core.location import Location
from ecom_assets.core.verdict import Judge, deletes, duckdb_in, key_hashes
from ecom_assets.dataset.model import Table
from ecom_assets.lake import delta, fates, history, rewrite, streamed, target
from ecom_assets.lake.delta import Version
from ecom_assets.lake.fates import PLACED, Deliveries
from ecom_assets.lake.judged import ENDINGS, Judged
from ecom_assets.lake.repeats import KeysOf, among, common, known
from ecom_assets.lake.target import Left

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from ecom_assets.core.context import Context

_LAST = (1 << 63) - 1
_RECORD = ("_delivery", "_row", "_timestamp", "_partition", "_offset", "_tombstone")
_TIME = pa.timestamp("us", "UTC")


@dataclass(frozen=True)
class Increment:
    """What came into a streamed table since a merge.

    Attributes:
        at: Connections and settings.
        table: The table.
        version: The version of the streamed table up to which rows count.
        names: The files that came since.
        merged: The merged table, as that merge left it.
        deliveries: The deliveries that count.
        before: The place of the last one that the merged table holds.
    """

    at: Context
    table: Table
    version: Version
    names: frozenset[str]
    merged: DeltaTable
    deliveries: Deliveries
    before: int

    @contextmanager
    def judged(self) -> Generator[Judged | None]:
        """The verdict on the new rows, and on those that the merged table has under their keys.

        ``None`` if all of them are simply new.
        """
        if self.table.write == "replace":  # absence concerns keys that do not come again
            keys, files = None, delta.files(self.merged)["path"].to_pylist()
        else:
            keys, files = self._in_question()
            if not len(keys):
                yield None
                return
        with duckdb_in(self.at.settings.home) as connection:
            judge = Judge(self.table)
            yield Judged(connection, judge, self._facts(judge, keys, files), self.deliveries)

    def merge(self, known: Left) -> Left | None:
        """Bring the merged table up to the version.

        Args:
            known: What the last merge left out.

        Returns:
            All rows that are left out. ``None``, and nothing is done, where only a merge of all rows is right, or where
            it is as fast.
        """
        table, books = self.table, self.at.books
        with self.judged() as judged:
            if judged is None:
                target.remember(books, table, self.version, known, self.deliveries)
                self._append()
                return known
            many = 2 * delta.count(self._source, self.names) > delta.count(self.merged)
            if (table.write != "replace" and many) or judged.is_beyond:
                return None
            left = {reason: known[reason] + judged.left[reason] for reason in LEFT_OUT}
            target.remember(books, table, self.version, left, self.deliveries)
            self._change(judged)
        return left

    # What is looked at

    @cached_property
    def _source(self) -> DeltaTable:
        return delta.at_version(streamed.folder(self.table, self.at.settings), self.version)

    def _in_question(self) -> tuple[np.ndarray, list[str]]:
        """The hashes of keys that come twice or again, or are deleted, sorted; and the files that have some of them."""
        table, hashes, asked = self.table, [np.empty(0, np.uint64)], []
        columns = [*table.primary_key, "_tombstone", *(table.deleted_if[:1] if table.deleted_if else ())]
        for batch in delta.batches(self._source, list(dict.fromkeys(columns)), "_undecoded", self.names):
            hashes.append(key_hashes(batch, table))
            asked.append(hashes[-1][self._deletes(batch).to_numpy(zero_copy_only=False)])
        new = np.sort(np.concatenate(hashes))
        there = {file: common(new, of) for file, of in known(table, self.at.settings, KeysOf(self.merged))}
        keys = np.unique(np.concatenate([new[1:][new[1:] == new[:-1]], *asked, *there.values()]))
        return keys, [file for file, again in there.items() if len(again)]

    def _deletes(self, batch: pa.RecordBatch) -> pa.Array:
        asks = deletes(batch, self.table)
        if not self.table.takes_tombstones:
            return asks
        return pc.or_(asks, pc.fill_null(batch.column("_tombstone"), False))

    def _facts(self, judge: Judge, keys: np.ndarray | None, files: list[str]) -> Iterator[list[pa.Array]]:
        """What the verdict needs of the rows of some keys; of all if none are given."""
        position = 0
        places = {sequence: place for place, sequence in enumerate(self.deliveries.sequences)}
        for batch in self._new():
            at = _chosen(batch, self.table, keys)
            rows = batch.take(pa.array(at))
            facts = judge.facts(rows)
            facts[judge.schema.get_field_index("deletes")] = self._deletes(rows)
            of = rows.column("_delivery").to_pylist() if keys is None else ()
            yield [
                *facts,
                pa.array([places.get(each) for each in of] if keys is None else np.zeros(len(at)), pa.int64()),
                pa.array(np.zeros(len(at), bool)),
                pa.nulls(len(at), pa.string()),
                pa.array(position + at),
                *_order(rows),
                *(rows.column(name).cast(pa.int64()) for name in ("_partition", "_offset")),
            ]
            position += len(batch)
        for file in files:
            position = 0
            for batch in delta.batches(self.merged, [*self.table.names, *PLACED], names=[file]):
                at = _chosen(batch, self.table, keys)
                rows = batch.take(pa.array(at))
                before, none = self.before if keys is None else 0, np.full(len(at), -1)
                yield [
                    *judge.facts(rows),
                    pa.array(np.full(len(at), before)),
                    pa.array(np.ones(len(at), bool)),
                    pa.repeat(file, len(at)),
                    pa.array(position + at),
                    *_order(rows),
                    pa.array(none),
                    pa.array(none),
                ]
                position += len(batch)

    def _new(self) -> Iterator[pa.RecordBatch]:
        """The new rows with ``PLACED``, partition, offset and whether they are tombstones, as ``fates.placed`` does."""
        times = self.deliveries.times
        starts = np.array([times[n] for n in self.deliveries.sequences[1:]], np.int64)
        sequences, known = np.array(self.deliveries.sequences), pa.array(times, pa.int64())
        accepted = pa.array(list(times.values()), pa.int64())
        for batch in delta.batches(self._source, [*self.table.names, *_RECORD], "_undecoded", self.names):
            written, delivered = batch.column("_timestamp").cast(pa.int64()), batch.column("_delivery")
            if delivered.null_count:
                before = (starts <= written.to_numpy()[:, None]).sum(axis=1) if len(starts) else 0
                delivered = pc.coalesce(delivered, pa.array(np.broadcast_to(sequences[before], len(batch))))
            since = accepted.take(pc.index_in(batch.column("_delivery"), known))
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            columns |= {"_delivery": delivered, "_since": pc.coalesce(since, written).cast(_TIME)}
            yield pa.RecordBatch.from_pydict(columns)

    # What is written

    def _append(self) -> None:
        """Append the new rows as they are."""
        at, path = self.at, target.folder(self.table, self.at.settings)
        source = streamed.folder(self.table, at.settings)
        new: DataFrame = at.spark.read.parquet(*(str(source / name) for name in sorted(self.names)))
        rows = fates.placed(new.where("_undecoded IS NULL"), self.deliveries)
        writer = target.columns(rows, self.table).write.format("delta").mode("append")
        target.transacted(writer, self.version).save(str(path))
        written = DeltaTable(str(path))
        if target.merged_version(written, self.version.id) != self.version:  # no row to append, so Spark did not commit
            self._commit(written, [])

    def _change(self, judged: Judged) -> None:
        """Write the files of rows that ended again without these, and new rows next to them, as one commit.

        Not by Spark's MERGE: it records no transaction identifier of ours but by a setting of the whole session.
        """
        path = target.folder(self.table, self.at.settings)
        schema = pa.schema(self.merged.schema().to_arrow())
        staging = path.with_name(f".{self.table.name}.new")
        with rewrite.typed_by_spark(self.at.spark, self.table, self._to_be_typed(judged), staging) as new:
            ends = any(judged.left[reason].rows for reason in ENDED)
            if self.table.history and ends:
                history.append(self._ended(judged, schema, new), self.table, self.at.settings)
            inserted = (
                batch.filter(batch.column("_fate").is_null()).select(schema.names)
                for batch in rewrite.read(new, _with_endings(schema))
            )
            rows = itertools.chain(self._staying(judged, schema), inserted)
            added = list(rewrite.files(path, rows, schema))
        now = int(time.time() * 1000)
        actions: list[AddAction | RemoveAction] = [
            RemoveAction(name, data_change=True, deletion_timestamp=now) for name in judged.files
        ]
        self._commit(self.merged, [*actions, *added])

    def _to_be_typed(self, judged: Judged) -> Iterator[pa.RecordBatch]:
        """New rows that stay, and those that ended at once if they become history."""
        left, ended, first = judged.left_out(), judged.ended(), 0
        own = [*self.table.names, *PLACED]
        for batch in self._new():
            keep = np.ones(len(batch), bool)
            keep[_within(left, first, len(batch))] = False
            rows = batch.filter(pa.array(keep)).select(own)
            for field in ENDINGS:
                rows = rows.append_column(field, pa.nulls(len(rows), field.type))
            if len(rows):
                yield rows
            if self.table.history and len(rows := _taken(batch.select(own), first, ended)):
                yield rows
            first += len(batch)

    def _staying(self, judged: Judged, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows that stay, of the files that have some which do not."""
        for file in judged.files:
            left, first = judged.left_out(file), 0
            for batch in delta.batches(self.merged, schema.names, names=[file]):
                keep = np.ones(len(batch), bool)
                keep[_within(left, first, len(batch))] = False
                yield batch.filter(pa.array(keep))
                first += len(batch)

    def _ended(self, judged: Judged, schema: pa.Schema, new: list[Location]) -> Iterator[pa.RecordBatch]:
        """The rows that ended, and how."""
        for file in judged.files:
            ended, first = judged.ended(file), 0
            for batch in delta.batches(self.merged, schema.names, names=[file]):
                if len(rows := _taken(batch, first, ended)):
                    yield rows
                first += len(batch)
        for batch in rewrite.read(new, _with_endings(schema)):
            if len(rows := batch.filter(batch.column("_fate").is_valid())):
                yield rows

    def _commit(self, found: DeltaTable, actions: list[AddAction | RemoveAction]) -> None:
        transaction = Transaction(target.app_id(self.version.id), self.version.number)
        properties = CommitProperties(app_transactions=[transaction])
        try:
            found.create_write_transaction(actions, "append", found.schema(), commit_properties=properties)
        except CommitFailedError as error:
            raise LakeError(
                f"merged/{self.table.name}: expected to be the only one that changes {found.table_uri}, got another"
                f" commit in between ({error})",
                "merge again",
                transient=True,
            ) from error


def _chosen(batch: pa.RecordBatch, table: Table, keys: np.ndarray | None) -> np.ndarray:
    """The positions of a batch's rows of some keys; all if none are given."""
    return np.arange(len(batch)) if keys is None else np.flatnonzero(among(key_hashes(batch, table), keys))


def _order(rows: pa.RecordBatch) -> list[pa.Array]:
    """Delivery, number and time of rows, as they are ordered by them."""
    number = pc.fill_null(rows.column("_row"), _LAST)
    return [rows.column("_delivery"), number, rows.column("_since").cast(_TIME).cast(pa.int64())]


def _with_endings(schema: pa.Schema) -> pa.Schema:
    return pa.schema([*schema, *ENDINGS])


def _within(positions: np.ndarray, first: int, count: int) -> np.ndarray:
    """Of sorted positions, those of ``count`` rows from ``first`` on, counted from there."""
    low, high = np.searchsorted(positions, [first, first + count])
    return positions[low:high] - first


def _taken(batch: pa.RecordBatch, first: int, ended: pa.Table) -> pa.RecordBatch:
    """The rows of a batch that ended, and how."""
    positions = ended["position"].to_numpy()
    low, high = np.searchsorted(positions, [first, first + len(batch)])
    rows = batch.take(pa.array(positions[low:high] - first))
    how = ended.slice(low, high - low)
    for field in ENDINGS:
        rows = rows.append_column(field, pa.concat_arrays([pa.array([], field.type), *how[field.name].chunks]))
    return rows
