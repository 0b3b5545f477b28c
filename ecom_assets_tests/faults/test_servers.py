"""Servers killed in the middle of a run: one clear error, and after `ecom up` the next run finishes the job."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ecom_assets.core.books import Books
from ecom_assets.servers.stack import Stack
from ecom_assets_tests.runs import Condition, built, environment, finish, settings_of, start, verified, wait_for

SCALE = "0.004"
ROWS = 51_334


@dataclass(frozen=True)
class Moment:
    """When a server is killed, by what the books say.

    Attributes:
        server: Which one.
        begins: Its turn comes next when this holds.
        ends: It has done its part when this holds.
        env: Further environment of the run.
    """

    server: str
    begins: Condition
    ends: Condition
    env: dict[str, str] = field(default_factory=dict)


MOMENTS = {
    "kafka, producing": Moment("kafka", verified("chunked"), built("topic")),
    "spark, streaming": Moment("spark", verified("topic"), built("streamed")),
    "kafka, streaming": Moment("kafka", verified("topic"), built("streamed")),
    "spark, merging": Moment("spark", verified("streamed"), built("merged")),
    "hbase, loading": Moment("hbase", verified("merged"), built("hbase")),
    "hbase, read back": Moment("hbase", built("hbase"), verified("hbase")),
    "thrift, loading": Moment(
        "thrift",
        verified("merged"),
        built("hbase"),
        {"ECOM_HBASE_LOADER": "thrift"},
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
    settings = settings_of(env)
    process = start(env, "run", "--scale", SCALE, "--json")
    wait_for(moment.begins, settings, process, 300)
    time.sleep(after)
    (pid,) = [s.pid for s in stack.status() if s.service == moment.server]
    assert pid
    os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=400)
    # A server may have done its part already; then the run ends well, or fails in a later layer.
    with Books.open(settings) as books:
        ended = moment.ends(books)
    if not ended:
        assert process.returncode == 1, err
        assert "Traceback" not in err
        assert "✗" in err
    assert stack.up() == addresses
    assert finish(env)["click_stream"]["hbase"]["rows"] == ROWS
