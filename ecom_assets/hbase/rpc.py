"""HBase's own RPC, for the one call that reads whole tables: the scan of a region, taken apart in columns.

What belongs here: a connection to a region server, pages of a scan, and Arrow columns made of a page. What does not:
tables and their layout (see ``layout``). The protocol is that of HBase's ``RPC.proto`` and ``Client.proto``, described
in https://hbase.apache.org/book.html#hbase.rpc. It needs no authentication, or none that asks for more than a name;
where that is not so, or where region servers cannot be reached, there is the Thrift server.

**Connection.** ``HBas``, version 0, kind of authentication 80 (none); int32 size and the connection header, which
asks for cells as ``KeyValueCodec`` writes them. **Call.** int32 size of the rest; header and parameters, each a
delimited protobuf message. **Reply.** int32 size of the rest; header, result, then the cells of all rows in one
block: int32 size and bytes of each (see ``hfile`` for these bytes); the result gives the number of cells of each row.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ecom_assets.core import block
from ecom_assets.core.link import Link
from ecom_assets.hbase import wire

TIMEOUT = 120.0
"""Longest silence of a server, in seconds."""
PAGE_BYTES = 4 * 1024 * 1024
"""Bytes of the cells of a page; a row is never cut. With half of it, reading a table took 5 % longer."""
FOREVER = 2**63 - 1
"""Behind the timestamps of all cells."""
STRETCH, LOOK, MAX_STEPS = 4096, 512, 4096
"""Bytes of a page that are followed by themselves, how many of them are searched for a cell, most cells in one."""

_CODEC = b"org.apache.hadoop.hbase.codec.KeyValueCodec"
_ALL = 2**31 - 1
_SIZE = struct.Struct(">i").unpack_from


class RegionError(RuntimeError):
    """A region server refused.

    Attributes:
        kind: Name of HBase's exception.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True)
class Region:
    """A region and where it is served.

    Attributes:
        name: Its full name.
        start: Its first key; empty for the table's start.
        stop: The first key behind it; empty for the table's end.
        server: Host and port.
    """

    name: bytes
    start: bytes
    stop: bytes
    server: tuple[str, int]


@dataclass(frozen=True)
class Page:
    """Some rows of a scan.

    Attributes:
        block: The cells, each with its size before it, and some zeros behind the last.
        counts: Cells of each row, shape ``(rows,)``.
    """

    block: bytes | memoryview
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.counts)


class Connection(Link):
    """A connection to a region server; a context manager. When it is closed, the server closes its scanners.

    Args:
        server: Host and port.

    Raises:
        OSError: No server answers there.
    """

    def __init__(self, server: tuple[str, int]) -> None:
        super().__init__(server, TIMEOUT)
        self._calls = 0
        header = wire.message({1: wire.message({1: b"ecom"}), 2: b"ClientService", 3: _CODEC})
        self.send(header, opening=b"HBas\x00\x50")

    def pages(
        self,
        region: Region,
        start: bytes,
        stop: bytes,
        times: tuple[int, int] | None = None,
        rows: Sequence[bytes] = (),
    ) -> Iterator[Page]:
        """Scan a range of rows of a region in order.

        Args:
            region: The region; must be served here.
            start: First row key; empty for the region's start.
            stop: Row key to stop before; empty for the region's end.
            times: Only cells with the first of these timestamps or a later one, and before the second, milliseconds
                since the epoch; files without any are not read, and markers from then on do not count.
            rows: Row keys, increasing; only these rows, if given.

        Yields:
            Pages of whole rows; the next one is on its way while one is used.

        Raises:
            RegionError: The server refused, for instance because the region has moved.
            OSError: The connection broke.
        """
        wanted: dict[int, wire.Value] = {5: _of_rows(rows)} if rows else {}
        if times:
            wanted[6] = wire.message({1: times[0], 2: times[1]})
        # Of a whole scan no block is needed twice; rows one by one share many.
        scan = wire.message({3: start, 4: stop} | wanted | {7: 1, 8: int(bool(rows)), 10: PAGE_BYTES, 17: _ALL})
        self._call({1: wire.message({1: 1, 2: region.name}), 2: scan, 4: _ALL, 7: 0, 8: 0})
        while True:
            page, scanner, more = self._reply()
            if more:
                self._call({3: scanner, 4: _ALL, 7: 0, 8: 0})
            if len(page):
                yield page
            if not more:
                return

    @classmethod
    def reaches(cls, region: Region) -> bool:
        """Whether a region can be read this way: its server is reachable, and asks for no password."""
        try:
            with cls(region.server) as connection:
                next(connection.pages(region, region.start, region.start + b"\0"), None)
        except RegionError as error:
            return "AccessDenied" not in error.kind
        except (OSError, ValueError, IndexError):
            return False
        return True

    def _call(self, request: dict[int, wire.Value]) -> None:
        self._calls += 1
        header = wire.message({1: self._calls, 3: b"Scan", 4: 1})
        body = wire.delimited(header) + wire.delimited(wire.message(request))
        self.send(body)

    def _reply(self) -> tuple[Page, int, bool]:
        """Read a reply.

        Returns:
            The rows, the scanner's number, and whether there may be more rows.
        """
        data = self.receive(block.ROOM)  # so that a window of that size fits at any cell
        length, at = wire.read_varint(data, 0)
        header = dict(wire.read_message(memoryview(data)[at : at + length]))
        at += length
        if 2 in header:
            reply = dict(wire.read_message(header[2])) if isinstance(header[2], bytes) else {}
            kind, trace = (bytes(reply.get(n, b"")).decode(errors="replace") for n in (1, 2))
            raise RegionError(kind, (trace.splitlines() or [kind])[0])
        length, at = wire.read_varint(data, at)
        result = memoryview(data)[at : at + length]
        plain = plain_counts(result)
        further: list[int] = []
        scanner, more, more_here = 0, True, True
        for tag, value in wire.read_message(result[2 * len(plain) :]):
            if isinstance(value, int):
                if tag == 1:
                    further.append(value)
                elif tag == 2:
                    scanner = value
                elif tag == 3:
                    more = bool(value)
                elif tag == 8:
                    more_here = bool(value)
        counts = np.concatenate([plain, np.array(further, np.int64)])
        return Page(memoryview(data)[at + length :], counts), scanner, more and more_here


