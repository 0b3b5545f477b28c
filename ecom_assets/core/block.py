"""Values anywhere within a block of bytes, as Arrow columns, without a loop over them.

What belongs here: the step from positions and sizes to a column. What does not: how a server or a file writes its
blocks, which determines where values are; see ``hbase.rpc`` and ``kafka.rpc``.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

ROOM = 12
"""Bytes that must follow a block's last value: as many as Arrow keeps of a value in its view."""


def windows(block: bytes | bytearray | memoryview, size: int) -> np.ndarray:
    """Every stretch of so many bytes of a block, by position; shape ``(positions,)``, dtype ``S<size>``."""
    return np.ndarray(max(0, len(block) - size + 1), f"S{size}", block, strides=(1,))


def take(block: bytes | bytearray | memoryview, at: np.ndarray, sizes: np.ndarray) -> pa.Array:
    """Bytes of a block; a negative size is a null.

    As Arrow's views (https://arrow.apache.org/docs/format/Columnar.html#variable-size-binary-view-layout), which
    are built without reading the bytes; Arrow then copies these.

    Args:
        block: The bytes, with ``ROOM`` bytes more behind the last value.
        at: Where each value begins, shape ``(values,)``.
        sizes: Bytes of each value, shape ``(values,)``.

    Returns:
        The values, binary.
    """
    null = sizes < 0
    views = np.zeros((len(at), 16), np.uint8)
    numbers = views.view("<i4")
    numbers[:, 0] = np.where(null, 0, sizes)
    views[:, 4:] = windows(block, ROOM)[np.where(null, 0, at)].view(np.uint8).reshape(-1, ROOM)
    long = sizes > ROOM
    numbers[long, 2] = 0
    numbers[long, 3] = at[long]
    valid = pa.py_buffer(np.packbits(~null, bitorder="little")) if null.any() else None
    return pa.Array.from_buffers(pa.binary_view(), len(at), [valid, pa.py_buffer(views), pa.py_buffer(block)]).cast(
        pa.binary()
    )
