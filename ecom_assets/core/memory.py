"""The memory that a process keeps although nothing is in it.

What belongs here: settings of the allocators, and returning memory. What does not: how much memory a step may take
(its own module).

They keep what threads have freed, since it is quicker to reuse: a process that reads one table after the other would
keep what the largest step of each kind has needed. A run of 1.4 million rows peaked at 1,110 MB with the usual settings
and at 690 MB with those of ``economize``, and took as long.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys

_ARENA_MAX = -8
"""A parameter of ``mallopt``, see glibc's ``malloc.h``. Those that let large blocks go back to the system at once are
left alone: reading CSV files took twice as long."""

ARENAS = 2
"""Heaps of the C library, which has eight per core otherwise; as many as there are threads that work."""

_ENVIRONMENT = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # the C library's, not one more that keeps memory
    "_RJEM_MALLOC_CONF": "dirty_decay_ms:0,muzzy_decay_ms:0",  # the allocator that Polars brings along
}


NEW_OBJECTS = 50_000
"""So many more objects than were freed let Python look for cycles among the new ones; its default is 700. It looked at
the modules of Dagster, PyArrow and Polars again and again: a tenth of the time of a delivery of 1,000 rows."""


def economize() -> None:
    """Let this process, and Python processes that it starts, keep little of what they have freed.

    Python's own look for cycles is made rarer: it takes time, and what it finds is small.

    For processes of our own alone. Polars reads its part when it is imported, so call this before; what the
    environment has set already stays.
    """
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if (pa := sys.modules.get("pyarrow")) and os.environ["ARROW_DEFAULT_MEMORY_POOL"] == "system":
        pa.set_memory_pool(pa.system_memory_pool())
    if set_option := getattr(ctypes.CDLL(None), "mallopt", None):  # glibc's own
        set_option(_ARENA_MAX, ARENAS)


def release() -> None:
    """Give back what the allocators of Arrow and C hold for later; milliseconds, so worth it after each step."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