def _of_rows(keys: Sequence[bytes]) -> bytes:
    """HBase's filter for some rows, which leads a scan from one to the next."""
    ranges = b"".join(wire.message({1: wire.message({1: key, 2: 1, 3: key, 4: 1})}) for key in keys)
    return wire.message({1: b"org.apache.hadoop.hbase.filter.MultiRowRangeFilter", 2: ranges})


class Cells:
    """The cells of a page, in columns.

    Args:
        page: The page.
        columns: ``b"family:qualifier"`` of the cells looked for.

    Attributes:
        keys: Row key of each row, binary.
        values: Column -> value in each row, binary; null where a row has no such cell.
        odd: Rows with a cell of another column, or that is no put; shape ``(rows,)``.

    Raises:
        ValueError: The block is damaged.
    """

    def __init__(self, page: Page, columns: Sequence[bytes]) -> None:
        self._block = page.block
        rows = len(page)
        self._at = at = positions(page)
        self._row = row = np.repeat(np.arange(rows), page.counts)
        ints, shorts = (np.ndarray(len(self._block) - 3, kind, self._block, strides=(1,)) for kind in (">i4", ">i2"))
        key_sizes, sizes, row_sizes = (
            ints[at + 4].astype(np.int64), ints[at + 8].astype(np.int64), shorts[at + 12].astype(np.int64)
        )  # fmt: skip
        if (ints[at] != 8 + key_sizes + sizes).any():
            raise ValueError("HBase: expected cells without tags, got others; another version of the protocol?")
        self._first = first = np.cumsum(page.counts) - page.counts
        self.keys = block.take(self._block, at[first] + 14, row_sizes[first])
        odd = np.frombuffer(self._block, np.uint8)[at + 11 + key_sizes] != 4
        starts, lengths = at + 14 + row_sizes, key_sizes - row_sizes - 11  # of family size, family and qualifier
        known = np.zeros(len(at), bool)
        self.values: dict[bytes, pa.Array] = {}
        for column in columns:
            family, _, qualifier = column.partition(b":")
            name = bytes([len(family)]) + family + qualifier
            hits = np.flatnonzero(lengths == len(name))
            hits = hits[block.windows(self._block, len(name))[starts[hits]] == name]
            known[hits] = True
            value_at, value_size = np.zeros(rows, np.int64), np.full(rows, -1)
            value_at[row[hits]] = at[hits] + 12 + key_sizes[hits]
            value_size[row[hits]] = sizes[hits]
            self.values[column] = block.take(self._block, value_at, value_size)
        self.odd = np.zeros(rows, bool)
        self.odd[row[odd | ~known]] = True
        self._key_at, self._key_sizes = at[first] + 14, row_sizes[first]

    def within_keys(self, before: np.ndarray | int, after: np.ndarray | int) -> pa.Array:
        """The parts of the row keys without so many bytes at their beginning and end; null where none is left over."""
        return block.take(self._block, self._key_at + before, self._key_sizes - before - after)

    def row(self, number: int) -> dict[bytes, bytes]:
        """All cells of one row, whatever they are: ``b"family:qualifier"`` -> value."""
        cells = {}
        first = self._first[number]
        for at in self._at[first : first + int((self._row == number).sum())].tolist():
            (key_size,), (size,) = _SIZE(self._block, at + 4), _SIZE(self._block, at + 8)
            key = bytes(self._block[at + 12 : at + 12 + key_size])
            family = 3 + int.from_bytes(key[:2], "big")
            end = family + key[family - 1]
            value = self._block[at + 12 + key_size : at + 12 + key_size + size]
            cells[key[family:end] + b":" + key[end:-9]] = bytes(value)
        return cells


