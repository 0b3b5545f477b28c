"""The stack of one home: start, find, stop and look after its servers.

What a server is stands in ``servers.py``; this module only decides which of them
are to be started, in which order they stop, and what to say when one does not.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from ecom_assets.core.addresses import Addresses
from ecom_assets.core.errors import ServiceError
from ecom_assets.core.settings import Settings
from ecom_assets.servers import cluster, doctor, jars, process, servers, serving
from ecom_assets.servers.doctor import Finding
from ecom_assets.servers.process import Record
from ecom_assets.servers.servers import Server


@dataclass(frozen=True)
class Status:
    """One line of ``ecom status``.

    Attributes:
        service: Name of the server.
        state: running, starting, stopped, crashed, or external.
        answers: Whether it does its work.
        address: What clients are given; empty if not known.
        pid: Process, if it is ours and runs.
        uptime: Seconds since its start.
        memory: Resident bytes.
        log: Its log file.
    """

    service: str
    state: str
    answers: bool
    address: str
    pid: int | None = None
    uptime: float | None = None
    memory: int | None = None
    log: Path | None = None


@dataclass(frozen=True)
class Step:
    """What is told while the stack starts or stops.

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
        "see to what the lines say, then `ecom up`; `ecom doctor` looks for common causes",
    )


def _silent(_: Step) -> None:
    pass


