"""Spark Connect as a Dagster resource."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dagster import InitResourceContext
from dagster_pyspark import LazyPySparkResource
from pydantic import Field, PrivateAttr

from ecom_assets.core.settings import load
from ecom_assets.core.spark import answers, connect
from ecom_assets.servers.stack import Stack

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class SparkConnectResource(LazyPySparkResource):
    """dagster-pyspark's lazy resource on a Spark Connect server: connected at first use, renewed when broken."""

    address: str = Field("", description="sc://host:port; empty: the server of this home's stack")
    spark_config: dict[str, Any] = Field(default_factory=dict, description="Further settings of the session")

    _locate: Callable[[], str] | None = PrivateAttr(default=None)

    def session_of(self, locate: Callable[[], str]) -> SparkSession:
        """The session of a home.

        Args:
            locate: Finds the home's own server, which is used where no address is set.

        Raises:
            SparkConnectionError: No server answers.
        """
        self._locate = locate
        return self.spark_session

    def _init_session(self) -> None:
        if self._spark_session is not None and answers(self._spark_session):
            return
        self._release()
        locate = self._locate or (lambda: Stack(load()).addresses().spark)
        session = connect(self.address or locate())
        self._spark_session = session
        for key, value in self.spark_config.items():
            session.conf.set(key, value)

    def _release(self) -> None:
        session, self._spark_session = self._spark_session, None
        if session is not None:
            session.stop()

    def teardown_after_execution(self, context: InitResourceContext) -> None:  # noqa: ARG002
        """Release the session on the server, which would keep it for an hour."""
        self._release()
