"""Spark's first steps, taken while it has nothing else to do.

A server that has just started needs ten seconds for its first query, to load its classes and compile its code. The
first layers of a home are made without Spark; meanwhile it does here on one row what it will do on all of them.
Nothing else belongs here: no layer depends on a rehearsal.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

from ecom_assets.core.settings import Settings
from ecom_assets.core.spark import spark_session
from ecom_assets.dataset.shop import CUSTOMER
from ecom_assets.lake import merged, streamed

log = logging.getLogger("ecom_assets")

KAFKA = "key binary, value binary, topic string, partition int, offset bigint, timestamp timestamp"
"""Columns of Spark's Kafka source."""


def begin(settings: Settings, address: str) -> None:
    """Rehearse in a thread of its own; what goes wrong there is logged, and will be told when it is done in earnest."""

    def run() -> None:
        try:
            rehearse(settings, address)
        except Exception as error:  # noqa: BLE001  whatever it is, it is no one's concern yet
            log.debug("Spark's rehearsal: %s", error)

    Thread(target=run, name="rehearsal", daemon=True).start()


def rehearse(settings: Settings, address: str) -> None:
    """Stream one record, type its row, and write both.

    Args:
        settings: The home, whose Spark server reads and writes files of this machine.
        address: That server.
    """
    own = settings.stack / "spark" / "tmp"
    with TemporaryDirectory(prefix="rehearsal-", dir=own) as made, spark_session(address) as spark:
        folder = Path(made)
        record = (None, None, "none", 0, 0, datetime(2020, 1, 1, tzinfo=UTC))
        spark.createDataFrame([record], KAFKA).write.format("delta").save(str(folder / "topic"))
        streamed.create(CUSTOMER, folder / "streamed")
        records = spark.readStream.format("delta").load(str(folder / "topic"))
        query = streamed.into_table(records, CUSTOMER, "none", folder / "streamed", folder / "checkpoint")
        query = query.trigger(availableNow=True).start()
        query.awaitTermination()
        rows = spark.read.format("delta").load(str(folder / "streamed")).where("_undecoded IS NULL")
        merged.typed(rows, CUSTOMER).write.format("delta").save(str(folder / "merged"))
