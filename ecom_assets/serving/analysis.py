"""The second way to the same answers: Spark over PostgreSQL's tables, results in Redis.

What belongs here: reading PostgreSQL in parallel parts, asking the same questions as the pages do, and keeping the
results in the lake and in Redis. The reconciliation page shows that both paths give the same numbers.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import CommitProperties, write_deltalake
from psycopg.conninfo import conninfo_to_dict
from pyspark.sql import functions as sf

from ecom_assets.core.location import Location, exists
from ecom_assets.core.ownership import Owner
from ecom_assets.core.settings import Settings
from ecom_assets.core.sql import quoted
from ecom_assets.dataset.kind import is_nested
from ecom_assets.dataset.model import Dataset, Table
from ecom_assets.lake.delta import latest
from ecom_assets.serving import postgres
from ecom_assets.serving.cache import Cache
from ecom_assets.serving.engines import ask_spark
from ecom_assets.serving.postgres import PostgresError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TTL = 24 * 3600
"""Seconds a result stays in Redis."""

PARTS = 2 * (os.cpu_count() or 2)
"""Parts that a table is read in; as many are read at a time as Spark has cores."""

ROWS_A_FETCH = 10_000

SOURCE = "PostgreSQL and Spark"


@dataclass(frozen=True)
class Result:
    """A result of the analysis.

    Attributes:
        table: Its rows.
        version: Of the tables in PostgreSQL that it was computed from, and of the question.
    """

    table: pa.Table
    version: str


def folder(name: str, settings: Settings) -> Location:
    """Where a result is stored as a Delta table."""
    return settings.lake / "analysis" / name


def analyse(spark: SparkSession, settings: Settings, dataset: Dataset, url: str, name: str) -> tuple[Result, bool]:
    """Compute one result, if the tables have changed, and keep it in the lake.

    Args:
        spark: A session.
        settings: The home.
        dataset: Its tables and queries.
        url: PostgreSQL.
        name: One of the queries.

    Returns:
        The result, and whether there was nothing to do.

    Raises:
        PostgresError: PostgreSQL holds no tables, does not respond, or was reloaded meanwhile.
    """
    tables = postgres.version(url, settings)
    if not tables:
        raise PostgresError(
            f"PostgreSQL holds no tables of {settings.namespace} yet; materialize postgres first (job analysis)"
        )
    question = dataset.queries[name]
    version = f"{tables[:16]}-{question.digest}"
    if (last := result(name, settings)) and last.version == version:
        return last, True
    frames = {t: frame(spark, url, dataset.tables[t], settings) for t in question.tables}
    table = ask_spark(spark, question, frames)
    # The parts of a table are read by queries of their own: a load in between would mix two versions.
    if postgres.version(url, settings) != tables:
        raise PostgresError(f"PostgreSQL was reloaded while analysis/{name} was computed; run it again")
    memo = CommitProperties(custom_metadata={"postgres": json.dumps(version)})
    path = folder(name, settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_deltalake(str(path), table, mode="overwrite", schema_mode="overwrite", commit_properties=memo)
    return Result(table, version), False


def result(name: str, settings: Settings) -> Result | None:
    """The last result, or ``None`` if there is none."""
    path = folder(name, settings)
    if not exists(path):
        return None
    delta = latest(path)
    version = json.loads(delta.history(1)[0].get("postgres", '""'))
    return Result(pa.table(delta.to_pyarrow_table()), version)


def keep(name: str, settings: Settings, url: str) -> Result:
    """Put a result into Redis.

    Raises:
        FileNotFoundError: There is none.
        ConnectionError: Redis does not answer.
        OwnedError: Another home uses Redis under this namespace.
    """
    found = result(name, settings)
    if found is None:
        raise FileNotFoundError(f"analysis/{name} has not been built yet; materialize it first")
    cache = Cache(url, settings.namespace, ttl=TTL)
    try:
        cache.register(Owner.of(settings))
        cache.put(f"analysis:{name}", found.table, f"{SOURCE}, version {found.version[:12]}")
    finally:
        cache.close()
    return found


def frame(spark: SparkSession, url: str, table: Table, settings: Settings) -> DataFrame:
    """A table of PostgreSQL as a data frame that Spark reads in parallel parts, in the types of the merged table."""
    given = conninfo_to_dict(url)
    jdbc = f"jdbc:postgresql://{given['host']}:{given.get('port', 5432)}/{given['dbname']}"
    properties = {
        "driver": "org.postgresql.Driver",
        "user": str(given.get("user", "")),
        "password": str(given.get("password", "")),
        "fetchsize": str(ROWS_A_FETCH),
    }
    name = f"{quoted(settings.namespace)}.{quoted(table.name)}"
    parts = list(postgres.parts(url, table, settings, PARTS))
    rows = spark.read.jdbc(jdbc, name, predicates=parts, properties=properties)
    typed = [c.parsed_as for c in table.columns if c.parsed_as]
    nested = [(column, kind) for column, kind in typed if is_nested(kind)]
    return reduce(lambda f, c: f.withColumn(c[0], sf.from_json(c[0], c[1])), nested, rows)


def same(left: pa.Table, right: pa.Table) -> bool:
    """Whether two answers hold the same rows, in any order."""
    if left.column_names != right.column_names or left.num_rows != right.num_rows:
        return False
    return _sorted(left) == _sorted(right)


def _sorted(table: pa.Table) -> list[str]:
    return sorted(repr(tuple(row.values())) for row in table.to_pylist())
