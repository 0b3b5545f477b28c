"""Delta tables in DuckDB: the rows of a version, or some of them, as a view.

What belongs here: which files DuckDB reads, and which of their rows. What does not: what is asked; see
``reconcile.since`` and ``serving.engines``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from ecom_assets.core.location import Location
from ecom_assets.lake import delta, vectors
from ecom_assets.lake.delta import Rows

if TYPE_CHECKING:
    from pyarrow import dataset


def create(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    folder: Location,
    found: DeltaTable,
    *,
    names: Collection[str] | Rows | None = None,
    schema: pa.Schema | None = None,
) -> None:
    """Make a view of a table's rows.

    On this machine, DuckDB's own reader reads the files: it counts toward the limit of memory, skips what a question
    does not need, and takes a quarter of Arrow's time; a scan by Arrow reads row groups ahead, gigabytes of them.

    Args:
        connection: Where to.
        name: The view's name.
        folder: The table's folder.
        found: The table, at the version wanted.
        names: As in ``delta.batches``.
        schema: The columns as Arrow is to give them, where DuckDB's reader does not read the files.
    """
    files = [file for file in delta.files(found)["path"].to_pylist() if names is None or file in names]
    if not isinstance(folder, Path):
        connection.register(name, _scan(found, files, schema))
        return
    if not files:
        connection.register(name, (schema or pa.schema(found.schema().to_arrow())).empty_table())
        return
    some = {f: only for f in files if isinstance(names, Mapping) and (only := names[f]) is not None}
    without = {f: gone for f, gone in vectors.deleted(found).items() if f in files and f not in some}
    plain = [str(folder / file) for file in files if file not in some and file not in without]
    parts: list[str] = []
    if plain:
        connection.read_parquet(plain, union_by_name=True).create_view(_part(parts, name))
    few = {file: only for file, only in some.items() if len(only) <= delta.FEW_ROWS}
    if few:
        columns = [field.name for field in found.schema().fields]
        rows = delta.batches(found, columns, names=few)
        connection.register(_part(parts, name), pa.Table.from_batches(rows, pa.schema(found.schema().to_arrow())))
    many = {file: only for file, only in some.items() if file not in few}
    for how, positions in (("ANTI", without), ("SEMI", many)):
        if positions:
            paths = {str(folder / file): each for file, each in positions.items()}
            part = _part(parts, name)
            connection.register(f"{part}_positions", _positions(paths))
            listed = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
            connection.execute(
                f'CREATE VIEW "{part}" AS SELECT * EXCLUDE (_file, file_row_number)'  # noqa: S608  names are declared
                f" FROM read_parquet([{listed}], union_by_name = true, filename = '_file', file_row_number = true) AS r"
                f' {how} JOIN "{part}_positions" AS p ON r._file = p._file AND r.file_row_number = p._position'
            )
    united = " UNION ALL BY NAME ".join(f'FROM "{part}"' for part in parts)
    connection.execute(f'CREATE VIEW "{name}" AS {united}')


def _positions(of: Mapping[str, np.ndarray]) -> pa.Table:
    """Positions of rows in files, a row each."""
    files = pa.array(np.repeat(np.arange(len(of)), [len(each) for each in of.values()]))
    return pa.table({"_file": pa.array(list(of)).take(files), "_position": np.concatenate(list(of.values()))})


def _part(parts: list[str], name: str) -> str:
    """The name of one more part of a view."""
    parts.append(f"_{name}_{len(parts)}")
    return parts[-1]


def _scan(found: DeltaTable, files: list[str], schema: pa.Schema | None) -> dataset.Dataset:
    """Files of a table as Arrow reads them, wherever they are; a lake in HDFS has no deletion vectors."""
    from pyarrow import dataset  # and with it pandas, a quarter of a second

    whole = found.to_pyarrow_dataset(schema=schema)
    parts = [part for part in whole.get_fragments() if part.path.rpartition("/")[2] in files]
    return dataset.FileSystemDataset(parts, whole.schema, whole.format, whole.filesystem)
