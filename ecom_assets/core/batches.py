"""Arrow batches in portions of another size.

What belongs here: what any step may do with batches, whatever they hold. Spark's Python workers import it, so it
imports little.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa


def gathered(batches: Iterable[pa.RecordBatch], rows: int, size: int) -> Iterator[list[pa.RecordBatch]]:
    """Put batches together until they have so many rows, or bytes."""
    held: list[pa.RecordBatch] = []
    held_rows = held_size = 0
    for batch in batches:
        held.append(batch)
        held_rows, held_size = held_rows + len(batch), held_size + batch.nbytes
        if held_rows >= rows or held_size >= size:
            yield held
            held, held_rows, held_size = [], 0, 0
    if held_rows:
        yield held
