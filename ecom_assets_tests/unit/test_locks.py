"""Locks of a home, between real processes and between threads of one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ecom_assets.core import locks
from ecom_assets.core.errors import HomeError, is_transient
from ecom_assets.core.settings import Settings, load

HOLD = """
import os, sys, time
from pathlib import Path
from ecom_assets.core import locks
from ecom_assets.core.settings import load

home, kind, ready = sys.argv[1:4]
settings = load(home=home)
lock = locks.layer(settings, "merged", "product") if kind == "layer" else getattr(locks, kind)(settings, f"ecom {kind}")
with lock:
    if "fork" in sys.argv and not os.fork():
        time.sleep(60)  # a worker that outlives its parent
    Path(ready).touch()
    sys.stdin.read()
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home that is not there yet."""
    return load(home=tmp_path / "home")


Holding = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def holding(settings: Settings, tmp_path: Path) -> Iterator[Holding]:
    """Starts a process that holds a lock of the home until its standard input ends."""
    started: list[subprocess.Popen[bytes]] = []

    def start(kind: str, *more: str) -> subprocess.Popen[bytes]:
        ready = tmp_path / f"ready-{len(started)}"
        command = [sys.executable, "-c", HOLD, str(settings.home), kind, str(ready), *more]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        started.append(process)
        while not ready.exists():
            assert process.poll() is None
            time.sleep(0.01)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_many_may_build_at_once(settings: Settings, holding: Holding) -> None:
    """If this fails, `ecom stream` keeps every run out of its home."""
    holding("shared")
    with locks.shared(settings, "ecom run", timeout=0):
        assert {h.what for h in locks.holders(settings)} == {"ecom shared", "ecom run"}


@pytest.mark.parametrize(("theirs", "ours"), [("shared", "exclusive"), ("exclusive", "shared"), ("exclusive",) * 2])
def test_who_cannot_get_it_is_told_who_holds_it(settings: Settings, holding: Holding, theirs: str, ours: str) -> None:
    """If this fails, a reset pulls a table away from under a run, or nobody learns what to wait for."""
    holder = holding(theirs)
    began = time.monotonic()
    with pytest.raises(HomeError) as refused, getattr(locks, ours)(settings, "ecom reset", timeout=0.3):
        pass
    assert 0.3 <= time.monotonic() - began < 5
    for part in ("ecom reset: expected", f"ecom {theirs} (pid {holder.pid}, since 20", f"kill {holder.pid}"):
        assert part in str(refused.value)
    assert is_transient(refused.value)


def test_it_is_waited_for(settings: Settings, holding: Holding) -> None:
    """If this fails, a command is refused though the one before it ends in a second."""
    holder = holding("exclusive")
    assert holder.stdin
    threading.Timer(0.3, holder.stdin.close).start()
    with locks.exclusive(settings, "ecom reset", timeout=30):
        assert [h.pid for h in locks.holders(settings)] == [os.getpid()]


@pytest.mark.parametrize("more", [(), ("fork",)], ids=["alone", "a forked worker lives on"])
def test_the_lock_of_a_killed_process_does_not_last(
    settings: Settings, holding: Holding, more: tuple[str, ...]
) -> None:
    """If this fails, a run that was killed keeps its home locked until somebody deletes a file."""
    holder = holding("exclusive", *more)
    assert [h.pid for h in locks.holders(settings)] == [holder.pid]
    holder.kill()
    holder.wait()
    assert locks.holders(settings) == []
    # A worker that was forked at this moment closes its copy of the lock as soon as it gets to work.
    with locks.exclusive(settings, "ecom reset", timeout=10):
        pass
    assert not list((settings.home / "locks").glob("*.json"))


def test_a_recycled_pid_holds_nothing(settings: Settings) -> None:
    """If this fails, a stranger that got the id of a killed run is named, and may be ended by whoever reads that."""
    with locks.exclusive(settings, "ecom reset"):
        (sheet,) = (settings.home / "locks").glob("*.json")
        text = sheet.read_text()
    sheet.write_text(text.replace('"created": ', '"created": 1'))
    assert locks.holders(settings) == []
    assert not sheet.exists()


def test_each_table_of_a_layer_has_its_own(settings: Settings, holding: Holding) -> None:
    """If this fails, two builds write one table at once, or two tables wait for each other."""
    holder = holding("layer")
    with locks.layer(settings, "merged", "customer", timeout=0), locks.layer(settings, "hbase", "product", timeout=0):
        pass
    with (
        pytest.raises(HomeError, match=rf"the build of merged/product \(pid {holder.pid}"),
        locks.layer(settings, "merged", "product", timeout=0.1),
    ):
        pass


def test_nested_work_does_not_wait_for_itself(settings: Settings, holding: Holding) -> None:
    """If this fails, `ecom run --repair` waits for its own steps, for ever."""
    with locks.exclusive(settings, "ecom run --repair", timeout=0):
        with locks.shared(settings, "a step", timeout=0), locks.exclusive(settings, "a step", timeout=0):
            pass
        done = threading.Event()

        def step() -> None:
            with locks.shared(settings, "a step in a thread", timeout=0), locks.layer(settings, "merged", "product"):
                done.set()

        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
        assert done.is_set()
    holding("exclusive")  # all of it was released


def test_threads_exclude_each_other(settings: Settings) -> None:
    """If this fails, two steps of one run build the same table at the same time."""
    inside, most = 0, 0

    def build() -> None:
        nonlocal inside, most
        with locks.layer(settings, "merged", "product"):
            inside += 1
            most = max(most, inside)
            time.sleep(0.02)
            inside -= 1

    threads = [threading.Thread(target=build) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_shared_hold_that_would_become_exclusive_is_a_mistake(settings: Settings) -> None:
    """If this fails, it waits for itself, and its error advises to end the process that is waiting."""
    with (
        locks.shared(settings, "ecom run"),
        pytest.raises(HomeError, match="from the start"),
        locks.exclusive(settings, "repair", timeout=30),
    ):
        pass


def test_locks_are_private(settings: Settings) -> None:
    """If this fails, another user of the machine can hold a home's lock."""
    with locks.shared(settings, "ecom run"):
        assert settings.home.stat().st_mode & 0o777 == 0o700
        assert (settings.home / "locks").stat().st_mode & 0o777 == 0o700
        assert (settings.home / "locks" / "home.lock").stat().st_mode & 0o777 == 0o600
