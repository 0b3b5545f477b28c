"""Ctrl-C and SIGTERM: as an event, as an interrupt that is repeated, and without a word from helper processes.

What belongs here: signals of the command line's own process. What does not: what is cleaned up after one.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread
from typing import Any

INTERRUPTS = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")
"""Names of the exceptions that Ctrl-C raises: Dagster has its own, and imports slowly."""

REPEAT = 3.0
"""Seconds that a run is given to stop before it is interrupted again."""


@contextmanager
def stop_on_signal() -> Generator[Event]:
    """An event that SIGINT or SIGTERM sets, in place of an interrupt anywhere."""
    stop = Event()
    before = {s: signal.signal(s, lambda *_: stop.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def repeated_interrupts() -> Generator[None]:
    """Repeat a SIGINT every few seconds, as long as the block lasts.

    It is an exception at a place that chance chooses, and some places swallow it (the garbage collector, the
    clean-up of a driver): the run that people wanted to stop would continue.
    """
    ended = Event()
    receive, send = socket.socketpair()
    send.setblocking(False)

    def insist() -> None:
        while number := receive.recv(1):
            while number[0] == signal.SIGINT and not ended.wait(REPEAT):
                os.kill(os.getpid(), signal.SIGINT)

    def hook(lost: Any) -> None:
        if lost.exc_type.__name__ not in INTERRUPTS:  # it comes again, so nobody needs to read of it
            usual(lost)

    watch = Thread(target=insist, daemon=True)
    usual, sys.unraisablehook = sys.unraisablehook, hook
    before = signal.set_wakeup_fd(send.fileno(), warn_on_full_buffer=False)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        sys.unraisablehook = usual
        send.close()
        watch.join()
        receive.close()


@contextmanager
def sigterm_interrupts() -> Generator[None]:
    """Take a SIGTERM for a Ctrl-C, so that both are cleaned up after."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs do not hear it
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Detached:
    """``subprocess`` for those whose children a terminal's Ctrl-C must not reach."""

    Popen = staticmethod(partial(subprocess.Popen, start_new_session=True))


def detach_log_helpers() -> None:
    """Keep a terminal's Ctrl-C from the processes that copy a step's output.

    Dagster ends them itself when the step ends; the signal would only make each of them print a traceback.
    """
    from dagster._core.execution import compute_logs

    compute_logs.subprocess = _Detached  # ty: ignore[invalid-assignment]  all that it uses of the module
