"""The expanded layer: the good rows of the raw files, grown to a target size.

Here rows meet the contract for the first time: bad ones are set aside in
``quarantine/<table>.jsonl``, and everything downstream holds good rows only. Each copy of
a table is a file of its own (``copy-000.csv`` holds the rows as published) with fresh keys,
so that no store can take a copy for an update; keys that refer to one another are renewed
alike, so copy *k* of a booking belongs to copy *k* of its customer and of its session.
Product numbers inside ``product_metadata`` and ``event_metadata`` stay those of the first copy.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from typing_extensions import Buffer, override

from ecom_assets.core import row_hash
from ecom_assets.core.expansion import Target
from ecom_assets.core.location import Location, local, replace
from ecom_assets.core.measure import Measure
from ecom_assets.core.parallel import ordered_map
from ecom_assets.core.quarantine import Quarantined
from ecom_assets.core.settings import Settings
from ecom_assets.csv import keys, records
from ecom_assets.dataset.model import Table
from ecom_assets.dataset.shop import TABLES

_EAGER = 8 << 20  # bytes that are worth a call of the disk

LEAST_BLOCK = 64 << 10
"""Bytes of a raw file's block, at least: each costs a call of its parser."""


@dataclass(frozen=True)
class Plan:
    """How a table grows.

    Attributes:
        copies: Files to write, the first copy included.
        share: Share of the last copy's rows to take, 0 < share <= 1, chosen by the
            session, so that tables of one session agree.
        strides: Key domain -> what copy *k* adds *k* times to an integer key.
        wraps: Key domain -> copies of the table that owns it; copy *k* of a reference
            points to copy *k* modulo this.
    """

    copies: int
    share: float
    strides: dict[str, int]
    wraps: dict[str, int]


@dataclass(frozen=True)
class Expansion:
    """What ``build`` did: rows written and rows set aside."""

    rows: int
    quarantined: int
    copies: int


def raw_file(table: Table, settings: Settings) -> Path:
    """Where a table's raw file lies."""
    return settings.raw / table.csv


def folder(table: Table, settings: Settings) -> Location:
    """Where a table's copies lie."""
    return settings.expanded / table.name


def files(table: Table, settings: Settings) -> list[Location]:
    """A table's copies in order; those that Spark has written, part by part."""
    return sorted(folder(table, settings).glob("copy-*.csv"), key=lambda path: path.name)


def file_name(copy: int, part: int | None = None) -> str:
    """How the file of a copy is called, or one of its parts."""
    return f"copy-{copy:03d}.csv" if part is None else f"copy-{copy:03d}-{part:06d}.csv"


def quarantine_file(table: Table, settings: Settings) -> Path:
    """Where a table's unreadable rows lie."""
    return settings.quarantine / f"{table.name}.jsonl"


def plan(table: Table, settings: Settings) -> Plan:
    """Decide how a table grows, from the sizes of all raw files and their largest integer keys."""
    sizes = {t.name: raw_file(t, settings).stat().st_size for t in TABLES.values()}
    grown = Target.parse(settings.expand).factors(sizes)
    # Only tables that share a session can be cut in the middle of a copy without breaking a reference.
    whole = {t: grown[t] if _sample_key(TABLES[t]) else math.ceil(grown[t]) for t in grown}
    copies = {t: math.ceil(f) for t, f in whole.items()}
    factor = whole[table.name]
    if copies[table.name] == 1:
        return Plan(1, 1.0, {}, {})
    owners = {t.keys[t.primary_key]: t for t in TABLES.values()}
    owned = {domain: owners[domain] for domain in table.keys.values() if domain in owners}
    strides = {
        d: _stride(owner, settings)
        for d, owner in owned.items()
        if _column_type(owner, owner.primary_key) == "long"
    }  # fmt: skip
    wraps = {domain: copies[owner.name] for domain, owner in owned.items()}
    return Plan(copies[table.name], factor - copies[table.name] + 1, strides, wraps)


