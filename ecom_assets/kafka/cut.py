"""One point of a topic that no transaction crosses: the lock that producers hold, and how a cut is fixed.

What belongs here: ``TransactionLock`` and ``fix``. What does not: what is read up to a cut (``reader``).

A producer holds the lock shared from the beginning of a transaction until it is committed or aborted; fixing a cut
holds it exclusively for the time of one request, in which the high watermarks of the topic and the ledger are read.
No transaction of this home is under way then, and what a transaction commits was acknowledged by all replicas before:
so each one lies before the watermarks of all partitions, with its ledger entries, or behind them. Whether those before
were committed is decided when every last stable offset has reached its watermark. That is waited for without the
lock: it takes milliseconds after a commit, and until the broker aborts it after a producer was killed. Transactions of
other producers may cross the cut. They have no ledger entries, so that makes no difference: what counts of them is
what lies before the watermarks.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

from confluent_kafka.admin import AdminClient

from ecom_assets.core.errors import TopicError
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.kafka import clients, ledger, topics

POLL_SECONDS = 0.01


class TransactionLock:
    """The lock of a table's transactions, for threads and processes of a home.

    ``flock`` on two files: one that wants it exclusively closes a turnstile first, which producers pass on their way
    in, so that no stream of overlapping transactions can keep a cut waiting. Every call that enters the system costs
    a producer up to 5 ms, for another thread of it takes the interpreter's lock meanwhile; so its files stay open.

    Args:
        settings: The home.
        table: The table.
    """

    def __init__(self, settings: Settings, table: Table) -> None:
        self._folder = settings.home / "locks"
        self._table, self._home = table.name, settings.home
        self._mine: tuple[IO[bytes], IO[bytes]] | None = None

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Hold the lock as a producer; waits while a cut is fixed, which is a matter of milliseconds.

        A producer needs an instance of its own.
        """
        turnstile, lock = self._mine = self._mine or self._files()
        fcntl.flock(turnstile, fcntl.LOCK_SH)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
        finally:
            fcntl.flock(turnstile, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)

    @contextmanager
    def cut(self) -> Generator[None]:
        """Hold the lock alone.

        Raises:
            TopicError: A transaction did not end within ``STALL_SECONDS``.
        """
        deadline = time.monotonic() + clients.STALL_SECONDS
        turnstile, lock = self._files()
        with turnstile, lock:  # closing them unlocks them
            self._exclusively(turnstile, deadline)
            self._exclusively(lock, deadline)
            yield

    def _files(self) -> tuple[IO[bytes], IO[bytes]]:
        self._folder.mkdir(parents=True, exist_ok=True)
        turnstile, lock = (self._folder / f"topic-{self._table}.{kind}" for kind in ("turn", "lock"))
        return turnstile.open("ab"), lock.open("ab")

    def _exclusively(self, file: IO[bytes], deadline: float) -> None:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TopicError(
                        f"topic/{self._table}: expected its transactions to pause for a cut, got one under way for"
                        f" {clients.STALL_SECONDS} s",
                        f"see what produces into it (`ecom status --home {self._home}`), then run again",
                        transient=True,
                    ) from None
                time.sleep(POLL_SECONDS)
            else:
                return


@dataclass(frozen=True)
class Fixed:
    """A point of a topic that no transaction crosses.

    Attributes:
        ends: Partition -> offset up to which the topic counts; empty for a topic that does not exist.
        ledger: Offset up to which its ledger counts.
    """

    ends: dict[int, int] = field(default_factory=dict)
    ledger: int = 0


def fix(admin: AdminClient, table: Table, settings: Settings) -> Fixed:
    """Fix a point of a topic that no transaction crosses, while producers continue.

    Args:
        admin: The client.
        table: The table.
        settings: The home and the namespace.

    Raises:
        TopicError: A transaction before that point is still open after ``STALL_SECONDS``, or does not end at all.
    """
    topic, book = table.topic(settings.namespace), ledger.topic_of(table, settings.namespace)
    parts = topics.partitions(topics.describe(admin, [topic, book]))
    if not any(part.topic == topic for part in parts):
        return Fixed()
    topics.end_offsets(admin, parts)  # what it takes to connect is not spent under the lock
    with TransactionLock(settings, table).cut():
        ends = topics.end_offsets(admin, parts)
    deadline = time.monotonic() + clients.STALL_SECONDS
    while _open(ends, stable := topics.end_offsets(admin, parts, committed=True)):
        if time.monotonic() > deadline:
            raise TopicError(
                f"topic {topic}: expected the transactions before {_open(ends, stable)} to end within"
                f" {clients.STALL_SECONDS} s, got one that is still open",
                "look for it (kafka-transactions --bootstrap-server … find-hanging --topic"
                f" {topic}), end its producer, then run again",
                transient=True,
            )
        time.sleep(POLL_SECONDS)
    return Fixed(ends[topic], ends.get(book, {}).get(0, 0))


def _open(ends: dict[str, dict[int, int]], stable: dict[str, dict[int, int]]) -> list[str]:
    """Partitions whose last stable offset is still before the wanted one."""
    return [
        f"{topic}[{partition}] {end}"
        for topic, wanted in ends.items()
        for partition, end in wanted.items()
        if stable.get(topic, {}).get(partition, 0) < end
    ]
