"""Spark's warm-up: its first queries, run while it has nothing else to do.

A server that has just started needs ten seconds for its first query, to load its classes and compile its code. The
first layers of a home are built without Spark; meanwhile it does here on one row what it will do on all of them.
Nothing else belongs here: no layer depends on a warm-up.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

from ecom_assets.core.settings import Settings
from ecom_assets.core.spark import spark_session
from ecom_assets.dataset.model import Table
from ecom_assets.lake import query
from ecom_assets.lake.query import Place
from ecom_assets.lake.typed import typed

log = logging.getLogger("ecom_assets")

KAFKA = "key binary, value binary, topic string, partition int, offset bigint, timestamp timestamp"
"""Columns of Spark's Kafka source."""


def begin(settings: Settings, table: Table, address: str) -> None:
    """Warm up in a thread of its own; a failure is logged; the actual work will raise it."""

    def run() -> None:
        try:
            warm_up(settings, table, address)
        except Exception as error:  # noqa: BLE001  whatever it is, nothing depends on it yet
            log.debug("Spark's warm-up: %s", error)

    Thread(target=run, name="warm-up", daemon=True).start()


def warm_up(settings: Settings, table: Table, address: str) -> None:
    """Stream one record, type its row, and write both.

    Args:
        settings: The home, whose Spark server reads and writes files of this machine.
        table: Any table.
        address: Spark's.
    """
    own = settings.stack / "spark" / "tmp"
    with TemporaryDirectory(prefix="warm-up-", dir=own) as name, spark_session(address) as spark:
        folder = Path(name)
        place = Place(folder / "streamed", folder / "checkpoint")
        record = (None, None, "none", 0, 0, datetime(2020, 1, 1, tzinfo=UTC))
        spark.createDataFrame([record], KAFKA).write.format("delta").save(str(folder / "topic"))
        query.create(table, place.table)
        records = spark.readStream.format("delta").load(str(folder / "topic"))
        running = query.into_table(records, table, "none", place).trigger(availableNow=True).start()
        running.awaitTermination()
        rows = spark.read.format("delta").load(str(place.table)).where("_undecoded IS NULL")
        typed(rows, table).write.format("delta").save(str(folder / "merged"))
