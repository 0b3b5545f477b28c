"""What is new in merged tables since a check of them passed, and queries of that alone.

What belongs here: the files that a check has to read, the state of those it need not, and DuckDB, an engine that has no
part in building the tables. What does not: what a check looks for; see ``content``.

Files of a Delta table never change. So what is counted row by row is, in a version, what it was in an earlier one, less
the rows that only the earlier one has, plus those that only the later one has. The books keep what was found when a
check passed last, a few numbers; where they do not help, because the declaration has changed, or the table was rebuilt,
or files of that time were deleted, a check reads everything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from ecom_assets.core.errors import LakeError
from ecom_assets.core.location import Location, exists
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.lake import delta, merge, views
from ecom_assets.lake.delta import Rows, Version
from ecom_assets.lake.repeats import HASHES

MEMORY = "384MB"
"""Memory of a query; what needs more is spilled to disk, next to the lake."""

ROWS = "_rows"
"""What a number of rows is called; no column begins with an underscore."""

Query = Callable[[str], list[dict[str, Any]]]
"""Runs SQL."""


@dataclass(frozen=True)
class Held:
    """Rows of a merged table.

    Attributes:
        folder: Where it is.
        delta: The table at one version, whatever is written meanwhile.
        files: Only those of these files, or of some rows of them; all if not given.
    """

    folder: Location
    delta: DeltaTable
    files: Collection[str] | Rows | None = None

    @classmethod
    def of(cls, table: Table, settings: Settings) -> Held:
        """All rows of a table as it is now.

        Raises:
            LakeError: There is none.
        """
        path = merge.folder(table, settings)
        if not exists(path):
            raise LakeError(f"merged/{table.name}: expected a Delta table in {path}, got none; materialize it first")
        return cls(path, delta.latest(path))

    @property
    def rows(self) -> int:
        """How many there are, from the table's log."""
        return delta.count(self.delta, self.files)

    def since(self, version: Version) -> Difference | None:
        """How the table differs from an earlier version; ``None`` if that cannot be read any more."""
        try:
            before = delta.at_version(self.folder, version)
        except LakeError:
            return None
        gone, came = delta.difference(before, self.delta)
        if before.schema() != self.delta.schema() or not all((self.folder / name).exists() for name in gone):
            return None
        stayed = frozenset(delta.files(self.delta)["path"].to_pylist()) - came.keys()
        return Difference(replace(self, delta=before, files=gone), *(replace(self, files=n) for n in (came, stayed)))


@dataclass(frozen=True)
class Difference:
    """How a merged table differs from an earlier version, by ``delta.difference``.

    Attributes:
        gone: Rows that only the earlier version has.
        came: Rows that only the later version has.
        stayed: Rows of files that both have.
    """

    gone: Held
    came: Held
    stayed: Held


def passed(found: Any, asked: object, *held: Held) -> dict[str, Any]:
    """The entry in the books of a check that passed.

    Args:
        found: What it found, as JSON can hold it.
        asked: What it looked for.
        held: The tables that it read.
    """
    versions = [str(Version(str(each.delta.metadata().id), each.delta.version())) for each in held]
    return {"asked": _digest(asked), "versions": versions, "found": found}


def since(entry: Mapping[str, Any] | None, asked: object, *held: Held) -> list[Difference] | None:
    """How tables differ from what they were when a check of them passed.

    Args:
        entry: As ``passed`` made it; ``None`` if it did not pass.
        asked: What the check looks for.
        held: The tables, in the order of those that it read.

    Returns:
        A difference for each table; ``None`` where that is unknown, or as much to read as the tables.
    """
    if not entry or entry["asked"] != _digest(asked):
        return None
    found = []
    for each, version in zip(held, entry["versions"], strict=True):
        difference = each.since(Version.parse(version))
        if difference is None:
            return None
        found.append(difference)
    new = sum(each.gone.rows + each.came.rows for each in found)
    return found if new <= min(HASHES, sum(each.rows for each in held)) else None


def _digest(asked: object) -> str:
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:16]


@contextmanager
def query(settings: Settings, **tables: Held | pa.Table) -> Generator[Query]:
    """A function that queries rows under the names given, in bounded memory."""
    config: dict[str, Any] = {"memory_limit": MEMORY, "temp_directory": str(settings.home / "spill"), "threads": 2}
    config["preserve_insertion_order"] = False  # it would hold back rows of one thread for those of another

    def ask(sql: str) -> list[dict[str, Any]]:
        found = connection.sql(sql)
        return found.to_arrow_table().to_pylist() if found is not None else []

    with duckdb.connect(config=config) as connection:
        for name, view in tables.items():
            if isinstance(view, pa.Table):
                connection.register(name, view)
                continue
            views.create(connection, name, view.folder, view.delta, names=view.files)
            if not isinstance(view.folder, Path):
                # DuckDB takes what Arrow reads for a single row, and would hash it for a join, however large it is.
                connection.execute("SET disabled_optimizers = 'build_side_probe_side'")
        yield ask
