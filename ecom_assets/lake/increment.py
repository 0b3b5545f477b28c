"""Merging what is new: the rows that were streamed since the last merge, next to those under their keys.

What belongs here: which rows they concern, and the commit that changes the merged table. What does not: a merge of all
rows (``merge``), the verdict on each (``judged``), and how files are written (``rewrite``). Its cost follows the new
rows and the files that they change. All of it is done here, since a job of Spark takes longer than it where few rows
come; Spark types the new rows only where a text is not of its usual form.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
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
from ecom_assets.lake import delta, fates, history, rewrite, streamed, target, vectors
from ecom_assets.lake.delta import Version
from ecom_assets.lake.fates import LAST, PLACED, Deliveries
from ecom_assets.lake.judged import ENDINGS, Judged
from ecom_assets.lake.repeats import KeysOf, among, there_already
from ecom_assets.lake.target import Left

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from ecom_assets.core.context import Context

APPENDED_ROWS = 1_000_000
"""So many rows that all stay are appended by Spark."""
MARKED_ROWS = 20_000
"""Of a file with fewer rows, a row goes by writing the file again: that takes no time, and leaves fewer files."""
MARKED_SHARE = 0.1
"""Of so many of a file's rows, a deletion vector tells which are gone; with more of them the file is written again."""

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
            keys, there = None, {name: self._live(name) for name in self._files}
        else:
            keys, there = self._in_question()
            if not len(keys):
                yield None
                return
        with duckdb_in(self.at.settings.home) as connection:
            judge = Judge(self.table)
            yield Judged(connection, judge, self._facts(judge, keys, there), self.deliveries)

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
            count = delta.count(self._source, self.names)
            if judged is None:
                target.remember(books, table, self.version, known, self.deliveries)
                if count < APPENDED_ROWS:
                    self._change(None)
                else:
                    self._append()
                return known
            if (table.write != "replace" and 2 * count > delta.count(self.merged)) or judged.is_beyond:
                return None
            left = {reason: known[reason] + judged.left[reason] for reason in LEFT_OUT}
            target.remember(books, table, self.version, left, self.deliveries)
            self._change(judged)
        return left

    # What is looked at

    @cached_property
    def _source(self) -> DeltaTable:
        return delta.at_version(streamed.folder(self.table, self.at.settings), self.version)

    @cached_property
    def _files(self) -> dict[str, dict[str, int]]:
        """The merged table's files, as its log describes them."""
        return {file["path"]: file for file in delta.files(self.merged).to_pylist()}

    @cached_property
    def _deleted(self) -> dict[str, np.ndarray]:
        return vectors.deleted(self.merged)

    def _live(self, name: str) -> np.ndarray:
        """The positions of a file's rows that the merged table has."""
        return np.setdiff1d(np.arange(self._files[name]["num_records"]), self._deleted.get(name, ()), True)

    def _in_question(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The hashes of keys that come twice or again, or are deleted, sorted; and the rows that have them, by file."""
        table, hashes, asked = self.table, [np.empty(0, np.uint64)], []
        columns = [*table.primary_key, "_tombstone", *(table.deleted_if[:1] if table.deleted_if else ())]
        for batch in delta.batches(self._source, list(dict.fromkeys(columns)), "_undecoded", self.names):
            hashes.append(key_hashes(batch, table))
            asked.append(hashes[-1][self._deletes(batch).to_numpy(zero_copy_only=False)])
        new = np.sort(np.concatenate(hashes))
        there = there_already(table, self.at.settings, KeysOf(self.merged), new)
        again = [hashes for hashes, _ in there.values()]
        keys = np.unique(np.concatenate([new[1:][new[1:] == new[:-1]], *asked, *again]))
        return keys, {file: np.sort(positions) for file, (_, positions) in there.items()}

    def _deletes(self, batch: pa.RecordBatch) -> pa.Array:
        asks = deletes(batch, self.table)
        if not self.table.takes_tombstones:
            return asks
        return pc.or_(asks, pc.fill_null(batch.column("_tombstone"), False))

    def _facts(
        self, judge: Judge, keys: np.ndarray | None, there: Mapping[str, np.ndarray]
    ) -> Iterator[list[pa.Array]]:
        """What the verdict needs of the new rows of some keys, all if none are given, and of some rows that are there.

        Two keys may have one hash: a row more that is looked at changes nothing.
        """
        position = 0
        places = {sequence: place for place, sequence in enumerate(self.deliveries.sequences)}
        for batch in self._new():
            at = np.arange(len(batch)) if keys is None else np.flatnonzero(among(key_hashes(batch, self.table), keys))
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
        before = 0 if keys is not None else self.before
        for file, positions in there.items():
            first = 0
            for rows in delta.batches(self.merged, [*self.table.names, *PLACED], names={file: positions}):
                count = len(rows)
                none = pa.array(np.full(count, -1))
                yield [
                    *judge.facts(rows),
                    pa.array(np.full(count, before)),
                    pa.array(np.ones(count, bool)),
                    pa.repeat(file, count),
                    pa.array(positions[first : first + count]),
                    *_order(rows),
                    none,
                    none,
                ]
                first += count

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
        """Append the new rows by Spark: many it writes in parallel, while a few would wait for its Delta commit."""
        at, path = self.at, target.folder(self.table, self.at.settings)
        source = streamed.folder(self.table, at.settings)
        new: DataFrame = at.spark.read.parquet(*(str(source / name) for name in sorted(self.names)))
        rows = fates.placed(new.where("_undecoded IS NULL"), self.deliveries)
        writer = target.columns(rows, self.table).write.format("delta").mode("append")
        target.transacted(writer, self.version).save(str(path))
        written = DeltaTable(str(path))
        if target.merged_version(written, self.version.id) != self.version:  # no row to append, so Spark did not commit
            self._commit(written, [])

    def _change(self, judged: Judged | None) -> None:
        """Take away the rows that ended, and add new ones, as one commit; ``None`` if all of them stay.

        Rows go by a deletion vector where they are few of a large file; else the file is written again without them.
        Not by Spark's MERGE: it records no transaction identifier of ours but by a setting of the whole session.
        """
        path = target.folder(self.table, self.at.settings)
        schema = pa.schema(self.merged.schema().to_arrow())
        left = {name: judged.left_out(name) for name in judged.files} if judged else {}
        gone = {name: np.union1d(each, self._deleted.get(name, ())) for name, each in left.items()}
        marked = {name: each for name, each in gone.items() if self._is_marked(name, each)}
        again = {n: np.setdiff1d(self._live(n), each, True) for n, each in gone.items() if n not in marked}
        staging = path.with_name(f".{self.table.name}.new")
        with rewrite.typed_rows(self.at, self.table, self._to_be_typed(judged), schema, staging) as new:
            if judged and self.table.history and any(judged.left[reason].rows for reason in ENDED):
                history.append(self._ended(judged, schema, new), self.table, self.at.settings)
            inserted = (
                batch.filter(batch.column("_fate").is_null()).select(schema.names)
                for batch in rewrite.read(new, _with_endings(schema))
            )
            staying = delta.batches(self.merged, schema.names, names=again)
            added = list(rewrite.files(path, itertools.chain(staying, inserted), schema))
        if not isinstance(path, Path):
            now = int(time.time() * 1000)
            gone_files = [RemoveAction(name, data_change=True, deletion_timestamp=now) for name in gone]
            self._commit(self.merged, [*gone_files, *(add.action for add in added)])
            return
        before = vectors.descriptors(self.merged, path, list(gone))
        actions = [vectors.removed(name, before[name]) for name in gone]
        for name, each in marked.items():
            file = self._files[name]
            actions.append(vectors.added(name, file["size_bytes"], file["num_records"], each))
        actions += [vectors.added(each.name, each.size, each.rows) for each in added]
        transaction = (target.app_id(self.version.id), self.version.number)
        vectors.commit(self.merged, path, actions, "MERGE" if gone else "WRITE", transaction)

    def _is_marked(self, name: str, gone: np.ndarray) -> bool:
        """Whether rows of a file go by a deletion vector."""
        rows = self._files[name]["num_records"]
        local = isinstance(target.folder(self.table, self.at.settings), Path)  # DuckDB reads them there alone
        return local and rows >= MARKED_ROWS and len(gone) <= MARKED_SHARE * rows

    def _to_be_typed(self, judged: Judged | None) -> Iterator[pa.RecordBatch]:
        """New rows that stay, and those that ended at once if they become history."""
        left, ended = (judged.left_out(), judged.ended()) if judged else (np.empty(0, np.int64), None)
        first = 0
        own = [*self.table.names, *PLACED]
        for batch in self._new():
            rows = delta.without(batch, delta.within(left, first, len(batch))).select(own)
            for field in ENDINGS:
                rows = rows.append_column(field, pa.nulls(len(rows), field.type))
            if len(rows):
                yield rows
            if ended is not None and self.table.history:
                low, high = np.searchsorted(ended["position"].to_numpy(), [first, first + len(batch)])
                how = ended.slice(low, high - low)
                if len(how):
                    yield _with(batch.select(own).take(pc.subtract(how["position"], first).combine_chunks()), how)
            first += len(batch)

    def _ended(self, judged: Judged, schema: pa.Schema, new: list[Location]) -> Iterator[pa.RecordBatch]:
        """The rows that ended, and how."""
        for file in judged.files:
            ended, first = judged.ended(file), 0
            for rows in delta.batches(self.merged, schema.names, names={file: ended["position"].to_numpy()}):
                yield _with(rows, ended.slice(first, len(rows)))
                first += len(rows)
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


def _order(rows: pa.RecordBatch) -> list[pa.Array]:
    """Delivery, number and time of rows, as they are ordered by them."""
    number = pc.fill_null(rows.column("_row"), LAST)
    return [rows.column("_delivery"), number, rows.column("_since").cast(_TIME).cast(pa.int64())]


def _with_endings(schema: pa.Schema) -> pa.Schema:
    return pa.schema([*schema, *ENDINGS])


def _with(rows: pa.RecordBatch, how: pa.Table) -> pa.RecordBatch:
    """Rows with how they ended."""
    for field in ENDINGS:
        rows = rows.append_column(field, pa.concat_arrays([pa.array([], field.type), *how[field.name].chunks]))
    return rows
