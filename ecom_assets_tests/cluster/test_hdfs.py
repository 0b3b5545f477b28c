"""What holds of tables and loads on one machine holds where lake and HBase are in HDFS, and workers do the work."""

from __future__ import annotations

import pytest

from ecom_assets.core.settings import Settings
from ecom_assets.servers.process import Record
from ecom_assets.servers.stack import Stack
from ecom_assets_tests.integration.test_hfile import (  # noqa: F401  they run here too, with the settings made below
    addresses,
    admin,
    named,
    test_a_task_that_fails_says_why,
    test_spark_ends_in_the_same_cells,
)
from ecom_assets_tests.integration.test_merged import (  # noqa: F401  they run here too, on the topics made below
    test_merge,
    test_typed_columns_and_batches,
)
from ecom_assets_tests.integration.test_streamed import (  # noqa: F401  and so do these
    test_a_repair_reads_the_topic_again_and_swaps,
    test_a_topic_that_was_created_again,
    test_lost_checkpoint_or_table,
    test_stopped_between_batches,
    test_stream,
    test_undecodable_records,
)


@pytest.fixture(scope="session")
def stack(cluster: Stack) -> Stack:
    """The cluster, in place of the servers of one machine."""
    return cluster


@pytest.fixture(scope="session")
def settings(cluster: Stack) -> Settings:
    """The cluster's home, with its lake in the cluster's HDFS."""
    record = Record.read(cluster.servers["namenode"].record)
    assert record
    return cluster.settings.model_copy(update={"lake_uri": f"hdfs://{record.host}:{record.ports['rpc']}/lakes"})
