"""The stack of one home: which servers it has, where they are, how they are.

What belongs here: what commands ask of all servers together. What does not: how servers are started and stopped
(``start``), and what a server is (its module).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ecom_assets.core import home
from ecom_assets.core.addresses import Addresses, split
from ecom_assets.core.errors import ServiceError
from ecom_assets.core.settings import Settings
from ecom_assets.java import jars
from ecom_assets.java.program import make_java_archive
from ecom_assets.servers import doctor, kinds, process
from ecom_assets.servers.doctor import Finding
from ecom_assets.servers.nodes.node import JARS
from ecom_assets.servers.process import Record
from ecom_assets.servers.server import Server
from ecom_assets.servers.start import Start, Step, silent, stop

ROWS_PASS = ("kafka", "thrift", "hbase", "spark")
"""What rows pass on the longest path; PostgreSQL and Redis may be missing."""

HBASE_ALONE = ("hbase", "thrift")
"""What the path needs that loads HBase from files."""


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


class Stack:
    """The servers of one home.

    Args:
        settings: The home and its settings; an address set there replaces a server.

    Raises:
        ServiceError: The home was started with another profile than the settings ask for.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # Those first that others need.
        self.servers: dict[str, Server] = {s.name: s for s in kinds.of(self.profile, settings)}

    @property
    def profile(self) -> str:
        """Embedded (one server of each kind) or cluster (several), as the home was started."""
        asked, known = self.settings.profile, "embedded"
        if self._profile.exists():
            known = self._profile.read_text(encoding="utf-8").strip()
            if asked not in ("", known):
                raise ServiceError(
                    f"{self.settings.home}: expected the profile {known}, with which it was started, got {asked}",
                    "take another folder (--home), or leave the profile out",
                )
        return asked or known

    @property
    def _profile(self) -> Path:
        return self.settings.stack / "profile"

    def up(
        self,
        progress: Callable[[Step], None] = silent,
        fetching: Callable[[int, int], None] | None = None,
        also: Collection[str] = (),
        needed: Collection[str] | None = None,
    ) -> Addresses:
        """Start what does not run yet, and wait until all of it answers.

        Args:
            progress: Called with each change of a server.
            fetching: Called with (bytes done, bytes in all) while jars are fetched.
            also: Servers to be started that are started only on demand.
            needed: What is needed, as servers call what they serve (``hbase``, ``thrift``, …); all unless given.

        Returns:
            The addresses of what is needed; those of others if they run.

        Raises:
            ServiceError: A server does not start, or an external one does not answer.
        """
        own: dict[str, Server] = {}
        for server in self.servers.values():
            if server.name not in also and (server.on_demand or not self._is_needed(server, needed)):
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
                    f"{' (or ECOM_KAFKA_CONFIG)' if server.name.startswith('kafka') else ''}, or leave the"
                    " address empty for one of our own",
                )
        if own:
            home.create(self.settings)
            with process.locked(self.settings.stack / "lock", "another start or stop of this home", 300):
                if self.profile != "embedded":
                    self._profile.write_text(f"{self.profile}\n", encoding="utf-8")
                jars.fetch(fetching, JARS if self.profile == "cluster" else jars.SERVERS)
                make_java_archive()
                self._start(own, progress)
        return self.addresses(ROWS_PASS if needed is None else needed)

    def _is_needed(self, server: Server, needed: Collection[str] | None) -> bool:
        return needed is None or not server.serves or server.serves in needed

    def _start(self, own: dict[str, Server], progress: Callable[[Step], None]) -> None:
        try:
            Start(self.settings, own, progress, all_or_none=self.profile == "cluster").run()
        except ServiceError as error:
            if not (left := self.running()):
                raise
            raise ServiceError(
                f"{error}\n{', '.join(left)} still {'runs' if len(left) == 1 else 'run'};"
                f" `{home.hint('down', self.settings)}` stops {'it' if len(left) == 1 else 'them'}",
                transient=error.transient,
            ) from error

    def running(self) -> list[str]:
        """Names of the servers of this home that run."""
        found = []
        for server in self.servers.values():
            with suppress(ServiceError):  # a damaged record
                record = Record.read(server.record)
                if record and record.process():
                    found.append(server.name)
        return found

    def strays(self) -> bool:
        """Whether processes of this home run, whatever its folder holds or whether it is still there."""
        return any(process.marked(server.mark) for server in self.servers.values())

    def down(self, progress: Callable[[Step], None] = silent, grace: float = math.inf) -> None:
        """Stop what runs; data stays.

        Args:
            progress: Called with each change of a server.
            grace: The most seconds that a server is given to stop; few where nobody wants its data again.
        """
        if not self.settings.stack.exists():
            if not self.strays():
                return
            home.create(self.settings)
        with process.locked(self.settings.stack / "lock", "another start or stop of this home", 300):
            # Clients before what they talk to.
            for server in reversed(self.servers.values()):
                stop(server, progress, min(server.grace, grace))

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
        except ServiceError:  # its password is gone; `ecom up` reports that
            return Status(server.name, "crashed", False, "", log=server.log)
        shown = server.public(address)
        if not running:
            state = "stopped" if record.pid is None else "crashed"
            return Status(server.name, state, False, shown, log=server.log)
        answers = server.answers(address)
        state = "running" if answers else "starting"
        uptime, memory = time.time() - running.create_time(), running.memory_info().rss
        return Status(server.name, state, answers, shown, running.pid, uptime, memory, server.log)

    def addresses(self, needed: Collection[str] = ROWS_PASS) -> Addresses:
        """Where the servers are.

        Args:
            needed: What must run, as servers call what they serve; the address of anything else may be empty.

        Raises:
            ServiceError: One of our own that is needed does not run. Transient.
        """
        at = dict.fromkeys((*ROWS_PASS, "postgres", "redis"), "")
        for name in at:
            try:
                at[name] = self.address(name)
            except ServiceError:
                if name in needed:
                    raise
        thrift = split(at["thrift"]) if at["thrift"] else ("", 0)
        return Addresses(at["kafka"], thrift, at["hbase"], at["spark"], at["postgres"], at["redis"])

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
            raise ServiceError(
                f"{name} does not run in {self.settings.home}",
                f"run `{home.hint('up', self.settings)}`",
                transient=True,
            )
        # All of them, so that an address does not change when one of several is away.
        return ",".join(server.address(record.host, record.ports) for server, record in records)
