"""Dagster's event log in SQLite files, as Dagster has it, but with connections that stay open.

What belongs here: the connections. What does not: what is stored, which is Dagster's. Its own class opens a file, and
prepares all it says to it, for each event: with some 400 events that is a fifth of a delivery of 1,000 rows.
A home names this class in its ``dagster.yaml``; see
https://docs.dagster.io/deployment/oss/dagster-yaml#event-log-storage.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from dagster import StringSource
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import StaticPool
from typing_extensions import override

KEPT = 8
"""Files that stay open: those of the runs that are looked at, and the index of all runs."""
BUSY_SECONDS = 60
"""Seconds for which another process may write to a file."""


class EventLog(SqliteEventLogStorage):
    """Dagster's event log.

    Args:
        dagster_home: Folder of the instance; the files are where Dagster has them by default.
        inst_data: What Dagster knows of this object.
    """

    def __init__(self, dagster_home: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._kept: OrderedDict[str, tuple[int, Engine]] = OrderedDict()
        super().__init__(str(Path(dagster_home, "history", "runs")), inst_data)

    @classmethod
    @override
    def config_type(cls) -> Any:
        return {"dagster_home": StringSource}

    @classmethod
    @override
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        return cls(config_value["dagster_home"], inst_data)

    @override
    def run_connection(self, run_id: str | None = None) -> Any:
        return self._connection(run_id or "")  # events of no run have a file without a name

    @override
    def index_connection(self) -> Any:
        return self._connection(INDEX_SHARD_NAME)

    @override
    def dispose(self) -> None:
        while self._kept:
            self._kept.popitem()[1][1].dispose()
        super().dispose()

    @contextmanager
    def _connection(self, shard: str) -> Generator[Connection]:
        path = Path(self.path_for_shard(shard))
        if shard not in self._initialized_dbs or not path.exists():
            self._initialized_dbs.discard(shard)
            with self._connect(shard):  # creates the file and its tables, or brings them up to date
                pass
        with self._db_lock, self._engine(shard, path).begin() as connection:
            yield connection

    def _engine(self, shard: str, path: Path) -> Engine:
        """The connection with a file; a new one if another file came in its place."""
        inode = path.stat().st_ino
        known, engine = self._kept.pop(shard, (0, None))
        if engine is not None and known != inode:
            engine.dispose()
            engine = None
        if engine is None:
            # One connection, which the lock lets one thread use at a time.
            connect = {"timeout": BUSY_SECONDS, "check_same_thread": False}
            engine = create_engine(self.conn_string_for_shard(shard), poolclass=StaticPool, connect_args=connect)
        self._kept[shard] = inode, engine
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)[1][1].dispose()
        return engine
