"""What a check of data quality found.

What belongs here: what all these checks have in common. What does not: what a check looks at; see ``quality`` and
``content``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SAMPLES = 5
"""Rows that a check shows."""
FEW = 10
"""Up to so many rows never count as too large a share, however small the table."""


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        ok: Whether it passes.
        figures: Numbers and names, for people.
        samples: A few of the rows that are wrong.
        warn: A failure is worth a look, but no reason to stop.
    """

    ok: bool
    figures: dict[str, Any] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    warn: bool = False

    @property
    def sentence(self) -> str:
        """The figures as people read them."""
        return ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in self.figures.items())
