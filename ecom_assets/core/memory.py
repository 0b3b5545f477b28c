"""Memory that is free within the process, given back to the system.

What belongs here: asking the allocators for it. What does not: how much memory a step may take (its own module).
"""

from __future__ import annotations

import ctypes

import pyarrow as pa


def release() -> None:
    """Give back what the allocators of Arrow and C hold for later; milliseconds, so worth it after each step.

    They keep what threads have freed, since it is quicker to reuse. A process that reads one table after the other
    would keep what the largest step of each kind has needed: 300 MB more than it has in use.
    """
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
    if trim:
        trim(0)
