"""Kafka's own protocol, for the one call that reads whole topics: fetches of a partition, taken apart in columns.

What belongs here: a connection to a broker, and Arrow columns made of record batches. What does not: topics and what
their records mean (``reader``). The protocol is described in https://kafka.apache.org/protocol, record batches in
https://kafka.apache.org/documentation/#recordbatch. A client that makes an object of each record takes 2.6 us for it,
here a record takes 0.8. It is for brokers that ask for neither encryption nor a password, and for the codecs that
Arrow knows; for all else there is librdkafka.

**Fetch, version 4.** int32 size of the rest; int16 api (1), int16 version, int32 correlation, string client; then
replica (-1), longest wait in ms, least and most bytes, isolation (1: what is committed), and for a topic its name and
for a partition its number, offset and most bytes. **Reply.** int32 size, int32 correlation, throttling; for the
partition its error, high watermark, last stable offset, the transactions that were aborted as (producer, first
offset), and the record batches, of which the last may be cut off.

**Record batch.** 61 bytes of header, big-endian, in it the first offset, size, number of records, producer and
attributes: codec (3 bits), transactional (16), control (32). A control batch ends a transaction: key version, then
type, 0 for one that was aborted. **Record.** varint size; attributes, varints of timestamp and offset less the
batch's, key and value each with a varint size before it, headers. Varints are zigzag. The header has the first and the
latest timestamp; with the attribute 8, all records have the latter.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from ecom_assets.core import block
from ecom_assets.core.link import Link

TIMEOUT = 30.0
"""Longest silence of a broker, in seconds."""
WAIT = 100
"""Milliseconds that a broker may wait for more where there is nothing to fetch."""
FETCH_BYTES = 4 << 20
"""Bytes of a fetch, as they come, compressed; a batch is never cut off at the beginning of a fetch."""

CODECS = {0: None, 1: "gzip", 3: "lz4", 4: "zstd"}
"""Number -> Arrow's name. Snappy is framed in a way of its own."""

_HEADER = struct.Struct(">qiibIhiqqqhii")
_OWN = 12
"""Bytes of a batch that its size does not count: first offset and size."""


class FetchError(RuntimeError):
    """A broker refused, or sent what is not known here; another client may know more."""


@dataclass(frozen=True)
class Records:
    """Records of a partition, in order.

    Attributes:
        values: Their values, binary.
        offsets: Their offsets, shape ``(records,)``.
        times: Their timestamps, milliseconds since 1970, shape ``(records,)``.
        keys: Gives their keys, binary: few readers need them.
    """

    values: pa.Array
    offsets: np.ndarray
    times: np.ndarray
    keys: Callable[[], pa.Array]

    def __len__(self) -> int:
        return len(self.offsets)

    def in_columns(self, partition: int) -> pa.RecordBatch:
        """The columns key, value, partition, offset and timestamp; the latter has microseconds, as Spark has it."""
        columns = {
            "key": self.keys(),
            "value": self.values,
            "partition": pa.repeat(pa.scalar(partition, pa.int32()), len(self)),
            "offset": pa.array(self.offsets),
            "timestamp": pa.array(self.times * 1000).cast(pa.timestamp("us", "UTC")),
        }
        return pa.RecordBatch.from_pydict(columns)

    def where(self, these: np.ndarray) -> Records:
        """Some of the records, by a mask."""
        mask, keys = pa.array(these), self.keys
        return Records(self.values.filter(mask), self.offsets[these], self.times[these], lambda: keys().filter(mask))


class Connection(Link):
    """A connection to a broker; a context manager.

    Args:
        broker: Host and port.

    Raises:
        OSError: No broker answers there.
    """

    def __init__(self, broker: tuple[str, int]) -> None:
        super().__init__(broker, TIMEOUT)
        self._calls = 0

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[tuple[Records, int]]:
        """Read the committed records of a partition, as far as they can be read now.

        Args:
            topic: The topic.
            partition: The partition; its leader must be this broker.
            start: First offset.
            end: Offset to stop before.

        Yields:
            Records, and the offset to go on at; the next ones are on their way while some are used. Ends before
            ``end`` where a transaction is still open.

        Raises:
            FetchError: The broker refused, or a batch is of a kind that is not known here.
            OSError: The connection broke.
        """
        aborted: set[int] = set()  # producers whose transaction is one that was aborted
        self._ask(topic, partition, start)
        at = start
        while True:
            batches, gone = self._reply()
            if not batches:
                return
            at = batches[-1].behind
            if at < end:
                self._ask(topic, partition, at)
            good = [batch for batch in batches if batch.counts(gone, aborted)]
            records = _records(good)
            inside = (records.offsets >= start) & (records.offsets < end)  # batches come whole
            yield (records if inside.all() else records.where(inside)), at
            if at >= end:
                return

    def _ask(self, topic: str, partition: int, offset: int) -> None:
        self._calls += 1
        name = topic.encode()
        body = struct.pack(f">hhih4siiiibih{len(name)}siiqi", 1, 4, self._calls, 4, b"ecom", -1, WAIT, 1, FETCH_BYTES, 1, 1, len(name), name, 1, partition, offset, FETCH_BYTES)  # fmt: skip  # noqa: E501
        self.send(body)

    def _reply(self) -> tuple[list[_Batch], list[tuple[int, int]]]:
        """The whole batches of a reply, and the transactions that were aborted, as (first offset, producer)."""
        data = self.receive()
        correlation, _, topics, length = struct.unpack_from(">iiih", data)
        if correlation != self._calls or topics != 1:
            raise FetchError(f"expected a reply to call {self._calls} of one topic, got one to {correlation}")
        partitions, _, error, _, _, count = struct.unpack_from(">iihqqi", data, 14 + length)
        if error or partitions != 1:
            raise FetchError(f"expected records, got Kafka's error {error}")
        at = 14 + length + 30
        gone = [struct.unpack_from(">qq", data, at + 16 * n)[::-1] for n in range(max(0, count))]
        at += 16 * len(gone)
        (size,) = struct.unpack_from(">i", data, at)
        return list(_batches(memoryview(data)[at + 4 : at + 4 + max(0, size)])), sorted(gone)


