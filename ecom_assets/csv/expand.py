"""The expanded files: the good rows of the raw files, grown to a target size.

What belongs here: writing the copies of a table and its quarantine. What does not: how far a table grows (``plan``),
how a key is renewed (``keys``), reading copies back (``fold``), and the layer (``expanded``).

Here rows meet the contract for the first time: bad records are quarantined in ``quarantine/<table>.jsonl``, and
everything downstream holds good rows only. Each copy of a table is a file of its own (``copy-000.csv`` holds the rows
as published) with fresh keys, so that no store can take a copy for an update; keys that refer to one another are
renewed alike, so copy *k* of a row belongs to copy *k* of those that it refers to. Keys inside longer texts, such as
JSON, stay those of the first copy. A delivery's rows have a file of their own as well (``delivery-000001.csv``), and so
have its bad records (``quarantine/<table>-000001.jsonl``): whatever a table holds, only the new rows are written.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
from typing_extensions import Buffer, override

from ecom_assets.core.delivery import DIGITS
from ecom_assets.core.files import temporary
from ecom_assets.core.location import Location, emptied, local, move_over, replace
from ecom_assets.core.parallel import ordered_map
from ecom_assets.core.settings import Settings
from ecom_assets.csv import blocks as cutting
from ecom_assets.csv import keys, records
from ecom_assets.csv.blocks import Block
from ecom_assets.csv.contract import header_line
from ecom_assets.csv.parts import FIRST, Part
from ecom_assets.csv.plan import Plan, raw_file
from ecom_assets.dataset.model import Table

_EAGER = 8 << 20  # bytes that are worth a call of the disk

_DELIVERY = "delivery-"

LEAST_BLOCK = 64 << 10
"""Bytes of a raw file's block, at least: each costs a call of its parser."""


@dataclass(frozen=True)
class Expansion:
    """What a build wrote.

    Attributes:
        rows: Rows of the first copy.
        quarantined: Records that are quarantined.
        copies: Copies.
    """

    rows: int
    quarantined: int
    copies: int


def folder(table: Table, settings: Settings) -> Location:
    """Where a table's copies are stored."""
    return settings.expanded / table.name


def files(table: Table, settings: Settings) -> list[Location]:
    """All files of a table in order: its copies, and what deliveries added."""
    return [*copies(table, settings), *delivered(table, settings)]


def copies(table: Table, settings: Settings) -> list[Location]:
    """A table's copies in order; those that Spark has written, part by part."""
    return sorted(folder(table, settings).glob("copy-*.csv"), key=lambda path: path.name)


def delivered(table: Table, settings: Settings) -> list[Location]:
    """The files of a table's deliveries in order."""
    return sorted(folder(table, settings).glob(f"{_DELIVERY}*.csv"), key=lambda path: path.name)


def file_name(copy: int, part: int | None = None) -> str:
    """The name of the file of a copy, or of one of its parts."""
    return f"copy-{copy:03d}.csv" if part is None else f"copy-{copy:03d}-{part:06d}.csv"


def delivery_name(sequence: int) -> str:
    """The name of the file of a delivery."""
    return f"{_DELIVERY}{sequence:0{DIGITS}d}.csv"


def place_of(name: str) -> tuple[int, int]:
    """Copy and sequence of the delivery that a file of this layer holds rows of, by its name."""
    if name.startswith(_DELIVERY):
        return 0, int(name.removesuffix(".csv").removeprefix(_DELIVERY))
    return int(name.removesuffix(".csv").split("-")[1]), FIRST


def quarantine_file(table: Table, settings: Settings, sequence: int = FIRST) -> Path:
    """Where the unreadable records of a table's first file are stored, or those of a delivery."""
    return settings.quarantine / f"{table.name}{f'-{sequence:0{DIGITS}d}' if sequence else ''}.jsonl"


def quarantine_files(table: Table, settings: Settings) -> list[Path]:
    """Where a table's unreadable records are stored: those of the first file, and of each delivery that is here."""
    sequences = [place_of(path.name)[1] for path in delivered(table, settings)]
    return [quarantine_file(table, settings, sequence) for sequence in (FIRST, *sequences)]


def build(table: Table, settings: Settings, growth: Plan, progress: Callable[[int], None] | None = None) -> Expansion:
    """Write the table's copies and its quarantine, in the home.

    Args:
        table: The table.
        settings: Where.
        growth: How it grows.
        progress: Called with the bytes of the raw file done since the last call.

    Raises:
        HeaderError: The raw file's header is wrong.
        OSError: The disk is full, or the file is gone.
    """
    target = local(folder(table, settings))
    with emptied(target.with_name(f".{table.name}.part")) as work, quarantine(table, settings) as (bad, swap):
        (work / "copies").mkdir()
        with ExitStack() as opened:
            outputs = [opened.enter_context(_Output(work / "copies" / file_name(k))) for k in range(growth.copies)]
            blocks = raw_blocks(table, settings, growth)
            rows, quarantined = write_copies(blocks, table, growth, outputs=outputs, bad=bad, progress=progress)
        swap(work / "copies")
    return Expansion(rows, quarantined, growth.copies)


Swap = Callable[[Location], None]
"""Puts a folder of new copies in the place of the old one, and the quarantine that was written with them."""


@contextmanager
def quarantine(table: Table, settings: Settings) -> Generator[tuple[BinaryIO, Swap]]:
    """A quarantine file to be written along with a table's copies.

    The two cannot be swapped at once. So the old file goes first and the new one comes last: a crash in between leaves
    copies without a quarantine file, which count as not built.

    Yields:
        The file, and what swaps it and a folder of copies in.
    """
    with temporary(quarantine_file(table, settings)) as (bad, place):

        def swap(copies: Location) -> None:
            bad.flush()
            quarantine_file(table, settings).unlink(missing_ok=True)
            replace(copies, folder(table, settings))
            place()

        yield bad, swap


