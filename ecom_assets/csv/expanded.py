"""The layer expanded: good rows only, grown to the target size; and the source of the bulk path.

What belongs here: when and where this room's functions are called for the layer. What does not: the work (``expand``,
``fold``, ``unique``, ``spark_tasks``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from typing_extensions import override

from ecom_assets.core import quarantine
from ecom_assets.core.boundary import shown
from ecom_assets.core.context import Context
from ecom_assets.core.errors import CsvError, NotBuiltError, ServiceError
from ecom_assets.core.layer import Built, Cut, Measurement, Row, RowSource
from ecom_assets.core.location import Location, remove
from ecom_assets.core.measure import Measure
from ecom_assets.core.progress import track
from ecom_assets.core.settings import Settings
from ecom_assets.csv import expand, fold, states, unique
from ecom_assets.csv.parts import FIRST, Held, behind, by_sequence, chain, raw_chain
from ecom_assets.csv.plan import Plan, plan
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
            files.append(raw_chain(each, settings)[-1])
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
        """Write what deliveries have added; where the first file is another one, or with ``repair``, all of it.

        Copies are written next to those that are there, and swapped in.
        """
        settings = at.settings
        if not self._raw.exists(at, table):
            raise NotBuiltError(self._raw.name, table.name)
        held = Held(at, self.name, table, self.inputs(at, table))
        missing = held.missing(rebuild=repair or not self.exists(at, table))
        done = expand.Expansion(0, 0, 1)
        with track(f"expanded/{table.name}", sum(p.path.stat().st_size for p in missing), "bytes") as advance:
            for part in missing:
                if part.sequence == FIRST:
                    added = self._copies(at, table, advance)
                else:
                    added = expand.append(table, settings, part, expand.folder(table, settings), advance)
                held.record(part, _built(added))
                done = expand.Expansion(
                    done.rows + added.rows, done.quarantined + added.quarantined, max(done.copies, added.copies)
                )
        return replace(_built(done), unchanged=not missing)

    def _copies(self, at: Context, table: Table, advance: Callable[[int], None]) -> expand.Expansion:
        """Write the copies of the first file; what deliveries added is gone then, and follows."""
        growth = plan(table, at.dataset, at.settings)
        if at.settings.csv_engine == "spark":
            from ecom_assets.csv import spark_tasks  # pyspark, which a home without Spark can do without

            return spark_tasks.expand_table(at.spark, table, at.settings, growth, advance)
        return expand.build(table, at.settings, growth, advance)

    def inputs(self, at: Context, table: Table) -> str:
        """Names what, next to raw files, all rows depend on."""
        return states.digest(dict(self.declaration(at, table)), at.settings.expand)

    @override
    def position(self, at: Context, table: Table, cut: Cut) -> str:
        return self._chain(at, table)[-1]

    def _chain(self, at: Context, table: Table) -> list[str]:
        """Names of the copies, of these and what the first delivery added, and so on."""
        found = states.folder_state(expand.folder(table, at.settings))
        complete = (state for state in found if state[0].endswith(".csv"))
        files: dict[int, list[Any]] = by_sequence(complete, lambda state: expand.place_of(state[0])[1])
        for sequence, held in files.items():
            bad = expand.quarantine_file(table, at.settings, sequence)
            held.append(states.file_state(bad) if bad.exists() else "")
        return chain(list(files.values()))

    @override
    def measure(self, at: Context, table: Table, cut: Cut) -> Measurement:
        paths, bad = expand.files(table, at.settings), expand.quarantine_files(table, at.settings)
        return self._measured(at, table, paths, bad)

    @override
    def derive(self, at: Context, table: Table, known: Measurement, cut: Cut) -> Measurement | None:
        """Read what deliveries have added since, if all else is what it was."""
        count = behind(self._chain(at, table), known.position)
        if count is None or len(known.copies) != 1:
            return None
        paths = expand.delivered(table, at.settings)[count - 1 :]
        found = self._measured(at, table, paths, expand.quarantine_files(table, at.settings)[count:])
        if found.problems:
            return None
        total = known.measure.before + found.measure
        bad = known.excluded["quarantined"] + found.excluded["quarantined"]
        return replace(found, measure=total, excluded={"quarantined": bad}, copies=(known.copies[0] + found.measure,))

    def _measured(self, at: Context, table: Table, paths: list[Location], bad: list[Path]) -> Measurement:
        """Read some files, and some quarantine files."""
        settings, position = at.settings, self._chain(at, table)[-1]
        kept = [quarantine.read_file(path) for path in bad]
        try:
            growth = plan(table, at.dataset, settings) if len(expand.copies(table, settings)) > 1 else Plan()
            with track(f"check: expanded/{table.name}", None) as advance:
                found = fold.measure(paths, table, growth, advance)
        except (CsvError, FileNotFoundError) as error:
            # Keys can be folded back only with the raw files at hand, by which they were renewed.
            found = fold.Folded(Measure(), (), (f"expanded/{table.name} cannot be read: {error}",))
        return Measurement(
            table.name,
            self.name,
            found.measure,
            {"quarantined": sum((each.measure for each in kept), Measure())},
            position,
            copies=found.copies,
            problems=(*found.problems, *(problem for each in kept for problem in each.problems)),
        )

    @override
    def delete(self, at: Context, table: Table) -> None:
        for file in expand.quarantine_files(table, at.settings):
            file.unlink(missing_ok=True)
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
        return shown(rows.left)

    def _require(self, at: Context, table: Table) -> None:
        if not self.exists(at, table):
            raise NotBuiltError(self.name, table.name)


def _built(done: expand.Expansion) -> Built:
    return Built(done.rows, notes={"copies": done.copies, "quarantined": done.quarantined})
