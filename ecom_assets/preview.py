"""The first few rows of any layer, for people to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ecom_assets.core.context import Context
from ecom_assets.core.layer import Layer
from ecom_assets.dataset.model import Table

ROWS = 5
WIDTH = 60
"""Characters of a value that are shown."""


def preview(at: Context, layer: Layer, table: Table) -> str:
    """Show the first rows of a layer as a Markdown table; a sentence where there are none."""
    rows = layer.preview(at, table, ROWS)
    return markdown(table.names, rows) if rows else "No rows."


def markdown(names: Sequence[str], rows: Sequence[Mapping[str, object]]) -> str:
    """Show rows as a Markdown table."""
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    """One value: null in italics, Markdown's own characters escaped, long text cut."""
    if value is None:
        return "*null*"
    text = str(value)
    text = text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
    for character in "\\|`*_<>[]":
        text = text.replace(character, "\\" + character)
    return text.replace("\r", " ").replace("\n", " ")
