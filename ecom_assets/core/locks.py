"""Who may write to a home: one lock for the home, shared by what builds and exclusive for what deletes; one per build.

What belongs here: holding a lock, and naming who holds it. What does not: which work needs which lock.

The locks are the system's own (``flock``), so that of a process that dies ends with it, whatever killed it. The library
filelock has no lock that several builders of one home could share, nor the name of who holds one. Within a process a
lock is held once, by any of its threads, so work may be nested; the holder that errors name comes from a small file
next to the lock, which is ignored once its process is gone.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from ecom_assets.core import home, process
from ecom_assets.core.errors import HomeError
from ecom_assets.core.files import read_json, write_json
from ecom_assets.core.progress import note
from ecom_assets.core.settings import Settings

TIMEOUT = 10.0
"""Seconds that a command waits for the home before it is refused."""

BUILD_TIMEOUT = 3600.0
"""Seconds that a build waits for another build of the same table: it will mostly find nothing left to do."""

POLL = 0.05
"""Seconds between two attempts."""

NOTE_AFTER = 0.5
"""Seconds of waiting after which it is reported."""


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock.

    Attributes:
        what: What it does, as its command or job is called.
        command: Its command line.
        host: Name of its machine or container.
        pid: Its id there.
        created: When it was started, seconds since the epoch.
        since: When it got the lock, ISO 8601 in UTC.
        shared: Whether others may hold the lock at the same time.
    """

    what: str
    command: str
    host: str
    pid: int
    created: float
    since: str
    shared: bool

    def __str__(self) -> str:
        where = "" if self.host == socket.gethostname() else f" on {self.host}"
        return f"{self.what} (pid {self.pid}{where}, since {self.since}: {self.command})"

    @property
    def is_alive(self) -> bool:
        """Whether its process runs; assumed of one on another machine, which cannot be seen from here."""
        return self.host != socket.gethostname() or process.running(self.pid, self.created) is not None


def shared(
    settings: Settings, what: str, timeout: float = TIMEOUT, log: Callable[[str], object] = note
) -> AbstractContextManager[None]:
    """Hold the home while building in it; others may do so too, and nobody deletes meanwhile.

    Args:
        settings: The home.
        what: What is done, such as ``ecom stream``; shown to those who wait.
        timeout: Seconds to wait for one that holds it exclusively.
        log: Called with one sentence if it has to wait.

    Raises:
        HomeError: It was not released in time; names who holds it. Transient.
    """
    return _held(_file(settings, "home"), settings, what, timeout, log, exclusive=False)


def exclusive(
    settings: Settings, what: str, timeout: float = TIMEOUT, log: Callable[[str], object] = note
) -> AbstractContextManager[None]:
    """Hold the home alone, to delete or to repair.

    Work of the same process that is nested in it may ask for ``shared``. The other way round is a mistake.

    Args:
        settings: The home.
        what: What is done, such as ``ecom reset``; shown to those who wait.
        timeout: Seconds to wait for all that hold it.
        log: Called with one sentence if it has to wait.

    Raises:
        HomeError: It was not released in time; names who holds it. Transient.
    """
    return _held(_file(settings, "home"), settings, what, timeout, log, exclusive=True)


def layer(settings: Settings, layer: str, table: str, timeout: float = BUILD_TIMEOUT) -> AbstractContextManager[None]:
    """Hold a layer of a table alone, to build it; hold the home as well (``shared``).

    Args:
        settings: The home.
        layer: Name of the layer.
        table: Name of the table.
        timeout: Seconds to wait for another build of it.

    Raises:
        HomeError: It was not released in time; names who holds it. Transient.
    """
    what = f"the build of {layer}/{table}"
    return _held(_file(settings, f"{layer}.{table}"), settings, what, timeout, note, exclusive=True)


def acceptance(settings: Settings) -> AbstractContextManager[None]:
    """Accept files of the source alone: builds of several tables' raw layers may begin at once.

    Raises:
        HomeError: Another process did not release it in time; names who holds it. Transient.
    """
    what = "the acceptance of deliveries"
    return _held(_file(settings, "acceptance"), settings, what, BUILD_TIMEOUT, note, exclusive=True)


def holders(settings: Settings) -> list[Holder]:
    """Who holds the home."""
    return _holders(_file(settings, "home"))


