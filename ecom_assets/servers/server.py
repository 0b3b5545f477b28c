"""What a server of a home is: its folders, ports and memory, and how one sees that it works.

What belongs here: the base of all servers, Java's options included. What does not: any server's own configuration (each
kind has a module), and starting, finding and stopping them (``stack``).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from ecom_assets.core import home
from ecom_assets.core.settings import Settings
from ecom_assets.java import jars
from ecom_assets.java.program import JAVA, LOG4J, class_archive, java_archive, property_value
from ecom_assets.servers.memory import default_heap
from ecom_assets.servers.process import Record

QUICK = [
    "-XX:TieredStopAtLevel=1",
    # With one compiler Java reserves 48 MB for code, which Spark fills in minutes, and then ends;
    # so it gets what Java reserves for both.
    "-XX:ReservedCodeCacheSize=240m",
    # Code without barriers for a collector that works alongside: a run at 1 % in 87 s instead of 99.
    "-XX:+UseParallelGC",
]
"""Options for a short life with few rows."""

LOG4J_STDOUT = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{{ISO8601}} %p %c{{1}}: %m%n
rootLogger.level = {level}
rootLogger.appenderRef.out.ref = out
"""
"""For a server in the foreground, whose starter keeps its output."""


ARCHIVES_KEPT = 3
"""Class archives of a server that are kept, the latest ones."""


class Server:
    """One server of one home; subclasses say what is special.

    Attributes:
        name: Its name and that of its folder.
        elsewhere: The setting with the address of a server that may take its place; empty if none may.
        serves: The name by which clients ask for its service; empty if only other servers do.
        usual: Usual port by purpose; the first is the one that clients use.
        lasting: Purposes whose port never changes once it is chosen.
        grace: Seconds it is given to stop by itself.
        timeout: Seconds it is given to start; many times what a cold start takes on an idle machine.
        level: Log level.
        stop_signal: What asks it to stop.
        on_demand: Whether it is started only when asked for by name.
        after: Servers that must answer before this one can start; it finds all others by trying.
    """

    name: str
    elsewhere: ClassVar[str] = ""
    serves: ClassVar[str]
    usual: ClassVar[dict[str, int]]
    lasting: ClassVar[frozenset[str]] = frozenset()
    grace: float = 30
    timeout: float = 180
    level: str = "info"
    stop_signal: signal.Signals = signal.SIGTERM
    on_demand: bool = False
    after: ClassVar[tuple[str, ...]] = ()
    foreground: bool = False
    """Whether it logs to standard output, as `ecom serve` has it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = settings.stack / self.name
        self.data = self.folder / "data"
        self.conf = self.folder / "conf"
        self.log = self.folder / "log" / f"{self.name}.log"
        self.out = self.folder / "log" / "out.log"
        self.record = self.folder / "service.json"
        self.new_archive = self.folder / "classes.jsa"

    @property
    def external(self) -> str:
        """Address of a server elsewhere that takes its place; empty if there is none."""
        return getattr(self.settings, self.elsewhere) if self.elsewhere else ""

    @property
    def environment(self) -> dict[str, str]:
        """Variables it needs."""
        return {}

    @property
    def mark(self) -> str:
        """An argument of its command line by which its process is known."""
        return f"-Decom.service={self.folder}"

    @property
    def half_written(self) -> Path | None:
        """A folder that an interrupted first start left, with nothing in it that anyone has stored."""
        return None

    @property
    def memory(self) -> str:
        """The largest heap, as Java writes it, or what a server that is no Java keeps."""
        return getattr(self.settings, f"{self.name}_memory", "") or default_heap(self.name, self.settings)

    def hint(self, command: str) -> str:
        """A command line for this server's home, such as ``ecom up --home …``."""
        return home.hint(command, self.settings)

    def meet(self, places: Mapping[str, Record]) -> None:
        """Learn where the other servers of this start are, as far as that is known yet.

        Args:
            places: A server's name -> its host and ports.
        """

    def fits(self, record: Record) -> bool:  # noqa: ARG002 - for subclasses
        """Whether a process that runs can be kept; false if what it depends on is elsewhere now."""
        return True

    def prepare(self, ports: dict[str, int]) -> None:
        """Write the configuration and whatever else must be there before a start."""
        raise NotImplementedError

    def command(self, ports: dict[str, int]) -> list[str]:
        """The command line, for after ``prepare``."""
        raise NotImplementedError

    def address(self, host: str, ports: dict[str, int]) -> str:
        """What clients are given."""
        return f"{host}:{ports[next(iter(self.usual))]}"

    def public(self, address: str) -> str:
        """An address as people may see it: without a password."""
        return address

    def answers(self, address: str) -> bool:
        """Whether the server there does its work; an open port alone is not enough."""
        raise NotImplementedError

    def make_folders(self) -> None:
        """Make its folders and its logging configuration."""
        for folder in (self.conf, self.log.parent, self.folder / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        layout = LOG4J_STDOUT if self.foreground else LOG4J
        (self.conf / "log4j2.properties").write_text(layout.format(log=property_value(self.log), level=self.level))

    def java(self, heap: str, classpath: list[Path], *options: str) -> list[str]:
        """The beginning of a command line, up to the main class.

        Args:
            heap: Largest heap, as Java writes it (``512m``).
            classpath: Jars; no folder, for Java's class archive can't have one.
            *options: Further options of the JVM.
        """
        path = os.pathsep.join(map(str, classpath))
        return [
            JAVA,
            self.mark,
            f"-Xmx{heap}",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",
            *(QUICK if self.settings.quick_java else []),
            "-Xlog:disable",
            "-Xlog:all=error:stderr",
            "-Djava.net.preferIPv4Stack=true",
            f"-Djava.io.tmpdir={self.folder / 'tmp'}",
            f"-Dlog4j2.configurationFile={self.conf / 'log4j2.properties'}",
            *self._class_archive(path),
            *options,
            "-cp",
            path,
        ]

    def _class_archive(self, classpath: str) -> list[str]:
        """Options by which Java loads its classes from an archive, or writes that archive when it ends.

        A start from an archive takes about half the processor time, but to write one takes up to two minutes after
        a long day's work. An archive fits one class path.
        """
        archive = self.archive(classpath)
        if archive.exists():
            return [f"-XX:SharedArchiveFile={archive}"]
        record = [f"-XX:ArchiveClassesAtExit={self.new_archive}"] if self.settings.class_archives else []
        return [f"-XX:SharedArchiveFile={java_archive()}", *record]

    def keep_archive(self, command: list[str]) -> None:
        """Take over the archive that a server wrote when it ended by itself; for after a clean stop."""
        if self.new_archive.exists():
            self.new_archive.replace(self.archive(command[command.index("-cp") + 1]))
            # Each version has its own, so old ones would pile up, 80 MB and more each.
            for name in (self.name, "java"):
                made = sorted(jars.cache_folder().glob(f"{name}-*.jsa"), key=lambda path: path.stat().st_mtime)
                for old in made[:-ARCHIVES_KEPT]:
                    old.unlink(missing_ok=True)

    @classmethod
    def archive(cls, classpath: str) -> Path:
        """The archive of this server's classes; shared by all homes of the user."""
        return class_archive(cls.name, classpath)
