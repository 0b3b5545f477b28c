"""Starting the servers of one home together, and stopping one.

What belongs here: what is started, found running or replaced, in which order they wait for one another, and what is
reported when one does not start. What does not: the servers of a home (``stack``), and what a server is (its module).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event

from ecom_assets.core import home
from ecom_assets.core.errors import ServiceError
from ecom_assets.core.settings import Settings
from ecom_assets.servers import process
from ecom_assets.servers.process import Record
from ecom_assets.servers.server import Server


@dataclass(frozen=True)
class Step:
    """What is reported while the stack starts or stops.

    Attributes:
        service: Name of the server.
        state: starting, running, found, external, stopping, or stopped.
        seconds: Since its start (or stop) began.
        note: One sentence, if something was out of the ordinary.
    """

    service: str
    state: str
    seconds: float = 0.0
    note: str = ""


TAKE_BACK_SECONDS = 10
"""In which a server of a failed start must stop: nobody has used it yet."""


class _OtherFailedError(Exception):
    """Another server of the same start failed."""


def _ended(server: Server, seconds: float) -> ServiceError:
    return ServiceError(
        f"{server.name}: ended {seconds:.0f} s after its start. The last lines of {server.log}:\n"
        f"{process.tail(server.log)}\n{process.tail(server.out) if server.out != server.log else ''}",
        f"fix the cause above, then `{server.hint('up')}`; `{server.hint('doctor')}` looks for common causes",
    )


def silent(_: Step) -> None:
    """Show nothing."""


class Start:
    """One start of servers that belong together.

    Args:
        settings: The home.
        servers: Name -> server, those first that others need.
        progress: Called with each change of a server.
        all_or_none: Whether a start that fails stops what it has started.
    """

    def __init__(
        self, settings: Settings, servers: dict[str, Server], progress: Callable[[Step], None], *, all_or_none: bool
    ) -> None:
        self.settings = settings
        self.servers = servers
        self.progress = progress
        self.all_or_none = all_or_none

    def run(self) -> None:
        """Start what does not run yet, and wait until all of it answers.

        Raises:
            ServiceError: A server does not start.
        """
        own = self.servers
        # One start at a time for a user, or two homes would choose the same free ports.
        with process.locked(process.runtime_folder() / "start.lock", "the start of another home", 300):
            last = {name: Record.read(server.record) for name, server in own.items()}
            taken = {port for record in last.values() if record for port in record.ports.values()}
            starts: dict[str, tuple[Server, Record, str]] = {}
            places: dict[str, Record] = {}
            for server in own.values():
                server.meet(places)
                record, note = self._find(server)
                if not record:
                    before = last[server.name]
                    remembered = before.ports if before else {}
                    if before and before.pid is not None:
                        timeout = 20 if server.lasting else 2  # where no other port will do
                        process.await_free(self.settings.host, remembered.values(), timeout)
                    retry = home.hint("up", self.settings)
                    ports = process.choose_ports(
                        self.settings.host, server.usual, remembered, taken, server.lasting, retry=retry
                    )
                    record = Record(server.name, self.settings.host, ports)
                starts[server.name] = server, record, note
                places[server.name] = record
            for server in own.values():
                server.meet(places)  # those that come after it too
            failed = Event()
            ready = {name: Event() for name in starts}
            with ThreadPoolExecutor(len(starts)) as pool:
                futures = [pool.submit(self._bring_up, *start, ready, failed) for start in starts.values()]
            try:
                for future in futures:
                    future.result()
            except ServiceError:
                if self.all_or_none:
                    self._take_back(last)
                raise

    def _take_back(self, last: Mapping[str, Record | None]) -> None:
        """Stop those servers of a failed start that did not run before it."""
        for name, server in reversed(list(self.servers.items())):
            before, now = last[name], Record.read(server.record)
            if now and now.process() and not (before and before.pid == now.pid):
                stop(server, self.progress, min(server.grace, TAKE_BACK_SECONDS))

    def _find(self, server: Server) -> tuple[Record | None, str]:
        """The record of a running server, else ``None`` and a sentence on what became of the last one."""
        record = Record.read(server.record)
        if record and (running := record.process()):
            if server.fits(record):
                return record, ""
            process.stop(running, server.grace, server.stop_signal)
            return None, "what it depends on has moved, so it is started again"
        if stray := process.marked(server.mark):
            # Its record was not written or was lost, so nobody knows its ports.
            for p in stray:
                process.stop(p, server.grace, server.stop_signal)
            return None, f"a process of this home without a record (pid {stray[0].pid}) was stopped"
        if half := server.half_written:
            return None, f"{half}, left by an interrupted first start, is rebuilt"
        if record and record.pid is not None:
            return None, f"it had ended without being stopped (pid {record.pid}) and is started again"
        return None, ""

    def _bring_up(self, server: Server, record: Record, note: str, ready: Mapping[str, Event], failed: Event) -> None:
        """Start one server, or find it running, and wait until it answers; in a thread of its own."""
        began = time.monotonic()
        state = "found"
        try:
            for other in server.after:
                while other in ready and not ready[other].wait(0.1):
                    if failed.is_set():
                        return
            # One that runs but does not answer may be starting, or ending: then it is started again.
            if not self._comes_up(server, record, failed):
                self.progress(Step(server.name, "starting", 0.0, note))
                record = self._launch(server, record)
                state = "running"
                if not self._comes_up(server, record, failed):
                    raise _ended(server, time.monotonic() - began)  # noqa: TRY301 - reported with the others below
        except _OtherFailedError:
            return
        except Exception:
            failed.set()
            raise
        ready[server.name].set()
        self.progress(Step(server.name, state, time.monotonic() - began))

    def _launch(self, server: Server, record: Record) -> Record:
        if half := server.half_written:
            shutil.rmtree(half)
        server.make_folders()
        server.prepare(record.ports)
        command = server.command(record.ports)
        started = process.spawn(record, command, server.folder, server.out, server.environment)
        started.write(server.record)
        return started

    def _comes_up(self, server: Server, record: Record, failed: Event) -> bool:
        """Wait until a server answers; false if its process is not there or ends meanwhile.

        Raises:
            ServiceError: It runs but does not answer for too long.
            _OtherFailedError: Another server failed, so waiting is of no use.
        """
        began = time.monotonic()
        while record.process():
            address = server.address(record.host, record.ports)
            if server.answers(address):
                return True
            if time.monotonic() - began > server.timeout:
                raise ServiceError(
                    f"{server.name}: runs (pid {record.pid}) but has not answered at {server.public(address)} within"
                    f" {server.timeout:.0f} s. The last lines of {server.log}:\n{process.tail(server.log)}",
                    f"`{server.hint('down')}`, then `{server.hint('up')}`; a busy machine may need more time",
                )
            if failed.wait(0.1):
                raise _OtherFailedError
        return False


def stop(server: Server, progress: Callable[[Step], None], grace: float) -> None:
    """Stop a server, if it runs.

    Args:
        server: The server.
        progress: Called with each change.
        grace: Seconds that it is given to stop by itself.
    """
    record = Record.read(server.record)
    found = record.process() if record else None
    began = time.monotonic()
    for p in [found] if found else process.marked(server.mark):
        progress(Step(server.name, "stopping"))
        clean = process.stop(p, grace, server.stop_signal)
        if clean and record and "-cp" in record.command:
            server.keep_archive(record.command)
        server.new_archive.unlink(missing_ok=True)
        note = "" if clean else f"did not shut down within {grace:.0f} s; sent SIGKILL"
        progress(Step(server.name, "stopped", time.monotonic() - began, note))
    if record and record.pid is not None:
        record.stopped().write(server.record)
