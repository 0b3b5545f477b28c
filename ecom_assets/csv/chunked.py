"""The layer chunked: row-aligned CSV parts with a manifest, and the source of the topics.

What belongs here: when and where this room's functions are called for the layer. What does not: the work (``chunk``,
``spark_tasks``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
from typing_extensions import override

from ecom_assets.core.context import Context
from ecom_assets.core.errors import CsvError, NotBuiltError
from ecom_assets.core.layer import Built, Chunk, ChunkSource, Cut, Measurement, Row
from ecom_assets.core.location import listing, remove
from ecom_assets.core.progress import track
from ecom_assets.core.settings import Settings
from ecom_assets.csv import chunk, states
from ecom_assets.csv.expanded import ExpandedLayer
from ecom_assets.csv.parts import FIRST, Held, behind, by_sequence, chain
from ecom_assets.dataset.model import Table

SHOWN = 5
"""Chunks that are named where some are damaged."""


class ChunkedLayer(ChunkSource):
    """The chunks.

    Args:
        expanded: The layer before it.
    """

    name = "chunked"
    pool = "files"
    kinds = frozenset({"csv"})
    replaceable = True
    description = "Row-aligned parts with header, and a manifest of rows, bytes and checksums."

    def __init__(self, expanded: ExpandedLayer) -> None:
        self.upstream = self._expanded = expanded

    @override
    def fingerprint(self, at: Context, table: Table) -> str:
        build = at.books.build(self._expanded.name, table.name)
        if build is None:
            raise NotBuiltError(self._expanded.name, table.name)
        return states.digest(build.fingerprint, dict(build.declaration), at.settings.chunk_bytes)

    @override
    def exists(self, at: Context, table: Table) -> bool:
        return (chunk.folder(table, at.settings) / chunk.MANIFEST).exists()

    @override
    def build(self, at: Context, table: Table, *, repair: bool = False) -> Built:
        """Cut what deliveries have added; where the copies are other ones, or with ``repair``, all of it.

        Chunks of copies are cut next to those that are there, and swapped in.
        """
        if not self._expanded.exists(at, table):
            raise NotBuiltError(self._expanded.name, table.name)
        inputs = states.digest(self._expanded.inputs(at, table), at.settings.chunk_bytes)
        held = Held(at, self.name, table, inputs)
        missing = held.missing(rebuild=repair or not self.exists(at, table))
        chunks: list[Chunk] = []
        with track(f"chunked/{table.name}", None) as advance:
            for part in missing:
                if part.sequence == FIRST:
                    cut = self._copies(at, table, advance)
                else:
                    cut = chunk.append(table, at.settings, part.sequence, advance)
                held.record(part, _built(cut))
                chunks += cut
        return replace(_built(chunks), unchanged=not missing)

    def _copies(self, at: Context, table: Table, advance: Callable[[int], None]) -> list[Chunk]:
        """Cut the copies; the chunks of deliveries are gone then, and follow."""
        if at.settings.csv_engine == "spark":
            from ecom_assets.csv import spark_tasks  # pyspark, which a home without Spark can do without

            return spark_tasks.chunk_table(at.spark, table, at.settings, advance)
        return chunk.build(table, at.settings, advance)

    @override
    def position(self, at: Context, table: Table, cut: Cut) -> str:
        """Names, sizes and times of all files: one look at the folder, and a touched chunk is noticed."""
        return chain(list(self._states(at, table).values()))[-1]

    def _states(self, at: Context, table: Table) -> dict[int, list[list[Any]]]:
        """Names, sizes and times of the files of the copies, and of each delivery."""
        found = states.folder_state(chunk.folder(table, at.settings))
        complete = (state for state in found if not state[0].startswith("."))
        return by_sequence(complete, lambda state: chunk.sequence_of(state[0]))

    @override
    def measure(self, at: Context, table: Table, cut: Cut) -> Measurement:
        settings, position = at.settings, self.position(at, table, cut)
        with track(f"check: chunked/{table.name}", None) as advance:
            found = chunk.measure(table, settings, advance)
        return Measurement(table.name, self.name, found, position=position, problems=self._problems(at, table))

    @override
    def derive(self, at: Context, table: Table, known: Measurement, cut: Cut) -> Measurement | None:
        """Read the chunks alone that deliveries have added since, if all others are what they were."""
        held = self._states(at, table)
        names = chain(list(held.values()))
        count = behind(names, known.position)
        sizes = {name: size for part in held.values() for name, size, _ in part}
        if count is None or self._problems(at, table, sizes):
            return None
        new = set(list(held)[count:])
        with track(f"check: chunked/{table.name}", None) as advance:
            paths = [path for path in chunk.files(table, at.settings) if chunk.sequence_of(path.name) in new]
            found = chunk.measure_files(paths, table, advance)
        return Measurement(table.name, self.name, known.measure.before + found, position=names[-1])

    def _problems(self, at: Context, table: Table, sizes: Mapping[str, int] | None = None) -> tuple[str, ...]:
        """Where the folder differs from its manifest; the sizes of its files may be known."""
        folder = chunk.folder(table, at.settings)
        try:
            due = {c.name: c.bytes for c in chunk.read_manifest(folder)}
        except CsvError as error:
            return (str(error),)
        except NotBuiltError:
            return (f"{folder / chunk.MANIFEST}: expected the manifest of the chunks, got none",)
        if sizes is None:
            sizes = {name: status.st_size for name, status in listing(folder).items()}
        found = [
            f"{folder / name}: expected {size:,} bytes as in the manifest, got {_bytes(sizes.get(name))}"
            for name, size in due.items()
            if sizes.get(name) != size
        ]
        found += [f"{folder / n}: expected no such chunk" for n in sizes if n.endswith(".csv") and n not in due]
        more = [f"{folder}: {len(found) - SHOWN:,} more"] if len(found) > SHOWN else []
        return (*found[:SHOWN], *more)

    @override
    def delete(self, at: Context, table: Table) -> None:
        remove(chunk.folder(table, at.settings))

    @override
    def preview(self, at: Context, table: Table, rows: int) -> Sequence[Row]:
        return states.first_rows(chunk.files(table, at.settings)[:1], table, rows)

    @override
    def stored_as(self, settings: Settings, table: Table) -> str:
        return str(chunk.folder(table, settings))

    @override
    def chunks(self, settings: Settings, table: Table) -> list[Chunk]:
        return chunk.read_manifest(chunk.folder(table, settings))

    @override
    def read(self, settings: Settings, table: Table, chunks: Sequence[Chunk]) -> list[bytes]:
        return chunk.read(chunk.folder(table, settings), chunks)

    @override
    def rows(self, table: Table, chunks: Sequence[Chunk], data: Sequence[bytes]) -> pa.RecordBatch:
        return chunk.verified(table, chunks, data)


def _built(chunks: Sequence[Chunk]) -> Built:
    return Built(sum(c.rows for c in chunks), notes={"chunks": len(chunks)})


def _bytes(size: int | None) -> str:
    return "no file" if size is None else f"{size:,}"
