"""A home as a folder: creating it, finding that it is one, and the command that names it.

What belongs here: the folder and its rights. What does not: what a home remembers (``settings``), who may write to it
(``locks``) and whose it is in other systems (``ownership``).
"""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from ecom_assets.core.errors import HomeError

if TYPE_CHECKING:
    from ecom_assets.core.settings import Settings

DEFAULT = Path(".ecom")
"""The home where none is named, in the current folder."""

IMPOSSIBLE = frozenset("[]^|\\")
"""What the path of a home cannot have: delta-rs 1.6 takes paths for URLs and ends with a panic."""

MARKS = ("home.json", "stack", "dagster", "raw")
"""What is found in any home: one of these at least."""


def hint(command: str, settings: Settings | None = None) -> str:
    """A command line for a home, as a person can paste it.

    Args:
        command: Words after ``ecom``, such as ``up``.
        settings: The home; its folder is named where it is not the default of the current folder. Where settings are
            not at hand, the home of this process counts: every command sets ``ECOM_HOME`` for itself and its children.
    """
    folder = settings.home if settings else Path(os.environ.get("ECOM_HOME") or DEFAULT).expanduser().resolve()
    named = "" if folder == DEFAULT.resolve() else f" --home {shlex.quote(str(folder))}"
    return f"ecom {command}{named}"


def exists(settings: Settings) -> bool:
    """Whether there is a home in the folder."""
    try:
        return any((settings.home / mark).exists() for mark in MARKS)
    except OSError as error:
        raise unusable(settings.home, error) from None


def require(settings: Settings) -> None:
    """Refuse to work in a folder that is no home; creates nothing.

    Raises:
        HomeError: There is none; names the command that creates one.
    """
    if not exists(settings):
        raise HomeError(f"no home at {settings.home}; `{hint('run', settings)}` creates one")


def create(settings: Settings) -> None:
    """Create the folder of a home if it is not there, for its owner alone; data, logs and passwords are in it.

    A folder that was there keeps its rights if it holds anything else than a home.

    Raises:
        HomeError: It cannot be created, is no folder, or has a path that the lake cannot have.
    """
    home = settings.home
    if wrong := sorted(IMPOSSIBLE & set(str(home))):
        raise HomeError(
            f"expected a home whose path has none of {' '.join(sorted(IMPOSSIBLE))}, got {' '.join(wrong)} in {home}",
            "name another folder (--home); the library that reads Delta tables opens none there",
        )
    try:
        if not home.exists():
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif _is_open(home) and (exists(settings) or not any(home.iterdir())):
            home.chmod(0o700)
        if not os.access(home, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise unusable(home, error) from None


def _is_open(home: Path) -> bool:
    """Whether it is this user's, and others may look into it."""
    state = home.stat()
    return bool(stat.S_IMODE(state.st_mode) & 0o077) and state.st_uid == os.getuid()


def unusable(home: Path, error: OSError) -> HomeError:
    """The error of a folder that cannot be a home of this user."""
    return HomeError(
        f"{home}: expected a folder that this user can read and write, got: {error.strerror or error}",
        "choose another folder with --home (ECOM_HOME)",
    )
