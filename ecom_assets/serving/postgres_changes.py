"""Changes of deliveries brought into the tables that PostgreSQL holds, in one transaction.

What belongs here: rows of new expanded files, by the table's write mode. What does not: loading everything, which is
always right, and which the caller does where this module refuses (``postgres``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import LiteralString

import psycopg
from psycopg import sql

from ecom_assets.core.location import Location
from ecom_assets.csv import records
from ecom_assets.dataset.model import Dataset, Table
from ecom_assets.serving.postgres_rows import columns, to_csv

NEWS = sql.Identifier("_ecom_news")
"""Temporary table with the rows of a table's new files, numbered in their order."""


class WholeLoadError(Exception):
    """The changes cannot be brought in by themselves."""


@dataclass(frozen=True)
class Changed:
    """What the changes of a table were.

    Attributes:
        rows: Rows that the table has more than before; negative if it has fewer.
        unparsed: Values whose text is not of the column's type, by column.
    """

    rows: int
    unparsed: Mapping[str, int]


def bring_in(
    connection: psycopg.Connection,
    schema: str,
    dataset: Dataset,
    files: Mapping[str, Sequence[Location]],
) -> dict[str, Changed]:
    """Bring in the rows of new files; the caller commits.

    Args:
        connection: Within a transaction.
        schema: Where the tables are.
        dataset: The tables.
        files: Table -> its new files in order.

    Returns:
        Table -> what has changed; those without new files are left out.

    Raises:
        WholeLoadError: A row contradicts one that is there where rows never change, refers to none, or is referred to
            and goes; or a version that came late may be older than one that was deleted.
    """
    done: dict[str, Changed] = {}
    for table in _by_reference(dataset):
        if new := files.get(table.name):
            change = _Change(connection, schema, table)
            try:
                unparsed = change.copy(new[-1:] if table.write == "replace" else new)
                done[table.name] = Changed(change.merge(), unparsed)
            except (psycopg.errors.IntegrityError, psycopg.errors.InvalidColumnReference) as error:
                raise WholeLoadError(str(error).strip().splitlines()[0]) from error
    return done


def _by_reference(dataset: Dataset) -> Iterator[Table]:
    """The tables, those that others refer to first."""
    left = dict(dataset.tables)
    while left:
        free = [t for t in left.values() if not {r.table for r in t.references} & (left.keys() - {t.name})]
        for table in free or list(left.values()):  # of tables that refer to one another, any order
            yield left.pop(table.name)


class _Change:
    """The change of one table."""

    def __init__(self, connection: psycopg.Connection, schema: str, table: Table) -> None:
        self.connection, self.table = connection, table
        self.target = sql.Identifier(schema, table.name)
        self.names = [column.name for column in columns(table)]
        self.key = sql.SQL(", ").join(map(sql.Identifier, table.primary_key))
        self.alike = sql.SQL(" AND ").join(
            sql.SQL("t.{0} = n.{0}").format(sql.Identifier(name)) for name in table.primary_key
        )

    def copy(self, files: Sequence[Location]) -> dict[str, int]:
        """Copy the rows of files into the temporary table; returns what is not of its type, by column."""
        self._run("DROP TABLE IF EXISTS {news}")
        self._run("CREATE TEMP TABLE {news} (LIKE {target}, _n bigint GENERATED ALWAYS AS IDENTITY) ON COMMIT DROP")
        unparsed: dict[str, int] = {}
        into = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(NEWS, self._columns())
        with self.connection.cursor() as cursor, cursor.copy(into) as stream:
            for file in files:
                for parsed in records.parse(file, self.table):
                    text, lost = to_csv(parsed.batch, self.table)
                    stream.write(text)
                    for name, count in lost.items():
                        unparsed[name] = unparsed.get(name, 0) + count
        return {name: count for name, count in unparsed.items() if count}

    def merge(self) -> int:
        """Bring the rows of the temporary table in, by the rules of ``lake.fates``; returns how many more there are."""
        table = self.table
        if table.version and table.deleted_if:
            raise WholeLoadError(f"{table.name}: versions of rows that were deleted are not kept")
        if table.write == "append":
            return self._append()
        gone = 0
        if table.write == "replace":
            gone = self._run("DELETE FROM {target} t WHERE NOT EXISTS (SELECT FROM {news} n WHERE {alike})")
        # Of the rows of a key, the one that counts in the end.
        newest, later = sql.SQL("_n DESC"), sql.SQL("true")
        if table.version:
            version = sql.Identifier(table.version)
            newest = sql.SQL("{} DESC NULLS LAST, _n DESC").format(version)
            later = sql.SQL("coalesce(n.{0} >= t.{0}, t.{0} IS NULL)").format(version)
        self._run(
            "DELETE FROM {news} WHERE _n NOT IN"
            " (SELECT _n FROM (SELECT DISTINCT ON ({key}) _n FROM {news} ORDER BY {key}, {newest}) AS kept)",
            newest=newest,
        )
        gone += self._run("DELETE FROM {target} t USING {news} n WHERE {alike} AND {asks}")
        self._run(
            "UPDATE {target} t SET ({columns}) = ROW({values}) FROM {news} n"
            " WHERE {alike} AND {later} AND ({values}) IS DISTINCT FROM ({held})",
            later=later,
        )
        came = self._run(
            "INSERT INTO {target} ({columns}) SELECT {values} FROM {news} n"
            " WHERE NOT coalesce({asks}, false) AND NOT EXISTS (SELECT FROM {target} t WHERE {alike})"
        )
        return came - gone

    def _append(self) -> int:
        """Insert rows of new keys."""
        first = self._sql("(SELECT DISTINCT ON ({key}) * FROM {news} ORDER BY {key}, _n)")
        for others in (first, self.target):
            differ = (
                "SELECT FROM {news} n JOIN {others} t ON {alike} WHERE ({values}) IS DISTINCT FROM ({held}) LIMIT 1"
            )
            if self._run(differ, others=others):
                raise WholeLoadError(f"{self.table.name}: a row differs from another one of its key")
        return self._run(
            "INSERT INTO {target} ({columns}) SELECT {values} FROM {first} n"
            " WHERE NOT EXISTS (SELECT FROM {target} t WHERE {alike})",
            first=first,
        )

    def _run(self, statement: LiteralString, **parts: sql.Composable) -> int:
        """Run a statement; returns the rows that it found or changed."""
        return self.connection.execute(self._sql(statement, **parts)).rowcount

    def _sql(self, statement: LiteralString, **parts: sql.Composable) -> sql.Composed:
        asks: sql.Composable = sql.SQL("false")
        if self.table.deleted_if:
            column, flags = self.table.deleted_if
            if column not in self.names:
                raise WholeLoadError(f"{self.table.name}: the texts of {column} are not kept")
            asks = sql.SQL("n.{}::text = ANY({})").format(sql.Identifier(column), sql.Literal(list(flags)))
        return sql.SQL(statement).format(
            news=NEWS,
            target=self.target,
            key=self.key,
            alike=self.alike,
            asks=asks,
            columns=self._columns(),
            values=self._columns("n."),
            held=self._columns("t."),
            **parts,
        )

    def _columns(self, of: LiteralString = "") -> sql.Composed:
        return sql.SQL(", ").join(sql.SQL(of + "{}").format(sql.Identifier(name)) for name in self.names)
