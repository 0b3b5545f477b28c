"""Deletion vectors: rows of a Delta table's files that do not count any more, while the files stay as they are.

What belongs here: reading and writing them. What does not: which rows these are. Of a file with millions of rows, a few
that changed would otherwise mean a whole new file, and every reader of what is new would read all of it.

By Delta's protocol (https://github.com/delta-io/delta/blob/master/PROTOCOL.md#deletion-vectors): a bitmap of positions,
here within the log itself. delta-rs reads them, and writes none, so commits that have some are written here.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from pyroaring import BitMap64

from ecom_assets.core.errors import LakeError

FEATURE = "deletionVectors"

LEGACY = ("appendOnly", "invariants")
"""What a table of the second version of writers may have; a later one names it."""

CHECKPOINT = 50
"""Commits between two checkpoints of a log, as of streamed tables and of those that Spark writes."""

_MAGIC = 1681511377
_Z85 = np.frombuffer(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#", np.uint8)
"""The alphabet of Z85 (https://rfc.zeromq.org/spec/32/)."""

KNOWN = 16
"""Versions whose vectors are kept in memory: they never change, and each reader asks for them."""
_known: OrderedDict[tuple[str, str, int], dict[str, np.ndarray]] = OrderedDict()
_lock = Lock()

Action = dict[str, Any]
"""A line of a commit."""


def deleted(delta: DeltaTable) -> dict[str, np.ndarray]:
    """The positions of rows that do not count, in order, by the names of their files."""
    if FEATURE not in (delta.protocol().reader_features or ()):
        return {}
    key = (delta.table_uri, str(delta.metadata().id), delta.version())
    with _lock:
        if key not in _known:
            _known[key] = _read(delta)
            while len(_known) > KNOWN:
                _known.popitem(last=False)
        return _known[key]


def _read(delta: DeltaTable) -> dict[str, np.ndarray]:
    found = {}
    for batch in pa.RecordBatchReader.from_stream(delta.deletion_vectors()):
        for path, kept in zip(batch.column("filepath"), batch.column("selection_vector"), strict=True):
            found[_name(path.as_py())] = np.flatnonzero(~kept.values.to_numpy(zero_copy_only=False))
    return found


def removed(file: str, descriptor: Action | None) -> Action:
    """The line by which a file goes, with the deletion vector that it had."""
    line = {"path": file, "deletionTimestamp": _now(), "dataChange": True}
    return {"remove": line | ({"deletionVector": descriptor} if descriptor else {})}


def added(file: str, size: int, rows: int, positions: np.ndarray | None = None) -> Action:
    """The line by which a file comes.

    Args:
        file: Its name.
        size: Its bytes.
        rows: Its rows, those that do not count included.
        positions: Those that do not count.
    """
    line = {"path": file, "partitionValues": {}, "size": size, "modificationTime": _now(), "dataChange": True}
    line["stats"] = json.dumps({"numRecords": rows})
    return {"add": line | ({"deletionVector": describe(positions)} if positions is not None else {})}


def describe(positions: np.ndarray) -> Action:
    """Positions as the log has them."""
    bitmap = struct.pack("<I", _MAGIC) + BitMap64(positions.tolist()).serialize()
    words = np.frombuffer(bitmap + bytes(-len(bitmap) % 4), ">u4").astype(np.uint64)
    digits = words[:, None] // np.array([85**n for n in (4, 3, 2, 1, 0)], np.uint64) % np.uint64(85)
    text = _Z85[digits.astype(np.intp)].tobytes().decode("ascii")
    return {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(bitmap), "cardinality": len(positions)}


def descriptors(delta: DeltaTable, folder: Path, names: Sequence[str]) -> dict[str, Action | None]:
    """The deletion vectors of some files as the table's log has them; they tell one state of a file from another."""
    missing, found = set(names), dict[str, Action | None]()
    log, version = folder / "_delta_log", delta.version()
    last = _last_checkpoint(log)
    while missing and version > last:
        for line in (log / f"{version:020}.json").read_text(encoding="utf-8").splitlines():
            add = json.loads(line).get("add")
            if add and (name := _name(add["path"])) in missing:
                missing.discard(name)
                found[name] = add.get("deletionVector")
        version -= 1
    return found | (_in_checkpoint(log, last, missing) if missing else {})


def commit(
    delta: DeltaTable, folder: Path, actions: Sequence[Action], operation: str, transaction: tuple[str, int]
) -> None:
    """Add a commit to a table's log, and a checkpoint from time to time.

    Args:
        delta: The table as it is now; nobody may have changed it since.
        folder: Where it is.
        actions: What changes.
        operation: What the log calls it.
        transaction: Application and version of Delta's transaction identifier.

    Raises:
        LakeError: Somebody has.
    """
    app, number = transaction
    lines: list[Action] = [
        {"commitInfo": {"timestamp": _now(), "operation": operation, "operationParameters": {}}},
        *(_upgrade(delta) if any("deletionVector" in about for line in actions for about in line.values()) else ()),
        {"txn": {"appId": app, "version": number, "lastUpdated": _now()}},
        *actions,
    ]
    version = delta.version() + 1
    target = folder / "_delta_log" / f"{version:020}.json"
    written = target.with_name(f".{uuid4()}.json")
    with written.open("x", encoding="utf-8") as file:
        file.write("".join(f"{json.dumps(line)}\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(written, target)  # unlike a renaming, it replaces no other commit
    except FileExistsError as error:
        raise LakeError(
            f"{folder}: expected to be the only one that changes it, got another commit {version} in between",
            "materialize it again",
            transient=True,
        ) from error
    finally:
        written.unlink()
    if version % CHECKPOINT == 0:
        DeltaTable(str(folder)).create_checkpoint()


def _upgrade(delta: DeltaTable) -> list[Action]:
    """What lets a table have deletion vectors, if it may not yet."""
    protocol, about = delta.protocol(), delta.metadata()
    if FEATURE in (protocol.reader_features or ()) and "delta.enableDeletionVectors" in about.configuration:
        return []
    readers = {FEATURE, *(protocol.reader_features or ())}
    writers = {FEATURE, *(protocol.writer_features or LEGACY)}
    features = {"readerFeatures": sorted(readers), "writerFeatures": sorted(writers)}
    metadata = {
        "id": str(about.id),
        "format": {"provider": "parquet", "options": {}},
        "schemaString": delta.schema().to_json(),
        "partitionColumns": list(about.partition_columns),
        "configuration": {**about.configuration, "delta.enableDeletionVectors": "true"},
        "createdTime": about.created_time,
    }
    return [{"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **features}}, {"metaData": metadata}]


def _last_checkpoint(log: Path) -> int:
    """The version of a log's last checkpoint; -1 if it has none."""
    try:
        return int(json.loads((log / "_last_checkpoint").read_text(encoding="utf-8"))["version"])
    except FileNotFoundError:
        return -1


def _in_checkpoint(log: Path, version: int, names: set[str]) -> dict[str, Action | None]:
    found = dict[str, Action | None]()
    for file in sorted(log.glob(f"{version:020}.checkpoint*.parquet")):
        adds = pq.read_table(file, columns=["add"])["add"].combine_chunks()
        adds = adds.filter(adds.is_valid())
        for add in adds.filter(pc.is_in(pc.struct_field(adds, "path"), pa.array(sorted(names)))).to_pylist():
            vector = add.get("deletionVector")
            found[_name(add["path"])] = {k: v for k, v in vector.items() if v is not None} if vector else None
    return found


def _name(path: str) -> str:
    return unquote(path.rpartition("/")[2])


def _now() -> int:
    return int(time.time() * 1000)
