"""Processes, ports and what is remembered of them on disk.

Knows nothing of Kafka, HBase or Spark: a record names which process serves which
ports, and whether that process is still the one that was started.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Generator, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil

from ecom_assets.core.errors import ServiceError
from ecom_assets.core.home import hint
from ecom_assets.core.process import created, running

_CHILDREN: list[subprocess.Popen[bytes]] = []
"""Kept, so that Python does not warn of children that are meant to outlive it."""


KILL_SECONDS = 10
"""In which the system ends a process that was killed."""

HEED = "import os, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"
"""A program that becomes another one, which heeds SIGTERM."""


@dataclass(frozen=True)
class Record:
    """What ``service.json`` holds: the last start of one server in one home.

    Attributes:
        service: Name of the server.
        host: Interface it listens on.
        ports: Port by its purpose; kept after a stop, so that a home keeps its addresses.
        pid: Process, or ``None`` after a clean stop.
        created: Start of the process as the system reports it, epoch seconds; a reused pid has another.
        command: The command line.
        started_at: ISO 8601, UTC, for people.
    """

    service: str
    host: str
    ports: dict[str, int]
    pid: int | None = None
    created: float = 0.0
    command: list[str] = field(default_factory=list)
    started_at: str = ""

    def write(self, path: Path) -> None:
        """Replace the file at once, so that no reader sees half of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        new.replace(path)

    @staticmethod
    def read(path: Path) -> Record | None:
        """Read a record.

        Returns:
            The record, or ``None`` if there is no such file.

        Raises:
            ServiceError: The file is not a record.
        """
        try:
            return Record(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as e:
            raise ServiceError(
                f"{path}: expected the record of a server, got something else ({e})",
                f"remove the file; a server that still runs for this home is shown by `{hint('doctor')}`",
            ) from e

    def process(self) -> psutil.Process | None:
        """The process, if it still runs and is the one that was started."""
        return None if self.pid is None else running(self.pid, self.created, self.command)

    def stopped(self) -> Record:
        """The record as it stands after a clean stop."""
        return replace(self, pid=None)


def inherited() -> dict[str, str]:
    """This process's variables, without those meant for another installation of what we start.

    Java takes the names of files to be of the locale's encoding: it must be one that can write all of them.
    """
    foreign = ("SPARK_", "HADOOP_", "HBASE_", "KAFKA_", "JAVA_", "JDK_", "_JAVA_", "CLASSPATH", "PG")
    own = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    locale = own.get("LC_ALL") or own.get("LC_CTYPE") or own.get("LANG") or "C"
    return own if locale.lower().endswith(("utf-8", "utf8")) else own | {"LC_ALL": "C.UTF-8"}


def spawn(record: Record, command: list[str], folder: Path, out: Path, env: Mapping[str, str]) -> Record:
    """Start a process that outlives this one.

    Args:
        record: What is known of the server before it has a process.
        command: The command line.
        folder: Its working folder.
        out: File for its standard output and error, truncated first.
        env: Variables on top of this process's own.

    Returns:
        The record with the process in it, not written yet.
    """
    # Java never heeds a signal that was ignored when it began, and where a shell ignores Ctrl-C for what it runs in
    # the background, Dagster makes this process ignore SIGTERM as well.
    deaf = signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    with out.open("wb") as stream:
        child = subprocess.Popen(
            [sys.executable, "-ISc", HEED, *command] if deaf else command,
            cwd=folder,
            env={**inherited(), **env},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    _CHILDREN.append(child)
    return replace(
        record,
        pid=child.pid,
        created=created(child.pid),
        command=command,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def stop(process: psutil.Process, timeout: float, by: signal.Signals = signal.SIGTERM) -> bool:
    """Ask a process to end, and end it when it does not.

    Args:
        process: The process.
        timeout: Seconds it is given to end by itself.
        by: The signal that asks it.

    Returns:
        Whether it ended by itself.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(by)
        if not _ends(process, timeout):
            process.kill()
            _ends(process, KILL_SECONDS)
            return False
    return True


def _ends(process: psutil.Process, timeout: float) -> bool:
    """Wait for the end of a process; one that only its parent has not asked about yet has ended."""
    end = time.monotonic() + timeout
    reap()
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
        reap()
    return True


def reap() -> None:
    """Let go of the servers that this process has started and that have ended."""
    _CHILDREN[:] = [child for child in _CHILDREN if child.poll() is None]


def marked(mark: str) -> list[psutil.Process]:
    """Processes whose command line has the argument ``mark``: those of one home."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if mark in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError:
            return False
        return True


def choose_ports(
    host: str,
    usual: dict[str, int],
    remembered: dict[str, int],
    taken: set[int],
    lasting: Collection[str] = (),
    *,
    retry: str = "ecom up",
) -> dict[str, int]:
    """A port for each purpose: the remembered one, else the usual one, else any that is free.

    Args:
        host: Interface.
        usual: Usual port by purpose.
        remembered: Ports of the last start, maybe empty; they are this server's even if they are in ``taken``.
        taken: Ports promised to servers of this home; the chosen ones are added.
        lasting: Purposes whose port is the remembered one or none. Their first is any that is free, not the usual
            one, so that another home will hardly ever have it.
        retry: The command that tries again, for the error.

    Raises:
        ServiceError: No port is free, or a lasting one is not.
    """
    chosen: dict[str, int] = {}
    # The last resort lies below the range from which the system gives outgoing connections theirs.
    resort = range(20000, 32000)
    for purpose, port in usual.items():
        own = remembered.get(purpose, port)
        candidates: Iterable[int] = itertools.chain([port], resort)
        if purpose in lasting and purpose not in remembered:
            own, *candidates = random.sample(resort, len(resort))
        elif purpose in lasting and not is_free(host, own):
            raise ServiceError(
                f"{host}: expected port {own} to be free, which this home's {purpose} keeps for good, but something"
                " listens there",
                f"stop what does, maybe another home's stack (`ss -ltnp 'sport = :{own}'` shows it), then `{retry}`",
            )
        others = (p for p in candidates if p not in taken and is_free(host, p))
        free = own if (own in remembered.values() or own not in taken) and is_free(host, own) else next(others, None)
        if free is None:
            raise ServiceError(
                f"{host}: expected a free port for {purpose} ({port} or one from 20000 to 31999), found none",
                "stop other servers, or check that the host is an interface of this machine",
            )
        chosen[purpose] = free
        taken.add(free)
    return chosen


def await_free(host: str, ports: Iterable[int], timeout: float) -> None:
    """Wait until the ports are free, but no longer than ``timeout`` seconds.

    A process that was killed holds its ports until the last of its threads has ended.
    """
    end = time.monotonic() + timeout
    while not all(is_free(host, p) for p in ports) and time.monotonic() < end:
        time.sleep(0.1)


def connects(host: str, port: int, timeout: float = 1.0) -> bool:
    """Whether something accepts connections there, within ``timeout`` seconds."""
    try:
        with socket.create_connection((host, port), timeout):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def locked(path: Path, what: str, timeout: float) -> Generator[None]:
    """Hold a lock file.

    Args:
        path: The file; it stays, the lock is the system's and ends with the process.
        what: What is being waited for, for the error.
        timeout: Seconds to wait.

    Raises:
        ServiceError: Someone else held it for all that time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as f:
        end = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise ServiceError(
                        f"{path}: expected the lock within {timeout:.0f} s, but {what} holds it",
                        "wait for that to end, or stop it, then try again",
                    ) from None
                time.sleep(0.1)
        yield


def runtime_folder() -> Path:
    """A folder that this user alone can write to, for what all homes of a machine share while they run.

    Raises:
        ServiceError: There is none, and none can be made.
    """
    candidates = [Path(tempfile.gettempdir()) / f"ecom_assets-{os.getuid()}"]
    with contextlib.suppress(RuntimeError):  # nobody knows where this user's home is
        candidates.insert(0, Path.home() / ".cache" / "ecom_assets")
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        candidates.insert(0, Path(runtime) / "ecom_assets")
    for folder in candidates:
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=folder.parent.name == ".cache", exist_ok=True)
            state = folder.lstat()
            if stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid() and os.access(folder, os.W_OK):
                if stat.S_IMODE(state.st_mode) & 0o077:
                    folder.chmod(0o700)
                return folder
    raise ServiceError(
        f"expected a folder of this user's for locks, got none at {' or '.join(map(str, candidates))}",
        "remove what is there, or set XDG_RUNTIME_DIR to a folder of your own",
    )


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log, or nothing if there is no log."""
    try:
        with path.open("rb") as f:
            f.seek(max(0, path.stat().st_size - 16384))
            return "\n".join(f.read().decode("utf-8", "replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""
