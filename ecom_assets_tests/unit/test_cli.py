"""The command line itself, without servers."""

from __future__ import annotations

import subprocess
import sys

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
