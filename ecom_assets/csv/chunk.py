"""Chunks: row-aligned CSV parts, each with a header, and a manifest of them.

What belongs here: cutting expanded files into chunks, their manifest, and reading chunks back, for a measurement or
verified one by one. What does not: the layer (``chunked``).

A chunk is the unit that the Kafka ledger knows: it is in the topic as a whole or not at all. The manifest gives each
chunk's rows, bytes and checksum; a folder without one counts as not built. The chunks of a delivery have a manifest of
their own (``manifest-000001.jsonl``), which is written last: without it, they do not count.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from ecom_assets.core import row_hash
from ecom_assets.core.delivery import DIGITS
from ecom_assets.core.errors import NotBuiltError
from ecom_assets.core.home import hint
from ecom_assets.core.layer import Chunk
from ecom_assets.core.location import Location, emptied, local, move_over, replace
from ecom_assets.core.measure import Measure
from ecom_assets.core.parallel import ordered_map
from ecom_assets.core.settings import Settings
from ecom_assets.csv import blocks as cutting
from ecom_assets.csv import expand, records
from ecom_assets.csv.blocks import Block
from ecom_assets.csv.contract import DamagedError, header_line
from ecom_assets.csv.parts import FIRST
from ecom_assets.dataset.model import Table

MANIFEST = "manifest.jsonl"
READ_TOGETHER = 64
"""Chunks parsed at once when they are measured; some 6 MB."""


def folder(table: Table, settings: Settings) -> Location:
    """Where a table's chunks are stored."""
    return settings.chunked / table.name


def files(table: Table, settings: Settings) -> list[Location]:
    """A table's chunks in order: those of the copies, then those of deliveries."""
    found = folder(table, settings).glob("*.csv")
    return sorted(found, key=lambda path: (sequence_of(path.name), path.name))


def read_manifest(folder: Location) -> list[Chunk]:
    """Read the manifests of a folder of chunks, with the place of each chunk in its delivery.

    Raises:
        NotBuiltError: The folder has none: it was never built, or not to its end.
        DamagedError: It holds something else.
    """
    if not (folder / MANIFEST).exists():
        raise NotBuiltError("chunked", folder.name)
    later = sorted(folder.glob("manifest-*.jsonl"), key=lambda path: path.name)
    return [chunk for path in (folder / MANIFEST, *later) for chunk in _placed(_entries(path))]


