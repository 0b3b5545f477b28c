"""Free memory goes back to the system."""

from __future__ import annotations

import sys

import numpy as np
import psutil
import pytest

from ecom_assets.core import memory


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps it so")
def test_what_is_freed_is_given_back() -> None:
    """If this fails, a run keeps what each of its steps has needed at most, and exceeds 1 GB at full size."""
    process = psutil.Process()
    # Each below the size from which glibc gives memory back by itself; some stay, so the heap cannot simply shrink.
    blocks = [np.ones(64 << 10, np.uint8) for _ in range(4000)]
    stay = blocks[::100]
    blocks.clear()
    before = process.memory_info().rss
    memory.release()
    assert before - process.memory_info().rss > 100 << 20
    assert len(stay) == 40
