"""Tables in PostgreSQL, typed, loaded from the expanded files in one transaction.

What belongs here: loading all tables, and reading one in parallel parts. What does not: what a table looks like
(``postgres_rows``), and what is computed from them (see ``analysis``).

All tables are loaded into a new schema, which replaces the old one in the same transaction: readers see
the old tables until the new ones are complete, and a load that dies leaves nothing behind. Where files of deliveries
were added since, their rows alone are brought in, in one transaction as well (``postgres_changes``).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import psycopg
from psycopg import sql

from ecom_assets.core import locks
from ecom_assets.core.boundary import shown
from ecom_assets.core.errors import EcomError
from ecom_assets.core.home import hint
from ecom_assets.core.ownership import Owner
from ecom_assets.core.progress import note
from ecom_assets.core.settings import Settings
from ecom_assets.core.sql import quoted
from ecom_assets.csv import expand, unique
from ecom_assets.csv.parts import behind, chain
from ecom_assets.dataset.model import Dataset, Table
from ecom_assets.serving.postgres_changes import WholeLoadError, bring_in
from ecom_assets.serving.postgres_rows import columns, to_csv

OWNER = "_ecom_owner"
"""Table with the name of the home that owns a schema."""

PAGE_BYTES = 8192
"""Size of PostgreSQL's pages."""


class PostgresError(EcomError):
    """The tables could not be loaded or read; the message names the remedy."""


@dataclass(frozen=True)
class Loaded:
    """What a load did with one table.

    Attributes:
        rows: Rows loaded.
        left: Reason -> rows that were left out.
        unparsed: Values whose text is not of the column's type, null now, by column.
        orphans: Rows that refer to a row that is not there, by column.
        keyed: Whether the table has its primary key. It has a unique index by hash instead where a value is longer
            than PostgreSQL's keys can be, and nothing refers to it then.
    """

    rows: int
    left: dict[str, int]
    unparsed: dict[str, int] = field(default_factory=dict)
    orphans: dict[str, int] = field(default_factory=dict)
    keyed: bool = True


def inputs(settings: Settings, dataset: Dataset) -> dict[str, list[str]]:
    """Name what the tables are built from: equal names, equal rows.

    Returns:
        Table -> names of its declaration with its first file, with its first two, and so on.

    Raises:
        FileNotFoundError: A table has not been expanded yet.
    """
    found = {}
    for table in dataset.tables.values():
        files = expand.files(table, settings)
        if not files:
            raise FileNotFoundError(f"expanded/{table.name} has not been built yet; materialize it first")
        mode = [table.write, table.version, table.deleted_if, table.primary_key]
        declared = hashlib.sha256(json.dumps([table.avsc, mode]).encode()).hexdigest()
        states = [[f.name, (status := f.stat()).st_size, status.st_mtime_ns] for f in files]
        found[table.name] = chain([[declared, *state] for state in states])
    return found


def version(url: str, settings: Settings) -> str:
    """Name what PostgreSQL holds; empty if nothing was loaded.

    Raises:
        PostgresError: It does not answer.
    """
    with connect(url) as connection:
        held = _held(connection, settings)
    return json.dumps(held["inputs"]) if held else ""


def _held(connection: psycopg.Connection, settings: Settings) -> dict[str, Any]:
    """What a schema was loaded from, and what the load did; empty if nothing was."""
    query = "SELECT obj_description(to_regnamespace(%s)::oid, 'pg_namespace')"
    row = connection.execute(query, (quoted(settings.namespace),)).fetchone()
    try:
        found = json.loads(row[0]) if row and row[0] else {}
    except ValueError:  # of an earlier version of the project
        return {}
    return found if found.keys() == {"inputs", "loaded"} else {}


def connect(url: str) -> psycopg.Connection:
    """Open a connection.

    Raises:
        PostgresError: No server answers there, or it refuses.
    """
    try:
        return psycopg.connect(url, connect_timeout=5)
    except psycopg.OperationalError as error:
        message = " ".join(str(error).split())  # host and port, never the password
        raise PostgresError(
            f"PostgreSQL does not take a connection: {message}; `{hint('status')}` shows whether it runs"
        ) from None


