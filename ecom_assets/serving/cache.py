"""Answers in Redis, by version.

An answer's key contains the version of what it was computed from, so a new version is a cache miss, and an old answer
is found only under the old version. Concurrent cache misses are coalesced (single flight). Without Redis everything is
computed each time: slower, never wrong.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

import pyarrow as pa
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.exceptions import LockError
from redis.lock import Lock
from redis.retry import Retry

from ecom_assets.core.home import hint
from ecom_assets.core.ownership import Owner

TIMEOUT = 0.5
"""Seconds within which Redis must respond; it runs nearby."""

PAUSE = 5.0
"""Seconds for which a Redis that did not respond is not tried again."""

LOCK_SECONDS = 120
"""Seconds after which a computation counts as dead and another may begin; two may then compute the same result."""

TTL = 7 * 24 * 3600
"""Seconds an answer stays; versions that are no longer read expire by this."""

_COMPUTED = b"ecom.computed"
_SOURCE = b"ecom.source"


@dataclass(frozen=True)
class Cached:
    """An answer and where it is from.

    Attributes:
        table: The answer.
        source: "Redis", or what has computed it now.
        computed_by: What has computed it.
        computed_at: When, in epoch seconds.
    """

    table: pa.Table
    source: str
    computed_by: str
    computed_at: float


class Cache:
    """A Redis, or the absence of one.

    Args:
        url: ``redis://…``; empty for none.
        namespace: Prefix of all keys.
        ttl: Seconds an answer stays.
    """

    def __init__(self, url: str, namespace: str, ttl: int = TTL) -> None:
        self.namespace = namespace
        self.ttl = ttl
        self._client = (
            Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, retry=Retry(NoBackoff(), 0))
            if url
            else None
        )
        self._asleep_until = 0.0
        self._hits = self._misses = 0
        # One of these per question, so that the threads of a process need not wait for one another in Redis.
        self._local = [threading.Lock() for _ in range(64)]

    @property
    def available(self) -> bool:
        """Whether Redis responded at the last request, or may again."""
        return self._client is not None and time.monotonic() >= self._asleep_until

    def answer(self, key: str, compute: Callable[[], tuple[pa.Table, str, bool]]) -> Cached:
        """Find an answer, or compute and keep it.

        Args:
            key: What was asked, of which version.
            compute: Computes the answer: the table, what computed it, and whether it may be kept.
        """
        if found := self._find(key):
            return found
        with self._alone(key):
            # The previous holder may have stored it.
            if found := self._find(key, counted=False):
                return found
            # Across processes: the lock in Redis; while another holds it, wait for the answer or for its release.
            lock = self._lock(key)
            try:
                if lock and (found := self._find(key, counted=False)):
                    return found
                table, source, lasting = compute()
                made = Cached(table, source, source, time.time())
                if lasting:
                    self._keep(key, made)
                return made
            finally:
                self._unlock(lock)

    def register(self, owner: Owner) -> None:
        """Write a home's name into Redis, or check that it is there already; nothing without Redis.

        Raises:
            OwnedError: Another home uses this prefix.
        """
        if not (self.available and self._client):
            return
        try:
            key = self._name("owner")
            if not self._client.set(key, owner.to_text(), nx=True) and (text := self._client.get(key)):
                owner.check(Owner.from_text(cast("bytes", text).decode()), f"Redis keys {self.namespace}:*")
        except RedisError:
            self._rest()

    def put(self, key: str, table: pa.Table, made_by: str) -> None:
        """Keep an answer that was computed elsewhere.

        Raises:
            ConnectionError: Redis is not there.
        """
        self._keep(key, Cached(table, made_by, made_by, time.time()))
        if not self.available:
            raise ConnectionError(
                f"Redis does not answer; `{hint('status')}` shows whether it runs, `{hint('up')}` starts it"
            )

    def get(self, key: str) -> tuple[Cached | None, int]:
        """Find an answer without computing it.

        Returns:
            The answer, or ``None``; and the seconds it still stays.
        """
        found = self._find(key, counted=False)
        left = 0
        if found and self.available and self._client:
            try:
                left = max(0, int(self._client.ttl(self._name(key))))
            except RedisError:
                self._rest()
        return found, left

    def ratio(self) -> float | None:
        """Share of the questions that were answered from here, of all processes; ``None`` if none was asked."""
        hits, misses = self._hits, self._misses
        if self.available and self._client:
            try:
                counts = self._client.mget(self._name("hits"), self._name("misses"))
                hits, misses = (int(n or 0) for n in counts)
            except RedisError:
                self._rest()
        return hits / (hits + misses) if hits + misses else None

    def close(self) -> None:
        """Close the connections."""
        if self._client:
            self._client.close()

    def _name(self, key: str) -> str:
        return f"{self.namespace}:{key}"

    def _find(self, key: str, *, counted: bool = True) -> Cached | None:
        data = None
        if self.available and self._client:
            try:
                data = self._client.get(self._name(key))
            except RedisError:
                self._rest()
        found = _unpack(data) if isinstance(data, bytes) else None
        if counted:
            self._count(hit=found is not None)
        return found

    def _keep(self, key: str, made: Cached) -> None:
        if self.available and self._client:
            try:
                self._client.set(self._name(key), _pack(made), ex=self.ttl)
            except RedisError:
                self._rest()

    def _count(self, *, hit: bool) -> None:
        self._hits += hit
        self._misses += not hit
        if self.available and self._client:
            try:
                self._client.incr(self._name("hits" if hit else "misses"))
            except RedisError:
                self._rest()

    def _alone(self, key: str) -> threading.Lock:
        return self._local[hash(key) % len(self._local)]

    def _lock(self, key: str) -> Lock | None:
        if not (self.available and self._client):
            return None
        lock = self._client.lock(self._name(f"{key}:lock"), timeout=LOCK_SECONDS, sleep=0.05)
        try:
            return lock if lock.acquire(blocking_timeout=LOCK_SECONDS) else None
        except RedisError:
            self._rest()
            return None

    def _unlock(self, lock: Lock | None) -> None:
        if lock:
            try:
                with suppress(LockError):  # it expired, and another has it now
                    lock.release()
            except RedisError:
                self._rest()

    def _rest(self) -> None:
        """Skip Redis for a moment: a page has many queries, and none of them should run into its timeout again."""
        self._asleep_until = time.monotonic() + PAUSE


def _pack(made: Cached) -> bytes:
    meta = {_COMPUTED: str(made.computed_at).encode(), _SOURCE: made.computed_by.encode()}
    sink = pa.BufferOutputStream()
    table = made.table.replace_schema_metadata(meta)
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _unpack(data: bytes) -> Cached | None:
    """Read what ``_pack`` wrote; ``None`` for anything else, which is then computed again."""
    try:
        with pa.ipc.open_stream(data) as reader:
            table = reader.read_all()
        meta = table.schema.metadata
        by = meta[_SOURCE].decode()
        return Cached(table.replace_schema_metadata(None), "Redis", by, float(meta[_COMPUTED]))
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        return None
