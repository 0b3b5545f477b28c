"""The servers' jars: which they are, fetching them, and class paths of them.

The poms next to this file declare what is wanted; ``jars.lock`` is what Maven resolved,
one jar a line, and all that set-up needs. Writing the lock is a developer's
command and lives in ``__main__.py``; starting a server does not belong here.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from ecom_assets.core.errors import ServiceError

FOLDER = Path(__file__).parent
LOCK = FOLDER / "jars.lock"
SERVERS = ("kafka", "hbase", "spark")
SETS = (*SERVERS, "hdfs", "yarn", "tools")
"""The servers, what a cluster has in addition, and what measures them (``ecom bench``)."""
THREADS = 8
"""Downloads at a time: the registry's latency, not its bandwidth, is the limit."""


@dataclass(frozen=True)
class Jar:
    """One line of the lock.

    Attributes:
        set: What it belongs to, one of ``SETS``.
        group: Maven group.
        artifact: Maven artifact.
        version: Maven version.
        classifier: Maven classifier, mostly empty.
        size: Bytes.
        sha256: Digest in hex.
    """

    set: str
    group: str
    artifact: str
    version: str
    classifier: str
    size: int
    sha256: str

    @property
    def coordinate(self) -> str:
        """``group:artifact:version[:classifier]``."""
        return ":".join(filter(None, (self.group, self.artifact, self.version, self.classifier)))

    @property
    def path(self) -> Path:
        """Where it is stored in Maven's local repository, whether there already or not."""
        name = "-".join(filter(None, (self.artifact, self.version, self.classifier)))
        return repository() / self.group.replace(".", "/") / self.artifact / self.version / f"{name}.jar"


def repository() -> Path:
    """Maven's local repository, shared with Maven itself: ``M2_REPO`` or ``~/.m2/repository``."""
    return Path(os.environ.get("M2_REPO") or Path.home() / ".m2" / "repository")


def cache_folder() -> Path:
    """Where what is derived from the jars is kept, for all homes of the user."""
    return repository() / ".ecom_assets"


@cache
def load(lock: Path = LOCK) -> tuple[Jar, ...]:
    """Read the lock.

    Args:
        lock: The lock file.

    Returns:
        Its jars, in class path order within each set.

    Raises:
        ServiceError: A line is malformed.
    """
    jars = []
    for number, line in enumerate(lock.read_text(encoding="utf-8").splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"(\w+)\t([\w.-]+):([\w.-]+):([\w.-]+)(?::([\w.-]+))?\t(\d+)\t([0-9a-f]{64})", line)
        if not match or match[1] not in SETS:
            raise ServiceError(
                f"{lock}, line {number}: expected a set ({', '.join(SETS)}), group:artifact:version[:classifier],"
                f" size and sha256 with tabs between, got {line!r}",
                "run `python -m ecom_assets.java.jars lock`",
            )
        jars.append(Jar(match[1], match[2], match[3], match[4], match[5] or "", int(match[6]), match[7]))
    return tuple(jars)


def classpath(name: str) -> list[Path]:
    """The jars of one set, in order.

    Args:
        name: One of ``SETS``.

    Raises:
        KeyError: No such set.
    """
    if name not in SETS:
        raise KeyError(f"expected one of {', '.join(SETS)}, got {name!r}")
    return [j.path for j in load() if j.set == name]


def pyspark() -> list[Path]:
    """Spark's own jars, which come with pyspark, sorted by name.

    They are hard-linked next to the other jars, where their paths are the same for all environments of the user: so
    those share the archive of Spark's classes. Where the two folders are on different disks, the environment's own
    are taken.
    """
    own = sorted((pyspark_home() / "jars").glob("*.jar"))
    shared = cache_folder() / f"pyspark-{version('pyspark')}"
    return sorted(shared.glob("*.jar")) if _is_linked(own, shared) else own


def pyspark_home() -> Path:
    """The folder of the package pyspark, which Spark itself calls its home.

    Raises:
        ServiceError: It is not installed.
    """
    spec = find_spec("pyspark")
    if not spec or not spec.origin:
        raise ServiceError("expected the package pyspark, found none", "run `uv sync`")
    return Path(spec.origin).parent


