"""Runs killed without warning in each layer: the next run finishes the job, and nothing is lost or doubled."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from ecom_assets.core.addresses import Addresses
from ecom_assets.paths import LAYERS
from ecom_assets_tests.runs import beginning, environment, finish, settings_of, start, wait_for

SCALE = "0.004"
ROWS = 51_334


@pytest.mark.parametrize("after", [0.05, 1.5], ids=["at once", "in the middle"])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_run_killed_in_a_layer(addresses: Addresses, tmp_path: Path, layer: str, after: float) -> None:
    """If this fails, a machine that goes down at the wrong moment costs rows, or a home that can be used again."""
    env = environment(tmp_path, addresses, f"killed_in_{layer}_{'early' if after < 1 else 'late'}")
    process = start(env, "run", "--scale", SCALE, "--json")
    settings = settings_of(env)
    wait_for(beginning(layer, settings), settings, process, 300)
    time.sleep(after)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    events = finish(env)["click_stream"]
    assert events["hbase"]["rows"] == ROWS
    assert len({events[each]["checksum"] for each in LAYERS}) == 1
