"""Where the lake is stored: a folder of this machine, or one in HDFS by its address.

What belongs here: the few operations on files of the lake, the same in both places. What does not: what the
files hold. Delta tables are read by delta-rs, which knows both places by their names; so it and Spark
receive ``str`` of a path.
"""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeAlias, TypeVar, cast
from urllib.parse import urlsplit

from ecom_assets.core.errors import LakeError
from ecom_assets.core.home import hint

if TYPE_CHECKING:
    from hdfs_native import Client

T = TypeVar("T")

CLIENT = {"dfs.client.failover.max.attempts": "5"}
"""Settings of the HDFS client: about 20 s for a namenode that restarts; hdfs-native's own default is three minutes."""


class Status(NamedTuple):
    """What HDFS knows of a file, named as in ``os.stat_result``."""

    st_size: int
    st_mtime_ns: int


class HdfsPath:
    """A file or folder in HDFS; each member has the name and the meaning that it has in ``pathlib.Path``.

    A namenode that does not answer is an error everywhere, and never a file that is not there.

    Args:
        uri: ``hdfs://host:port/folder``.

    Attributes:
        at: ``hdfs://host:port``.
    """

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        self.at = f"{parts.scheme}://{parts.netloc}"
        self._path = PurePosixPath(parts.path or "/")

    def __str__(self) -> str:
        return f"{self.at}{self._path}"

    def __repr__(self) -> str:
        return f"HdfsPath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HdfsPath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __truediv__(self, name: str) -> HdfsPath:
        return HdfsPath(f"{self.at}{self._path / name}")

    @property
    def name(self) -> str:
        """Its last part."""
        return self._path.name

    @property
    def parent(self) -> HdfsPath:
        """The folder that contains it."""
        return HdfsPath(f"{self.at}{self._path.parent}")

    def with_name(self, name: str) -> HdfsPath:
        """Its sibling of another name."""
        return HdfsPath(f"{self.at}{self._path.with_name(name)}")

    def exists(self) -> bool:
        """Whether it is there."""
        try:
            self._ask(lambda hdfs, path: hdfs.get_file_info(path))
        except FileNotFoundError:
            return False
        return True

    def stat(self) -> Status:
        """How large it is, and when it was last written."""
        found = self._ask(lambda hdfs, path: hdfs.get_file_info(path))
        return Status(found.length, found.modification_time * 1_000_000)

    def iterdir(self) -> Iterator[HdfsPath]:
        """What a folder holds."""
        found = self._ask(lambda hdfs, path: [status.path for status in hdfs.list_status(path)])
        return (self / path.rpartition("/")[2] for path in found)

    def listing(self) -> dict[str, Status]:
        """What a folder holds, by name, in one question."""
        found = self._ask(lambda hdfs, path: list(hdfs.list_status(path)))
        return {
            status.path.rpartition("/")[2]: Status(status.length, status.modification_time * 1_000_000)
            for status in found
        }

    def glob(self, pattern: str) -> Iterator[HdfsPath]:
        """What it holds by a pattern; of ``**`` it knows nothing."""
        first, _, rest = pattern.partition("/")
        try:
            found = [child for child in self.iterdir() if fnmatch(child.name, first)]
        except FileNotFoundError:
            return
        for child in found:
            yield from child.glob(rest) if rest else [child]

    def open(self, mode: str = "rb", buffering: int = 1 << 20) -> BinaryIO:
        """Open it to be read (``rb``) or written from its start to its end (``wb``)."""
        if mode == "rb":
            return cast("BinaryIO", self._ask(lambda hdfs, path: hdfs.read(path)))  # it buffers by itself
        return io.BufferedWriter(self._ask(lambda hdfs, path: hdfs.create(path, _options())), buffering)

    def read_text(self, encoding: str = "utf-8") -> str:
        """What it holds, as text."""
        return self.read_bytes().decode(encoding)

    def read_bytes(self) -> bytes:
        """What it holds."""
        with self.open() as file:
            return file.read()

    def write_bytes(self, data: bytes) -> int:
        """Overwrite it; returns the bytes written."""
        with self.open("wb") as file:
            return file.write(data)

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Create a folder."""
        if not exist_ok and self.exists():
            raise FileExistsError(str(self))
        self._ask(lambda hdfs, path: hdfs.mkdirs(path, create_parent=parents))

    def rename(self, target: HdfsPath) -> HdfsPath:
        """Move it, all at once; what is there already stays, and is an error."""
        self._ask(lambda hdfs, path: hdfs.rename(path, str(target._path)))
        return target

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Delete a file or an empty folder."""
        if not self._ask(lambda hdfs, path: hdfs.delete(path)) and not missing_ok:
            raise FileNotFoundError(str(self))

    def rmtree(self) -> None:
        """Delete it with all that it holds, if it is there."""
        self._ask(lambda hdfs, path: hdfs.delete(path, recursive=True))

    def _ask(self, question: Callable[[Client, str], T]) -> T:
        try:
            return question(_client(self.at), str(self._path))
        except (FileNotFoundError, FileExistsError) as error:  # their words are a stack trace of the namenode's
            raise type(error)(str(self)) from None
        except Exception as error:
            message = str(error).partition("\\n")[0].partition("\n")[0]
            raise LakeError(
                f"{self}: expected HDFS to answer at {self.at}, got: {message}; see that its namenode and datanodes run"
                f" (`{hint('status')}`), that its disks have room, and that ECOM_LAKE_URI points to it"
            ) from error


