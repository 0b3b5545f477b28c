"""A connection to a server whose messages begin with their size, as those of Kafka and of HBase do.

What belongs here: the socket, and whole messages out and in. What does not: what a message means; see ``kafka.rpc`` and
``hbase.rpc``.
"""

from __future__ import annotations

import socket
import struct
from typing import Self

_SIZE = struct.Struct(">i")


class Link:
    """A connection; a context manager.

    Args:
        server: Host and port.
        timeout: Longest silence of the server, in seconds.

    Raises:
        OSError: No server responds there.
    """

    def __init__(self, server: tuple[str, int], timeout: float) -> None:
        self._server = server
        self._socket = socket.create_connection(server, timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; the server forgets what it has begun for it."""
        self._socket.close()

    def send(self, body: bytes, opening: bytes = b"") -> None:
        """Send a message, the opening of the conversation before its size."""
        self._socket.sendall(opening + _SIZE.pack(len(body)) + body)

    def receive(self, room: int = 0) -> bytearray:
        """Read a message, with so many zeros behind it.

        Raises:
            OSError: The connection broke, or the server was silent for too long.
        """
        (size,) = _SIZE.unpack(self._read(_SIZE.size))
        return self._read(size, room)

    def _read(self, size: int, room: int = 0) -> bytearray:
        data = bytearray(size + room)
        view, done = memoryview(data), 0
        while done < size:
            read = self._socket.recv_into(view[done:size])
            if not read:
                host, port = self._server
                raise ConnectionResetError(f"{host}:{port} closed the connection within a message")
            done += read
        return data
