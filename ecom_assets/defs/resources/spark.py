"""Spark Connect as a Dagster resource."""

from __future__ import annotations

from typing import Any

import dagster as dg
from dagster_pyspark import LazyPySparkResource
from pydantic import Field

from ecom_assets.core.settings import load
from ecom_assets.core.spark import answers, connect
from ecom_assets.servers.stack import Stack


class SparkConnectResource(LazyPySparkResource):
    """dagster-pyspark's lazy resource on a Spark Connect server: connected at first use, renewed when broken."""

    address: str = Field("", description="sc://host:port; empty: the server of this home's stack")
    spark_config: dict[str, Any] = Field(default_factory=dict, description="Further settings of the session")

    def _init_session(self) -> None:
        if self._spark_session is not None and answers(self._spark_session):
            return
        self._release()
        session = connect(self.address or Stack(load()).addresses().spark)
        self._spark_session = session
        for key, value in self.spark_config.items():
            session.conf.set(key, value)

    def _release(self) -> None:
        session, self._spark_session = self._spark_session, None
        if session is not None:
            session.stop()

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """Release the session on the server, which would keep it for an hour."""
        self._release()
