"""SQL that every engine understands.

What belongs here: writing names such that no text in them is taken for SQL. What does not: any statement.
"""

from __future__ import annotations


def quoted(identifier: str) -> str:
    """A name as SQL has it."""
    return '"' + identifier.replace('"', '""') + '"'