Location: TypeAlias = Path | HdfsPath
"""A file or folder of the lake."""


def location(name: str) -> Location:
    """A file or folder of the lake from its ``str``."""
    return HdfsPath(name) if "://" in name else Path(name)


@cache
def _client(at: str) -> Client:
    from hdfs_native import Client

    return Client(at, CLIENT)


def _options() -> Any:
    from hdfs_native import WriteOptions

    return WriteOptions(overwrite=True)


def hadoop_uri(path: Location) -> str:
    """How Hadoop and HBase name it, whatever file system they take for their own."""
    return f"file://{path}" if isinstance(path, Path) else str(path)


def local(path: Location) -> Path:
    """A file or folder for what can be done on this machine alone.

    Raises:
        LakeError: It is in HDFS.
    """
    if not isinstance(path, Path):
        raise LakeError(f"{path}: expected a folder of this machine, got one in HDFS; let Spark's tasks work there")
    return path


def stamp(path: Location) -> tuple[int, ...]:
    """What differs when a file has been replaced.

    Raises:
        FileNotFoundError: There is none.
    """
    if isinstance(path, Path):
        state = path.stat()
        return state.st_mtime_ns, state.st_ino
    return (path.stat().st_mtime_ns,)


def listing(folder: Location) -> dict[str, Status]:
    """Size and time of everything in a folder, by name; empty where there is no folder.

    One question to HDFS, however many files there are.
    """
    try:
        if not isinstance(folder, Path):
            return folder.listing()
        with os.scandir(folder) as entries:
            states = {entry.name: entry.stat() for entry in entries}
    except FileNotFoundError:
        return {}
    return {name: Status(state.st_size, state.st_mtime_ns) for name, state in states.items()}


def last_commit(folder: Location) -> tuple[object, ...]:
    """What differs when a Delta table has a new version, by a look at its folder; empty where there is none."""
    try:
        last = max((folder / "_delta_log").glob("*.json"), key=lambda p: p.name)
        return last.name, *stamp(last)
    except (FileNotFoundError, ValueError):
        return ()


_DELETIONS = 20
"""Looks at a folder that something still writes into, before it stays."""


def rmtree(path: Location) -> None:
    """Delete a folder with all that it holds, if it is there; also what a task adds that learns of its end only now."""
    if isinstance(path, Path):
        for _ in range(_DELETIONS):
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                break
            time.sleep(0.05)
    else:
        path.rmtree()


def remove(path: Location) -> None:
    """Delete a folder so that a crash leaves it whole or gone."""
    gone = path.with_name(f".{path.name}.gone")
    rmtree(gone)
    if path.exists():
        move(path, gone)
        rmtree(gone)


def replace(path: Location, target: Location) -> None:
    """Put a folder in the place of another so that a crash leaves one of them whole, or none."""
    remove(target)
    move(path, target)


def move(path: Location, target: Location) -> None:
    """Move a file or folder within the lake, all at once."""
    path.rename(target)  # ty: ignore[invalid-argument-type]  both are of one kind


def move_over(path: Location, target: Location) -> None:
    """Put a file in the place of another; in HDFS, a crash may leave none."""
    if not isinstance(path, Path):
        target.unlink(missing_ok=True)
    move(path, target)


def exists(path: Location) -> bool:
    """Whether a folder holds a Delta table."""
    log = path / "_delta_log"
    if isinstance(log, Path):  # not all of it is listed, since a commit is soon found
        return log.is_dir() and _any_commit(log)
    from deltalake import DeltaTable  # a tenth of a second, which Spark's Python workers can do without

    return log.exists() and DeltaTable.is_deltatable(str(path))


def _any_commit(log: Path) -> bool:
    with os.scandir(log) as entries:
        return any(entry.name.endswith((".json", ".parquet")) for entry in entries)


AnyLocation = TypeVar("AnyLocation", Path, HdfsPath, Location)


@contextmanager
def emptied(path: AnyLocation) -> Generator[AnyLocation]:
    """A folder that is empty at first, whatever a killed run has left, and gone at the end."""
    rmtree(path)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        rmtree(path)
