r"""The canonical form of a row, its 64-bit hash, and the checksum of many rows.

This module is the definition that every engine follows; nothing else belongs here.

**Canonical form.** The fields of a row in schema order, each as the bytes of its text
(UTF-8; integers in decimal without leading zeros), a null as the single byte ``FE``,
joined with the single byte ``FF``. Neither byte occurs in UTF-8, so two different rows
never share a form, and null differs from empty.

**Row hash.** XXH64 of the canonical form with seed 42: what Spark's ``xxhash64`` computes
for one binary column (https://spark.apache.org/docs/latest/api/sql/#xxhash64).

**Checksum.** The sum of the row hashes modulo 2^64: independent of order, additive over
parts, and, unlike XOR, not blind to a row that comes twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import polars_hash as plh
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ecom_assets.dataset.model import Table

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

SEED = 42
SEPARATOR = b"\xff"
NULL = b"\xfe"
MODULUS = 1 << 64

TEST_VECTORS: tuple[tuple[tuple[str | None, ...], int], ...] = (
    (("a", "b"), 0x6F0C8B25F4D2A423),
    (("", None), 0xF0A3EAC5EE89452F),
    ((None, ""), 0x6CCE2CA83BB6B4CC),
    (("1", 'ü, "x"\n', None), 0xF6767ECF01F0DAEB),
    (("00000000-0000-4000-8000-000000000000", "2016-06-30T23:18:44.792905Z", "-6.25"), 0x4BAAA727509FD0EF),
)
"""Rows and their hashes; each engine's implementation is tested against them."""


def row_hash(fields: Iterable[bytes | None]) -> int:
    """Hash one row (the reference: slow, obvious).

    Args:
        fields: The row's fields in schema order as text bytes; ``None`` is null.

    Returns:
        The row hash, 0 .. 2^64 - 1.
    """
    return xxhash.xxh64_intdigest(SEPARATOR.join(NULL if f is None else f for f in fields), SEED)


def batch_hashes(batch: pa.RecordBatch | pa.Table, names: Sequence[str]) -> np.ndarray:
    """Hash every row of an Arrow batch.

    Args:
        batch: Columns of text, binary or integers; further columns are ignored.
        names: The table's columns in schema order.

    Returns:
        The row hashes, shape ``(rows,)``, dtype ``uint64``.
    """
    if batch.num_rows == 0:
        return np.empty(0, np.uint64)
    columns = [texts(batch.column(name)) for name in names]
    form = pc.binary_join_element_wise(*columns, SEPARATOR, null_handling="replace", null_replacement=NULL)
    return value_hashes(form)


def texts(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The texts of a column, as binary: integers in decimal, texts as they are."""
    return (column.cast(pa.string()) if pa.types.is_integer(column.type) else column).cast(pa.binary())


def value_hashes(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Hash each value of a text or binary column by itself, with the hash that rows are hashed by.

    Args:
        values: Text or binary, without nulls.

    Returns:
        The hashes, shape ``(values,)``, dtype ``uint64``.
    """
    frame = pl.DataFrame({"value": pl.from_arrow(values)})
    return frame.select(plh.col("value").nchash.xxhash64(seed=SEED)).to_series().to_numpy()  # type: ignore[attr-defined]


def spark_hash(table: Table) -> Column:
    """The row hash as a Spark expression over the table's own columns (a signed bigint)."""
    from pyspark.sql import functions as F  # noqa: N812

    parts: list[Column] = []
    for name in table.names:
        parts += [F.lit(SEPARATOR), F.coalesce(F.col(name).cast("string").cast("binary"), F.lit(NULL))]
    return F.xxhash64(F.concat(*parts[1:]))


def spark_measure(frame: DataFrame, table: Table) -> tuple[int, int]:
    """Count and checksum a Spark frame in one job.

    The hashes are summed as decimals, because a sum of bigints overflows, which Spark 4
    raises as an error; the remainder modulo 2^64 is taken here.

    Returns:
        ``(rows, checksum)``.
    """
    from pyspark.sql import functions as F  # noqa: N812

    row = (
        frame.select(spark_hash(table).alias("h"))
        .agg(F.count("*").alias("rows"), F.sum(F.col("h").cast("decimal(20,0)")).alias("total"))
        .collect()[0]
    )
    return row["rows"], int(row["total"] or 0) % MODULUS


def total(hashes: np.ndarray) -> int:
    """Sum row hashes modulo 2^64."""
    return int(hashes.sum(dtype=np.uint64))
