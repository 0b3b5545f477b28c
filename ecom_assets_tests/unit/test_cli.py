"""The command line itself, without servers."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from ecom_assets import cli

LOST = """
import os, signal, time
from ecom_assets import cli

class Swallows:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)  # here Python hears the signal, and cannot raise

cli.INSIST = 0.2
try:
    with cli._insistent_interrupts():
        Swallows()
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        except KeyboardInterrupt:
            print("swallowed")
        time.sleep(20)
except KeyboardInterrupt:
    print("heard")
time.sleep(1)  # nothing comes after the block
"""


def test_an_interrupt_that_is_swallowed_comes_again() -> None:
    """If this fails, a Ctrl-C now and then does nothing, and the run goes on."""
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "swallowed\nheard\n"
    assert done.stderr == "", "nothing of it is printed"


def test_an_error_is_printed_as_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, what Kafka and Spark say in brackets vanishes, or ends in a traceback of the console's."""
    said = "[thrd:main]: expected a broker, got [/none]"

    def fail() -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(cli, "_register", lambda: None)
    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit):
        cli.main()
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("later", "alive"), [(0, True), (1.4, True), (-1.4, True), (60, False)])
def test_a_run_whose_process_still_runs_is_not_reported_as_failed(later: float, alive: bool) -> None:
    """If this fails, a live run is marked as failed by the next command, or one whose id was recycled never is."""
    me = psutil.Process()
    assert cli._is_alive(f"{me.pid}-{me.create_time() + later:.0f}") is alive


def test_the_run_of_a_process_that_is_gone_is_reported_as_failed() -> None:
    """If this fails, the UI shows a killed run as running for ever."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    tag = cli._process(gone.pid)
    gone.wait()
    assert not cli._is_alive(tag)
