"""Reading expanded files back, as they are and with their keys folded back to those of the first copy.

What belongs here: measuring copies. What does not: how a copy is written (``expand``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from ecom_assets.core import row_hash
from ecom_assets.core.location import Location
from ecom_assets.core.measure import Measure
from ecom_assets.core.parallel import ordered_map
from ecom_assets.core.quarantine import Quarantined
from ecom_assets.csv import blocks as cutting
from ecom_assets.csv import records
from ecom_assets.csv.blocks import Block
from ecom_assets.csv.contract import HeaderError
from ecom_assets.csv.expand import place_of, renew
from ecom_assets.csv.plan import Plan
from ecom_assets.dataset.model import Table

SHOWN = 5
"""Damaged rows that are named."""


@dataclass(frozen=True)
class Folded:
    """What the copies of a table were found to hold.

    Attributes:
        measure: The rows as they are.
        copies: Per copy, the rows with the keys of the first copy again: a full copy must measure as the raw file does.
        problems: What was found damaged, a sentence each; the first few.
    """

    measure: Measure
    copies: tuple[Measure, ...]
    problems: tuple[str, ...] = ()


def measure(paths: list[Location], table: Table, growth: Plan, progress: Callable[[int], None] | None = None) -> Folded:
    """Read every copy back and hash its rows, as they are and folded back; what deliveries added is of the first.

    Args:
        paths: The files.
        table: What they hold.
        growth: How the table has grown; of a single copy nothing of it is needed.
        progress: Called with the rows done since the last call.
    """
    began = time.perf_counter()
    found, copies, problems = Measure(), dict[int, Measure](), list[str]()
    for path in paths:
        number, _ = place_of(path.name)
        copies.setdefault(number, Measure())
        found += Measure(bytes=path.stat().st_size)

        def work(block: Block, copy: int = number, name: str = path.name) -> tuple[Measure, Measure, list[Quarantined]]:
            parsed = records.parse_block(block, table, name)
            held = _measured(parsed.batch, table)
            back = _measured(renew(parsed.batch, table, -copy, growth), table) if copy else held
            return held, back, parsed.bad

        try:
            start = cutting.data_start(path, table)
        except HeaderError as error:
            problems.append(str(error))
            continue
        for held, back, bad in ordered_map(work, cutting.blocks(path, start)):
            found += held
            copies[number] += back
            problems += [f"{path}, line {row.line}: {row.reason}" for row in bad[: max(0, SHOWN - len(problems))]]
            if progress:
                progress(held.rows)
    return Folded(found + Measure(seconds=time.perf_counter() - began), tuple(copies.values()), tuple(problems))


def _measured(batch: pa.RecordBatch, table: Table) -> Measure:
    hashes = row_hash.batch_hashes(batch, table.ids)
    return Measure(len(hashes), row_hash.total(hashes))
