"""Whether a key comes twice: checked for every merge, mostly without Spark.

What belongs here: the search for repeated keys by their 64-bit hashes. What does not: what is done with the rows; see
``merge`` and ``increment``.

The hashes of a merged table's keys are kept in the home, a sorted file for each of the table's, eight bytes a row: so
new keys are looked up among those of a table of any size without reading it. Files of a Delta table never change.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from ecom_assets.core.files import temporary
from ecom_assets.core.parallel import ordered_map
from ecom_assets.core.settings import Settings
from ecom_assets.core.verdict import key_hashes
from ecom_assets.dataset.model import Table
from ecom_assets.lake import delta

HASHES = 1 << 25
"""Hashes of keys that are compared at a time, 256 MB of them; of more rows, keys are read several times."""

KEPT_SECONDS = 86_400
"""For so long hashes are kept of files that a table does not have any more: checks look at earlier versions."""


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


def come_again(table: Table, settings: Settings, there: KeysOf, new: KeysOf) -> bool:
    """Whether one of some new keys comes twice, or is in a merged table, or has the 64-bit hash of one that is.

    Args:
        table: Whose key.
        settings: The home, which keeps the hashes of those that are there.
        there: Those of the merged table.
        new: Where the new keys are; their hashes must fit into memory.
    """
    hashes = _sorted(table, new)
    if not len(hashes):
        return False
    return bool((hashes[1:] == hashes[:-1]).any()) or any(
        len(common(hashes, of)) for _, of in known(table, settings, there)
    )


def known(table: Table, settings: Settings, there: KeysOf) -> Iterator[tuple[str, np.ndarray]]:
    """The files of a merged table, each with the sorted hashes of its keys."""
    folder = settings.home / "cache" / "keys" / table.name
    folder.mkdir(parents=True, exist_ok=True)
    files = delta.files(there.table).select(["path", "size_bytes"]).to_pylist()
    names = {f"{file['path']}.{file['size_bytes']}.npy": file["path"] for file in files}
    for old in folder.iterdir():
        if old.name not in names and time.time() - old.stat().st_mtime > KEPT_SECONDS:
            old.unlink(missing_ok=True)
    for name, path in names.items():
        if there.files is not None and path not in there.files:
            continue
        if not (folder / name).exists():
            with temporary(folder / name) as (file, place):
                np.save(file, _sorted(table, KeysOf(there.table, files=frozenset({path}))))
                place()
        yield path, np.load(folder / name, mmap_mode="r")


def common(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The elements that two sorted arrays have in common; those of the shorter one are looked up in the longer one."""
    few, many = sorted((some, others), key=len)
    return few[among(few, many)]


def among(hashes: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Which of some hashes are among sorted ones."""
    if not len(of):
        return np.zeros(len(hashes), bool)
    return of[np.minimum(np.searchsorted(of, hashes), len(of) - 1)] == hashes


def _sorted(table: Table, keys: KeysOf) -> np.ndarray:
    hashes = ordered_map(lambda batch: key_hashes(batch, table), keys.batches(table.primary_key))
    return np.sort(np.concatenate([np.empty(0, np.uint64), *hashes]))


def repeats(table: Table, keys: Sequence[KeysOf]) -> bool:
    """Whether a key comes twice, or two keys have one 64-bit hash.

    Args:
        table: Whose key.
        keys: Where to look.
    """
    passes = 1 + sum(delta.count(k.table) for k in keys) // HASHES

    def hashed(batch: pa.RecordBatch, number: int) -> np.ndarray:
        hashes = key_hashes(batch, table)
        return hashes[hashes % passes == number] if passes > 1 else hashes

    for number in range(passes):
        batches = itertools.chain.from_iterable(k.batches(table.primary_key) for k in keys)
        found = np.concatenate([np.empty(0, np.uint64), *ordered_map(partial(hashed, number=number), batches)])
        found.sort()
        if (found[1:] == found[:-1]).any():
            return True
    return False
