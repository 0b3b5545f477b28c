"""Chunked layers of hand-made rows: what tests of topics start from."""

from __future__ import annotations

import json

import pyarrow as pa

from ecom_assets.core import row_hash
from ecom_assets.core.layer import Chunk
from ecom_assets.core.location import local
from ecom_assets.core.settings import Settings
from ecom_assets.csv import chunk, records
from ecom_assets.dataset.model import Table
from ecom_assets_tests.tables import CLICK_STREAM


def clicks(rows: int, start: int = 0) -> pa.RecordBatch:
    """Events of a few sessions, numbered."""
    return pa.RecordBatch.from_pylist(
        [
            {
                "session_id": f"session-{n // 7 % 50}",
                "event_name": "CLICK",
                "event_time": f"2020-01-01T00:00:00.{n:06d}Z",
                "event_id": f"event-{n:09d}",
                "traffic_source": "MOBILE",
                "event_metadata": None if n % 3 else "{'product_id': 1,\n'quantity': \"ü\"}",
            }
            for n in range(start, start + rows)
        ],
        schema=CLICK_STREAM.arrow,
    )


def write_chunks(batches: list[pa.RecordBatch], table: Table, settings: Settings) -> list[Chunk]:
    """A chunked layer of the given rows, one chunk per batch."""
    folder = local(chunk.folder(table, settings))
    folder.mkdir(parents=True, exist_ok=True)
    chunks = []
    for number, batch in enumerate(batches):
        data = records.header_line(table) + records.to_csv(batch, table)
        name = f"part-{number:06d}.csv"
        (folder / name).write_bytes(data)
        checksum = row_hash.total(row_hash.batch_hashes(batch, table.ids))
        chunks.append(Chunk(name, batch.num_rows, len(data), checksum))
    (folder / chunk.MANIFEST).write_text(
        "".join(
            json.dumps({"chunk": c.name, "rows": c.rows, "bytes": c.bytes, "checksum": f"{c.checksum:016x}"}) + "\n"
            for c in chunks
        )
    )
    return chunks


def click_chunks(settings: Settings, count: int = 10, rows: int = 20) -> list[Chunk]:
    """A chunked layer of numbered events."""
    return write_chunks([clicks(rows, n * rows) for n in range(count)], CLICK_STREAM, settings)


def total(chunks: list[Chunk]) -> tuple[int, int]:
    """Rows and checksum of all chunks."""
    return sum(c.rows for c in chunks), sum(c.checksum for c in chunks) % row_hash.MODULUS
