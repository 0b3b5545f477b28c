"""Growing a table, compared with the disk: ``dd`` writes as many bytes of nothing.

Both are over when the bytes are on the disk (``fdatasync``), not when they are in memory.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager

from benchmarks.harness import OURS, Goal, Sample, Step, timed, versus
from benchmarks.stage import Stage
from ecom_assets.core.location import local, rmtree
from ecom_assets.csv import expand as expanding
from ecom_assets.csv.plan import plan
from ecom_assets_tests.tables import CLICK_STREAM as TABLE
from ecom_assets_tests.tables import SHOP

DISK = "dd"
FACTOR = "3"
"""So that two rows in three get fresh keys."""


@contextmanager
def expand(stage: Stage) -> Generator[Step]:
    """A table, grown to three times its size."""
    settings = stage.raw.model_copy(update={"expand": FACTOR, "home": stage.folder / "expand"})
    settings.home.mkdir()
    settings.raw.symlink_to(stage.raw.raw, target_is_directory=True)
    target = settings.home / "dd"

    def ours() -> Sample:
        os.sync()  # what others have written is theirs

        def work() -> float:
            expanding.build(TABLE, settings, plan(TABLE, SHOP, settings))
            return sum(_sync(local(path)) for path in expanding.files(TABLE, settings)) / 1e6

        found = timed(work)
        rmtree(expanding.folder(TABLE, settings))
        return found

    size = round(ours().amount)  # in MB, what dd is to write

    def disk() -> Sample:
        os.sync()
        command = ["dd", "if=/dev/zero", f"of={target}", "bs=1000000", f"count={size}", "conv=fdatasync"]
        found = timed(lambda: size if subprocess.run(command, capture_output=True, check=True) else 0)
        target.unlink()
        return found

    yield Step("expand", "MB", {OURS: ours, DISK: disk}, (versus("expand_vs_disk", DISK, Goal(0.7)),))


def _sync(path: os.PathLike[str]) -> int:
    """Wait until a file is on the disk; returns its size."""
    with open(path, "rb") as file:  # noqa: PTH123  any path
        os.fdatasync(file.fileno())
        return os.fstat(file.fileno()).st_size