def plain_counts(result: memoryview) -> np.ndarray:
    """The cells of the first rows, as long as each takes two bytes: the field's number, and fewer than 128.

    A result covers thousands of rows and begins with these; reading them one by one would take a fifth of the time.
    """
    pairs = np.frombuffer(result, np.uint8, len(result) // 2 * 2).reshape(-1, 2)
    other = (pairs[:, 0] != 1 << 3) | (pairs[:, 1] > 127)
    rows = int(other.argmax()) if other.any() else len(pairs)
    return pairs[:rows, 1].astype(np.int64)


def positions(page: Page) -> np.ndarray:
    """Where each cell of a page begins; shape ``(cells,)``.

    The size of a cell says where the next one begins, so they must be followed one after the other. Of a large page
    many stretches are followed at once, each from the first thing in it that looks like a cell; where these stretches
    do not make one chain of exactly the cells announced, the page is read from its first cell on.

    Raises:
        ValueError: The block is damaged.
    """
    if len(page.block) >= 16 * STRETCH:
        found = _followed_at_once(page)
        if found is not None:
            return found
    return _followed(page)


def _followed(page: Page) -> np.ndarray:
    data, at = page.block, 0
    found = []
    add = found.append
    try:
        for _ in range(int(page.counts.sum())):
            add(at)
            at += 4 + _SIZE(data, at)[0]
    except struct.error:
        at = -1
    if at != len(data) - block.ROOM:
        raise ValueError("HBase: expected a block of whole cells, got another; another version of the protocol?")
    return np.array(found, np.int64)


def _followed_at_once(page: Page) -> np.ndarray | None:
    data, end = page.block, len(page.block) - block.ROOM
    ints = np.ndarray(len(data) - 3, ">i4", data, strides=(1,))
    stretches = np.frombuffer(data, np.uint8, end // STRETCH * STRETCH).reshape(-1, STRETCH)
    # A cell begins with its size and that of its key, as a rule below 65,536: bytes 0, 1, 4 and 5 are zeros.
    high = stretches[:, :LOOK] | stretches[:, 1 : LOOK + 1]
    high |= stretches[:, 4 : LOOK + 4]
    high |= stretches[:, 5 : LOOK + 5]
    stretch, within = np.divmod(np.flatnonzero(high.ravel() == 0), LOOK)
    starts = stretch * STRETCH + within
    alike = ints[starts] == 8 + ints[starts + 4].astype(np.int64) + ints[starts + 8]
    starts, stretch = starts[alike], stretch[alike]
    if not len(starts):
        return None
    first = at = starts[np.diff(stretch, prepend=-1) > 0]
    ends = np.append(at[1:], end)
    steps = []
    while len(steps) < MAX_STEPS and (at < ends).any():
        for _ in range(8):  # a step more costs less than to look each time whether it is needed
            steps.append(at)
            at = np.minimum(at + 4 + np.maximum(ints[at], 0), ends)
    cells = np.array(steps or [at], np.int64)
    found = cells.T[(cells < ends).T]
    chained = first[0] == 0 and np.array_equal(found + 4 + ints[found], np.append(found[1:], end))
    return found if chained and len(found) == page.counts.sum() else None