def load(
    settings: Settings, dataset: Dataset, url: str, progress: Callable[[str, int], None] = lambda _table, _rows: None
) -> dict[str, Loaded]:
    """Bring the tables up to the expanded files: by what deliveries have added, or by loading all of them again.

    Args:
        settings: Where the expanded files are; the namespace is the schema.
        dataset: The tables.
        url: The database.
        progress: Called with (table, rows done since the last call).

    Returns:
        What the tables hold now; empty if PostgreSQL already holds these very rows.

    Raises:
        HomeError: Another process deletes or repairs in the home.
        PostgresError: PostgreSQL went away or refused.
        OwnedError: Another home owns the schema.
        FileNotFoundError: A table has not been expanded yet.
    """
    owner = Owner.of(settings)
    new, old = f"{settings.namespace}__new", f"{settings.namespace}__old"
    with locks.shared(settings, "the load of PostgreSQL"), connect(url) as connection:
        owner.check(_owner(connection, settings), f"PostgreSQL schema {settings.namespace}")
        chains = inputs(settings, dataset)
        origin, held = {name: names[-1] for name, names in chains.items()}, _held(connection, settings)
        if held and held["inputs"] == origin:
            return {}
        try:
            if held and (changed := _change(connection, settings, dataset, chains, held)):
                return changed
            with connection.transaction():
                for schema in (new, old):
                    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(new)))
                loaded = {t.name: _load_table(connection, t, new, settings, progress) for t in dataset.tables.values()}
                for table in dataset.tables.values():
                    loaded[table.name].orphans.update(_constrain(connection, table, dataset, new, loaded))
                _sign(connection, new, owner)
                _swap(connection, settings.namespace, new, old)
                _comment(connection, settings.namespace, origin, loaded)
        except psycopg.OperationalError as error:
            did = "went away" if connection.closed else "refused"
            raise PostgresError(
                f"PostgreSQL {did} while the tables were loaded ({str(error).strip().splitlines()[0]});"
                f" the tables from before are untouched: `{hint('up', settings)}`, then load again"
            ) from error
    return loaded


def _change(
    connection: psycopg.Connection,
    settings: Settings,
    dataset: Dataset,
    chains: Mapping[str, Sequence[str]],
    held: Mapping[str, Any],
) -> dict[str, Loaded] | None:
    """Bring in what files were added; ``None`` if anything else has changed, or the rows need more than that."""
    places = {name: behind(names, held["inputs"].get(name, "")) for name, names in chains.items()}
    loaded = {name: Loaded(**each) for name, each in held["loaded"].items()}
    if None in places.values() or not all(each.keyed for each in loaded.values()):
        return None
    files = {name: expand.files(table, settings)[places[name] :] for name, table in dataset.tables.items()}
    try:
        with connection.transaction():
            for name, done in bring_in(connection, settings.namespace, dataset, files).items():
                was = loaded[name]
                lost = {c: n for c, n in (Counter(was.unparsed) + Counter(done.unparsed)).items() if n}
                loaded[name] = replace(was, rows=was.rows + done.rows, left={}, unparsed=lost)
            origin = {name: names[-1] for name, names in chains.items()}
            _comment(connection, settings.namespace, origin, loaded)
    except WholeLoadError as error:
        note(f"postgres: loaded as a whole, since {error}")
        return None
    return loaded


def _load_table(
    connection: psycopg.Connection,
    table: Table,
    schema: str,
    settings: Settings,
    progress: Callable[[str, int], None],
) -> Loaded:
    target, own = sql.Identifier(schema, table.name), columns(table)
    lines = [
        sql.SQL("{} {} {}").format(
            sql.Identifier(c.name),
            sql.SQL(c.kind),  # ty: ignore[invalid-argument-type]  # of Kind, no text from outside
            sql.SQL("" if c.nullable else "NOT NULL"),
        )
        for c in own
    ]
    connection.execute(sql.SQL("CREATE TABLE {} ({})").format(target, sql.SQL(", ").join(lines)))
    rows, unparsed = 0, dict.fromkeys((c.name for c in own), 0)
    clean = unique.Deduplicated(table, settings)
    copy = sql.SQL("COPY {} FROM STDIN (FORMAT csv)").format(target)
    with connection.cursor() as cursor, cursor.copy(copy) as stream:
        for batch in clean:
            text, lost = to_csv(batch, table)
            stream.write(text)
            rows += batch.num_rows
            for name, count in lost.items():
                unparsed[name] += count
            progress(table.name, batch.num_rows)
    keyed = _index(
        connection,
        sql.SQL("ALTER TABLE {} ADD PRIMARY KEY ({})").format(target, _names(table.primary_key)),
        sql.SQL("CREATE UNIQUE INDEX ON {} ({})").format(
            target,
            sql.SQL(", ").join(sql.SQL("md5({}::text)").format(n) for n in map(sql.Identifier, table.primary_key)),
        ),
    )
    for name in dict.fromkeys([*table.topic_key, *table.domains]):
        if name != table.primary_key[0]:
            parts = {"target": target, "column": sql.Identifier(name)}
            _index(
                connection,
                sql.SQL("CREATE INDEX ON {target} ({column})").format(**parts),
                sql.SQL("CREATE INDEX ON {target} USING hash ({column})").format(**parts),
            )
    # Rows are stored roughly in the order of time: the small index does.
    statements = [
        sql.SQL("CREATE INDEX ON {} USING brin ({})").format(target, sql.Identifier(c.name))
        for c in own
        if c.kind == "timestamptz"
    ]
    statements.append(sql.SQL("ANALYZE {}").format(target))
    for statement in statements:
        connection.execute(statement)
    lost = {n: c for n, c in unparsed.items() if c}
    left = {reason: each.rows for reason, each in shown(clean.left).items()}
    return Loaded(rows, left, lost, keyed=keyed)


