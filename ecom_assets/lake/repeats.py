"""Whether a key comes twice: checked for every merge, mostly without Spark.

What belongs here: the search for repeated keys by their 64-bit hashes. What does not: what is done with the rows; see
``merge`` and ``increment``.

The hashes of a merged table's keys are kept in the home, sorted, with the positions of their rows, for each file of the
table, twelve bytes a row: so new keys are looked up among those of a table of any size without reading it. Files of a
Delta table never change.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Iterator, Sequence
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
from ecom_assets.lake import delta, vectors

HASHES = 1 << 25
"""Hashes of keys that are compared at a time, 256 MB of them; of more rows, keys are read several times."""

_NONE = np.empty(0, np.int64)

KEPT_SECONDS = 86_400
"""For so long hashes are kept of files that a table does not have any more: checks look at earlier versions."""


@dataclass(frozen=True)
class KeysOf:
    """Keys of a Delta table.

    Attributes:
        table: The table, at the version wanted.
        null: A column; only rows where it is null count.
        files: Only those of these files, or of some rows of them; all if not given.
    """

    table: DeltaTable
    null: str | None = None
    files: Collection[str] | delta.Rows | None = None

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
    hashes = np.sort(_hashes(table, new))
    if not len(hashes):
        return False
    return bool((hashes[1:] == hashes[:-1]).any()) or bool(there_already(table, settings, there, hashes))


def there_already(
    table: Table, settings: Settings, there: KeysOf, hashes: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The rows of a merged table that have one of some keys.

    Args:
        table: Whose keys.
        settings: The home, which keeps the hashes of those that are there.
        there: The merged table.
        hashes: Hashes of the keys, sorted.

    Returns:
        File -> the hashes that it has, and the positions of their rows in it; without files that have none.
    """
    wanted, deleted = np.unique(hashes), vectors.deleted(there.table)
    found = {}
    for name, known, positions in _kept(table, settings, there):
        low, high = (np.searchsorted(known, wanted, side) for side in ("left", "right"))
        at = np.repeat(low, high - low) + _counted(high - low)
        places = positions[at].astype(np.int64)
        live = ~among(places, deleted.get(name, _NONE))
        if live.any():
            found[name] = known[at][live], places[live]
    return found


def _counted(counts: np.ndarray) -> np.ndarray:
    """``0 1 2 0 0 1`` for ``3 1 2``."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)


def _kept(table: Table, settings: Settings, there: KeysOf) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The files of a merged table, each with the sorted hashes of its keys and the positions of their rows.

    Rows that a deletion vector takes away are among them.
    """
    folder = settings.home / "cache" / "keys" / table.name
    folder.mkdir(parents=True, exist_ok=True)
    files = delta.files(there.table).select(["path", "size_bytes", "num_records"]).to_pylist()
    names = {f"{file['path']}.{file['size_bytes']}": file for file in files}
    for old in folder.iterdir():
        name = old.name.removesuffix(".npy").removesuffix(".rows")
        if name not in names and time.time() - old.stat().st_mtime > KEPT_SECONDS:
            old.unlink(missing_ok=True)
    for name, file in names.items():
        path = file["path"]
        if there.files is not None and path not in there.files:
            continue
        known, places = folder / f"{name}.npy", folder / f"{name}.rows.npy"
        if not (known.exists() and places.exists()):
            hashes = _hashes(table, KeysOf(there.table, files={path: np.arange(file["num_records"])}))
            order = np.argsort(hashes, kind="stable").astype(np.uint32)
            for target, array in ((places, order), (known, hashes[order])):
                with temporary(target) as (written, place):
                    np.save(written, array)
                    place()
        yield path, np.load(known, mmap_mode="r"), np.load(places, mmap_mode="r")


def among(hashes: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Which of some hashes are among sorted ones."""
    if not len(of):
        return np.zeros(len(hashes), bool)
    return of[np.minimum(np.searchsorted(of, hashes), len(of) - 1)] == hashes


def _hashes(table: Table, keys: KeysOf) -> np.ndarray:
    hashes = ordered_map(lambda batch: key_hashes(batch, table), keys.batches(table.primary_key))
    return np.concatenate([np.empty(0, np.uint64), *hashes])


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
