"""The two Thrift calls that carry data, without an object per cell.

What belongs here: one connection to HBase's Thrift server, the bytes of ``mutateRowsTs`` made by Arrow,
the bytes of ``scannerGetList`` taken apart in one loop, and which errors are worth another try. What does not:
tables and their layout (see ``layout``). Every other call goes through happybase, on the same socket.

An object per cell makes Python the slowest part by far; with these two, the servers are.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Self, TypeVar

import happybase
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from Hbase_thrift import Hbase, IllegalArgument, TScan  # ty: ignore[import-not-found]  # made by happybase
from Hbase_thrift import IOError as ThriftIOError  # ty: ignore[import-not-found]
from thriftpy2.protocol import TCyBinaryProtocol
from thriftpy2.thrift import TApplicationException, TException, TMessageType
from thriftpy2.transport import TCyBufferedTransport, TTransportException

from ecom_assets.core.errors import HBaseError
from ecom_assets.core.home import hint
from ecom_assets.hbase.rpc import RegionError

T = TypeVar("T")
Cells = dict[bytes, bytes]

CONNECTIONS = 4
"""Connections that load or scan at once; more only queue up in the server."""

TIMEOUT_MS = 120_000
"""Longest silence of the server, in milliseconds; a region that moves while it compacts can take a minute."""
ATTEMPTS = 8
"""Tries per call: with the back-off about 25 s, enough for a restart of the server; it retries by itself as well."""
TRANSIENT = (
    "NotServingRegion", "RegionTooBusy", "RegionMoved", "RegionOpening", "ServerNotRunningYet", "RegionServerStopped",
    "CallQueueTooBig", "CallTimeout", "ConnectException", "ConnectionClosed", "SocketTimeout", "UnknownScanner",
    "LeaseException", "ScannerReset", "scanner ID is invalid",
)  # fmt: skip
"""What passes by itself, or with a new scanner, as the server's messages name it.

