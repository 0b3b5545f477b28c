"""The command line itself, without servers."""

from __future__ import annotations

import subprocess
import sys

LOST = """
import os, signal, time
from ecom_assets import cli

class Swallows:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)  # here Python hears the signal, and cannot raise

cli._resend_lost_interrupts()
Swallows()
try:
    time.sleep(20)
except KeyboardInterrupt:
    print("heard")
"""


def test_an_interrupt_that_falls_where_it_cannot_be_raised_is_heard_all_the_same() -> None:
    """If this fails, a Ctrl-C now and then does nothing, and the run goes on."""
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "heard\n"
    assert done.stderr == "", "nothing of it is printed"
