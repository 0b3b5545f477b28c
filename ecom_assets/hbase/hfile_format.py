r"""The form of HBase's own files, HFile v3: blocks, index, file info and trailer.

What belongs here: bytes of a file around its cells. What does not: the cells, and where they come from (``hfile``). The
format is that of HBase's classes
``HFileWriterImpl``, ``HFileBlock``, ``HFileBlockIndex``, ``HFileInfo`` and ``FixedFileTrailer`` (module hbase-server)
and ``KeyValue`` (hbase-common), described in the reference guide, https://hbase.apache.org/book.html#_hfile_format_2.
All integers are big-endian unless stated otherwise.

**File.** Data blocks, leaf index blocks, intermediate index blocks; then what HBase reads when it opens a file: root
index, root of the (empty) meta index, file info; then the trailer.

**Block.** A header of 33 bytes, the data, checksums. Header: 8 bytes of magic; int32 size of data and checksums; int32
size of the data before compression; int64 offset of the block of the same kind before it, or -1; int8 kind of
checksum, 1 for CRC-32; int32 bytes per checksum; int32 size of header and data. A checksum (int32) covers 16 KiB of
header and data, so the first covers 16,351 bytes of the data. Of compressed blocks the data is one gzip member, or, as
Hadoop frames Snappy, int32 size before compression, then int32 size and bytes of each piece of at most 128 KiB.

**Index.** An entry of the root: int64 offset of a block, int32 its size with header and checksums, the size of its
first key as Hadoop's variable-length integer, that key. A root larger than 128 KiB is cut into leaf blocks, their root
into intermediate ones if need be: int32 count n, n + 1 int32 offsets of entries from the end of this list, and entries
without the key's size. Such a root ends with the middle of the file, where HBase splits regions: int64 offset and
int32 size of the leaf block that names the middle data block, int32 its place in there.

**File info.** ``PBUF`` and a delimited protobuf message of pairs; without ``hfile.LASTKEY`` and the two averages the
bulk load fails. **Trailer.** 4096 bytes: ``TRABLK"$``, a delimited protobuf message, zeros, ``03 00 00 03``.

No Bloom filter is written: it only spares reads of absent rows where a region has several files, and a compaction adds
it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from ecom_assets.hbase import wire

INDEX_BYTES = 128 * 1024
"""Size of an index block, HBase's default."""
MIN_ENTRIES = 16
"""Entries of an index that is never cut, HBase's default: keys may be longer than a block."""
CHECKSUM_BYTES = 16 * 1024
SNAPPY_BYTES = 128 * 1024
"""Largest piece of a Snappy block: Hadoop's decompressor has a buffer of 256 KiB."""

_HEADER = 33
_CODECS = {"gz": 1, "none": 2, "snappy": 3}
"""Compression -> its number in the trailer (``Compression.Algorithm``)."""
_COMPARATOR = b"org.apache.hadoop.hbase.KeyValue$KVComparator"
"""The name that HBase 2 still writes, so that older versions can read the file."""

_DATA, _LEAF, _INTERMEDIATE, _ROOT = b"DATABLK*", b"IDXLEAF2", b"IDXINTE2", b"IDXROOT2"
_INFO, _TRAILER = b"FILEINF2", b'TRABLK"$'

Bytes = bytes | memoryview
Entry = tuple[int, int, bytes]
"""Of an index: offset of a block, its size on disk, its first key."""


@dataclass
class Totals:
    """What the cells of a file come to.

    Attributes:
        cells: Their number.
        key_bytes: Size of their keys.
        value_bytes: Size of their values.
        first_time: The least of their timestamps.
        last_time: The greatest of them.
    """

    cells: int = 0
    key_bytes: int = 0
    value_bytes: int = 0
    first_time: int = 2**63 - 1
    last_time: int = 0

    def span(self, first: int, last: int) -> None:
        """Count in the least and the greatest timestamp of some cells."""
        self.first_time, self.last_time = min(self.first_time, first), max(self.last_time, last)


def _identity(data: Bytes) -> Bytes:
    return data


def _gzip(data: Bytes) -> bytes:
    return zlib.compress(data, 1, 31)


def _snappy(data: Bytes) -> bytes:
    codec = pa.Codec("snappy")
    parts = [struct.pack(">i", len(data))]
    for at in range(0, len(data), SNAPPY_BYTES):
        piece = codec.compress(data[at : at + SNAPPY_BYTES], asbytes=True)
        parts += [struct.pack(">i", len(piece)), piece]
    return b"".join(parts)


_COMPRESS: dict[str, Callable[[Bytes], Bytes]] = {"none": _identity, "gz": _gzip, "snappy": _snappy}


