"""Memory of the machine or container, and how much of it a server may take.

What belongs here: limits and defaults. What does not: the setting of one server (``ECOM_<SERVER>_MEMORY``), which wins.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from ecom_assets.core.settings import Settings

SMALL = {"spark": "1g", "hbase": "1g"}
"""Heaps for small data. A heap is filled before it is tidied up: with 4 GB Spark takes them for 100,000 rows too."""

SHARES = {"spark": (4, 4096), "hbase": (8, 2048)}
"""Heaps for all other data: the part of the machine's memory (a fourth, an eighth), and the most, in MiB."""

LEAST = 1024
"""MiB below which neither does its work."""


def default_heap(name: str, settings: Settings) -> str:
    """The heap of an embedded server where no setting names one, as Java writes it; empty for those that have none.

    Args:
        name: The server.
        settings: The home.
    """
    if settings.has_small_data or name not in SHARES:
        return SMALL.get(name, "")
    part, most = SHARES[name]
    return f"{min(most, max(LEAST, int(machine_memory()) // 2**20 // part))}m"


def heap_bytes(heap: str) -> int:
    """``512m`` or ``2g``, as Java writes a size, in bytes; nothing is 0."""
    return int(heap[:-1]) << (20 if heap[-1] == "m" else 30) if heap else 0


def machine_memory(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that this process may ever use: the container's limit, or all that the machine has."""
    return _container_limit(root) or psutil.virtual_memory().total


def memory_limit(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that this process may use: the container's limit, or what the machine has left."""
    return _container_limit(root) or psutil.virtual_memory().available


def _container_limit(root: Path) -> float:
    """Bytes of the container's limit, no more than the machine has; 0 if there is none."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (root / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            return min(int(text), psutil.virtual_memory().total)
    return 0
