"""The first few rows of any layer, for people to look at."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ecom_assets.csv import chunk, expand, records
from ecom_assets.dataset.model import Table
from ecom_assets.hbase import table as hbase
from ecom_assets.kafka import topic
from ecom_assets.lake import merged, streamed

if TYPE_CHECKING:
    from ecom_assets.flow import Flow

ROWS = 5
WIDTH = 60
"""Characters of a value that are shown."""


def preview(flow: Flow, layer: str, table: Table) -> str:
    """Show the first rows of a layer as a Markdown table; a sentence where there are none."""
    rows = _rows(flow, layer, table)[:ROWS]
    if not rows:
        return "No rows."
    return markdown(table.names, rows)


def markdown(names: Sequence[str], rows: Sequence[Mapping[str, object]]) -> str:
    """Show rows as a Markdown table."""
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def _rows(flow: Flow, layer: str, table: Table) -> Sequence[Mapping[str, object]]:
    settings = flow.settings
    match layer:
        case "raw":
            return _head([expand.raw_file(table, settings)], table)
        case "expanded":
            return _head(expand.files(table, settings)[:1], table)
        case "chunked":
            return _head(chunk.files(table, settings)[:1], table)
        case "topic":
            return topic.head(table, settings, flow.addresses.kafka, ROWS)
        case "hbase":
            return hbase.prefix(table, "", settings, flow.addresses, ROWS)
    folder = streamed.folder(table, settings) if layer == "streamed" else merged.folder(table, settings)
    batches = streamed.read_batches(folder, table.names)
    return [row for batch in itertools.islice(batches, 1) for row in batch.slice(0, ROWS).to_pylist()]


def _head(paths: list, table: Table) -> list[dict[str, object]]:
    for path in paths:
        for parsed in records.parse(path, table, block_bytes=32 << 10):
            return parsed.batch.slice(0, ROWS).to_pylist()
    return []


def _cell(value: object) -> str:
    """One value: null in italics, Markdown's own characters escaped, long text cut."""
    if value is None:
        return "*null*"
    text = str(value)
    text = text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
    for character in "\\|`*_<>[]":
        text = text.replace(character, "\\" + character)
    return text.replace("\r", " ").replace("\n", " ")