class _Lock:
    """A lock file as this process holds it: by any number of blocks, in any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.changed = threading.Condition()
        self.reset()

    def reset(self) -> None:
        self.fd: int | None = None
        self.exclusive = False
        self.blocks: Counter[int] = Counter()
        """Thread -> how many of its blocks hold the lock."""

    def acquire(self, what: str, timeout: float, log: Callable[[str], object], *, exclusive: bool) -> None:
        me, began, noted = threading.get_ident(), time.monotonic(), False
        with self.changed:
            while not self._joins(me, exclusive=exclusive) and not self._locks(exclusive=exclusive):
                if exclusive and self.blocks[me]:
                    raise HomeError(f"{what}: expected to hold {self.path} from the start, got it shared")
                waited = time.monotonic() - began
                if waited >= timeout:
                    raise self._refusal(what, timeout)
                if not noted and waited >= NOTE_AFTER:
                    noted = True
                    log(f"{what} waits for {_named(_holders(self.path))}")
                self.changed.wait(min(POLL, timeout))
            self.blocks[me] += 1
            if self.blocks.total() == 1:
                write_json(_card(self.path), asdict(_me(what, shared=not exclusive)))

    def _joins(self, me: int, *, exclusive: bool) -> bool:
        """Whether this process holds the lock already, and the new block may hold it too."""
        return self.fd is not None and (not exclusive or (self.exclusive and self.blocks[me] > 0))

    def _locks(self, *, exclusive: bool) -> bool:
        """Take the system's lock, if nobody holds it."""
        if self.fd is not None:
            return False
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except BaseException:
            os.close(fd)
            raise
        self.fd, self.exclusive = fd, exclusive
        return True

    def release(self) -> None:
        with self.changed:
            me = threading.get_ident()
            self.blocks[me] -= 1
            self.blocks = +self.blocks
            if not self.blocks and self.fd is not None:
                _card(self.path).unlink(missing_ok=True)
                os.close(self.fd)
                self.reset()
            self.changed.notify_all()

    def _refusal(self, what: str, timeout: float) -> HomeError:
        found = _holders(self.path)
        pids = " ".join(str(h.pid) for h in found if h.host == socket.gethostname())
        return HomeError(
            f"{what}: expected {self.path} to be released within {timeout:g} s, but it is held by {_named(found)}",
            "wait until that has ended" + (f", or end it (kill {pids})" if pids else "") + ", then try again",
            transient=True,
        )


_locks: dict[Path, _Lock] = {}
_mutex = threading.Lock()


@contextmanager
def _held(
    path: Path, settings: Settings, what: str, timeout: float, log: Callable[[str], object], *, exclusive: bool
) -> Generator[None]:
    home.create(settings)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with _mutex:
        lock = _locks.setdefault(path, _Lock(path))
    lock.acquire(what, timeout, log, exclusive=exclusive)
    try:
        yield
    finally:
        lock.release()


def _forget_in_child() -> None:
    """A forked child holds nothing: its parent's locks must end with its parent."""
    global _mutex  # noqa: PLW0603  another thread of the parent may have held it
    _mutex = threading.Lock()
    for lock in _locks.values():
        if lock.fd is not None:
            os.close(lock.fd)
    _locks.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def _file(settings: Settings, name: str) -> Path:
    return settings.home / "locks" / f"{name}.lock"


def _card(path: Path) -> Path:
    """The file by which this process declares that it holds a lock."""
    return path.with_name(f"{path.stem}.{socket.gethostname()}.{os.getpid()}.json")


def _me(what: str, *, shared: bool) -> Holder:
    words = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return Holder(what, words, socket.gethostname(), os.getpid(), process.created(), since, shared)


def _holders(path: Path) -> list[Holder]:
    """Processes that declare to hold a lock and still run; files of ended ones are deleted."""
    found = []
    for card in sorted(path.parent.glob(f"{path.stem}.*.json")):
        try:
            holder = Holder(**(read_json(card) or {}))
        except (TypeError, ValueError, OSError):  # released at this moment
            continue
        if holder.is_alive:
            found.append(holder)
        else:
            card.unlink(missing_ok=True)
    return found


def _named(found: list[Holder]) -> str:
    return "; ".join(map(str, found)) or "a process that has not left its name yet"
