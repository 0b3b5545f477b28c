"""A data set as a picture: its tables, keys and references in Mermaid, which GitHub and many editors draw.

The syntax is that of https://mermaid.js.org/syntax/entityRelationshipDiagram.html.
"""

from __future__ import annotations

import json
import re

from ecom_assets.dataset.model import Dataset, Table


def mermaid(dataset: Dataset) -> str:
    """The diagram, as the text of a ``mermaid`` block."""
    lines = ["erDiagram"]
    for table in dataset.tables.values():
        lines.append(f"    {_quoted(table.name)} {{")
        lines += [
            f"        {_word(column.kind.name)} {column.name}{_marks(table, column.name)}" for column in table.columns
        ]
        lines.append("    }")
    for table in dataset.tables.values():
        lines += [
            f"    {_quoted(table.name)} }}o--|| {_quoted(reference.table)} : {_quoted(', '.join(reference.columns))}"
            for reference in table.references
        ]
    return "\n".join(lines)


def _marks(table: Table, column: str) -> str:
    marks = ["PK"] * (column in table.primary_key) + ["FK"] * any(column in r.columns for r in table.references)
    return f" {', '.join(marks)}" if marks else ""


def _word(kind: str) -> str:
    """A type as Mermaid takes one: ``decimal(7,2)`` is ``decimal_7_2``."""
    return re.sub("[(),]+", "_", kind).strip("_")


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)
