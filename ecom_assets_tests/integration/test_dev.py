"""``ecom dev`` as people run it: at a terminal, until Ctrl-C."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ecom_assets.core.addresses import Addresses
from ecom_assets.servers import probes
from ecom_assets.servers.process import choose_ports
from ecom_assets_tests.runs import environment


@pytest.fixture
def port() -> int:
    """A port that nobody listens on."""
    return choose_ports("127.0.0.1", {"ui": 23000}, {}, set())["ui"]


class Terminal:
    """A command at a terminal of its own, where Ctrl-C is heard by all its processes."""

    def __init__(self, env: dict[str, str], *args: str) -> None:
        self.master, slave = pty.openpty()
        command = [sys.executable, "-m", "ecom_assets.cli", *args]
        # A session of its own whose terminal this is, as a shell's.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command], env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=False
        )
        os.close(slave)
        self.text = ""

    def read(self, seconds: float) -> bool:
        """Read what comes within some time; false when the terminal is closed."""
        if select.select([self.master], [], [], seconds)[0]:
            try:
                data = os.read(self.master, 1 << 16)
            except OSError:
                return False
            self.text += data.decode("utf-8", "replace")
            return bool(data)
        return True

    def wait_for(self, text: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while text not in self.text:
            assert self.read(0.5), self.text
            assert time.monotonic() < end, self.text

    def interrupt(self, seconds: float) -> int:
        """Type Ctrl-C and wait for the end."""
        os.write(self.master, b"\x03")
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            self.read(0.2)
        while self.read(0) and select.select([self.master], [], [], 0.2)[0]:
            pass
        assert self.process.poll() is not None, self.text
        return self.process.returncode


@pytest.fixture
def terminal(addresses: Addresses, tmp_path: Path, port: int) -> Iterator[Terminal]:
    """`ecom dev` in a new home, on the session's servers."""
    env = environment(tmp_path / "home", addresses, "dev") | {"COLUMNS": "200", "TERM": "dumb"}
    there = Terminal(env, "dev", "--port", str(port))
    yield there
    if there.process.poll() is None:
        there.process.send_signal(signal.SIGTERM)
        there.process.wait(90)


def test_the_address_is_printed_when_it_answers_and_ctrl_c_is_silent(terminal: Terminal, port: int) -> None:
    """If this fails, people open a page that is not there yet, or read tracebacks at each Ctrl-C."""
    terminal.wait_for(f"Dagster's UI: http://127.0.0.1:{port}", 300)
    assert probes.dagster("127.0.0.1", port)
    below = psutil.Process(terminal.process.pid).children(recursive=True)
    assert terminal.interrupt(90) in {0, 130}
    assert "superseded" not in terminal.text
    assert "Traceback" not in terminal.text
    assert not psutil.wait_procs(below, timeout=30)[1], "nothing is left behind"


def test_a_port_that_is_taken_is_said_before_servers_start(addresses: Addresses, tmp_path: Path, port: int) -> None:
    """If this fails, six servers start, and the address of another program is printed."""
    import socket

    env = environment(tmp_path / "home", addresses, "dev")
    with socket.create_server(("127.0.0.1", port)):
        done = subprocess.run(
            [sys.executable, "-m", "ecom_assets.cli", "dev", "--port", str(port)],
            env=env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert f"expected port {port} of 127.0.0.1 to be free" in done.stderr
    assert not (tmp_path / "home").exists()
