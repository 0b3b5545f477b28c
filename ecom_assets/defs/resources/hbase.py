"""HBase as a Dagster resource."""

from __future__ import annotations

import dagster as dg
from pydantic import Field


class HBaseResource(dg.ConfigurableResource):
    """Where HBase is; empty addresses mean the settings' or the home's own.

    Rows are read through the Thrift server, tables are created and split through HBase's own
    Admin, which finds the cluster by its ZooKeeper.
    """

    thrift: str = Field("", description="Thrift server, host:port")
    zookeeper: str = Field("", description="ZooKeeper quorum, host:port[,host:port]")
