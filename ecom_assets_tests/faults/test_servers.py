"""Servers killed in the middle of a run: one clear error, and after `ecom up` the next run finishes the job."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from ecom_assets.services.stack import Stack
from ecom_assets_tests.runs import ecom, environment, settings_of, start

SCALE = "0.004"
ROWS = 51_334

MOMENTS = {
    "kafka": ("chunked/click_stream.proof.json", "topic"),
    "spark": ("topic/click_stream.proof.json", "streamed"),
    "hbase": ("merged/click_stream.proof.json", "hbase"),
}
"""Server -> the file that tells that its turn comes next, and the layer it makes."""


@pytest.mark.parametrize("server", MOMENTS)
@pytest.mark.parametrize("after", [0.0, 3.0], ids=["at once", "in the middle"])
def test_a_server_killed_in_mid_run(stack: Stack, tmp_path: Path, server: str, after: float) -> None:
    """If this fails, a server that dies takes rows with it, or people get a traceback and no way on."""
    addresses = stack.up()
    env = environment(tmp_path, addresses, f"killed_{server}_{after:.0f}")
    manifests = settings_of(env).manifests
    process = start(env, "run", "--scale", SCALE, "--json")
    file, layer = MOMENTS[server]
    deadline = time.monotonic() + 300
    while not (manifests / file).exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(after)
    (pid,) = [s.pid for s in stack.status() if s.service == server]
    assert pid
    os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=400)
    # A server may have done its part already; then the run ends well, or fails in a later layer.
    if not (manifests / layer / "click_stream.build.json").exists():
        assert process.returncode == 1, err
        assert "Traceback" not in err
        assert "✗" in err
    assert stack.up() == addresses
    code, told, err = ecom(env, "run", "--json")
    assert code == 0, err
    assert told["ok"] is True
    assert told["tables"]["click_stream"]["hbase"]["rows"] == ROWS
