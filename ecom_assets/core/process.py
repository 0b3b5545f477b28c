"""Whether a process still runs, by its recorded id and start time: servers, runs, and holders of locks.

What belongs here: telling a process from another that was given the same id later. What does not: starting or stopping
one (``servers.process``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import psutil


def running(pid: int, created: float, command: Sequence[str] = ()) -> psutil.Process | None:
    """The process of an id, if it runs and is not another that was given the same id later.

    Args:
        pid: Its id.
        created: When it was started, seconds since the epoch.
        command: What it was started with; empty if that is not known. It may have become the last part of that (as
            ``setpriv … postgres …`` does), or still be a program that is to become it.
    """
    try:
        process = psutil.Process(pid)
        # A process's start time moves a little when the system's time is set.
        if abs(process.create_time() - created) >= 2 or process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process if not command or _is_of(process.cmdline(), list(command)) else None
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:  # another user's, so it is not ours
        return None


def _is_of(words: list[str], command: list[str]) -> bool:
    if not words:  # Linux shows none for an instant, while a process becomes another program
        return True
    shorter = min(len(words), len(command))
    return words[-shorter:] == command[-shorter:]


def created(pid: int | None = None) -> float:
    """When a process was started, seconds since the epoch; this one unless another is named.

    Raises:
        psutil.NoSuchProcess: There is none.
    """
    return psutil.Process(pid or os.getpid()).create_time()
