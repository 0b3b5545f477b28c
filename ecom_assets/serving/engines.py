"""Computing answers over the merged tables: Spark, and DuckDB where Spark is not there.

What belongs here: giving an engine the tables at the versions of one publication, and running a question. What
does not: the questions (``questions``) and whether an answer is already known (``cache``).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import grpc
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyspark.errors import PySparkException

from ecom_assets.core.errors import LakeError, ServiceError
from ecom_assets.core.home import hint
from ecom_assets.core.location import Location
from ecom_assets.core.settings import Settings
from ecom_assets.core.spark import SparkConnectionError, answers, connect
from ecom_assets.dataset.model import Dataset, Table
from ecom_assets.dataset.query import Query
from ecom_assets.lake import delta, merge
from ecom_assets.lake.delta import Version
from ecom_assets.servers.stack import Stack
from ecom_assets.serving import tables
from ecom_assets.serving.publication import NotPublishedError, Publication

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


class SparkEngine:
    """One session with the home's Spark server, opened at first use, and again when it broke.

    Args:
        settings: The home.
        dataset: Its tables.
        session: Provides a session that its owner releases; without it the engine opens its own.
    """

    source = "Spark"

    def __init__(self, settings: Settings, dataset: Dataset, session: Callable[[], SparkSession] | None = None) -> None:
        self.settings = settings
        self.dataset = dataset
        self._given = session
        self._own: SparkSession | None = None
        self._lock = threading.Lock()

    def compute(self, question: Query, published: Publication) -> pa.Table:
        """Answer a question.

        Raises:
            SparkConnectionError: No Spark server responds.
            NotPublishedError: A table of the publication is gone.
            PySparkException: Spark could not compute it.
        """
        folders = {name: _published(self.dataset.tables[name], published, self.settings) for name in question.tables}
        session = self._session()
        tables = {
            name: session.read.format("delta").option("versionAsOf", found.version()).load(str(folder))
            for name, (folder, found) in folders.items()
        }
        try:
            return _settled(ask_spark(session, question, tables))
        except grpc.RpcError as error:
            raise SparkConnectionError(
                f"Spark: the server went away ({type(error).__name__}); `{hint('up', self.settings)}` starts it"
            ) from error

    def _session(self) -> SparkSession:
        with self._lock:  # the owner of a given one opens it at its first use, too
            if self._given:
                return self._given()
            if self._own is None or not answers(self._own):
                self._own = connect(Stack(self.settings).address("spark"), timeout=3)
            return self._own

    def close(self) -> None:
        """Release the engine's own session."""
        with self._lock:
            session, self._own = self._own, None
        if session is not None:
            session.stop()


def ask_spark(session: SparkSession, question: Query, tables: Mapping[str, DataFrame]) -> pa.Table:
    """Run a question over Spark data frames.

    The frames are handed over with the query: no view of their names need exist, so that queries of several threads
    cannot meet.
    """
    frames = dict(tables)
    for view in question.views:
        frames[view.name] = _sql(session, view.sql["spark"], {name: tables[name] for name in view.tables})
    return _sql(session, question.sql, frames).toArrow()


def _sql(session: SparkSession, text: str, frames: Mapping[str, DataFrame]) -> DataFrame:
    """Replace the tables of each FROM and JOIN by frames that are passed by name."""
    passed = {name: f"frame{n}" for n, name in enumerate(frames)}
    for name, parameter in passed.items():
        text = _named(text, name, parameter)
    return session.sql(text, None, **{passed[name]: frame for name, frame in frames.items()})


def _named(text: str, table: str, parameter: str) -> str:
    """Replace the table of each FROM and JOIN, quoted or not, by a parameter."""
    name = rf'(?:"{re.escape(table)}"|{re.escape(table)}\b)'
    return re.sub(rf"\b(FROM|JOIN) {name}", rf"\1 {{{parameter}}} AS `{table}`", text)


class DuckDBEngine:
    """Reads the same files in this process: always there, and on one machine the faster of the two."""

    source = "DuckDB"

    def __init__(self, settings: Settings, dataset: Dataset) -> None:
        self.settings = settings
        self.dataset = dataset

    def compute(self, question: Query, published: Publication) -> pa.Table:
        """Answer a question.

        Raises:
            NotPublishedError: A table of the publication is gone.
        """
        held = {name: _published(self.dataset.tables[name], published, self.settings) for name in question.tables}
        with tables.connect(self.settings) as connection:
            for name, (folder, found) in held.items():
                try:
                    tables.give_table(connection, name, folder, found)
                except DeltaError as error:
                    raise _gone(name, published) from error
            for view in question.views:
                tables.give_view(connection, view, self.settings, held)
            return _settled(connection.sql(question.sql).to_arrow_table())

    def close(self) -> None:
        """Nothing is kept open."""


def _published(table: Table, published: Publication, settings: Settings) -> tuple[Location, DeltaTable]:
    """A table and its folder, which must be the very table that was published."""
    name = table.name
    label = published.merged[name]
    if not label:
        raise NotPublishedError(
            f"there is no merged table {name} to answer from (the bulk path builds none);"
            f" `{hint('run', settings)}` on the stream path builds it"
        )
    folder = merge.folder(table, settings)
    try:
        return folder, delta.at_version(folder, Version.parse(label))
    except LakeError as error:
        raise _gone(name, published) from error


def _gone(name: str, published: Publication) -> NotPublishedError:
    return NotPublishedError(
        f"the merged table {name}, published at {published.at}, is not there any more;"
        f" `{hint('run')}` builds it again and publishes it"
    )


def _settled(table: pa.Table) -> pa.Table:
    """The answer in types and in an order that do not depend on the engine, nor on the day."""
    plain = {pa.int32(): pa.int64(), pa.large_string(): pa.string()}
    fields = [pa.field(f.name, plain.get(f.type, f.type)) for f in table.schema]
    return table.cast(pa.schema(fields)).sort_by([(f.name, "ascending") for f in fields]).combine_chunks()


def size(question: Query, published: Publication, settings: Settings, dataset: Dataset) -> int:
    """Bytes of the tables that a question reads.

    Raises:
        NotPublishedError: A table of the publication is gone.
    """
    tables = (_published(dataset.tables[name], published, settings) for name in question.tables)
    return sum(delta.size(found) for _, found in tables)


def spark_unavailable(error: Exception) -> bool:
    """Whether an error means that there is no Spark, and not that the question is wrong."""
    return isinstance(error, SparkConnectionError | ServiceError | grpc.RpcError | ConnectionError) or (
        isinstance(error, PySparkException) and "UNAVAILABLE" in str(error)
    )
