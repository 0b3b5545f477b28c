"""One cluster of processes for all tests of a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ecom_assets.services.stack import Stack
from ecom_assets.settings import load


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Three brokers, HDFS on two datanodes, HBase on two region servers, Spark on two workers."""
    stack = Stack(load(home=tmp_path_factory.mktemp("cluster"), profile="cluster"))
    try:
        stack.up()
        yield stack
    finally:
        stack.down(grace=5)