def append(
    table: Table, settings: Settings, part: Part, target: Location, progress: Callable[[int], None] | None = None
) -> Expansion:
    """Write the good rows of a delivery's file, and its quarantine; safe to repeat.

    Args:
        table: The table.
        settings: Where the quarantine is.
        part: The delivery's file.
        target: The folder that gets a file.
        progress: Called with the bytes done since the last call.

    Raises:
        HeaderError: The file's header is wrong.
        OSError: The disk is full, or the file is gone.
    """
    name = delivery_name(part.sequence)
    work = target / f".{name}.part"
    with temporary(quarantine_file(table, settings, part.sequence)) as (bad, place):
        with work.open("wb") as output:
            blocks = cutting.blocks(part.path, cutting.data_start(part.path, table))
            written = write_copies(blocks, table, Plan(), outputs=[output], bad=bad, progress=progress, name=part.name)
        place()
        move_over(work, target / name)
    return Expansion(*written, 1)


def raw_blocks(table: Table, settings: Settings, growth: Plan) -> Iterator[Block]:
    """The raw file's rows, in blocks that can be held once per copy: many copies mean smaller blocks."""
    source, size = raw_file(table, settings), max(LEAST_BLOCK, cutting.BLOCK_BYTES // growth.copies)
    return cutting.blocks(source, cutting.data_start(source, table), size)


def write_copies(
    blocks: Iterable[Block],
    table: Table,
    growth: Plan,
    *,
    outputs: Sequence[BinaryIO | io.BufferedWriter],
    bad: BinaryIO,
    progress: Callable[[int], None] | None = None,
    name: str = "",
) -> tuple[int, int]:
    """Write the copies of some of a raw file's rows, each with a header.

    Args:
        blocks: The rows.
        table: The table.
        growth: How it grows.
        outputs: A file for each copy.
        bad: The file for records that cannot be read.
        progress: Called with the bytes of the raw file done since the last call.
        name: What the file is called in quarantine; as the table's first file if empty.

    Returns:
        Rows of the first copy, and quarantined records.
    """

    def work(block: Block) -> tuple[records.Parsed, list[bytes | bytearray], int]:
        parsed = records.parse_block(block, table, name or table.csv)
        return parsed, [parsed.text, *copy_texts(parsed, table, growth)], len(block.data)

    rows = quarantined = 0
    for output in outputs:
        output.write(header_line(table))
    for parsed, texts, size in ordered_map(work, blocks):
        for output, text in zip(outputs, texts, strict=True):
            output.write(text)
        bad.writelines(row.to_line() for row in parsed.bad)
        rows += parsed.batch.num_rows
        quarantined += len(parsed.bad)
        if progress:
            progress(size)
    return rows, quarantined


def copy_texts(parsed: records.Parsed, table: Table, growth: Plan) -> Iterator[bytes | bytearray]:
    """Write the copies of some rows, from the second on, each with fresh keys.

    Where all keys are UUIDs, nothing is written again: they are found once, and renewed in place in the rows'
    own text. Any other key may grow.
    """
    heads = _heads(parsed, table)
    for copy in range(1, growth.copies):
        if copy == growth.copies - 1 and growth.sample:
            key, taken = growth.sample
            parsed = parsed.filter(pa.array(taken(parsed.batch.column(key))))
            heads = _heads(parsed, table)
        if len(heads) < len(table.domains):
            yield records.to_csv(renew(parsed.batch, table, copy, growth), table)
        else:
            text = bytearray(parsed.text)
            for name, step in _steps(table, copy, growth).items():
                heads[name].renew(text, step)
            yield text


def _heads(parsed: records.Parsed, table: Table) -> dict[str, keys.Heads]:
    """The digits of those keys that are UUIDs and can be found in the text."""
    plain = [c.name for c in table.columns if c.kind.is_text]
    texts = [name for name in table.domains if name in plain]
    found = {name: keys.Heads.find(parsed.text, *place) for name, place in parsed.places(texts).items()}
    return {name: heads for name, heads in found.items() if heads}


def renew(batch: pa.RecordBatch, table: Table, copy: int, growth: Plan) -> pa.RecordBatch:
    """Give rows the keys of copy ``copy``; with ``-copy``, take them back."""
    for name, step in _steps(table, copy, growth).items():
        fresh = keys.renewed(batch.column(name), step)
        batch = batch.set_column(batch.schema.get_field_index(name), batch.schema.field(name), fresh)
    return batch


def _steps(table: Table, copy: int, growth: Plan) -> dict[str, int]:
    """How far each key of a copy is from that of the first: what to add to an integer, the number of a text's copy."""
    steps = {}
    for name, domain in table.domains.items():
        k = abs(copy) % growth.wraps.get(domain, growth.copies)
        steps[name] = int(math.copysign(k * growth.strides.get(domain, 1), copy))
    return steps


class _Output(io.BufferedWriter):
    """A file that goes to the disk while it grows.

    Linux by itself keeps what is written until a tenth of the memory is full of it, and the disk idles meanwhile.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "w"))
        self._begun = 0

    @override
    def write(self, text: Buffer) -> int:
        written = super().write(text)
        end = self.tell()
        if end - self._begun >= _EAGER and hasattr(os, "posix_fadvise"):
            # This begins to write, waits for nothing, and takes from memory only what is on the disk already.
            os.posix_fadvise(self.fileno(), self._begun, end - self._begun, os.POSIX_FADV_DONTNEED)
            self._begun = end
        return written
