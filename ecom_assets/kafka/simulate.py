"""A feed: a table's rows put into its topic at a chosen rate, again and again.

What belongs here: rate and order. What does not: transactions (``producer``), and how a row becomes a new one
(``fresh``).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from threading import Event

import pyarrow as pa

from ecom_assets.core import row_hash
from ecom_assets.core.errors import TopicError
from ecom_assets.core.layer import Chunk, ChunkSource
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.kafka.clients import Clients, translated
from ecom_assets.kafka.fresh import Renewer
from ecom_assets.kafka.ledger import REPLAY, SIMULATED
from ecom_assets.kafka.producer import TRANSACTION_ROWS, Ingest, Load, ProduceResult, encoded, load

TICK_SECONDS = 0.2
"""Between two transactions, if a chunk is not worth more than that at its rate."""


def simulate(
    upstream: ChunkSource,
    table: Table,
    settings: Settings,
    kafka: str,
    stop: Event,
    *,
    rate: float,
    start: str = "",
    rows: int | None = None,
    fresh: bool = False,
    progress: Callable[[int], None] | None = None,
) -> ProduceResult:
    """Put a table's chunks into its topic at a chosen rate until it is stopped.

    Chunks that are not in yet come first and count as any other. When all are in, they come round again and again: as
    they are, and the merged table collapses them as duplicates, or as new rows (``fresh``). The ledger marks either, so
    the reconciliation knows how many rows the topic has that the chunks have not.

    Args:
        upstream: Where the chunks come from.
        table: The table.
        settings: As for ``produce``.
        kafka: Bootstrap servers.
        stop: Ends the simulation behind the transaction that is under way.
        rate: Rows a second.
        start: Chunk to begin with; empty for the first.
        rows: Stop after about so many rows.
        fresh: Give the rows new keys and times once all chunks are in.
        progress: Called with the rows committed since the last call.

    Returns:
        What was done.

    Raises:
        NotBuiltError, CsvError, OwnedError, TopicError: As ``produce``; also if there is no chunk of that name, or no
            key that can be new.
    """
    began = time.perf_counter()
    chunks = upstream.chunks(settings, table)
    order = _from(start, chunks, table)
    renewer = Renewer(table) if fresh else None
    access = Clients.of(settings, kafka)
    sent = count = size = 0
    with translated(access, f"produce {table.topic(settings.namespace)}", settings.home):
        ingest = Ingest(access, chunks, table, settings)
        missing, again = [c for c in order if c.name not in ingest.done], itertools.cycle(order)
        due = time.monotonic()
        while not stop.is_set() and (rows is None or sent < rows):
            replay = not missing
            group: list[Chunk] = []
            # A transaction holds chunks of one kind: new ones, or such as are in already.
            while sum(c.rows for c in group) < min(rate * TICK_SECONDS, TRANSACTION_ROWS) and (replay or missing):
                group.append(next(again) if replay else missing.pop(0))
            data = upstream.read(settings, table, group)
            if replay and renewer:
                each, mark = _made(renewer.renewed(upstream.rows(table, group, data)), table, group), SIMULATED
            else:
                each, mark = load(upstream, table, group, data), REPLAY if replay else ""
            done = ingest.worker.put(each, mark)
            sent, count, size = sent + done, count + len(group), size + each.size
            if progress:
                progress(done)
            # From the time that was due, not from now, so that a slow commit is made up for.
            due = max(due + done / rate, time.monotonic() - 1)
            stop.wait(max(0.0, due - time.monotonic()))
    return ProduceResult(sent, count, 0, size, time.perf_counter() - began)


def _made(rows: pa.RecordBatch, table: Table, group: list[Chunk]) -> Load:
    """New rows as one chunk, with the name of the first of those that they were derived from."""
    each = encoded(rows, table, [])
    checksum = row_hash.total(row_hash.batch_hashes(rows, table.ids))
    return replace(each, chunks=[Chunk(group[0].name, rows.num_rows, each.size, checksum)])


def _from(start: str, chunks: list[Chunk], table: Table) -> list[Chunk]:
    """All chunks, beginning with one of them."""
    names = [c.name for c in chunks]
    if not names or (start and start not in names):
        raise TopicError(
            f"topic/{table.name}: expected a chunk {start or '(any)'}, got {len(names)} chunks from"
            f" {names[0] if names else 'none'} to {names[-1] if names else 'none'}",
            "choose one of these, or leave --from out",
        )
    at = names.index(start) if start else 0
    return chunks[at:] + chunks[:at]
