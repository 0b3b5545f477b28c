"""Merging what is new: the rows that were streamed since the last merge, next to those under their keys.

What belongs here: which rows of the merged table they concern, and the commit that changes it. What does not: a merge
of all rows (``merge``), and the verdict on each (``fates``). Its cost follows the new rows and the files that they
change.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction
from pyspark.sql import functions as sf

from ecom_assets.core.accounts import ENDED
from ecom_assets.core.boundary import LEFT_OUT
from ecom_assets.core.errors import LakeError
from ecom_assets.core.location import move, remove
from ecom_assets.dataset.model import Table
from ecom_assets.lake import delta, fates, history, streamed, target
from ecom_assets.lake.delta import Version
from ecom_assets.lake.fates import PLACED, STAYS, Deliveries
from ecom_assets.lake.repeats import KeysOf, come_again
from ecom_assets.lake.target import Left

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from ecom_assets.core.context import Context


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
    def judged(self) -> Generator[DataFrame | None]:
        """The new rows, and those that the merged table has under their keys, with their fate.

        ``None`` if all of them are simply new, which mostly is found without Spark.
        """
        table = self.table
        source = delta.at_version(streamed.folder(table, self.at.settings), self.version)
        new = KeysOf(source, "_undecoded", self.names)
        # Absence, and rows that ask for a deletion, concern keys that do not come again.
        more = table.write == "replace" or fates.may_delete(table, source, self.names)
        if not more and not come_again(table, self.at.settings, KeysOf(self.merged), new):
            yield None
            return
        rows = fates.judged(self._with_those_there(), table, self.deliveries, self.before).persist()
        try:
            yield rows
        finally:
            rows.unpersist()

    def is_beyond(self, judged: DataFrame) -> bool:
        """Whether the verdict needs rows that are not among these, or a quarantine that is replaced as a whole.

        A row that came before one that is merged may have been one of several versions before it.
        """
        return not judged.where("_fate = 'conflicts' OR (_held AND _rank > 1)").isEmpty()

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
                self._append(self._rows())
                return known
            new = judged.where("NOT _held")
            if (table.write != "replace" and 2 * new.count() > delta.count(self.merged)) or self.is_beyond(judged):
                return None
            more = target.left_of(judged, table)
            left = {reason: known[reason] + more[reason] for reason in LEFT_OUT}
            target.remember(books, table, self.version, left, self.deliveries)
            ended = judged.where(sf.col("_fate").isin(*ENDED))
            if table.history and any(more[reason].rows for reason in ENDED):
                history.append(ended, table, self.at.settings)
            self._change(ended.where("_held"), new.where(sf.col("_fate") == STAYS))
        return left

    def _rows(self) -> DataFrame:
        """The new rows."""
        source = streamed.folder(self.table, self.at.settings)
        rows = self.at.spark.read.parquet(*(str(source / name) for name in sorted(self.names)))
        return fates.placed(rows.where("_undecoded IS NULL"), self.deliveries)

    def _there(self) -> DataFrame:
        """The merged table, with the name of each row's file."""
        there = self.at.spark.read.format("delta").option("versionAsOf", self.merged.version())
        there = there.load(str(target.folder(self.table, self.at.settings)))
        return there.withColumn("_file", sf.col("_metadata.file_name"))

    def _with_those_there(self) -> DataFrame:
        """New rows, and those that the merged table has under their keys; all of it where absence counts."""
        table, rows = self.table, self._rows()
        there = self._there().select(*table.names, *PLACED, "_file")
        if table.write != "replace":
            there = there.join(rows.select(*table.primary_key).distinct(), list(table.primary_key), "left_semi")
        place = {"_partition": sf.lit(None).cast("int"), "_offset": sf.lit(None).cast("bigint")}
        there = there.withColumns({**place, "_tombstone": sf.expr("false"), "_held": sf.expr("true")})
        rows = rows.withColumns({"_file": sf.lit(None).cast("string"), "_held": sf.expr("false")})
        return rows.select(*there.columns).unionByName(there)

    def _append(self, rows: DataFrame) -> None:
        path = str(target.folder(self.table, self.at.settings))
        writer = target.columns(rows, self.table).write.format("delta").mode("append")
        target.transacted(writer, self.version).save(path)
        written = DeltaTable(path)
        if target.merged_version(written, self.version.id) != self.version:  # no row to append, so Spark did not commit
            self._commit(written, [])

    def _change(self, ended: DataFrame, inserted: DataFrame) -> None:
        """Write the files of rows that ended again without these, and new rows next to them, as one commit.

        Not by Spark's MERGE: it records no transaction identifier of ours but by a setting of the whole session.
        """
        files = sorted(row["_file"] for row in ended.select("_file").distinct().collect())
        if not files:
            self._append(inserted)
            return
        path, there = target.folder(self.table, self.at.settings), self._there()
        stay = there.where(sf.col("_file").isin(files)).drop("_file")
        stay = stay.join(ended.select(*self.table.primary_key), list(self.table.primary_key), "left_anti")
        staged = path.with_name(f".{self.table.name}.files")
        remove(staged)
        stay.unionByName(target.columns(inserted, self.table)).write.parquet(str(staged))
        now = int(time.time() * 1000)
        actions: list[AddAction | RemoveAction] = [
            RemoveAction(name, data_change=True, deletion_timestamp=now) for name in files
        ]
        for file in sorted(staged.glob("*.parquet"), key=lambda each: each.name):
            with file.open("rb") as content:
                rows = pq.ParquetFile(content).metadata.num_rows
            size = file.stat().st_size
            move(file, path / file.name)
            stats = json.dumps({"numRecords": rows})
            actions.append(AddAction(file.name, size, {}, now, data_change=True, stats=stats))
        remove(staged)
        self._commit(self.merged, actions)

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