class Blocks:
    """The blocks of one file, and all that follows them.

    Args:
        file: The file, empty.
        compression: ``none``, ``gz`` or ``snappy``.
    """

    def __init__(self, file: BinaryIO, compression: str) -> None:
        self._file = file
        self._codec = _CODECS[compression]
        self._compress = _COMPRESS[compression]
        self._at = 0
        self._before: dict[bytes, int] = {}
        self._entries: list[Entry] = []
        self._data_bytes = self._index_bytes = 0

    def add(self, data: Bytes) -> None:
        """Write a data block of some cells."""
        (size,) = struct.unpack_from(">i", data)
        self._data_bytes += _HEADER + len(data)
        self._entries.append((*self._block(_DATA, data), bytes(data[8 : 8 + size])))

    def finish(self, totals: Totals, last_row: bytes) -> None:
        """Write what follows the data blocks, of which there is one at least.

        Args:
            totals: Of the cells in them.
            last_row: The cells of the last row.
        """
        last_data = self._before[_DATA]
        root, levels = self._write_index()
        opened = self._at
        self._block(_ROOT, root)
        self._block(_ROOT, b"")  # of the meta index
        info = self._at
        self._block(_INFO, _info(totals, last_row))
        self._file.write(self._trailer(info, opened, levels, last_data, totals.cells))

    def _block(self, magic: bytes, data: Bytes) -> tuple[int, int]:
        """Write one block.

        Returns:
            Its offset and its size.
        """
        stored = self._compress(data)
        size = _HEADER + len(stored)
        checksums = -(-size // CHECKSUM_BYTES)
        header = struct.pack(
            ">8siiqbii",
            magic, size - _HEADER + 4 * checksums, len(data), self._before.get(magic, -1), 1, CHECKSUM_BYTES, size,
        )  # fmt: skip
        view, first = memoryview(stored), CHECKSUM_BYTES - _HEADER
        sums = [zlib.crc32(view[:first], zlib.crc32(header))]
        sums += [zlib.crc32(view[at : at + CHECKSUM_BYTES]) for at in range(first, len(stored), CHECKSUM_BYTES)]
        self._file.writelines((header, stored, struct.pack(f">{len(sums)}I", *sums)))
        offset, self._at = self._at, self._at + size + 4 * checksums
        self._before[magic] = offset
        return offset, self._at - offset

    def _write_index(self) -> tuple[bytes, int]:
        """Write all levels of the index but the root.

        Returns:
            The root's data and the number of levels.
        """
        entries, levels = self._entries, 1
        middle, middle_entry = (len(entries) - 1) // 2, b""
        while len(entries) > MIN_ENTRIES and len(root := _root(entries)) > INDEX_BYTES:
            upper: list[Entry] = []
            seen = 0
            for chunk in _chunks(entries):
                offset, size = self._block(_LEAF if levels == 1 else _INTERMEDIATE, index := _branch(chunk))
                self._index_bytes += len(index)
                upper.append((offset, size, chunk[0][2]))
                if levels == 1 and seen <= middle < seen + len(chunk):
                    middle_entry = struct.pack(">qii", offset, size, middle - seen)
                seen += len(chunk)
            entries, levels = upper, levels + 1
        root = _root(entries)
        self._root_entries = len(entries)
        self._index_bytes += len(root)
        return root + middle_entry, levels

    def _trailer(self, info: int, opened: int, levels: int, last_data: int, cells: int) -> bytes:
        message = wire.message(
            {
                1: info, 2: opened, 3: self._index_bytes, 4: self._data_bytes, 5: self._root_entries, 6: 0,
                7: cells, 8: levels, 9: 0, 10: last_data, 11: _COMPARATOR, 12: self._codec,
            }
        )  # fmt: skip
        return (_TRAILER + wire.delimited(message)).ljust(4092, b"\0") + b"\x03\x00\x00\x03"


def _info(totals: Totals, last_row: bytes) -> bytes:
    """Make the file info."""
    at = 0
    while True:  # the last cell of the last row
        key_size, value_size = struct.unpack_from(">ii", last_row, at)
        if at + 8 + key_size + value_size == len(last_row):
            break
        at += 8 + key_size + value_size
    span = wire.message({1: totals.first_time, 2: totals.last_time})
    pairs = {
        b"EARLIEST_PUT_TS": struct.pack(">q", totals.first_time),
        b"TIMERANGE": b"PBUF" + span,
        b"hfile.AVG_KEY_LEN": struct.pack(">i", totals.key_bytes // totals.cells),
        b"hfile.AVG_VALUE_LEN": struct.pack(">i", totals.value_bytes // totals.cells),
        b"hfile.LASTKEY": last_row[at + 8 : at + 8 + key_size],
    }
    message = b"".join(wire.message({1: wire.message({1: name, 2: value})}) for name, value in pairs.items())
    return b"PBUF" + wire.delimited(message)


def _chunks(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Cut one level of an index into blocks."""
    chunk: list[Entry] = []
    size = 0
    for entry in entries:
        if len(chunk) >= MIN_ENTRIES and size >= INDEX_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(entry)
        size += 16 + len(entry[2])
    yield chunk


def _root(entries: Iterable[Entry]) -> bytes:
    return b"".join(struct.pack(">qi", at, size) + _vint(len(key)) + key for at, size, key in entries)


def _branch(entries: Sequence[Entry]) -> bytes:
    """A leaf or intermediate block of the index."""
    ends = np.cumsum([0] + [12 + len(key) for _, _, key in entries])
    body = b"".join(struct.pack(">qi", at, size) + key for at, size, key in entries)
    return struct.pack(">i", len(entries)) + ends.astype(">i4").tobytes() + body


def _vint(number: int) -> bytes:
    """Hadoop's variable-length integer (``WritableUtils.writeVInt``), not negative."""
    if number < 128:
        return bytes([number])
    size = (number.bit_length() + 7) // 8
    return bytes([256 - 112 - size]) + number.to_bytes(size, "big")
