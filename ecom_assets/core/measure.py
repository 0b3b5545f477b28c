"""What a layer of a table holds, in rows and checksum. Measuring is each layer's own."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from ecom_assets.core.row_hash import MODULUS


@dataclass(frozen=True)
class Measure:
    """What one table holds in one layer.

    Attributes:
        rows: Rows.
        checksum: Sum of the row hashes modulo 2^64 (see ``row_hash``).
        bytes: Size as stored, in bytes; 0 where the store does not report it.
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

    @property
    def before(self) -> Measure:
        """The same as what is known already: reading it takes no time now."""
        return replace(self, seconds=0.0)

    def __add__(self, other: Measure) -> Measure:
        """Add the rows of a further part."""
        return Measure(
            self.rows + other.rows,
            (self.checksum + other.checksum) % MODULUS,
            self.bytes + other.bytes,
            self.seconds + other.seconds,
        )

    def __sub__(self, other: Measure) -> Measure:
        """Take away the rows of a part; bytes and seconds stay."""
        return Measure(self.rows - other.rows, (self.checksum - other.checksum) % MODULUS, self.bytes, self.seconds)

    def same_rows(self, other: Measure) -> bool:
        """Whether both hold the same rows, by count and checksum."""
        return (self.rows, self.checksum) == (other.rows, other.checksum)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; the checksum as hexadecimal text, since JSON numbers are doubles to many readers."""
        return asdict(self) | {"checksum": self.hex, "seconds": round(self.seconds, 3)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Measure:
        """Read what ``to_json`` wrote; further keys are ignored."""
        return cls(data["rows"], int(data["checksum"], 16), data.get("bytes", 0), data.get("seconds", 0.0))