def _placed(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Chunks of one delivery, each with the place that its rows have there."""
    row = 0
    for chunk in chunks:
        yield dataclasses.replace(chunk, delivery=sequence_of(chunk.name), first_row=row)
        row += chunk.rows


def _entries(path: Location) -> list[Chunk]:
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        entries = (json.loads(line) for line in lines)
        return [Chunk(e["chunk"], e["rows"], e["bytes"], int(e["checksum"], 16)) for e in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(
            f"{path}: expected a line of JSON for each chunk, got something else ({error})", _again(path.parent.name)
        ) from error


def build(table: Table, settings: Settings, progress: Callable[[int], None] | None = None) -> list[Chunk]:
    """Cut a table's copies into chunks of about ``settings.chunk_bytes``, in the home.

    They are cut next to those that are there, and swapped in.

    Args:
        table: The table.
        settings: Where and how large.
        progress: Called with the rows done since the last call.

    Returns:
        The manifest.

    Raises:
        DamagedError: An expanded file holds a row that cannot be read.
    """
    target = local(folder(table, settings))
    with emptied(target.with_name(f".{table.name}.part")) as work:
        built = work / "chunks"
        built.mkdir()
        chunks = _write(expand.copies(table, settings), table, settings, built, progress=progress)
        (built / MANIFEST).write_bytes(manifest(chunks).encode())
        replace(built, target)
    return chunks


def append(
    table: Table, settings: Settings, sequence: int, progress: Callable[[int], None] | None = None
) -> list[Chunk]:
    """Cut what a delivery added into chunks of its own; safe to repeat.

    Args:
        table: The table.
        settings: Where and how large.
        sequence: That of the delivery.
        progress: Called with the rows done since the last call.

    Returns:
        Its manifest.

    Raises:
        DamagedError: The expanded file holds a row that cannot be read.
    """
    source, target = expand.folder(table, settings) / expand.delivery_name(sequence), folder(table, settings)
    chunks = _write([source], table, settings, target, sequence=sequence, progress=progress)
    work = target / f".{manifest_name(sequence)}.part"
    work.write_bytes(manifest(chunks).encode())
    move_over(work, target / manifest_name(sequence))
    return chunks


def _write(
    sources: Iterable[Location],
    table: Table,
    settings: Settings,
    target: Location,
    *,
    sequence: int = FIRST,
    progress: Callable[[int], None] | None = None,
) -> list[Chunk]:
    """Cut expanded files into chunks, numbered through, in a folder."""
    chunks: list[Chunk] = []
    for source in sources:
        for rows, checksum, body in cut(source, table, settings.chunk_bytes):
            chunks.append(Chunk(file_name(len(chunks), sequence), rows, len(body), checksum))
            (target / chunks[-1].name).write_bytes(body)
            if progress:
                progress(rows)
    return chunks


def file_name(number: int, sequence: int = FIRST) -> str:
    """The name of a chunk, of the copies or of a delivery."""
    return f"{f'delivery-{sequence:0{DIGITS}d}' if sequence else 'part'}-{number:06d}.csv"


def sequence_of(name: str) -> int:
    """The sequence of the delivery that a chunk or a manifest is of, by its name."""
    words = name.partition(".")[0].split("-")
    return int(words[1]) if words[0] in ("delivery", "manifest") and len(words) > 1 else FIRST


def manifest_name(sequence: int) -> str:
    """The name of the manifest of a delivery."""
    return f"manifest-{sequence:0{DIGITS}d}.jsonl"


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
        DamagedError: The file holds a row that cannot be read.
    """
    header = header_line(table)
    # A chunk never spans two blocks, so a block is some forty chunks; the last of each is short.
    for parsed, hashes in ordered_map(lambda b: _rows(b, table), _blocks(source, table)):
        for first, last, start, end in _cuts(parsed.ends, size - len(header)):
            yield last - first, row_hash.total(hashes[first:last]), header + parsed.text[start:end]


def measure(table: Table, settings: Settings, progress: Callable[[int], None] | None = None) -> Measure:
    """Read every chunk back and hash its rows; a missing or a damaged chunk counts as what is left of it."""
    return measure_files(files(table, settings), table, progress)


def measure_files(paths: Sequence[Location], table: Table, progress: Callable[[int], None] | None = None) -> Measure:
    """Read some chunks back and hash their rows."""
    began = time.perf_counter()
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
    except DamagedError:  # a chunk alone, whose header is not the table's
        return Measure(bytes=size)
    return Measure(batch.num_rows, row_hash.total(row_hash.batch_hashes(batch, table.ids)), size)


def read(folder: Location, chunks: Sequence[Chunk]) -> list[bytes]:
    """The bytes of some chunks.

    Raises:
        DamagedError: The file of one is gone.
    """
    try:
        return [(folder / chunk.name).read_bytes() for chunk in chunks]
    except FileNotFoundError as error:
        raise DamagedError(
            f"{error.filename or error}: expected a chunk of the manifest, got no file", _again(folder.name)
        ) from error


def verified(table: Table, chunks: Sequence[Chunk], data: Sequence[bytes]) -> pa.RecordBatch:
    """The rows of some chunks, verified against the chunks' row counts and checksums.

    All are parsed as one; only if that does not fit is each parsed alone, to find the one to name.

    Raises:
        DamagedError: A chunk differs from its manifest entry.
    """
    if whole := records.joined(list(data), table):
        try:
            batch = records.read_clean(whole, table)
        except DamagedError:
            pass
        else:
            if _sums(batch, chunks, table) == [chunk.checksum for chunk in chunks]:
                return batch
    return pa.concat_batches([_verified_alone(table, *each) for each in zip(chunks, data, strict=True)])


def _verified_alone(table: Table, chunk: Chunk, data: bytes) -> pa.RecordBatch:
    batch = records.read_clean(data, table, f"chunked/{table.name}/{chunk.name}")
    found = row_hash.total(row_hash.batch_hashes(batch, table.ids))
    if (batch.num_rows, found) != (chunk.rows, chunk.checksum):
        raise DamagedError(
            f"chunked/{table.name}/{chunk.name}: expected {chunk.rows} rows with checksum {chunk.checksum:016x}, got"
            f" {batch.num_rows} rows with checksum {found:016x}",
            _again(table.name),
        )
    return batch


def _sums(batch: pa.RecordBatch, chunks: Sequence[Chunk], table: Table) -> list[int]:
    """The checksum of each chunk's share of the batch; none of them if the batch has too many or too few rows."""
    ends = np.cumsum([chunk.rows for chunk in chunks])
    if batch.num_rows != ends[-1]:
        return []
    hashes = row_hash.batch_hashes(batch, table.ids)
    return [row_hash.total(part) for part in np.split(hashes, ends[:-1])]


def _again(table: str) -> str:
    return f"materialize chunked/{table} again, or `{hint('run --repair')}`"


def _blocks(source: Location, table: Table) -> Iterator[Block]:
    return cutting.blocks(source, cutting.data_start(source, table))


def _rows(block: Block, table: Table) -> tuple[records.Parsed, np.ndarray]:
    """Parse a block; returns its rows and their hashes."""
    parsed = records.parse_block(block, table, "expanded")
    if parsed.bad:
        raise DamagedError(
            f"expanded/{table.name}, line {parsed.bad[0].line}: {parsed.bad[0].reason}",
            f"materialize expanded/{table.name} again, or `{hint('run --repair')}`",
        )
    return parsed, row_hash.batch_hashes(parsed.batch, table.ids)


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
