"""A rejected record, with all that is needed to find and fix it."""

from __future__ import annotations

from dataclasses import dataclass


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
