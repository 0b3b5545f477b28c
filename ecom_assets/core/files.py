"""Small files written so that a reader, or a crash, sees the old or the new one whole."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

LEFT_SECONDS = 24 * 3600.0
"""Age from which a temporary file counts as left by a process that was killed."""


def write_text(path: Path, text: str, mode: int = 0o666) -> None:
    """Write a small file atomically.

    Args:
        path: The file; its folder is created if it is not there.
        text: Its content.
        mode: Its rights, from its first byte on; the umask takes some away.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


@contextmanager
def temporary(path: Path) -> Generator[tuple[BinaryIO, Callable[[], None]]]:
    """A file of a name of its own next to another, for contents that are written bit by bit; gone at the end.

    Processes that write the same file at once do not meet; the last one that puts its own in place wins.

    Yields:
        The file, and what puts it in the place of ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*.part"):
        if time.time() - left.stat().st_mtime > LEFT_SECONDS:
            left.unlink(missing_ok=True)
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    part = Path(name)

    def place() -> None:
        file.flush()
        os.fsync(file.fileno())
        part.replace(path)

    try:
        with os.fdopen(number, "wb") as file:
            yield cast("BinaryIO", file), place
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, data: dict[str, Any], mode: int = 0o666) -> None:
    """Write a JSON object atomically; ``mode`` as in ``write_text``."""
    write_text(path, json.dumps(data, indent=1) + "\n", mode)


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; ``None`` if there is no such file.

    Raises:
        ValueError: The file is not JSON; names the file and the remedy.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected JSON, got {error}; delete the file and run again") from error
