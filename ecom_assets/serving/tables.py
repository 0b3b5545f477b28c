"""What DuckDB asks questions of: the tables of a publication, and the views over them.

What belongs here: giving both to a connection. What does not: which version of a table is asked (``engines``), and the
questions.

A view that is declared to go *by file* is computed of each file of its table alone, once: files never change, so what
was computed of one stays true as long as the same of its rows count. A question over millions of events then reads
what was made of them, and of the few that came since.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path
from threading import Lock
from uuid import uuid4

import duckdb
import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from ecom_assets.core.location import Location
from ecom_assets.core.settings import Settings
from ecom_assets.core.sql import quoted
from ecom_assets.dataset.query import View
from ecom_assets.lake import delta, vectors, views

MEMORY = "1GB"
"""Memory of a connection; what needs more goes to disk."""

KEPT_SECONDS = 24 * 3600
"""After so long, a part goes that no longer belongs to the newest version: pages may show the one before."""

_computing = Lock()
"""Held while parts are computed: two questions may read one view, and each computation takes all cores."""


def connect(settings: Settings) -> duckdb.DuckDBPyConnection:
    """A connection with bounded memory, which spills into the home."""
    return duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": str(settings.home / "spill")})


def give_table(
    connection: duckdb.DuckDBPyConnection, name: str, folder: Location, found: DeltaTable, file: str | None = None
) -> None:
    """Give a table to DuckDB, its times as plain UTC: DuckDB would have to download an extension for any other.

    Args:
        connection: Where to.
        name: Its name.
        folder: Its folder.
        found: The table, at the version wanted.
        file: Only the rows of this file, if given.
    """
    schema = _without_zone(pa.schema(found.schema().to_arrow()))
    views.create(connection, f"_{name}", folder, found, names=None if file is None else [file], schema=schema)
    rows = connection.view(f"_{name}")
    plain = [
        f"make_timestamp(epoch_us({column})) AS {column}" if "TIME ZONE" in str(kind) else column
        for column, kind in zip(map(quoted, rows.columns), rows.types, strict=True)
    ]
    rows.project(", ".join(plain)).create_view(name)


def give_view(
    connection: duckdb.DuckDBPyConnection,
    view: View,
    settings: Settings,
    tables: dict[str, tuple[Location, DeltaTable]],
) -> None:
    """Give a view to DuckDB, which has its tables already.

    Args:
        connection: Where to.
        view: The view.
        settings: The home, which keeps what was computed by file.
        tables: Name of a table -> its folder, and the table at the version wanted.
    """
    if view.by_file:
        folder, found = tables[view.tables[0]]
        if isinstance(folder, Path) and (made := parts(view, folder, found, settings)):
            connection.read_parquet([str(path) for path in made]).create_view(view.name)
            return
    connection.execute(f"CREATE VIEW {quoted(view.name)} AS {view.sql['duckdb']}")


def parts(view: View, folder: Path, found: DeltaTable, settings: Settings) -> list[Path]:
    """What a view by file is of each file of its table; what was not computed yet is.

    Returns:
        Parquet files, which hold the view's rows together.
    """
    text = hashlib.sha256(view.sql["duckdb"].encode()).hexdigest()[:16]
    target = settings.home / "cache" / "parts" / view.name
    target.mkdir(parents=True, exist_ok=True)
    gone, made = vectors.deleted(found), []
    with _computing:
        for file in sorted(delta.files(found)["path"].to_pylist()):
            path = target / f"{text}-{Path(file).stem}-{_state(gone.get(file))}.parquet"
            if not path.exists():
                with connect(settings) as connection:
                    give_table(connection, view.tables[0], folder, found, file)
                    _write(connection.sql(view.sql["duckdb"]), path)
            made.append(path)
        _forget(target, set(made))
    return made


def _state(gone: np.ndarray | None) -> str:
    """Names which rows of a file do not count."""
    return hashlib.sha256(gone.tobytes()).hexdigest()[:16] if gone is not None and len(gone) else "all"


def _write(rows: duckdb.DuckDBPyRelation, path: Path) -> None:
    """Write rows into a file, which is there as a whole or not at all."""
    work = path.with_name(f".{path.name}.{uuid4().hex}")
    rows.write_parquet(str(work), compression="zstd")
    os.replace(work, path)  # noqa: PTH105  over one that another process has made meanwhile


def _forget(target: Path, made: set[Path]) -> None:
    """Delete parts of files, or of texts of the view, that are in use no more."""
    now = time.time()
    for path in target.iterdir():
        with suppress(FileNotFoundError):
            if path not in made and now - path.stat().st_mtime > KEPT_SECONDS:
                path.unlink()


def _without_zone(schema: pa.Schema) -> pa.Schema:
    return pa.schema(
        [pa.field(f.name, pa.timestamp("us") if pa.types.is_timestamp(f.type) else f.type) for f in schema]
    )
