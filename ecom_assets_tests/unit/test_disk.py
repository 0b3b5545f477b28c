"""Full disks: the one that is full is named, and no other."""

import errno
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecom_assets.core.disk import DiskFullError, room_for


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Two small disks."""
    if shutil.which("mount") is None or os.geteuid():
        pytest.skip("a small file system can be mounted by root alone")
    folders = tmp_path / "home", tmp_path / "broker"
    for folder in folders:
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], check=True)
    try:
        yield folders
    finally:
        for folder in folders:
            subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> None:
    with (folder / "filler").open("wb") as file:
        while True:
            file.write(bytes(1 << 16))
            file.flush()


def test_the_full_disk_is_named(disks: tuple[Path, Path]) -> None:
    """If this fails, people free room on a disk that has plenty."""
    home, broker = disks
    with pytest.raises(DiskFullError) as error, room_for("topic/customer", home / "new", broker / "log"):
        fill(broker)
    assert f"topic/customer: expected room on the disk of {broker / 'log'} (0" in str(error.value)
    assert str(home) not in str(error.value)
    assert "No space left" in str(error.value)
    # Whoever noticed it may not say so.
    with pytest.raises(DiskFullError, match=f"the disk of {broker} "), room_for("x", home, broker):
        raise RuntimeError("Job aborted")
    fill_quietly(home)
    with pytest.raises(DiskFullError, match=f"the disk of {home} .* and of {broker} "), room_for("x", home, broker):
        raise RuntimeError("Job aborted")


def fill_quietly(folder: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        fill(folder)


def test_a_disk_that_has_room_again_is_named(disks: tuple[Path, Path]) -> None:
    """If this fails, the disk is not named because the file that filled it was deleted by the failing step."""
    home, broker = disks
    with pytest.raises(DiskFullError, match=f"the disk of {broker}/file "), room_for("x", home, broker):
        raise OSError(errno.ENOSPC, "No space left on device", str(broker / "file"))
    with pytest.raises(DiskFullError, match=f"the disk of {home} .* and of {broker} .*No space"), room_for("x", *disks):
        raise RuntimeError("broker: No space left on device")
    cause = RuntimeError("a step failed")
    cause.__cause__ = sqlite3.OperationalError("database or disk is full")
    with pytest.raises(DiskFullError, match="database or disk is full"), room_for("x", home):
        raise cause


def test_other_errors_pass(tmp_path: Path) -> None:
    """If this fails, every error is blamed on the disk."""
    with pytest.raises(ZeroDivisionError), room_for("x", tmp_path / "not" / "there", Path("relative")):
        _ = 1 / 0