class Stack:
    """The servers of one home.

    Args:
        settings: The home and its settings; an address set there replaces a server.

    Raises:
        ServiceError: The home was started with another profile than the settings ask for.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        kinds = cluster.nodes(settings) if self.profile == "cluster" else [kind(settings) for kind in servers.ALL]
        # Those first that others need.
        self.servers: dict[str, Server] = {s.name: s for s in (*kinds, *(kind(settings) for kind in serving.ALL))}

    @property
    def profile(self) -> str:
        """Embedded (one server of each kind) or cluster (several), as the home was started."""
        asked, known = self.settings.profile, "embedded"
        if self._profile.exists():
            known = self._profile.read_text(encoding="utf-8").strip()
            if asked not in ("", known):
                raise ServiceError(
                    f"{self.settings.home} was started with the profile {known}, asked for {asked}",
                    "take another folder (--home), or leave the profile out",
                )
        return asked or known

    @property
    def _profile(self) -> Path:
        return self.settings.stack / "profile"

    def up(
        self,
        progress: Callable[[Step], None] = _silent,
        fetching: Callable[[int, int], None] | None = None,
        also: tuple[str, ...] = (),
    ) -> Addresses:
        """Start what does not run yet, and wait until all of it answers.

        Args:
            progress: Told of each change of a server.
            fetching: Told (bytes done, bytes in all) while jars are fetched.
            also: Servers to be started that are started only on demand.

        Returns:
            The addresses.

        Raises:
            ServiceError: A server does not start, or an external one does not answer.
        """
        own = {}
        for server in self.servers.values():
            if server.on_demand and server.name not in also:
                continue
            if not server.external:
                own[server.name] = server
            elif not server.serves:
                continue
            elif server.answers(server.external):
                progress(Step(server.name, "external"))
            else:
                address = server.public(server.external)
                raise ServiceError(
                    f"{server.name}: nothing that does {server.name}'s work answers at {address}",
                    "start that server or correct its address in the settings"
                    f"{' (or what ECOM_KAFKA_CONFIG says)' if server.name.startswith('kafka') else ''}, or leave the"
                    " address empty for one of our own",
                )
        if own:
            with process.locked(self.settings.stack / "lock", "another start or stop of this home", 300):
                if self.profile != "embedded":
                    self._profile.write_text(f"{self.profile}\n", encoding="utf-8")
                jars.fetch(fetching, cluster.JARS if self.profile == "cluster" else jars.SERVERS)
                servers.make_java_archive()
                self._start(own, progress)
        return self.addresses()

    def _start(self, own: dict[str, Server], progress: Callable[[Step], None]) -> None:
        # One start at a time on a machine, or two homes would choose the same free ports.
        machine = Path(tempfile.gettempdir()) / f"ecom-stack-{os.getuid()}.lock"
        with process.locked(machine, "the start of another home", 300):
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
                        patience = 20 if server.lasting else 2  # where no other port will do
                        process.await_free(self.settings.host, remembered.values(), patience)
                    ports = process.choose_ports(self.settings.host, server.usual, remembered, taken, server.lasting)
                    record = Record(server.name, self.settings.host, ports)
                starts[server.name] = server, record, note
                places[server.name] = record
            for server in own.values():
                server.meet(places)  # those that come after it too
            failed = Event()
            ready = {name: Event() for name in starts}
            with ThreadPoolExecutor(len(starts)) as pool:
                futures = [pool.submit(self._bring_up, *start, ready, failed, progress) for start in starts.values()]
            try:
                for future in futures:
                    future.result()
            except ServiceError:
                if self.profile == "cluster":  # half of one serves nobody
                    self._take_back(own, last, progress)
                raise

    def _take_back(
        self, own: Mapping[str, Server], last: Mapping[str, Record | None], progress: Callable[[Step], None]
    ) -> None:
        """Stop those servers of a failed start that did not run before it."""
        for name, server in reversed(list(own.items())):
            before, now = last[name], Record.read(server.record)
            if now and now.process() and not (before and before.pid == now.pid):
                self._stop(server, progress, min(server.grace, TAKE_BACK_SECONDS))

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
            return None, f"{half}, left by an interrupted first start, is made anew"
        if record and record.pid is not None:
            return None, f"it had ended without being stopped (pid {record.pid}) and is started again"
        return None, ""

    def _bring_up(  # noqa: PLR0917 - a thread's arguments
        self,
        server: Server,
        record: Record,
        note: str,
        ready: Mapping[str, Event],
        failed: Event,
        progress: Callable[[Step], None],
    ) -> None:
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
                progress(Step(server.name, "starting", 0.0, note))
                record = self._launch(server, record)
                state = "running"
                if not self._comes_up(server, record, failed):
                    raise _ended(server, time.monotonic() - began)  # noqa: TRY301 - told to the others below
        except _OtherFailedError:
            return
        except Exception:
            failed.set()
            raise
        ready[server.name].set()
        progress(Step(server.name, state, time.monotonic() - began))

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
            if time.monotonic() - began > server.patience:
                raise ServiceError(
                    f"{server.name}: runs (pid {record.pid}) but has not answered at {server.public(address)} within"
                    f" {server.patience:.0f} s. The last lines of {server.log}:\n{process.tail(server.log)}",
                    "`ecom down`, then `ecom up`; a busy machine may need more time",
                )
            if failed.wait(0.1):
                raise _OtherFailedError
        return False

    def down(self, progress: Callable[[Step], None] = _silent, grace: float = math.inf) -> None:
        """Stop what runs; data stays.

        Args:
            progress: Told of each change of a server.
            grace: The most seconds that a server is given to stop; few where nobody wants its data again.
        """
        if not self.settings.stack.exists() and not any(process.marked(s.mark) for s in self.servers.values()):
            return
        with process.locked(self.settings.stack / "lock", "another start or stop of this home", 300):
            # Clients before what they talk to.
            for server in reversed(self.servers.values()):
                self._stop(server, progress, min(server.grace, grace))

    def _stop(self, server: Server, progress: Callable[[Step], None], grace: float) -> None:
        record = Record.read(server.record)
        found = record.process() if record else None
        began = time.monotonic()
        for p in [found] if found else process.marked(server.mark):
            progress(Step(server.name, "stopping"))
            clean = process.stop(p, grace, server.stop_signal)
            if clean and record and "-cp" in record.command:
                server.keep_archive(record.command)
            server.new_archive.unlink(missing_ok=True)
            note = "" if clean else f"it did not stop within {grace:.0f} s and was killed"
            progress(Step(server.name, "stopped", time.monotonic() - began, note))
        if record and record.pid is not None:
            record.stopped().write(server.record)

    def doctor(self) -> list[Finding]:
        """Look for what would keep the stack from starting, or what a crash left behind."""
        return doctor.examine(self.settings, [s for s in self.servers.values() if not s.on_demand])

    def status(self) -> list[Status]:
        """How each server is; never raises for a server that is not well."""
        return [
            self._status(s)
            for s in self.servers.values()
            if (self._wanted(s) if s.on_demand else s.serves or not s.external)
        ]

    def _wanted(self, server: Server) -> bool:
        record = Record.read(server.record)
        return bool(record and record.pid is not None)

    def _status(self, server: Server) -> Status:
        if server.external:
            address = server.public(server.external)
            return Status(server.name, "external", server.answers(server.external), address)
        record = Record.read(server.record)
        if not record:
            return Status(server.name, "stopped", False, "", log=server.log)
        running = record.process()
        try:
            address = server.address(record.host, record.ports)
        except ServiceError:  # its password is gone; `ecom up` says so
            return Status(server.name, "crashed", False, "", log=server.log)
        shown = server.public(address)
        if not running:
            state = "stopped" if record.pid is None else "crashed"
            return Status(server.name, state, False, shown, log=server.log)
        answers = server.answers(address)
        state = "running" if answers else "starting"
        uptime, memory = time.time() - running.create_time(), running.memory_info().rss
        return Status(server.name, state, answers, shown, running.pid, uptime, memory, server.log)

    def addresses(self) -> Addresses:
        """Where the servers are.

        Raises:
            ServiceError: One of our own that rows pass does not run. PostgreSQL and Redis may be missing.
        """
        at = {name: self.address(name) for name in ("kafka", "thrift", "hbase", "spark")}
        for name in ("postgres", "redis"):
            with suppress(ServiceError):
                at[name] = self.address(name)
        return Addresses(
            at["kafka"],
            servers.split(at["thrift"]),
            at["hbase"],
            at["spark"],
            at.get("postgres", ""),
            at.get("redis", ""),
        )

    def address(self, name: str) -> str:
        """Where one server is.

        Args:
            name: What it serves.

        Raises:
            ServiceError: It is one of our own and does not run.
        """
        members = [server for server in self.servers.values() if server.serves == name]
        if members[0].external:
            return members[0].external
        records = [(server, record) for server in members if (record := Record.read(server.record))]
        if not any(record.process() for _, record in records):
            raise ServiceError(f"{name} does not run in {self.settings.home}", "run `ecom up`")
        # All of them, so that an address does not change when one of several is away.
        return ",".join(server.address(record.host, record.ports) for server, record in records)
