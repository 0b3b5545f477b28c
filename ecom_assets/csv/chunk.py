"""The chunked layer: row-aligned CSV parts, each with a header, and a manifest of them.

A chunk is the unit that the Kafka ledger knows: it is in the topic as a whole or not at
all. The manifest gives each chunk's rows, bytes and checksum; it is written last, so a
folder without one is unfinished.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ecom_assets.core import row_hash
from ecom_assets.core.files import write_text
from ecom_assets.core.location import Location, local
from ecom_assets.core.measure import Measure
from ecom_assets.core.parallel import ordered_map
from ecom_assets.core.settings import Settings
from ecom_assets.csv import expand, records
from ecom_assets.dataset.model import Table

MANIFEST = "manifest.jsonl"
READ_TOGETHER = 64
"""Chunks parsed at once when they are measured; some 6 MB."""


@dataclass(frozen=True)
class Chunk:
    """One part of a table.

    Attributes:
        name: Its file name.
        rows: Rows in it.
        bytes: Its size in bytes, header included.
        checksum: Sum of its row hashes modulo 2^64.
    """

    name: str
    rows: int
    bytes: int
    checksum: int


def folder(table: Table, settings: Settings) -> Location:
    """Where a table's chunks lie."""
    return settings.chunked / table.name


def files(table: Table, settings: Settings) -> list[Location]:
    """A table's chunks in order."""
    return sorted(folder(table, settings).glob("part-*.csv"), key=lambda path: path.name)


def read_manifest(folder: Location) -> list[Chunk]:
    """Read the manifest of a folder of chunks.

    Raises:
        FileNotFoundError: The folder has none: it was never made, or not finished.
    """
    path = folder / MANIFEST
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: expected the manifest of the chunks, found none; materialise chunked/{folder.name} first"
        ) from None
    entries = (json.loads(line) for line in lines)
    return [Chunk(e["chunk"], e["rows"], e["bytes"], int(e["checksum"], 16)) for e in entries]


def build(table: Table, settings: Settings, progress: Callable[[int], None] | None = None) -> list[Chunk]:
    """Cut a table's expanded files into chunks of about ``settings.chunk_bytes``, in the home.

    Args:
        table: The table.
        settings: Where and how large.
        progress: Called with the rows done since the last call.

    Returns:
        The manifest.
    """
    target = local(folder(table, settings))
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    chunks: list[Chunk] = []
    for source in expand.files(table, settings):
        for rows, checksum, body in cut(source, table, settings.chunk_bytes):
            chunks.append(Chunk(file_name(len(chunks)), rows, len(body), checksum))
            (target / chunks[-1].name).write_bytes(body)
            if progress:
                progress(rows)
    write_text(target / MANIFEST, manifest(chunks))
    return chunks


def file_name(number: int) -> str:
    """How a chunk is called."""
    return f"part-{number:06d}.csv"


def manifest(chunks: Iterable[Chunk]) -> str:
    """The manifest's text."""
    lines = (
        json.dumps({"chunk": c.name, "rows": c.rows, "bytes": c.bytes, "checksum": f"{c.checksum:016x}"})
        for c in chunks
    )
    return "".join(f"{line}\n" for line in lines)


def cut(source: Location, table: Table, size: int) -> Iterator[tuple[int, int, bytes]]:
    """Cut an expanded file into chunks.

    Args:
        source: The file.
        table: What it holds.
        size: Bytes of a chunk, about.

    Yields:
        A chunk's rows, their checksum and the chunk itself.

    Raises:
        records.DamagedError: The file holds a row that cannot be read.
    """
    header = records.header_line(table)
    # A chunk never spans two blocks, so a block is some forty chunks; the last of each is short.
    for parsed, hashes in ordered_map(lambda b: _rows(b, table), _blocks(source, table)):
        for first, last, start, end in _cuts(parsed.ends, size - len(header)):
            yield last - first, row_hash.total(hashes[first:last]), header + parsed.text[start:end]


def measure(table: Table, settings: Settings, progress: Callable[[int], None] | None = None) -> Measure:
    """Read every chunk back and hash its rows; a missing or a damaged chunk counts as what is left of it."""
    began = time.perf_counter()
    paths = files(table, settings)
    found = Measure()
    groups = (paths[at : at + READ_TOGETHER] for at in range(0, len(paths), READ_TOGETHER))
    for part in ordered_map(lambda group: _measured(group, table), groups):
        found += part
        if progress:
            progress(part.rows)
    return found + Measure(seconds=time.perf_counter() - began)


def _measured(paths: Sequence[Location], table: Table) -> Measure:
    """Measure chunks, all at once if each could be read alone: that takes a fifth of the time."""
    chunks = [path.read_bytes() for path in paths]
    whole = records.joined(chunks, table)
    if whole is None and len(chunks) > 1:
        return sum((_measured([path], table) for path in paths), Measure())
    size = sum(map(len, chunks))
    try:
        batch = records.read_rows(whole or chunks[0], table, paths[0].name).batch
    except records.DamagedError:  # a chunk alone, whose header is not the table's
        return Measure(bytes=size)
    return Measure(batch.num_rows, row_hash.total(row_hash.batch_hashes(batch, table.names)), size)


def _blocks(source: Location, table: Table) -> Iterator[records.Block]:
    return records.blocks(source, records.data_start(source, table))


def _rows(block: records.Block, table: Table) -> tuple[records.Parsed, np.ndarray]:
    """Parse a block; returns its rows and their hashes."""
    parsed = records.parse_block(block, table, "expanded")
    if parsed.bad:
        raise records.DamagedError(
            f"expanded/{table.name}, line {parsed.bad[0].line}: {parsed.bad[0].reason};"
            f" materialise expanded/{table.name} again"
        )
    return parsed, row_hash.batch_hashes(parsed.batch, table.names)


def _cuts(ends: np.ndarray, size: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut rows into runs of at most ``size`` bytes (at least one row each).

    Yields:
        ``(first row, row behind the last, first byte, byte behind the last)``.
    """
    first, start = 0, 0
    while first < len(ends):
        last = max(first + 1, int(np.searchsorted(ends, start + size, side="right")))
        end = int(ends[last - 1])
        yield first, last, start, end
        first, start = last, end
