"""What is new in a topic, read in this process: for a few records, a query of Spark takes longer to start than to read.

What belongs here: the way from a stretch of a topic to a commit of its streamed table. What does not: how records
become files (``record_files``), and reading much (``query``).

**Exactly once.** The commit names the offsets up to which the topic was read, so what comes next begins behind them,
and a commit of somebody else in between makes this one fail. The checkpoint of a query goes before: one of Spark's that
was resumed would send the same records again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake.exceptions import CommitFailedError

from ecom_assets.core.errors import LakeError
from ecom_assets.core.location import remove
from ecom_assets.dataset.model import Table
from ecom_assets.lake import delta, query, record_files
from ecom_assets.lake.query import Place

if TYPE_CHECKING:
    from ecom_assets.core.context import Context
    from ecom_assets.core.layer import OffsetSource

FEW = 1_000_000
"""Offsets that are read here at most: 1.3 s of click-stream events on one core. A query of Spark, on a warm server,
takes about as long to start and to stop; more than that it reads on all cores."""


def fetch(at: Context, table: Table, source: OffsetSource, place: Place, advance: Callable[[int], None]) -> None:
    """Read a topic from where its streamed table stands to its end, as one commit; nobody else may stream it.

    Args:
        at: Connections and settings.
        table: The table.
        source: Its topic.
        place: Where the streamed table is; it must exist.
        advance: Called with the records read since the last call.

    Raises:
        LakeError: Records are gone before they were read, or somebody else streams the table.
        TopicError: The topic cannot be read to its end.
    """
    topic = source.stored_as(at.settings, table)
    query.create(table, place.table)
    start, offsets = query.begin(at, table, source, place)
    for partition, end in offsets.ends.items():
        if end < start.get(partition, 0):
            raise query.created_again(at.settings, table, topic, f"offset {start[partition]} of partition {partition}")
    found = delta.opened(place.table)

    def records() -> Iterator[pa.RecordBatch]:
        for batch in source.records(at, table, start, offsets.ends):
            yield batch
            advance(len(batch))

    written = record_files.write(records(), table, topic, place.table)
    remove(place.checkpoint)
    try:
        record_files.commit(found, [written] if written else [], topic, offsets.ends)
    except CommitFailedError as error:
        raise LakeError(
            f"streamed/{table.name}: expected to be the only one that streams into {place.table}, got another commit"
            f" in between ({error})",
            "run again",
            transient=True,
        ) from error