def build(table: Table, settings: Settings, progress: Callable[[int], None] | None = None) -> Expansion:
    """Write the table's copies and its quarantine, in the home.

    Args:
        table: The table.
        settings: Where, and to what size.
        progress: Called with the bytes of the raw file done since the last call.

    Raises:
        records.HeaderError: The raw file's header is wrong.
        OSError: The disk is full, or the file is gone.
    """
    growth = plan(table, settings)
    target = local(folder(table, settings))
    part = target.with_name(f".{table.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    aside = quarantine_file(table, settings)
    aside.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as opened:
        outputs = [opened.enter_context(_Output(part / file_name(k))) for k in range(growth.copies)]
        bad = opened.enter_context(aside.with_suffix(".part").open("wb"))
        blocks = raw_blocks(table, settings, growth)
        rows, quarantined = write_copies(blocks, table, growth, outputs=outputs, bad=bad, progress=progress)
    aside.with_suffix(".part").replace(aside)
    replace(part, target)
    return Expansion(rows, quarantined, growth.copies)


def raw_blocks(table: Table, settings: Settings, growth: Plan) -> Iterator[records.Block]:
    """The raw file's rows, in blocks that can be held once per copy: many copies mean smaller blocks."""
    source, size = raw_file(table, settings), max(LEAST_BLOCK, records.BLOCK_BYTES // growth.copies)
    return records.blocks(source, records.data_start(source, table), size)


def write_copies(
    blocks: Iterable[records.Block],
    table: Table,
    growth: Plan,
    *,
    outputs: Sequence[BinaryIO | io.BufferedWriter],
    bad: BinaryIO,
    progress: Callable[[int], None] | None = None,
) -> tuple[int, int]:
    """Write the copies of some of a raw file's rows, each with a header.

    Args:
        blocks: The rows.
        table: The table.
        growth: How it grows.
        outputs: A file for each copy.
        bad: The file for rows that cannot be read.
        progress: Called with the bytes of the raw file done since the last call.

    Returns:
        Rows of the first copy, and rows set aside.
    """

    def work(block: records.Block) -> tuple[records.Parsed, list[bytes | bytearray], int]:
        parsed = records.parse_block(block, table, table.csv)
        return parsed, [parsed.text, *copy_texts(parsed, table, growth)], len(block.data)

    rows = quarantined = 0
    for output in outputs:
        output.write(records.header_line(table))
    for parsed, texts, size in ordered_map(work, blocks):
        for output, text in zip(outputs, texts, strict=True):
            output.write(text)
        bad.writelines(json.dumps(asdict(row)).encode() + b"\n" for row in parsed.bad)
        rows += parsed.batch.num_rows
        quarantined += len(parsed.bad)
        if progress:
            progress(size)
    return rows, quarantined


def copy_texts(parsed: records.Parsed, table: Table, growth: Plan) -> Iterator[bytes | bytearray]:
    """Write the copies of some rows, from the second on, each with fresh keys.

    Where all keys are UUIDs, nothing is written anew: they are found once, and renewed where they stand in the rows'
    own text. Any other key may grow.
    """
    heads = _heads(parsed, table)
    for copy in range(1, growth.copies):
        if copy == growth.copies - 1 and growth.share < 1.0 and (key := _sample_key(table)):
            parsed = parsed.filter(_sampled(parsed.batch.column(key), growth.share))
            heads = _heads(parsed, table)
        if len(heads) < len(table.keys):
            yield records.to_csv(renew(parsed.batch, table, copy, growth), table)
        else:
            text = bytearray(parsed.text)
            for name, step in _steps(table, copy, growth).items():
                heads[name].renew(text, step)
            yield text


def _heads(parsed: records.Parsed, table: Table) -> dict[str, keys.Heads]:
    """The digits of those keys that are UUIDs and can be found in the text."""
    texts = [name for name in table.keys if _column_type(table, name) == "string"]
    found = {name: keys.Heads.find(parsed.text, *place) for name, place in parsed.places(texts).items()}
    return {name: heads for name, heads in found.items() if heads}


def renew(batch: pa.RecordBatch, table: Table, copy: int, growth: Plan) -> pa.RecordBatch:
    """Give rows the keys of copy ``copy``; with ``-copy``, take them back."""
    for name, step in _steps(table, copy, growth).items():
        fresh = keys.renewed(batch.column(name), step)
        batch = batch.set_column(batch.schema.get_field_index(name), batch.schema.field(name), fresh)
    return batch


@dataclass(frozen=True)
class Folded:
    """The expanded layer, measured as it stands and with its keys folded back.

    Attributes:
        measure: The rows as they stand.
        copies: Per copy, the rows with the keys of the first copy again: a full copy
            must measure as the raw file does.
    """

    measure: Measure
    copies: list[Measure]


def measure(table: Table, settings: Settings, progress: Callable[[int], None] | None = None) -> Folded:
    """Read every copy back and hash its rows, as they stand and folded back.

    Args:
        table: The table.
        settings: Where.
        progress: Called with the rows done since the last call.
    """
    began = time.perf_counter()
    paths = files(table, settings)
    growth = plan(table, settings) if len(paths) > 1 else Plan(1, 1.0, {}, {})
    found, copies = Measure(), dict[int, Measure]()
    for path in paths:
        number = int(path.name.removesuffix(".csv").split("-")[1])

        def work(block: records.Block, k: int = number) -> tuple[Measure, Measure]:
            batch = records.parse_block(block, table, "expanded").batch
            stands = Measure(batch.num_rows, row_hash.total(row_hash.batch_hashes(batch, table.names)))
            if not k:
                return stands, stands
            back = renew(batch, table, -k, growth)
            return stands, Measure(back.num_rows, row_hash.total(row_hash.batch_hashes(back, table.names)))

        copy = Measure()
        for stands, back in ordered_map(work, records.blocks(path, records.data_start(path, table))):
            found += stands
            copy += back
            if progress:
                progress(stands.rows)
        found += Measure(bytes=path.stat().st_size)
        copies[number] = copies.get(number, Measure()) + copy
    return Folded(found + Measure(seconds=time.perf_counter() - began), list(copies.values()))


@dataclass(frozen=True)
class RawMeasure:
    """The raw layer as read.

    Attributes:
        measure: The good rows, and the bytes of the file.
        quarantined: The bad rows: how many, and the first few.
        samples: The first few bad rows.
        last_copy: The good rows that the last copy takes (all of them unless it is a partial one).
    """

    measure: Measure
    quarantined: int
    samples: list[Quarantined]
    last_copy: Measure


def measure_raw(table: Table, settings: Settings, progress: Callable[[int], None] | None = None) -> RawMeasure:
    """Read the raw file and hash its good rows.

    Args:
        table: The table.
        settings: Where.
        progress: Called with the bytes done since the last call.
    """
    began = time.perf_counter()
    path = raw_file(table, settings)
    growth = plan(table, settings)
    found, last, bad, samples = Measure(bytes=path.stat().st_size), Measure(), 0, []
    start = records.data_start(path, table)

    def work(block: records.Block) -> tuple[Measure, Measure, list[Quarantined], int]:
        parsed = records.parse_block(block, table, path.name)
        hashes = row_hash.batch_hashes(parsed.batch, table.names)
        taken = hashes
        if growth.share < 1.0 and (key := _sample_key(table)):
            taken = hashes[_sampled(parsed.batch.column(key), growth.share).to_numpy(zero_copy_only=False)]
        return (
            Measure(len(hashes), row_hash.total(hashes)),
            Measure(len(taken), row_hash.total(taken)),
            parsed.bad,
            len(block.data),
        )

    for good, part, aside, size in ordered_map(work, records.blocks(path, start)):
        found += good
        last += part
        bad += len(aside)
        samples += aside[: 5 - len(samples)]
        if progress:
            progress(size)
    return RawMeasure(found + Measure(seconds=time.perf_counter() - began), bad, samples, last)


def _sample_key(table: Table) -> str | None:
    """The key by which a partial copy takes rows: one that no table owns and several hold."""
    owned = {t.keys[t.primary_key] for t in TABLES.values()}
    shared = [
        name
        for name, domain in table.keys.items()
        if domain not in owned and sum(domain in t.keys.values() for t in TABLES.values()) > 1
    ]
    return shared[0] if shared else None


def _sampled(keys: pa.Array, share: float) -> pa.Array:
    """Which rows a share takes: those whose key's hash lies below it."""
    return pa.array(row_hash.value_hashes(keys) < np.uint64(min(share * 2.0**64, 2.0**64 - 2048)))


def _column_type(table: Table, name: str) -> str:
    return next(c.avro for c in table.columns if c.name == name)


def _stride(owner: Table, settings: Settings) -> int:
    """The power of ten above every integer key of a table."""
    largest = 0
    for parsed in records.parse(raw_file(owner, settings), owner):
        span = pc.min_max(parsed.batch.column(owner.primary_key))
        if parsed.batch.num_rows:
            largest = max(largest, abs(span["min"].as_py()), abs(span["max"].as_py()))
    return 10 ** len(str(largest))


def _steps(table: Table, copy: int, growth: Plan) -> dict[str, int]:
    """How far each key of a copy is from that of the first: what to add to an integer, the number of a text's copy."""
    steps = {}
    for name, domain in table.keys.items():
        k = abs(copy)
        if name != table.primary_key and domain in growth.wraps:
            k %= growth.wraps[domain]
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