def _is_linked(own: list[Path], shared: Path) -> bool:
    """Whether the folder has these jars; they are linked into it if it is not there."""
    sizes = {p.name: p.stat().st_size for p in own}
    if not shared.exists():
        new = shared.with_name(f"{shared.name}.{os.getpid()}")
        try:
            new.mkdir(parents=True, exist_ok=True)
            for jar in own:
                os.link(jar, new / jar.name)
            new.rename(shared)
        except OSError:  # another disk, a file system without hard links, or another process was faster
            shutil.rmtree(new, ignore_errors=True)
    return {p.name: p.stat().st_size for p in shared.glob("*.jar")} == sizes


def missing(jars: Iterable[Jar] | None = None) -> list[Jar]:
    """The jars, the servers' if none are given, that are absent or of the wrong size (a download that broke off)."""
    wanted = {j.path: j for j in (of() if jars is None else jars)}
    return [j for path, j in wanted.items() if not path.exists() or path.stat().st_size != j.size]


def of(sets: Iterable[str] = SERVERS) -> list[Jar]:
    """The jars of some sets, each once; those of the servers by default."""
    return list({j.path: j for j in load() if j.set in sets}.values())


def fetch(progress: Callable[[int, int], None] | None = None, sets: Iterable[str] = SERVERS) -> None:
    """Bring the lock's jars into Maven's local repository and verify them.

    Args:
        progress: Called with (bytes done, bytes in all) after each jar.
        sets: Which of ``SETS``.

    Raises:
        ServiceError: A jar cannot be fetched, or is not the one in the lock.
    """
    bring(of(sets), progress)


def bring(jars: list[Jar], progress: Callable[[int, int], None] | None = None) -> None:
    """Bring some jars into Maven's local repository and verify them.

    A digest is checked once: a stamp, named after these jars, remembers that, and
    from then on only presence and size are looked at.

    Args:
        jars: The jars.
        progress: Called with (bytes done, bytes in all) after each jar.

    Raises:
        ServiceError: A jar cannot be fetched, or is another one.
    """
    stamp = cache_folder() / f"verified-{hashlib.sha256(repr(jars).encode()).hexdigest()[:16]}"
    if stamp.exists() and not missing(jars):
        return
    stamp.parent.mkdir(parents=True, exist_ok=True)
    with (stamp.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two homes may be set up at once
        total, done = sum(j.size for j in jars), 0
        with ThreadPoolExecutor(THREADS) as pool:
            for jar in pool.map(_fetch, jars):
                done += jar.size
                if progress:
                    progress(done, total)
        stamp.touch()


def _fetch(jar: Jar) -> Jar:
    """Fetch and verify one jar; one broken on disk is fetched again, once."""
    was_there = jar.path.exists()
    if not was_there:
        _download(jar)
    if digest(jar.path) != jar.sha256 and was_there:
        jar.path.unlink()
        _download(jar)
    if (got := digest(jar.path)) != jar.sha256:
        jar.path.unlink()
        raise ServiceError(
            f"{jar.path} ({jar.coordinate}): expected sha256 {jar.sha256}, got {got};"
            " what the registry serves is not what was locked, so the file was removed",
            "try again, and if it stays so, re-lock with `python -m ecom_assets.java.jars lock`"
            " after finding out why the jar changed",
        )
    return jar


def _download(jar: Jar) -> None:
    # Imported late: jgo costs 0.7 s, and mostly there is nothing to fetch.
    from jgo.maven import MavenContext, PythonResolver

    context = MavenContext(resolver=PythonResolver(), repo_cache=repository(), timeout=60)
    artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact(jar.classifier, "jar")
    try:
        artifact.resolve()
    except Exception as e:  # jgo lets through what requests raises, and RuntimeError
        jar.path.unlink(missing_ok=True)
        raise ServiceError(
            f"cannot fetch {jar.coordinate}: {e}", "check the network and proxy settings, then try again"
        ) from e


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
