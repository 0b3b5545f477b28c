"""Full disks: which one it is, and what to do.

What belongs here: turning an error that a full disk has caused into one that names the disk. What does not: how much
room something needs (``ecom doctor``).
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ecom_assets.core.errors import EcomError
from ecom_assets.core.home import hint

FULL = 1 << 20
"""Free bytes below which nothing can be written."""

_MESSAGES = ("No space left on device", "database or disk is full")
"""The messages of the operating system and SQLite."""


class DiskFullError(EcomError):
    """A disk has no room for what was to be written."""


@contextmanager
def room_for(what: str, *folders: Path) -> Generator[None]:
    """Name the disks that are full, whether this process, a server or a database noticed it.

    Args:
        what: What is written in the block, such as ``expanded/book``.
        folders: Where; of each one the disk is looked at, whether the folder exists already or not.

    Raises:
        DiskFullError: The block raised an error that reports a full disk, or any error while one of the disks is full
            (Spark reports some of its errors only as a failed task).
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        disks = _disks(folders)
        full = {folder: free for folder, free in disks.items() if free < FULL}
        messages = _messages(error)
        reason = next((line for line in messages if any(message in line for message in _MESSAGES)), "")
        if not full and not reason:
            raise
        # What was written last may be gone again, and its disk has room by now.
        where = full or _disks(_named(error)) or disks
        room = " and of ".join(f"{folder} ({free / 1e6:,.1f} MB free)" for folder, free in where.items())
        raise DiskFullError(
            f"{what}: expected room on the disk of {room}, got: {reason or messages[0]}",
            f"free some space (old homes, `{hint('doctor')}` shows what it needs), then run again: what is complete"
            " stays, and the rest is built",
        ) from error


def _disks(folders: tuple[Path, ...]) -> dict[Path, int]:
    """The first folder on each disk, and the bytes that are free there."""
    found: dict[int, Path] = {}
    for folder in folders:
        found.setdefault(_existing(folder).stat().st_dev, folder)
    return {folder: shutil.disk_usage(_existing(folder)).free for folder in found.values()}


def _existing(folder: Path) -> Path:
    """A folder, or the closest one around it that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _named(error: BaseException) -> tuple[Path, ...]:
    """The file that the operating system had no room for, if it names one."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and isinstance(error.filename, str):
        return (Path(error.filename),)
    return ()


def _messages(error: BaseException | None) -> list[str]:
    """The messages of an error and its causes, line by line."""
    messages = []
    while error is not None:
        messages += str(error).splitlines() or [type(error).__name__]
        error = error.__cause__
    return messages
