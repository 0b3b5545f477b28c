"""A disk that fills up in each layer: one clear error, and once there is room the next run finishes the job."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecom_assets.core.addresses import Addresses
from ecom_assets.paths import LAYERS
from ecom_assets_tests.runs import beginning, environment, finish, settings_of, start, wait_for

SCALE = "0.004"
ROWS = 51_334

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root may make a small disk (tmpfs)"
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


@pytest.mark.parametrize("layer", [layer for layer in LAYERS if layer != "topic"])
def test_a_disk_that_fills_up(addresses: Addresses, disk: Path, layer: str) -> None:
    """If this fails, a full disk is reported as anything but that, or leaves half a table that counts as whole."""
    home = disk / "home"
    env = environment(home, addresses, f"full_{layer}")
    process = start(env, "run", "--scale", SCALE, "--json")
    settings = settings_of(env)
    wait_for(beginning(layer, settings), settings, process, 300)
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while process.poll() is None:  # whatever the run gives back is taken at once
            try:
                file.write(bytes(1 << 20))
            except OSError:
                time.sleep(0.01)
    _, err = process.communicate()
    assert process.returncode == 1, err
    assert "Traceback" not in err
    assert "disk" in err
    ballast.unlink()
    assert finish(env)["click_stream"]["hbase"]["rows"] == ROWS
