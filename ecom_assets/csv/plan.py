"""How far each table grows, so that tables that refer to one another grow alike.

What belongs here: decisions that rest on all tables of a data set. What does not: writing copies (``expand``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecom_assets.core import delivery, row_hash
from ecom_assets.core.errors import CsvError
from ecom_assets.core.expansion import Target
from ecom_assets.core.settings import Settings
from ecom_assets.csv import records
from ecom_assets.dataset.model import Dataset, Table


@dataclass(frozen=True)
class Plan:
    """How a table grows.

    Attributes:
        copies: Copies to write, the first one included.
        share: Share of the last copy's rows to take, 0 < share <= 1, chosen by the session, so that tables of one
            session agree.
        strides: Key domain -> what copy *k* adds *k* times to an integer key.
        wraps: Key domain -> copies of the table that owns it; copy *k* of a reference points to copy *k* modulo this.
        sample_key: The column by which a share of the rows is taken; ``None`` if the table has none.
    """

    copies: int = 1
    share: float = 1.0
    strides: dict[str, int] = field(default_factory=dict)
    wraps: dict[str, int] = field(default_factory=dict)
    sample_key: str | None = None

    @property
    def sample(self) -> tuple[str, Callable[[pa.Array], np.ndarray]] | None:
        """The column by which the last copy takes rows, and which ones by its values; ``None`` if it takes all."""
        if self.share == 1.0 or self.sample_key is None:
            return None
        return self.sample_key, lambda keys: sampled(keys, self.share)


def raw_file(table: Table, settings: Settings) -> Path:
    """Where a table's raw file is stored."""
    return settings.raw / table.csv


def plan(table: Table, dataset: Dataset, settings: Settings) -> Plan:
    """Decide how a table grows, from the sizes of all raw files and their largest integer keys.

    Raises:
        FileNotFoundError: A raw file is missing.
        HeaderError: The raw file of a table that owns a key has a wrong header.
        CsvError: Copies of the table would share keys, a key would not fit 64 bits, or the home has deliveries.
    """
    copies = _copies(dataset, settings)
    if copies is None or math.ceil(copies[table.name]) == 1:
        return Plan()
    owned = {domain: owner for domain, owner in _owners(dataset).items() if domain in table.domains.values()}
    wraps = {domain: math.ceil(copies[owner.name]) for domain, owner in owned.items()}
    _renewable(table, math.ceil(copies[table.name]), wraps)
    strides = {
        domain: _stride(domain, dataset, settings, math.ceil(max(copies.values())))
        for domain in set(table.domains.values())
    }
    return Plan(
        *_whole_and_share(copies[table.name]),
        {domain: stride for domain, stride in strides.items() if stride},
        wraps,
        sample_key(table, dataset),
    )


def last_copy(table: Table, dataset: Dataset, settings: Settings) -> Plan:
    """Decide the same, but for the steps between keys, which take a look at every row of other tables."""
    copies = _copies(dataset, settings)
    if copies is None:
        return Plan()
    return Plan(*_whole_and_share(copies[table.name]), sample_key=sample_key(table, dataset))


def sample_key(table: Table, dataset: Dataset) -> str | None:
    """The key by which a partial copy takes rows: one that no table owns and several hold."""
    tables, owned = dataset.tables.values(), _owners(dataset)
    filled = {c.name for c in table.columns if not c.nullable}
    shared = [
        name
        for name, domain in table.domains.items()
        if name in filled and domain not in owned and sum(domain in t.domains.values() for t in tables) > 1
    ]
    return shared[0] if shared else None


def sampled(keys: pa.Array, share: float) -> np.ndarray:
    """Which rows a share takes: those whose key's hash is below it."""
    return row_hash.value_hashes(keys.cast(pa.string())) < np.uint64(min(share * 2.0**64, 2.0**64 - 2048))


def _copies(dataset: Dataset, settings: Settings) -> dict[str, float] | None:
    """Table -> how many copies it grows to; ``None`` if none grows at all."""
    target = Target.parse(settings.expand)
    if target == Target():
        return None
    if came := [each.name for each in delivery.deliveries(settings)]:
        raise CsvError(
            f"{settings.home}: expected the first files alone, by which tables can grow (--expand), got the deliveries"
            f" {', '.join(came[:5])}",
            "run without --expand, or take a new home",
        )
    sizes = {t.name: raw_file(t, settings).stat().st_size for t in dataset.tables.values()}
    grown = target.factors(sizes)
    # Only tables that share a session can be cut in the middle of a copy without breaking a reference.
    return {n: grown[n] if sample_key(t, dataset) else math.ceil(grown[n]) for n, t in dataset.tables.items()}


def _whole_and_share(factor: float) -> tuple[int, float]:
    copies = math.ceil(factor)
    return copies, factor - copies + 1


def _owners(dataset: Dataset) -> dict[str, Table]:
    """Key domain -> the table that owns it; a domain may have none."""
    return {t.domain: t for t in dataset.tables.values() if t.domain}


def _renewable(table: Table, copies: int, wraps: dict[str, int]) -> None:
    """See that no two copies of a table share a primary key."""
    renewed = [n for n in table.primary_key if n in table.domains and wraps.get(table.domains[n], copies) >= copies]
    if not renewed:
        raise CsvError(
            f"{table.name}: expected a column of the primary key ({table.key}) that each of {copies} copies renews, got"
            " none: its columns have no key domain, or one whose table grows less",
            "declare domains of the table's own, or run without --expand",
        )


def _stride(domain: str, dataset: Dataset, settings: Settings, copies: int) -> int:
    """The power of ten above every integer key of a domain; 0 if its keys are texts.

    A domain that a table owns has the keys of that table, any other the keys of every table that has columns of it.
    """
    owner = _owners(dataset).get(domain)
    largest = 0
    for table in [owner] if owner else dataset.tables.values():
        integers = [c.name for c in table.columns if c.kind.is_integer]
        names = [n for n, d in table.domains.items() if d == domain and n in integers]
        names = [n for n in names if table is not owner or n in table.primary_key]
        for parsed in records.parse(raw_file(table, settings), table) if names else ():
            for name in names:
                span = pc.min_max(parsed.batch.column(name))
                largest = max(largest, abs(span["min"].as_py() or 0), abs(span["max"].as_py() or 0))
    stride = 10 ** len(str(largest)) if largest else 0
    if stride * (copies - 1) + largest >= 1 << 63:
        raise CsvError(
            f"expected integer keys of the domain {domain} that leave room for {copies} copies, got {largest:,}, and 64"
            " bits hold no more than 9,223,372,036,854,775,807",
            "declare the column as string, or run without --expand",
        )
    return stride