Anything else (no such table or family, a cell too big) is final.
"""

_CALL = 0x80010000 | TMessageType.CALL
_INT = struct.Struct(">I").unpack_from
_ROW = struct.Struct(">3sI").unpack_from
_MAP = struct.Struct(">5sI").unpack_from


@dataclass(frozen=True)
class Call:
    """One ``mutateRowsTs`` call, ready to send; all its cells or markers get one timestamp.

    Attributes:
        rows: Its rows.
        body: Their ``BatchMutation`` structs, one after the other.
        first: Row key of the first, for error messages.
    """

    rows: int
    body: memoryview
    first: bytes


class Connection:
    """One connection to HBase's Thrift server (binary protocol, buffered transport: its defaults).

    Attributes:
        happybase: The same connection for everything else.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        """Connect.

        Args:
            address: Host and port.

        Raises:
            ConnectionError: No server answers there.
        """
        host, port = address
        try:
            self.happybase = happybase.Connection(host, port, timeout=TIMEOUT_MS)
        except TTransportException as error:
            raise ConnectionError(
                f"HBase Thrift: expected a server at {host}:{port}, got {error.message}; is the stack up?"
            ) from error
        transport: Any = self.happybase.transport  # both of thriftpy2's transports have a socket, undeclared
        self._socket: socket.socket = transport.sock
        self._protocol = TCyBinaryProtocol(transport, decode_response=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self.happybase.close()

    def mutate(self, table: str, call: Call, timestamp: int) -> None:
        """Write or remove rows, all at one timestamp.

        Args:
            table: HBase's name of the table.
            call: The rows.
            timestamp: Milliseconds since the epoch.

        Raises:
            ThriftIOError: The server could not write.
            OSError: The connection broke.
        """
        name = table.encode()
        self._send(
            "mutateRowsTs",
            struct.pack(">BHI", 11, 1, len(name)) + name + struct.pack(">BHBI", 15, 2, 12, call.rows),
            call.body,
            struct.pack(">BHqB", 10, 3, timestamp, 0),
        )
        _raise_error("mutateRowsTs", self._protocol)

    def pages(self, table: str, start: bytes, stop: bytes, rows: int) -> Iterator[list[tuple[bytes, Cells]]]:
        """Scan a range of rows in order.

        Args:
            table: HBase's name of the table.
            start: First row key; empty for the table's start.
            stop: Row key to stop before; empty for the table's end.
            rows: Rows a page.

        Yields:
            Pages of ``(row key, {b"family:qualifier": value})``.

        Raises:
            ThriftIOError: The server could not read.
            OSError: The connection broke.
        """
        client = self.happybase.client
        scan = TScan(startRow=start, stopRow=stop or None, caching=rows, sortColumns=False)
        scanner = client.scannerOpenWithScan(table.encode(), scan, {})
        request = struct.pack(">BHiBHiB", 8, 1, scanner, 8, 2, rows, 0)
        while True:
            self._send("scannerGetList", request)
            page = read_page(self._receive)
            if not page:
                break
            yield page
        client.scannerClose(scanner)

    def _send(self, method: str, *parts: bytes | memoryview) -> None:
        name = method.encode()
        self._socket.sendall(b"".join((struct.pack(">II", _CALL, len(name)), name, bytes(4), *parts)))

    def _receive(self) -> bytes:
        data = self._socket.recv(1 << 20)
        if not data:
            raise ConnectionResetError("HBase Thrift: the server closed the connection within a reply")
        return data


Lend = Callable[[], AbstractContextManager[Connection]]


@contextmanager
def connections(address: tuple[str, int]) -> Generator[Lend]:
    """Lend connections to threads; one that broke is not lent again."""
    idle: SimpleQueue[Connection] = SimpleQueue()

    @contextmanager
    def lend() -> Generator[Connection]:
        try:
            connection = idle.get_nowait()
        except Empty:
            connection = Connection(address)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        idle.put(connection)

    try:
        yield lend
    finally:
        while not idle.empty():
            idle.get_nowait().close()


def read_page(receive: Callable[[], bytes]) -> list[tuple[bytes, Cells]]:
    """Read the reply to ``scannerGetList``.

    Args:
        receive: Gives the next bytes of the reply, however many.

    Returns:
        ``(row key, cells)`` of each row.

    Raises:
        ThriftIOError: The server could not read.
        ValueError: That is no page of rows.
    """
    head = b"\x80\x01\x00\x02\x00\x00\x00\x0escannerGetList\x00\x00\x00\x00\x0f\x00\x00\x0c"
    data = b""
    while len(data) < len(head) + 4:
        data += receive()
        if not head.startswith(data[: len(head)]):
            rest = TCyBufferedTransport(_Replay(data, receive))
            _raise_error("scannerGetList", TCyBinaryProtocol(rest, decode_response=False))
            raise ValueError(
                f"HBase Thrift: expected a page of rows, got {data[:64]!r}; another version of the protocol?"
            )
    position = len(head) + 4
    (count,) = _INT(data, len(head))
    page: list[tuple[bytes, Cells]] = []
    while len(page) < count:
        try:
            key, cells, position = _row(data, position)
            page.append((key, cells))
        except (struct.error, IndexError):  # the rest of the row is still on its way
            data = data[position:] + receive()
            position = 0
    if position == len(data):  # the byte that ends the reply
        receive()
    return page


def _raise_error(method: str, protocol: TCyBinaryProtocol) -> None:
    """Read a reply that carries no rows; raise the error that it carries instead."""
    _, kind, _ = protocol.read_message_begin()
    reply = getattr(Hbase, f"{method}_result")() if kind == TMessageType.REPLY else TApplicationException()
    protocol.read_struct(reply)
    if isinstance(reply, Exception):
        raise reply
    for error in (reply.io, reply.ia):
        if error:
            raise error


class _Replay:
    """What was read of a reply already, then the rest, for thriftpy2 to read as one."""

    def __init__(self, data: bytes, more: Callable[[], bytes]) -> None:
        self.data = data
        self.more = more

    def read(self, size: int) -> bytes:
        data = self.data or self.more()
        self.data = data[size:]
        return data[:size]


def _row(data: bytes, at: int) -> tuple[bytes, Cells, int]:
    """Take one ``TRowResult`` apart.

    Returns:
        Row key, cells, and where the next row begins.

    Raises:
        struct.error, IndexError: The data ends within the row.
        ValueError: That is no row.
    """
    head, size = _ROW(data, at)
    if head != b"\x0b\x00\x01":
        raise ValueError(f"HBase Thrift: expected a row, got {data[at : at + 64]!r}; another version of the protocol?")
    at += 7 + size
    key = data[at - size : at]
    head, count = _MAP(data, at)
    if head != b"\x0d\x00\x02\x0b\x0c":
        raise ValueError(f"HBase Thrift: expected cells, got {data[at : at + 64]!r}; another version of the protocol?")
    at += 9
    cells = {}
    for _ in range(count):
        (size,) = _INT(data, at)
        at += 4 + size
        column = data[at - size : at]
        (size,) = _INT(data, at + 3)
        at += 7 + size
        cells[column] = data[at - size : at]
        at += 12  # the timestamp, and the end of the cell
    data[at]  # the end of the row is there
    return key, cells, at + 1


def calls(keys: pa.Array, columns: Sequence[tuple[bytes, pa.Array]], size: int) -> Iterator[Call]:
    """Make the calls that write rows.

    Args:
        keys: Row keys, binary.
        columns: ``(b"family:qualifier", values)``, the values binary; a null makes no cell.
        size: Bytes a call should have; a row is never cut.

    Yields:
        The calls, in the order of the rows.
    """
    rows = len(keys)
    cells = np.zeros(rows, np.int32)
    parts: list[Any] = [b"\x0b\x00\x01", _sizes(keys), keys, b"\x0f\x00\x02\x0c", None]
    for column, values in columns:
        cell = (struct.pack(">BHI", 11, 2, len(column)) + column + b"\x0b\x00\x03", _sizes(values), values, b"\x00")
        if values.null_count:
            cells += values.is_valid().to_numpy(zero_copy_only=False)
            parts.append(pc.binary_join_element_wise(*cell, b""))
        else:
            cells += 1
            parts.extend(cell)
    parts[4] = _big_endian(cells)
    yield from _cut(keys, [*parts, b"\x00"], size)


def removals(keys: pa.Array, families: Sequence[str], size: int) -> Iterator[Call]:
    """Make the calls that hide all cells of rows, up to the calls' timestamp, by a marker per family.

    Args:
        keys: Row keys, binary.
        families: The families.
        size: Bytes a call should have.

    Yields:
        The calls, in the order of the rows.
    """
    # A deletion of a column without a qualifier is one of the whole family.
    markers = b"".join(
        struct.pack(">BHBBHI", 2, 1, 1, 11, 2, len(family.encode())) + family.encode() + b"\x00" for family in families
    )
    head = b"\x0f\x00\x02\x0c" + struct.pack(">i", len(families))
    yield from _cut(keys, [b"\x0b\x00\x01", _sizes(keys), keys, head + markers + b"\x00"], size)


def _cut(keys: pa.Array, parts: Sequence[Any], size: int) -> Iterator[Call]:
    """Join the parts of each row, and cut the rows into calls."""
    rows = len(keys)
    body = pc.binary_join_element_wise(*parts, b"", null_handling="replace", null_replacement=b"")
    offsets = np.frombuffer(body.buffers()[1], np.int32)[body.offset : body.offset + rows + 1]
    data = memoryview(body.buffers()[2])
    start = 0
    while start < rows:
        stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + size, "right")) - 1)
        yield Call(stop - start, data[offsets[start] : offsets[stop]], keys[start].as_py())
        start = stop