def _index(connection: psycopg.Connection, statement: sql.Composed, otherwise: sql.Composed) -> bool:
    """Make an index; another one where a value is too long for it (2,704 bytes). Returns whether it is the first."""
    try:
        with connection.transaction():
            connection.execute(statement)
    except psycopg.errors.ProgramLimitExceeded:
        connection.execute(otherwise)
        return False
    return True


def _constrain(
    connection: psycopg.Connection, table: Table, dataset: Dataset, schema: str, loaded: Mapping[str, Loaded]
) -> dict[str, int]:
    """Add the foreign keys; rows that refer to nothing stay, are counted, and leave their key unproven."""
    orphans = {}
    for reference in table.references:
        # A foreign key refers to a primary key; a column inside a list cannot be one.
        theirs = dataset.tables[reference.table].primary_key
        if not {*reference.columns} <= {*table.names} or sorted(reference.to) != sorted(theirs):
            continue
        pairs = list(zip(map(sql.Identifier, reference.columns), map(sql.Identifier, reference.to), strict=True))
        parts: dict[str, sql.Composable] = {
            "own": sql.Identifier(schema, table.name),
            "theirs": sql.Identifier(schema, reference.table),
            "columns": _names(reference.columns),
            "key": _names(reference.to),
            "filled": sql.SQL(" AND ").join(sql.SQL("o.{} IS NOT NULL").format(column) for column, _ in pairs),
            "alike": sql.SQL(" AND ").join(sql.SQL("t.{} = o.{}").format(key, column) for column, key in pairs),
        }
        row = connection.execute(
            sql.SQL(
                "SELECT count(*) FROM {own} o WHERE {filled} AND NOT EXISTS (SELECT FROM {theirs} t WHERE {alike})"
            ).format(**parts)
        ).fetchone()
        missing = row[0] if row else 0
        sound = sql.SQL("NOT VALID" if missing else "")
        constraint = sql.SQL("ALTER TABLE {own} ADD FOREIGN KEY ({columns}) REFERENCES {theirs} ({key}) {sound}")
        if loaded[reference.table].keyed:
            connection.execute(constraint.format(**parts, sound=sound))
        if missing:
            orphans[", ".join(reference.columns)] = missing
    return orphans


def _names(columns: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _owner(connection: psycopg.Connection, settings: Settings) -> Owner | None:
    """The home that owns the schema; ``None`` for nobody yet."""
    name = f"{quoted(settings.namespace)}.{quoted(OWNER)}"
    if connection.execute("SELECT to_regclass(%s)", (name,)).fetchone() == (None,):
        return None
    owner = sql.SQL("SELECT owner FROM {}").format(sql.Identifier(settings.namespace, OWNER))
    row = connection.execute(owner).fetchone()
    return Owner.from_text(row[0]) if row else None


def _sign(connection: psycopg.Connection, schema: str, owner: Owner) -> None:
    """Write the owner of a new schema into it."""
    table = sql.Identifier(schema, OWNER)
    connection.execute(sql.SQL("CREATE TABLE {} (owner text NOT NULL)").format(table))
    connection.execute(sql.SQL("INSERT INTO {} VALUES (%s)").format(table), (owner.to_text(),))


def _swap(connection: psycopg.Connection, live: str, new: str, old: str) -> None:
    rename = sql.SQL("ALTER SCHEMA {} RENAME TO {}")
    if connection.execute("SELECT to_regnamespace(%s)", (quoted(live),)).fetchone() != (None,):
        connection.execute(rename.format(sql.Identifier(live), sql.Identifier(old)))
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(old)))
    connection.execute(rename.format(sql.Identifier(new), sql.Identifier(live)))


def _comment(
    connection: psycopg.Connection, schema: str, origin: Mapping[str, str], loaded: Mapping[str, Loaded]
) -> None:
    """Note what a schema was loaded from."""
    text = json.dumps({"inputs": origin, "loaded": {name: asdict(each) for name, each in loaded.items()}})
    connection.execute(sql.SQL("COMMENT ON SCHEMA {} IS {}").format(sql.Identifier(schema), sql.Literal(text)))


def parts(url: str, table: Table, settings: Settings, count: int) -> Iterator[str]:
    """Conditions that part a table into pieces of equal size, by where its rows are stored.

    Args:
        url: The database.
        table: Which table.
        settings: For the schema.
        count: Pieces wanted.

    Yields:
        Conditions in SQL; each row fulfils exactly one.

    Raises:
        PostgresError: The table is not there, or PostgreSQL does not answer.
    """
    with connect(url) as connection:
        try:
            row = connection.execute(
                "SELECT pg_relation_size(%s::regclass)", (f"{quoted(settings.namespace)}.{quoted(table.name)}",)
            ).fetchone()
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            raise PostgresError(
                f"PostgreSQL holds no table {settings.namespace}.{table.name}; materialize postgres/{table.name} first"
            ) from None
    pages = (row[0] if row else 0) // PAGE_BYTES + 1
    boundaries = sorted({pages * i // count for i in range(count)})
    for begin, end in zip(boundaries, [*boundaries[1:], None], strict=True):
        until = f" AND ctid < '({end},0)'::tid" if end is not None else ""
        yield f"ctid >= '({begin},0)'::tid{until}"
