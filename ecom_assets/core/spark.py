"""Spark sessions: how the project talks to a Spark Connect server.

What belongs here: connecting to a server, detecting that it is away, and releasing sessions. What does not: what the
sessions are used for.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

import grpc
from pyspark.errors import PySparkException

from ecom_assets.core.home import hint

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

if "SPARK_CONNECT_LOG_LEVEL" not in os.environ:
    # PySpark's client logs nothing by default, for which it sets ``disabled``. Whoever configures logging by
    # ``dictConfig``, as Dagster does, resets that, and each session that ends would print a warning.
    logging.getLogger("pyspark.sql.connect.logging").setLevel(logging.CRITICAL + 1)

TIMEOUT = 10.0
"""Seconds within which a server must respond to a new session."""

_client_loading = Lock()
"""Packages of PySpark import one another in a circle: of two threads that begin at once, one would find half of one."""

SESSION = {
    # First, since it takes effect only before the session's first query. Each streaming query would have a class
    # loader of its own for artifacts that we never add, and Spark caches the code that it compiles by class loader
    # (SPARK-44795): it would compile Delta's own queries again for every table, 2 s each.
    "spark.sql.artifact.isolation.enabled": "false",
    "spark.sql.artifact.isolation.alwaysApplyClassloader": "false",
    "spark.sql.session.timeZone": "UTC",
    # Not INT96, in which other readers find the year 2262 for 9999; and days before 1582 as they are.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    # Parquet's statistics let readers skip row groups. Keys and times are stored here in any order, so nothing could
    # ever be skipped, and computing them is a fifth of the work of writing.
    "parquet.column.statistics.enabled": "false",
    "parquet.size.statistics.enabled": "false",
    # It looks up each text in a dictionary until that is full, for a megabyte by default. Keys and payloads fill
    # a small one at once, and what repeats (names of events, countries) fits into it.
    "parquet.dictionary.page.size": str(32 << 10),
}
"""Settings of every session."""


class SparkConnectionError(ConnectionError):
    """No Spark Connect server responds at an address."""


def connect(address: str, timeout: float = TIMEOUT) -> SparkSession:
    """Open a session of its own; the caller stops it.

    Never the process-wide session of ``getOrCreate``: after a restart of the server that one
    stays broken for the life of the process.

    Args:
        address: ``sc://host:port``, with Spark's own parameters if it needs a token or TLS.
        timeout: Seconds to wait for a response.

    Returns:
        The session, in UTC.

    Raises:
        SparkConnectionError: No server responds there in time, or the address is not one.
    """
    with _client_loading:  # half a second, which a run that needs no Spark can do without
        from pyspark.sql import SparkSession
        from pyspark.sql.connect.client import DefaultChannelBuilder

    try:
        channel = DefaultChannelBuilder(address).toChannel()
    except PySparkException as error:
        raise SparkConnectionError(
            f"Spark: expected an address like sc://127.0.0.1:15002, got {address!r} ({error}); correct ECOM_SPARK"
        ) from error
    # The client alone would try for ten minutes before it raises anything.
    try:
        grpc.channel_ready_future(channel).result(timeout=timeout)
    except grpc.FutureTimeoutError:
        raise SparkConnectionError(
            f"Spark: no Spark Connect server has responded at {address} within {timeout:g} s;"
            f" `{hint('status')}` shows which servers run, `{hint('up')}` starts them"
        ) from None
    finally:
        channel.close()
    session = SparkSession.builder.remote(address).create()
    _bridge_pauses(session)
    for key, value in SESSION.items():
        session.conf.set(key, value)
    return session


AWAY = (
    "UNAVAILABLE",
    "failed to connect",
    "Connection refused",
    "Socket closed",
    "INVALID_HANDLE.SESSION",
    "INVALID_HANDLE.OPERATION",
    "Channel closed",
    "closed channel",
)
"""How Spark and gRPC report that the server, or the session that it had, is gone."""


def is_away(error: BaseException) -> bool:
    """Whether an error of Spark's client means that the server or the session is gone, not that a query failed."""
    return any(sign in str(error) for sign in AWAY)


@contextmanager
def reachable(what: str) -> Generator[None]:
    """Turn the loss of the server into an error that passes by itself, so that the step is retried.

    Args:
        what: What is done, such as ``the merge of book``.

    Raises:
        SparkConnectionError: The server went away, or came back without the session.
    """
    try:
        yield
    except (PySparkException, grpc.RpcError, ValueError) as error:  # ValueError: a closed channel
        if not is_away(error):
            raise
        raise SparkConnectionError(
            f"Spark went away during {what} ({str(error).splitlines()[0][:200]});"
            f" `{hint('status')}` shows whether it runs, `{hint('up')}` starts it"
        ) from error


@contextmanager
def spark_session(address: str, timeout: float = TIMEOUT) -> Generator[SparkSession]:
    """A session that is released however the block ends; see ``connect``."""
    session = connect(address, timeout)
    try:
        yield session
    finally:
        session.stop()


def answers(session: SparkSession) -> bool:
    """Whether the server still knows a session: not after its restart, nor after the session's end."""
    session.client.set_retry_policies([])
    try:
        session.conf.get("spark.sql.session.timeZone")
    except (PySparkException, grpc.RpcError, ValueError):  # ValueError: a closed channel
        return False
    finally:
        _bridge_pauses(session)
    return True


def _bridge_pauses(session: SparkSession) -> None:
    """Notice a server that dies under a query in half a minute, and bridge a short pause of the network."""
    from pyspark.sql.connect.client.retries import DefaultPolicy

    session.client.set_retry_policies([DefaultPolicy(max_retries=9, max_backoff=5000)])


def last_words(error: PySparkException) -> str:
    """Spark's error message; of a Python worker's traceback only the last line."""
    text = str(error).split("\n\nJVM stacktrace")[0].strip()
    if "Traceback (most recent call last)" in text:
        errors = [line for line in text.splitlines() if line.partition(":")[0].endswith("Error")]
        text = errors[-1] if errors else text
    return text[:1500]
