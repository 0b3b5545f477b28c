"""The query service: typed questions, each answered from Redis or computed, with origin and latency.

What pages, programs and the benchmark call. All answers of one ``Snapshot`` are of one publication.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from ecom_assets.core import values
from ecom_assets.core.addresses import Addresses
from ecom_assets.core.books import Books
from ecom_assets.core.errors import EcomError, ServiceError
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.loader import named
from ecom_assets.dataset.model import Dataset, Index, Table
from ecom_assets.hbase import loads
from ecom_assets.servers.stack import Stack
from ecom_assets.serving import lookup, publication
from ecom_assets.serving.cache import Cache
from ecom_assets.serving.engines import DuckDBEngine, SparkEngine, size, spark_unavailable
from ecom_assets.serving.publication import Publication

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_TEXT = re.compile(r"[^\x00-\x1f]{1,1000}")
_WITHOUT_SPARK = 30.0
"""Seconds for which a Spark that did not respond is not tried again."""

SMALL_BYTES = 128 << 20
"""Tables that are smaller together are read by DuckDB even where Spark runs. On two cores it answers in 0.1 to 0.6 s
over 100 MB, for which Spark, warm, needs 0.5 to 2.3 s, most of them to plan and compile the query."""

ON_DISK = 32
"""So many times that where the lake is a folder of this machine, which DuckDB's own reader reads. Nine questions over
13.8 million rows, 1.3 GB, take 3.3 s together on two cores; a warm Spark needs 14.8 s for them."""

WARMERS = 2
"""Questions computed concurrently when all results are precomputed."""


class BadQuestionError(EcomError):
    """The question is not valid; the message names what was expected."""


@dataclass(frozen=True)
class Answer:
    """An answer, and what is to be known of it.

    Attributes:
        table: The rows.
        source: "Redis", "Spark", "DuckDB" or "HBase": where it came from just now.
        computed_by: What has computed it, now or then.
        age: Seconds since it was computed.
        milliseconds: What this call took.
        version: Of the tables it was computed from.
        hit_ratio: Share of all questions so far that Redis has answered; ``None`` if unknown.
    """

    table: pa.Table
    source: str
    computed_by: str
    age: float
    milliseconds: float
    version: str
    hit_ratio: float | None


class Queries:
    """The service of one home; safe to be shared by threads.

    Args:
        settings: The home.
        dataset: Its tables and queries; without it, those that the settings name.
        session: Gives a Spark session that somebody else releases; without it, the service has its own.
        books: The home's books, opened by somebody else; without them, the service opens its own.
    """

    def __init__(
        self,
        settings: Settings,
        dataset: Dataset | None = None,
        session: Callable[[], SparkSession] | None = None,
        books: Books | None = None,
    ) -> None:
        self.settings = settings
        self.dataset = dataset or named(settings.dataset)
        self._given = books
        self.spark = SparkEngine(settings, self.dataset, session)
        self.duckdb = DuckDBEngine(settings, self.dataset)
        self._no_spark_until = 0.0
        self._cache: tuple[str, Cache] | None = None

    def snapshot(self, as_of: int | None = None) -> Snapshot:
        """What is published now, to be asked several questions.

        Args:
            as_of: Sequence number of a delivery: rows are looked up in HBase as it left them.

        Raises:
            NotPublishedError: Nothing is published yet.
        """
        return Snapshot(self, publication.latest(self.settings, self.books), as_of)

    @property
    def books(self) -> Books:
        """What was built, measured and published.

        Raises:
            HomeError: The home was written by the first edition.
        """
        return self._given or self._own_books

    @cached_property
    def _own_books(self) -> Books:
        return Books.open(self.settings)

    @property
    def cache(self) -> Cache:
        """Redis, where it is now."""
        try:
            url = Stack(self.settings).address("redis")
        except ServiceError:
            url = ""
        if self._cache is None or self._cache[0] != url:
            self._cache = url, Cache(url, self.settings.namespace)
        return self._cache[1]

    @property
    def addresses(self) -> Addresses:
        """Where the servers are now.

        Raises:
            LookupUnavailableError: HBase does not run.
        """
        stack = Stack(self.settings)
        try:
            host, _, port = stack.address("thrift").rpartition(":")
            return Addresses("", (host, int(port)), "", "")
        except ServiceError as error:
            raise lookup.LookupUnavailableError(str(error).replace("\nRemedy: ", "; ")) from error

    def compute(self, name: str, published: Publication) -> tuple[pa.Table, str]:
        """Compute an answer: over small tables by DuckDB, over others by Spark if it is there.

        Returns:
            The answer, and what has computed it.
        """
        question = self.dataset.queries[name]
        may_ask_spark = time.monotonic() >= self._no_spark_until
        most = SMALL_BYTES * (1 if self.settings.lake_uri else ON_DISK)
        if may_ask_spark and size(question, published, self.settings, self.dataset) > most:
            try:
                return self.spark.compute(question, published), self.spark.source
            except Exception as error:
                if not spark_unavailable(error):
                    raise
                self._no_spark_until = time.monotonic() + _WITHOUT_SPARK
        return self.duckdb.compute(question, published), self.duckdb.source

    def close(self) -> None:
        """Release what was opened."""
        self.spark.close()
        if self._cache:
            self._cache[1].close()
        if "_own_books" in self.__dict__:
            self._own_books.close()


class Snapshot:
    """One publication, and the questions it can be asked.

    Args:
        service: Who answers.
        published: The publication.
        as_of: Sequence number of a delivery: rows are looked up in HBase as it left them, not as published.
    """

    def __init__(self, service: Queries, published: Publication, as_of: int | None = None) -> None:
        self.service = service
        self.published = published
        self.as_of = as_of

    @cached_property
    def _cache(self) -> Cache:
        return self.service.cache

    def ends(self, *places: Table) -> dict[str, int | None]:
        """The end of the time range in which each of some tables and indexes is read.

        Raises:
            NotHeldError: HBase does not hold what ``as_of`` asks for, or not any more.
        """
        books = self.service.books
        if self.as_of is not None:
            return {place.name: loads.as_of(books, place, self.as_of) for place in places}
        return {place.name: self.published.end(place, books) for place in places}

    def row(self, table: str, key: str) -> Answer:
        """The row of a table under a row key of one column, or none.

        Raises:
            BadQuestionError: No key can be like that.
            NotHeldError: As of ``ends``.
            LookupUnavailableError: HBase cannot be read.
        """
        found, settings = self.service.dataset.tables[table], self.service.settings
        value, ends = _value(found, key), self.ends(found)

        def read(at: Addresses) -> list[lookup.Row]:
            row = lookup.row(found, value, settings, at, ends)
            return [row] if row else []

        return self._from_hbase(table, f"{value} {ends}", found, read)

    def under(self, table: str, value: str) -> Answer:
        """The rows of a table whose row key begins with a value, in the order of the row key.

        Raises:
            BadQuestionError: No key can be like that.
            NotHeldError: As of ``ends``.
            LookupUnavailableError: HBase cannot be read.
        """
        found, settings = self.service.dataset.tables[table], self.service.settings
        value, ends = _value(found, value), self.ends(found)

        def read(at: Addresses) -> list[lookup.Row]:
            return lookup.under(found, value, settings, at, ends=ends)

        return self._from_hbase(f"{table} under", f"{value} {ends}", found, read)

    def through(self, index: str, value: str) -> Answer:
        """The rows of a table that an index finds under a value, the last of the index first.

        Raises:
            BadQuestionError: No key can be like that.
            NotHeldError: As of ``ends``.
            LookupUnavailableError: HBase cannot be read.
        """
        found, settings = self.service.dataset.indexes[index], self.service.settings
        value, ends = _value(found, value), self.ends(found, found.of)

        def read(at: Addresses) -> list[lookup.Row]:
            return lookup.through(found, value, settings, at, ends)

        return self._from_hbase(index, f"{value} {ends}", found.of, read)

    def find(self, place: Table, value: str) -> Answer:
        """The rows of a table, or those that an index finds, under a value of the first column of its row key.

        Raises:
            BadQuestionError: No key can be like that.
            NotHeldError: As of ``ends``.
            LookupUnavailableError: HBase cannot be read.
        """
        if isinstance(place, Index):
            return self.through(place.name, value)
        return (self.row if len(place.hbase.row_key) == 1 else self.under)(place.name, value)

    def ask(self, name: str) -> Answer:
        """One of the questions, by its name."""
        return self._aggregate(name)

    def warm(self) -> dict[str, Answer]:
        """Compute every question ahead, so that pages find the results in the cache."""
        # On small tables an engine plans longer than it reads, and plans for several at once.
        with ThreadPoolExecutor(WARMERS) as pool:
            names = self.service.dataset.queries
            return dict(zip(names, pool.map(self._aggregate, names), strict=True))

    def _aggregate(self, name: str) -> Answer:
        question = self.service.dataset.queries[name]
        version = self.published.key(question.tables)

        def compute() -> tuple[pa.Table, str, bool]:
            return *self.service.compute(name, self.published), True

        return self._ask(name, question.digest, version, compute)

    def _from_hbase(self, name: str, key: str, table: Table, read: Callable[[Addresses], list[lookup.Row]]) -> Answer:
        """Rows from HBase, kept only if it held what is published all the time: a load of all rows has no past."""

        def held(version: Publication) -> tuple[str, str]:
            return version.state[table.name], version.merged[table.name]

        def settled() -> bool:
            return held(publication.current(self.service.settings, self.service.dataset, self.service.books)) == held(
                self.published
            )

        def compute() -> tuple[pa.Table, str, bool]:
            before = settled()
            rows = read(self.service.addresses)
            schema = pa.schema([(c, pa.string()) for c in table.names])
            return pa.Table.from_pylist(rows, schema=schema), "HBase", before and settled()

        return self._ask(name, _digest(key), self.published.state[table.name], compute)

    def _ask(
        self,
        name: str,
        asked: str,
        version: str,
        compute: Callable[[], tuple[pa.Table, str, bool]],
    ) -> Answer:
        began = time.perf_counter()
        found = self._cache.answer(f"{name}:{asked}:{version}", compute)
        milliseconds = (time.perf_counter() - began) * 1000
        age = max(0.0, time.time() - found.computed_at)
        return Answer(found.table, found.source, found.computed_by, age, milliseconds, version, self._cache.ratio())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _value(table: Table, text: str) -> str:
    """A value of the first column of a row key, as people type it."""
    name = table.hbase.row_key[0]
    column = next(c for c in table.columns if c.name == name)
    text = str(text).strip()
    expected = "a text"
    if column.kind.is_integer:
        expected = "a whole number"
    elif not column.kind.is_plain:
        expected = f"a value of the type {column.kind.name}"
    found = values.parse(pa.array([text]), column.kind) if _TEXT.fullmatch(text) else None
    if found is None or found.null_count:
        raise BadQuestionError(f"expected {expected} as {name}, got {text[:60]!r}")
    return values.texts(found)[0].as_py().decode()
