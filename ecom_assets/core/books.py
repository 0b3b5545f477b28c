"""The books: what was built, measured and verified, in one transactional store.

What belongs here: the tables of the store and the few questions asked of it. What does not: any decision that rests on
an answer (``engine``). The store is SQLite in the home, or the PostgreSQL database of ``ECOM_BOOKS`` with a schema for
each namespace. Everything has room for a delivery; an empty one means the table as a whole.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite

from ecom_assets.core.errors import HomeError
from ecom_assets.core.layer import Measurement
from ecom_assets.core.row_hash import FORM
from ecom_assets.core.settings import Settings

KEPT = 20
"""Measurements kept of each layer and table: the newest."""

BUSY_SECONDS = 60
"""Seconds that a writer of SQLite waits for another."""

CREATION = 0x65636F6D
"""PostgreSQL's advisory lock of the process that creates books."""


@dataclass(frozen=True)
class Build:
    """What a layer of a table was last built from.

    Attributes:
        layer: Name of the layer.
        table: Name of the table.
        fingerprint: Names what it was built from (``Layer.fingerprint``).
        declaration: What of the declaration is built into it (``Layer.declaration``).
        path: Name of the path that it was built on.
        rows: Rows written by the last build that wrote any.
        seconds: Time which that took.
        notes: Further figures by name.
        at: When, UTC.
    """

    layer: str
    table: str
    fingerprint: str
    declaration: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""
    rows: int = 0
    seconds: float = 0.0
    notes: Mapping[str, Any] = field(default_factory=dict)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Verification:
    """What the last check of a layer against the one before it came to.

    Attributes:
        layer: Name of the layer.
        table: Name of the table.
        path: Name of the path on which the layer before was found.
        position: Position of the layer that was checked.
        mismatches: What differed, a sentence each; empty if nothing did.
        at: When, UTC.
    """

    layer: str
    table: str
    path: str
    position: str
    mismatches: tuple[str, ...] = ()
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