@dataclass(frozen=True)
class _Batch:
    """A record batch: some of its header, and its records as they came."""

    base: int
    behind: int
    attributes: int
    times: tuple[int, int]
    producer: int
    count: int
    data: memoryview

    def counts(self, gone: list[tuple[int, int]], aborted: set[int]) -> bool:
        """Whether its records are committed; keeps in mind which producers' transactions are not.

        Args:
            gone: First offset and producer of aborted transactions, in order; those that begin here are taken out.
            aborted: Producers within such a transaction.
        """
        while gone and gone[0][0] < self.behind:
            aborted.add(gone.pop(0)[1])
        if self.attributes & 32:
            aborted.discard(self.producer)
            return False
        return not (self.attributes & 16 and self.producer in aborted)

    @property
    def appended(self) -> bool:
        """Whether its records have the time at which the broker appended them, not their own."""
        return bool(self.attributes & 8)

    def records(self) -> bytes | memoryview:
        """The records without compression."""
        codec = self.attributes & 7
        if codec not in CODECS:
            raise FetchError(f"expected one of the codecs {sorted(CODECS)}, got {codec}")
        if not codec:
            return self.data
        with pa.CompressedInputStream(pa.BufferReader(self.data), CODECS[codec]) as source:
            return source.read()


def _batches(data: memoryview) -> Iterator[_Batch]:
    at = 0
    while at + _HEADER.size <= len(data):
        base, size, _, magic, _, attributes, last, *times, producer, _, _, count = _HEADER.unpack_from(data, at)
        if magic != 2:
            raise FetchError(f"expected record batches of version 2, got {magic}")
        behind = at + _OWN + size
        if behind > len(data):
            return
        yield _Batch(
            base, base + last + 1, attributes, (times[0], times[1]), producer, count, data[at + _HEADER.size : behind]
        )
        at = behind


def _records(batches: list[_Batch]) -> Records:
    """Take batches apart."""
    plain = [batch.records() for batch in batches]
    data = b"".join([*plain, bytes(block.ROOM)])
    begins = np.cumsum([0, *map(len, plain)])
    at = np.concatenate(
        [np.empty(0, np.int64), *(
            _positions(data, begin, end, batch.count)
            for batch, (begin, end) in zip(batches, pairwise(begins.tolist()), strict=True)
        )]
    )  # fmt: skip
    raw = np.frombuffer(data, np.uint8)
    _, at = _varints(raw, at)  # sizes
    later, at = _varints(raw, at + 1)  # timestamps, behind the attributes
    deltas, at = _varints(raw, at)
    key_sizes, keys_at = _varints(raw, at)
    sizes, at = _varints(raw, keys_at + np.maximum(0, key_sizes))

    def of_batch(values: list[int]) -> np.ndarray:
        return np.repeat(np.array(values, np.int64), [b.count for b in batches])

    # Where the broker tells the time, it is that of the batch; what its records say does not count.
    times = of_batch([b.times[b.appended] for b in batches]) + np.where(
        of_batch([b.appended for b in batches]), 0, later
    )
    offsets = of_batch([b.base for b in batches]) + deltas
    return Records(block.take(data, at, sizes), offsets, times, lambda: block.take(data, keys_at, key_sizes))


def _positions(data: bytes, at: int, end: int, count: int) -> np.ndarray:
    """Where each record of a batch begins."""
    positions = []
    add = positions.append
    for _ in range(count):
        add(at)
        byte = data[at]
        size, shift = byte & 127, 7
        at += 1
        while byte > 127:
            byte = data[at]
            size |= (byte & 127) << shift
            shift += 7
            at += 1
        at += size >> 1
    if at != end:
        raise FetchError("expected a batch of whole records, got another")
    return np.array(positions, np.int64)


def _varints(raw: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The zigzag integers at some positions, and the positions behind them."""
    byte = raw[at].astype(np.int64)
    found, behind = byte & 127, at + 1
    more, shift = np.flatnonzero(byte > 127), 7
    while len(more):
        byte = raw[behind[more]].astype(np.int64)
        found[more] |= (byte & 127) << shift
        behind[more] += 1
        more, shift = more[byte > 127], shift + 7
    return (found >> 1) ^ -(found & 1), behind
