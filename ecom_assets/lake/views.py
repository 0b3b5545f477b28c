"""Delta tables in DuckDB: the rows of a version, or some of them, as a view.

What belongs here: which files DuckDB reads, and which of their rows. What does not: what is asked; see
``reconcile.since`` and ``serving.engines``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from pyarrow import dataset

from ecom_assets.core.location import Location
from ecom_assets.lake import delta, vectors
from ecom_assets.lake.delta import Rows


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
    if not files or not isinstance(folder, Path):
        connection.register(name, _scan(found, files, schema))
        return
    some = {f: only for f in files if isinstance(names, Mapping) and (only := names[f]) is not None}
    deleted = {file: gone for file, gone in vectors.deleted(found).items() if file in files and file not in some}
    plain = [str(folder / file) for file in files if file not in some and file not in deleted]
    parts: list[str] = []
    if plain:
        connection.read_parquet(plain, union_by_name=True).create_view(_part(parts, name))
    if deleted:
        paths = {str(folder / file): gone for file, gone in deleted.items()}
        gone = pa.table(
            {
                "_file": np.repeat(list(paths), [len(each) for each in paths.values()]),
                "_position": np.concatenate(list(paths.values())),
            }
        )
        listed = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
        numbered = f"read_parquet([{listed}], union_by_name = true, filename = '_file', file_row_number = true)"
        rows = connection.sql(f"FROM {numbered}")
        left = rows.set_alias("r").join(
            connection.from_arrow(gone).set_alias("g"),
            "r._file = g._file AND r.file_row_number = g._position",
            how="anti",
        )
        left.project("* EXCLUDE (_file, file_row_number)").create_view(_part(parts, name))
    if some:
        whole = pa.schema(found.schema().to_arrow())
        rows = pa.Table.from_batches(delta.batches(found, whole.names, names=some), whole)
        connection.register(_part(parts, name), rows)
    united = " UNION ALL BY NAME ".join(f'FROM "{part}"' for part in parts)
    connection.execute(f'CREATE VIEW "{name}" AS {united}')


def _part(parts: list[str], name: str) -> str:
    """The name of one more part of a view."""
    parts.append(f"_{name}_{len(parts)}")
    return parts[-1]


def _scan(found: DeltaTable, files: list[str], schema: pa.Schema | None) -> dataset.Dataset:
    """Files of a table as Arrow reads them, wherever they are; a lake in HDFS has no deletion vectors."""
    whole = found.to_pyarrow_dataset(schema=schema)
    parts = [part for part in whole.get_fragments() if part.path.rpartition("/")[2] in files]
    return dataset.FileSystemDataset(parts, whole.schema, whole.format, whole.filesystem)
