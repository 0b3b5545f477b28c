"""The layer expanded: good rows only, grown to the target size; and the source of the bulk path.

What belongs here: when and where this room's functions are called for the layer. What does not: the work (``expand``,
``fold``, ``unique``, ``spark_tasks``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from typing_extensions import override

from ecom_assets.core import quarantine
from ecom_assets.core.context import Context
from ecom_assets.core.errors import CsvError, NotBuiltError, ServiceError
from ecom_assets.core.layer import Built, Cut, Measurement, Row, RowSource
from ecom_assets.core.location import remove
from ecom_assets.core.measure import Measure
from ecom_assets.core.progress import track
from ecom_assets.core.settings import Settings
from ecom_assets.csv import expand, fold, states, unique
from ecom_assets.csv.plan import Plan, plan, raw_file
from ecom_assets.csv.raw import RawLayer
from ecom_assets.dataset.model import MAX_KEY, Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class ExpandedLayer(RowSource):
    """The expanded files.

    Args:
        raw: The layer before it.
    """

    name = "expanded"
    pool = "files"
    kinds = frozenset({"csv", "polars"})
    replaceable = True
    description = "Good rows only, grown to the target size with fresh keys; the others are quarantined."

    def __init__(self, raw: RawLayer) -> None:
        self.upstream = self._raw = raw

    @override
    def fingerprint(self, at: Context, table: Table) -> str:
        """Name the raw file; if tables grow, those of all tables, by whose sizes and keys each one grows."""
        settings = at.settings
        build = at.books.build(self._raw.name, table.name)
        if build is None:
            raise NotBuiltError(self._raw.name, table.name)
        others = at.dataset.tables.values() if settings.expand != "none" else ()
        files = []
        for each in (table, *others):
            if not self._raw.exists(at, each):
                raise NotBuiltError(self._raw.name, each.name)
            files.append(states.file_state(raw_file(each, settings)))
        return states.digest(build.fingerprint, files, settings.expand)

    @override
    def declaration(self, at: Context, table: Table) -> Mapping[str, Any]:
        # Keys decide what is renewed in copies and how long a text may be; by the primary key, HBase's rows are chosen.
        usual = dict.fromkeys(table.domains, (1, MAX_KEY))
        sizes = {column: list(size) for column, size in sorted(table.key_sizes.items()) if usual.get(column) != size}
        return {
            "schema": states.digest(table.avsc),
            "keys": dict(table.domains),
            "primary_key": table.key,
        } | ({"key sizes": sizes} if sizes else {})

    @override
    def exists(self, at: Context, table: Table) -> bool:
        """Whether there are copies and the quarantine that was written with them; see ``expand.quarantine``."""
        return bool(expand.files(table, at.settings)) and expand.quarantine_file(table, at.settings).exists()

    @override
    def build(self, at: Context, table: Table, *, repair: bool = False) -> Built:
        """Write the copies next to those that are there, and swap them in: with ``repair`` and without."""
        settings = at.settings
        if not self._raw.exists(at, table):
            raise NotBuiltError(self._raw.name, table.name)
        growth = plan(table, at.dataset, settings)
        with track(f"expanded/{table.name}", raw_file(table, settings).stat().st_size, "bytes") as advance:
            if settings.csv_engine == "spark":
                from ecom_assets.csv import spark_tasks  # pyspark, which a home without Spark can do without

                done = spark_tasks.expand_table(at.spark, table, settings, growth, advance)
            else:
                done = expand.build(table, settings, growth, advance)
        return Built(done.rows, notes={"copies": done.copies, "quarantined": done.quarantined})

    @override
    def position(self, at: Context, table: Table, cut: Cut) -> str:
        aside = expand.quarantine_file(table, at.settings)
        bad = states.file_state(aside) if aside.exists() else ""
        return states.digest(states.folder_state(expand.folder(table, at.settings)), bad)

    @override
    def measure(self, at: Context, table: Table, cut: Cut) -> Measurement:
        settings, position = at.settings, self.position(at, table, cut)
        paths = expand.files(table, settings)
        held = quarantine.read_file(expand.quarantine_file(table, settings))
        try:
            growth = plan(table, at.dataset, settings) if len(paths) > 1 else Plan()
            with track(f"check: expanded/{table.name}", None) as advance:
                found = fold.measure(paths, table, growth, advance)
        except (CsvError, FileNotFoundError) as error:
            # Keys can be folded back only with the raw files at hand, by which they were renewed.
            found = fold.Folded(Measure(), (), (f"expanded/{table.name} cannot be read: {error}",))
        return Measurement(
            table.name,
            self.name,
            found.measure,
            {"quarantined": held.measure},
            position,
            copies=found.copies,
            problems=(*found.problems, *held.problems),
        )

    @override
    def delete(self, at: Context, table: Table) -> None:
        expand.quarantine_file(table, at.settings).unlink(missing_ok=True)
        remove(expand.folder(table, at.settings))
        unique.conflicts_file(table, at.settings).unlink(missing_ok=True)

    @override
    def preview(self, at: Context, table: Table, rows: int) -> Sequence[Row]:
        return states.first_rows(expand.files(table, at.settings)[:1], table, rows)

    @override
    def stored_as(self, settings: Settings, table: Table) -> str:
        return str(expand.folder(table, settings))

    @override
    def batches(self, at: Context, table: Table, cut: Cut) -> Iterable[pa.RecordBatch]:
        self._require(at, table)
        return unique.Deduplicated(table, at.settings)

    @override
    def sample(self, at: Context, table: Table, columns: Sequence[str]) -> pa.Table:
        self._require(at, table)
        return unique.sample(table, at.settings, columns)

    @override
    def frame(self, at: Context, table: Table, cut: Cut) -> DataFrame:
        raise ServiceError(
            "ECOM_HBASE_LOADER: expected hfile, importtsv or thrift on the bulk path, got spark, which takes rows from"
            " the merged tables",
            "choose one of these, or the stream path",
        )

    @override
    def left_out(self, at: Context, table: Table) -> Mapping[str, Measure]:
        self._require(at, table)
        rows = unique.Deduplicated(table, at.settings)
        rows.drain()
        return {"duplicates": rows.duplicates, "conflicts": rows.conflicts}

    def _require(self, at: Context, table: Table) -> None:
        if not self.exists(at, table):
            raise NotBuiltError(self.name, table.name)
