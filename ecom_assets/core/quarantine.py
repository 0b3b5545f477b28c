"""Quarantined records, with all that is needed to find and fix them, and what a file of them holds.

What belongs here: a record, its hash, and its form as a line of JSON. What does not: why a record is quarantined, which
each room decides.

**Quarantine checksum.** A record's hash is the row hash of two fields: its line number, and its raw text as UTF-8. The
checksum is the sum modulo 2^64, as with rows; so it is computed from a raw file and from a quarantine file alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

from ecom_assets.core.measure import Measure
from ecom_assets.core.row_hash import MODULUS, row_hash

SHOWN = 5
"""Damaged lines of a quarantine file that are named."""


@dataclass(frozen=True)
class Quarantined:
    r"""A record moved to quarantine.

    Attributes:
        table: The table it was meant for.
        source: File name, or topic.
        line: Line of the file, 1-based, header included; or the offset in a topic's partition.
        raw: The raw text; bytes that are not UTF-8 as ``\xNN``.
        reason: What was expected and what came.
    """

    table: str
    source: str
    line: int
    raw: str
    reason: str

    @property
    def hash(self) -> int:
        """Its line number and raw text as 64 bits."""
        return record_hash(self.line, self.raw)

    def to_line(self) -> bytes:
        """A line of a quarantine file."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Read what ``to_line`` wrote.

        Raises:
            ValueError: It is no such line.
        """
        found = json.loads(line)  # JSON or UTF-8 that cannot be read is a ValueError
        own = {f.name: int if f.name == "line" else str for f in fields(cls)}
        if not isinstance(found, dict) or {name: type(value) for name, value in found.items()} != own:
            raise ValueError(f"expected an object of {', '.join(own)}")
        return cls(**found)


def record_hash(line: int, raw: str) -> int:
    """The hash of a quarantined record, 0 .. 2^64 - 1.

    Args:
        line: Its line number.
        raw: Its raw text.
    """
    return row_hash(enumerate((str(line).encode(), raw.encode("utf-8", "surrogatepass"))))


def topic_record_hash(partition: int, offset: int, value: bytes | None) -> int:
    """The hash of a topic's record that is not a row of its table: the row hash of partition, offset and value.

    Any reader of the topic can compute it from what it keeps of the record.

    Args:
        partition: Its partition.
        offset: Its offset there.
        value: Its value; ``None`` for a tombstone.
    """
    return row_hash(enumerate((b"%d" % partition, b"%d" % offset, value)))


def measure(records: Iterable[Quarantined]) -> Measure:
    """Count and sum quarantined records."""
    hashes = [record.hash for record in records]
    return Measure(len(hashes), sum(hashes) % MODULUS)


@dataclass(frozen=True)
class Held:
    """What a quarantine file was found to hold.

    Attributes:
        measure: The records that can be read.
        problems: Lines that cannot be read, a sentence each; the first few.
    """

    measure: Measure
    problems: tuple[str, ...] = ()


def read_file(path: Path) -> Held:
    """Read a quarantine file back, with memory that does not grow with it.

    Args:
        path: The file; a missing one is a problem, for every build leaves one.
    """
    found, problems, damaged = Measure(), [], 0
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    found += Measure(1, Quarantined.from_line(line).hash)
                except (ValueError, RecursionError) as error:
                    damaged += 1
                    if damaged <= SHOWN:
                        problems.append(f"{path}, line {number}: expected a quarantined record, got {_said(error)}")
    except FileNotFoundError:
        problems.append(f"{path}: expected a quarantine file, got none")
    if damaged > SHOWN:
        problems.append(f"{path}: {damaged - SHOWN:,} more damaged lines")
    return Held(found, tuple(problems))


def _said(error: Exception) -> str:
    return f"a line that cannot be read ({str(error)[:200]})"
