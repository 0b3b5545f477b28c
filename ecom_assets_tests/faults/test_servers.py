"""Servers killed in the middle of a run: one clear error, and after `ecom up` the next run finishes the job."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ecom_assets.servers.stack import Stack
from ecom_assets_tests.runs import environment, finish, settings_of, start, wait_for

SCALE = "0.004"
ROWS = 51_334


@dataclass(frozen=True)
class Moment:
    """When a server is killed: its turn comes next when the file is there; it has done its part when the other is."""

    server: str
    begins: str
    ends: str
    env: dict[str, str] = field(default_factory=dict)


MOMENTS = {
    "kafka, producing": Moment("kafka", "chunked/click_stream.proof.json", "topic/click_stream.build.json"),
    "spark, streaming": Moment("spark", "topic/click_stream.proof.json", "streamed/click_stream.build.json"),
    "kafka, streaming": Moment("kafka", "topic/click_stream.proof.json", "streamed/click_stream.build.json"),
    "spark, merging": Moment("spark", "streamed/click_stream.proof.json", "merged/click_stream.build.json"),
    "hbase, loading": Moment("hbase", "merged/click_stream.proof.json", "hbase/click_stream.build.json"),
    "hbase, read back": Moment("hbase", "hbase/click_stream.build.json", "hbase/click_stream.proof.json"),
    "thrift, loading": Moment(
        "thrift",
        "merged/click_stream.proof.json",
        "hbase/click_stream.build.json",
        {"ECOM_HBASE_ROUTE": "thrift"},
    ),
}


@pytest.mark.parametrize("after", [0.0, 2.0], ids=["at once", "in the middle"])
@pytest.mark.parametrize("name", MOMENTS)
def test_a_server_killed_in_mid_run(stack: Stack, tmp_path: Path, name: str, after: float) -> None:
    """If this fails, a server that dies takes rows with it, or people get a traceback and no way on."""
    moment = MOMENTS[name]
    addresses = stack.up()
    namespace = f"killed_{list(MOMENTS).index(name)}_{after:.0f}"
    env = environment(tmp_path, addresses, namespace) | moment.env
    manifests = settings_of(env).manifests
    process = start(env, "run", "--scale", SCALE, "--json")
    wait_for(manifests / moment.begins, process, 300)
    time.sleep(after)
    (pid,) = [s.pid for s in stack.status() if s.service == moment.server]
    assert pid
    os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=400)
    # A server may have done its part already; then the run ends well, or fails in a later layer.
    if not (manifests / moment.ends).exists():
        assert process.returncode == 1, err
        assert "Traceback" not in err
        assert "✗" in err
    assert stack.up() == addresses
    assert finish(env)["click_stream"]["hbase"]["rows"] == ROWS
