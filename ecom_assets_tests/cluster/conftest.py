"""One cluster of processes for all tests of a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ecom_assets.core.settings import load
from ecom_assets.servers.stack import Stack


@pytest.fixture(scope="session")
def event_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Spark writes down which executor did what."""
    return tmp_path_factory.mktemp("events")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, event_log: Path) -> Iterator[Stack]:
    """Three brokers, HDFS on two datanodes, HBase on two region servers, Spark on two workers."""
    spark = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": f"file://{event_log}",
        "spark.eventLog.rolling.enabled": "false",
        "spark.eventLog.compress": "false",
    }
    stack = Stack(load(home=tmp_path_factory.mktemp("cluster"), profile="cluster", spark_config=spark))
    try:
        stack.up()
        yield stack
    finally:
        stack.down(grace=5)
