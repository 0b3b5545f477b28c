r"""The canonical form of a row, its 64-bit hash, and the checksum of many rows.

This module is the definition that every engine follows; nothing else belongs here.

**Canonical form** (the second one). For each column that is not null, in the order of their permanent numbers: the
number and the length of the value's canonical text (``core.values``) in bytes, both as unsigned integers of 32 bits,
the lowest byte first; then, in the same order, the texts. So two different rows never share a form, null differs from
empty, and a row keeps its form when a column is renamed or moved, or when a new one is null in it.

**Row hash.** XXH64 of the canonical form with seed 42: what Spark's ``xxhash64`` computes
for one binary column (https://spark.apache.org/docs/latest/api/sql/#xxhash64).

**Checksum.** The sum of the row hashes modulo 2^64: independent of order, additive over
parts, and, unlike XOR, not blind to a row that comes twice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import polars_hash as plh
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ecom_assets.core.values import texts

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

FORM = 2
"""Number of the canonical form; checksums of different ones cannot be compared."""

SEED = 42
MODULUS = 1 << 64

TEST_VECTORS: tuple[tuple[dict[int, str | None], int], ...] = (
    ({1: "a", 2: "b"}, 0xD24B553E669EC5BC),
    ({2: "b", 1: "a", 3: None}, 0xD24B553E669EC5BC),
    ({1: "ab", 2: ""}, 0xBB8FF48E1A8B2192),
    ({1: "", 2: None}, 0x9ED50FD59358D232),
    ({1: None, 2: ""}, 0xD19FE30002B9A3CD),
    ({1: None}, 0x98B1582B0977E704),
    ({1: "1", 2: 'ü, "x"\n', 70_000: "\x00"}, 0xF6E537A59B6B9706),
    ({1: "00000000-0000-4000-8000-000000000000", 2: "2016-06-30T23:18:44.792905Z", 3: "-6.25"}, 0x1198B86739C707B2),
)
"""Rows, column number -> text, and their hashes; each engine's implementation is tested against them."""


def canonical_form(fields: Iterable[tuple[int, bytes | None]]) -> bytes:
    """The canonical form of one row (the reference: slow, obvious).

    Args:
        fields: Number and canonical text of each column, in any order; ``None`` is null.
    """
    there = sorted((number, text) for number, text in fields if text is not None)
    return b"".join(struct.pack("<II", number, len(text)) for number, text in there) + b"".join(t for _, t in there)


def row_hash(fields: Iterable[tuple[int, bytes | None]]) -> int:
    """Hash one row; see ``canonical_form``.

    Returns:
        The row hash, 0 .. 2^64 - 1.
    """
    return xxhash.xxh64_intdigest(canonical_form(fields), SEED)


def batch_hashes(batch: pa.RecordBatch | pa.Table, ids: Mapping[str, int]) -> np.ndarray:
    """Hash every row of an Arrow batch.

    Args:
        batch: Columns of any type of ``dataset.kind``, or their canonical texts; further columns are ignored.
        ids: Column -> its permanent number.

    Returns:
        The row hashes, shape ``(rows,)``, dtype ``uint64``.
    """
    if batch.num_rows == 0:
        return np.empty(0, np.uint64)
    if isinstance(batch, pa.Table):
        batch = pa.concat_batches(batch.to_batches())
    names = sorted(ids, key=ids.__getitem__)
    columns = [texts(batch.column(name)) for name in names]
    heads = _heads(columns, [ids[name] for name in names])
    return value_hashes(
        pc.binary_join_element_wise(heads, *columns, b"", null_handling="replace", null_replacement=b"")
    )


def _heads(columns: list[pa.Array], ids: list[int]) -> pa.Array:
    """What precedes the texts of each row: the numbers and lengths of those that are not null."""
    rows = len(columns[0])
    entries = np.empty((rows, len(columns)), "<u8")
    for place, column in enumerate(columns):
        edges = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + rows + 1]
        np.subtract(edges[1:], edges[:-1], out=entries[:, place], dtype=np.int64, casting="unsafe")
    entries <<= np.uint64(32)
    entries += np.array(ids, np.uint64)
    size = entries.itemsize
    if not any(column.null_count for column in columns):
        width = pa.binary(size * len(columns))
        return pa.FixedSizeBinaryArray.from_buffers(width, rows, [None, pa.py_buffer(entries)]).cast(pa.binary())
    there = np.ones(entries.shape, bool)
    for place, column in enumerate(columns):
        if column.null_count:
            there[:, place] = column.is_valid().to_numpy(zero_copy_only=False)
    ends = np.zeros(rows + 1, np.int32)
    np.cumsum(size * there.sum(axis=1, dtype=np.int32), out=ends[1:])
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(entries.ravel()[there.ravel()])]
    return pa.BinaryArray.from_buffers(pa.binary(), rows, buffers)


def value_hashes(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Hash each value of a text or binary column by itself, with the hash that rows are hashed by.

    Args:
        values: Text or binary, without nulls.

    Returns:
        The hashes, shape ``(values,)``, dtype ``uint64``.
    """
    frame = pl.DataFrame({"value": pl.from_arrow(values)})
    return frame.select(plh.col("value").nchash.xxhash64(seed=SEED)).to_series().to_numpy()  # type: ignore[attr-defined]


def spark_measure(frame: DataFrame, ids: Mapping[str, int]) -> tuple[int, int]:
    """Count and checksum a Spark frame in one job, in its tasks by the code above.

    Args:
        frame: Has the columns.
        ids: Column -> its permanent number.

    Returns:
        ``(rows, checksum)``.
    """
    from pyspark.sql import functions as sf

    return spark_measures(frame.withColumn("_all", sf.lit("")), ids, "_all").get("", (0, 0))


def spark_measures(frame: DataFrame, ids: Mapping[str, int], by: str) -> dict[str, tuple[int, int]]:
    """Count and checksum the groups of a Spark frame in one job; see ``spark_measure``.

    Args:
        frame: Has the columns.
        ids: Column -> its permanent number.
        by: The column that names the group of a row.

    Returns:
        Group -> ``(rows, checksum)``.
    """
    numbers = dict(ids)

    def measured(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sums: dict[str, tuple[int, int]] = {}
        for batch in batches:
            hashes, groups = batch_hashes(batch, numbers), batch.column(by)
            for group in pc.unique(groups).to_pylist():
                of = hashes[pc.equal(groups, group).to_numpy(zero_copy_only=False)]
                rows, checksum = sums.get(group, (0, 0))
                sums[group] = rows + len(of), (checksum + total(of)) % MODULUS
        for group, (rows, checksum) in sums.items():
            yield pa.RecordBatch.from_pydict({"group": [group], "rows": [rows], "checksum": [str(checksum)]})

    found: dict[str, tuple[int, int]] = {}
    wanted = frame.select(*ids, by).mapInArrow(measured, "group string, rows bigint, checksum string")
    for part in wanted.collect():
        rows, checksum = found.get(part["group"], (0, 0))
        found[part["group"]] = rows + part["rows"], (checksum + int(part["checksum"])) % MODULUS
    return found


def total(hashes: np.ndarray) -> int:
    """Sum row hashes modulo 2^64."""
    return int(hashes.sum(dtype=np.uint64))
