"""Manifests: what a layer was measured to hold, and where a home remembers it.

What belongs here: the value types ``Measure`` and ``Quarantined``, and small JSON files
written atomically. What does not: measuring (each layer does its own).
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ecom_assets.core.row_hash import MODULUS


@dataclass(frozen=True)
class Measure:
    """What one table holds in one layer.

    Attributes:
        rows: Rows.
        checksum: Sum of the row hashes modulo 2^64 (see ``canon``).
        bytes: Size as stored, in bytes; 0 where the store does not tell.
        seconds: Time it took to measure.
    """

    rows: int = 0
    checksum: int = 0
    bytes: int = 0
    seconds: float = 0.0

    @property
    def hex(self) -> str:
        """The checksum as 16 hexadecimal digits."""
        return f"{self.checksum:016x}"

    def __add__(self, other: Measure) -> Measure:
        """Add the rows of a further part."""
        return Measure(
            self.rows + other.rows,
            (self.checksum + other.checksum) % MODULUS,
            self.bytes + other.bytes,
            self.seconds + other.seconds,
        )

    def same_rows(self, other: Measure) -> bool:
        """Whether both hold the same rows, as far as count and checksum tell."""
        return (self.rows, self.checksum) == (other.rows, other.checksum)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; the checksum as hexadecimal text, since JSON numbers are doubles to many readers."""
        return asdict(self) | {"checksum": self.hex, "seconds": round(self.seconds, 3)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Measure:
        """Read what ``to_json`` wrote; further keys are ignored."""
        return cls(data["rows"], int(data["checksum"], 16), data.get("bytes", 0), data.get("seconds", 0.0))


@dataclass(frozen=True)
class Quarantined:
    r"""A row set aside, with all that is needed to find and mend it.

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


def write_text(path: Path, text: str) -> None:
    """Write a small file so that a reader, or a crash, sees the old or the new one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write a JSON object atomically."""
    write_text(path, json.dumps(data, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; ``None`` if there is no such file.

    Raises:
        ValueError: The file is not JSON; says which and what to do.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected JSON, got {error}; delete the file and run again") from error
