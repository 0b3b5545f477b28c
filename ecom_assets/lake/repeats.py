"""Whether a key comes twice: checked for every merge, mostly without Spark.

What belongs here: the search for repeated keys by their 64-bit hashes. What does not: what is done with the rows; see
``merge``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from ecom_assets.core import row_hash
from ecom_assets.core.parallel import ordered_map
from ecom_assets.dataset.model import Table
from ecom_assets.lake import delta

HASHES = 1 << 25
"""Hashes of keys that are compared at a time, 256 MB of them; of more rows, keys are read several times."""


@dataclass(frozen=True)
class KeysOf:
    """Keys of a Delta table.

    Attributes:
        table: The table, at the version wanted.
        null: A column; only rows where it is null count.
        files: Only those of these files; all if not given.
    """

    table: DeltaTable
    null: str | None = None
    files: frozenset[str] | None = None

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Read their columns."""
        return delta.batches(self.table, list(columns), self.null, self.files)


def repeats(table: Table, keys: Sequence[KeysOf]) -> bool:
    """Whether a key comes twice, or two keys have one 64-bit hash.

    Args:
        table: Whose key.
        keys: Where to look.
    """
    passes = 1 + sum(delta.count(k.table) for k in keys) // HASHES

    def hashed(batch: pa.RecordBatch, number: int) -> np.ndarray:
        hashes = row_hash.batch_hashes(batch, {name: table.ids[name] for name in table.primary_key})
        return hashes[hashes % passes == number] if passes > 1 else hashes

    for number in range(passes):
        batches = itertools.chain.from_iterable(k.batches(table.primary_key) for k in keys)
        found = np.concatenate([np.empty(0, np.uint64), *ordered_map(partial(hashed, number=number), batches)])
        found.sort()
        if (found[1:] == found[:-1]).any():
            return True
    return False
