"""The size that a source is grown to, as people write it (``--expand``): parsed once, before anything is built."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Self

from ecom_assets.core.errors import HomeError

_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[MG])B(?:/(?P<scope>table|all))?")
_UNITS = {"M": 1_000_000, "G": 1_000_000_000}


@dataclass(frozen=True)
class Target:
    """How far data are to grow.

    Attributes:
        factor: Growth of every table, at least 1.0; counts where there is no size.
        size: Bytes aimed at; 0 for none.
        per_table: Whether the size is that of each table, and not of all together.
    """

    factor: float = 1.0
    size: float = 0.0
    per_table: bool = False

    @classmethod
    def parse(cls, spec: str) -> Self:
        """Read a target.

        Args:
            spec: ``none``; a factor such as ``2.5``; a size per table (``500MB``, or with any unit ``2GB/table``); or
                a size of all tables together (``3GB``, ``900MB/all``).

        Raises:
            HomeError: It is none of these.
        """
        if spec == "none":
            return cls()
        if match := _SIZE.fullmatch(spec):
            scope = match["scope"] or ("table" if match["unit"] == "M" else "all")
            return cls(size=float(match["number"]) * _UNITS[match["unit"]], per_table=scope == "table")
        try:
            factor = float(spec)
        except ValueError:
            factor = math.nan
        if not 1.0 <= factor < math.inf:
            raise HomeError(
                "--expand: expected none, a factor of at least 1, a size per table (500MB) or in all (3GB),"
                f" got {spec!r}"
            )
        return cls(factor)

    def factors(self, sizes: dict[str, int]) -> dict[str, float]:
        """The growth of each table.

        Args:
            sizes: Table -> bytes of its raw file.

        Returns:
            Table -> factor, at least 1.0: no table ever shrinks.
        """
        if not self.size:
            return dict.fromkeys(sizes, self.factor)
        whole = sum(sizes.values())
        return {table: max(1.0, self.size / (size if self.per_table else whole)) for table, size in sizes.items()}