def _sizes(values: pa.Array) -> pa.Array:
    sizes = pc.binary_length(values)
    return _big_endian(pc.fill_null(sizes, 0).to_numpy(zero_copy_only=False))


def _big_endian(numbers: np.ndarray) -> pa.Array:
    """Numbers as four bytes each, the most significant first."""
    offsets = np.arange(0, 4 * len(numbers) + 1, 4, dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(numbers.astype(">i4"))]
    return pa.Array.from_buffers(pa.binary(), len(numbers), buffers)


def transient(error: Exception) -> bool:
    """Whether the same call may succeed a little later."""
    if isinstance(error, ThriftIOError | IllegalArgument | RegionError):
        text = error.kind if isinstance(error, RegionError) else message(error)
        return any(name in text for name in TRANSIENT)
    return isinstance(error, OSError | TTransportException)


def message(error: Exception) -> str:
    """The text of an error; for a Java exception, its stack trace too."""
    text = getattr(error, "message", None) or str(error)
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def retry(work: Callable[[], T], what: str) -> T:
    """Do work, and again while it fails for a transient reason.

    Args:
        work: To be done; must be safe to repeat.
        what: What it is and where, for the error message.

    Raises:
        HBaseError: It failed for good; names the cause and after how many tries.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return work()
        except (OSError, TException, RegionError) as error:
            if attempt < ATTEMPTS and transient(error):
                time.sleep(min(8.0, 0.125 * 2**attempt))
                continue
            reason = message(error).strip().splitlines() or [type(error).__name__]
            passing = transient(error)
            remedy = f"run `{hint('status')}`, and see HBase's log" if passing else ""
            raise HBaseError(
                f"{what}: failed after {attempt} tries with {reason[0]}", remedy, transient=passing
            ) from error
    raise AssertionError("unreachable")