class Books:
    """The store of a home; made by ``open``, closed by ``close`` or at the end of its ``with`` block."""

    def __init__(self, engine: sa.Engine, schema: str | None = None) -> None:
        self._engine = engine
        self._insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
        text, number, moment = sa.Text(), sa.BigInteger(), sa.DateTime(timezone=True)

        def layered(name: str, *columns: sa.Column[Any], keys: Iterable[str] = ()) -> sa.Table:
            own = [sa.Column(key, text, primary_key=True) for key in ("layer", "table", "delivery", *keys)]
            return sa.Table(name, tables, *own, *columns, sa.Column("at", moment, nullable=False))

        tables = sa.MetaData(schema=schema)
        self._builds = layered(
            "builds",
            sa.Column("fingerprint", text, nullable=False),
            sa.Column("declaration", sa.JSON, nullable=False),
            sa.Column("path", text, nullable=False),
            sa.Column("rows", number, nullable=False),
            sa.Column("seconds", sa.Double(), nullable=False),
            sa.Column("notes", sa.JSON, nullable=False),
        )
        # Positions can be longer than an index takes.
        self._measurements = layered(
            "measurements", sa.Column("measurement", sa.JSON, nullable=False), keys=["position_hash"]
        )
        self._verifications = layered(
            "verifications",
            sa.Column("path", text, nullable=False),
            sa.Column("position", text, nullable=False),
            sa.Column("mismatches", sa.JSON, nullable=False),
        )
        self._state = sa.Table(
            "state", tables, sa.Column("key", text, primary_key=True), sa.Column("value", sa.JSON, nullable=False)
        )
        # Several processes may open new books at once, so nothing is looked for before it is created.
        with engine.begin() as connection:
            if schema:
                # PostgreSQL refuses the second of two that create the same thing at once, in spite of IF NOT EXISTS.
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(CREATION)))
                if not sa.inspect(connection).has_schema(schema):
                    connection.execute(sa.schema.CreateSchema(schema))
            for table in tables.sorted_tables:
                connection.execute(sa.schema.CreateTable(table, if_not_exists=True))

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Open the books of a home, and create them if there are none.

        Raises:
            HomeError: The home was written by an earlier version, or the URL is not one of PostgreSQL.
            sqlalchemy.exc.SQLAlchemyError: The database cannot be reached or written.
        """
        if settings.books:
            url = sa.make_url(settings.books)
            if url.drivername not in ("postgres", "postgresql"):
                raise HomeError(f"ECOM_BOOKS: expected a PostgreSQL URL (postgresql://…), got one of {url.drivername}")
            url = url.set(drivername="postgresql+psycopg")
            books = cls(sa.create_engine(url, pool_pre_ping=True), settings.namespace)
            _require_form(books, settings)
            return books
        file = books_file(settings)
        if not file.exists() and (settings.home / "manifests").exists():
            raise HomeError(
                f"{settings.home}: expected a home with books ({file.name}), got one of the first edition, which kept"
                " its manifests in files",
                _new_folder(settings),
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(f"sqlite:///{file}", connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine, "connect", _prepare)
        books = cls(engine)
        _require_form(books, settings)
        return books

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    # Builds

    def build(self, layer: str, table: str, delivery: str = "") -> Build | None:
        """What a layer of a table was last built from; ``None`` if it was not."""
        row = self._row(self._builds, layer, table, delivery)
        return _build(row) if row else None

    def builds(self) -> list[Build]:
        """Every layer of every table that was built, as a whole."""
        c = self._builds.c
        query = sa.select(self._builds).where(c.delivery == "").order_by(c.at)
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return [_build(row) for row in rows]

    def builds_by_delivery(self, layer: str) -> dict[tuple[str, str], Build]:
        """Table and delivery -> what a layer did for it; of layers that record it."""
        c = self._builds.c
        query = sa.select(self._builds).where(c.layer == layer, c.delivery != "")
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return {(row["table"], row["delivery"]): _build(row) for row in rows}

    def record_build(self, build: Build, delivery: str = "") -> None:
        """Record a build, in place of the last one."""
        values = {
            "fingerprint": build.fingerprint,
            "declaration": dict(build.declaration),
            "path": build.path,
            "rows": build.rows,
            "seconds": build.seconds,
            "notes": dict(build.notes),
            "at": build.at,
        }
        self._put(self._builds, {"layer": build.layer, "table": build.table, "delivery": delivery}, values)

    # Measurements

    def measurement(self, layer: str, table: str, position: str, delivery: str = "") -> Measurement | None:
        """What a layer of a table was measured to hold at a position; ``None`` if it was not."""
        row = self._row(self._measurements, layer, table, delivery, _digest(position))
        return Measurement.from_json(row["measurement"]) if row else None

    def last_measurement(self, layer: str, table: str, delivery: str = "") -> Measurement | None:
        """What a layer of a table was last measured to hold, at whatever position."""
        c = self._measurements.c
        query = sa.select(c.measurement).where(c.layer == layer, c.table == table, c.delivery == delivery)
        with self._engine.connect() as connection:
            data = connection.execute(query.order_by(c.at.desc()).limit(1)).scalar()
        return Measurement.from_json(data) if data else None

    def record_measurement(self, measurement: Measurement, delivery: str = "") -> None:
        """Record a measurement under its position; of each layer and table the newest ``KEPT`` stay."""
        own = {"layer": measurement.layer, "table": measurement.table, "delivery": delivery}
        key = {**own, "position_hash": _digest(measurement.position)}
        self._put(self._measurements, key, {"measurement": measurement.to_json(), "at": datetime.now(UTC)})
        c = self._measurements.c
        mine = sa.and_(*(c[name] == value for name, value in own.items()))
        newest = sa.select(c.position_hash).where(mine).order_by(c.at.desc()).limit(KEPT)
        with self._engine.begin() as connection:
            kept = connection.execute(newest).scalars().all()
            if len(kept) == KEPT:
                connection.execute(sa.delete(self._measurements).where(mine, c.position_hash.not_in(kept)))

    # Verifications

    def verification(self, layer: str, table: str, delivery: str = "") -> Verification | None:
        """What the last check of a layer came to; ``None`` if there was none."""
        row = self._row(self._verifications, layer, table, delivery)
        return _verification(row) if row else None

    def verifications(self) -> list[Verification]:
        """What the last check of every layer of every table came to."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(self._verifications)).mappings().all()
        return [_verification(row) for row in rows]

    def record_verification(self, verification: Verification, delivery: str = "") -> None:
        """Record what a check came to, in place of the last one."""
        values = {
            "path": verification.path,
            "position": verification.position,
            "mismatches": list(verification.mismatches),
            "at": verification.at,
        }
        key = {"layer": verification.layer, "table": verification.table, "delivery": delivery}
        self._put(self._verifications, key, values)

    # State

    def state(self, key: str) -> Any:
        """A value that a room keeps, such as a running total; ``None`` if there is none."""
        with self._engine.connect() as connection:
            return connection.execute(sa.select(self._state.c.value).where(self._state.c.key == key)).scalar()

    def set_state(self, key: str, value: Any) -> None:
        """Keep a value that JSON can hold; ``None`` deletes it."""
        self.set_states({key: value})

    def set_states(self, values: Mapping[str, Any]) -> None:
        """Keep several values, all or none of them; ``None`` deletes one."""
        c = self._state.c
        gone = [key for key, value in values.items() if value is None]
        kept = [{"key": key, "value": value} for key, value in values.items() if value is not None]
        query = self._insert(self._state)
        query = query.on_conflict_do_update(index_elements=["key"], set_={"value": query.excluded.value})
        with self._engine.begin() as connection:
            if gone:
                connection.execute(sa.delete(self._state).where(c.key.in_(gone)))
            if kept:
                connection.execute(query, kept)

    def states(self, prefix: str) -> dict[str, Any]:
        """All values whose keys begin with a text."""
        c = self._state.c
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(c.key, c.value).where(c.key.startswith(prefix, autoescape=True)))
            return {row.key: row.value for row in rows}

    def forget(self, layer: str, table: str) -> None:
        """Delete all that is known of a layer of a table, values under the key ``<layer>/<table>`` included."""
        with self._engine.begin() as connection:
            for kind in (self._builds, self._measurements, self._verifications):
                connection.execute(sa.delete(kind).where(kind.c.layer == layer, kind.c.table == table))
            key = self._state.c.key
            own = sa.or_(key == f"{layer}/{table}", key.startswith(f"{layer}/{table}/", autoescape=True))
            connection.execute(sa.delete(self._state).where(own))

    def _row(self, of: sa.Table, *key: str) -> sa.RowMapping | None:
        query = sa.select(of).where(*(c == value for c, value in zip(of.primary_key.columns, key, strict=True)))
        with self._engine.connect() as connection:
            return connection.execute(query).mappings().one_or_none()

    def _put(self, into: sa.Table, key: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        query = self._insert(into).values(**key, **values)
        query = query.on_conflict_do_update(index_elements=list(key), set_=dict(values))
        with self._engine.begin() as connection:
            connection.execute(query)


def books_file(settings: Settings) -> Path:
    """Where a home keeps its books, unless a database is set."""
    return settings.home / "books.sqlite"


def _require_form(books: Books, settings: Settings) -> None:
    """See that the checksums in the books are of this version's canonical form."""
    form = books.state("canonical form")
    if form is None and not books.builds():
        books.set_state("canonical form", FORM)
    elif form != FORM:
        raise HomeError(
            f"{settings.home}: expected checksums of the canonical form {FORM}, got those of form {form or 1}, measured"
            " by an earlier version",
            _new_folder(settings),
        )


def _new_folder(settings: Settings) -> str:
    """What to do about a home that this version cannot continue."""
    return (
        f"take a new folder: `ecom run --source {settings.source} --home NEW_FOLDER` loads the same data, then"
        f" delete {settings.home}"
    )


def _prepare(connection: Any, _: object) -> None:
    """Let readers of SQLite go on while one writes."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError:  # for this SQLite waits for nobody
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    connection.execute("PRAGMA synchronous = FULL")


def _build(row: sa.RowMapping) -> Build:
    return Build(
        row["layer"],
        row["table"],
        row["fingerprint"],
        row["declaration"],
        row["path"],
        row["rows"],
        row["seconds"],
        row["notes"],
        _utc(row["at"]),
    )


def _verification(row: sa.RowMapping) -> Verification:
    return Verification(
        row["layer"], row["table"], row["path"], row["position"], tuple(row["mismatches"]), _utc(row["at"])
    )


def _utc(moment: datetime) -> datetime:
    """SQLite forgets time zones."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _digest(position: str) -> str:
    return hashlib.sha256(position.encode()).hexdigest()[:32]
