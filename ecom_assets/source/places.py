"""Where the files of a source are: a folder of this machine, or a bucket of a store that speaks S3.

What belongs here: listing files and reading one, the same in both places. What does not: which file is of which table
(``arrival``), and what becomes of it (``acceptance``).

The store is reached as by all of Amazon's tools: ``AWS_ENDPOINT_URL`` (or ``AWS_ENDPOINT_URL_S3``), ``AWS_REGION``, and
keys from the environment, ``~/.aws`` or the machine's role. No setting of ours holds a key.
"""

from __future__ import annotations

import io
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, ClassVar
from urllib.parse import urlsplit

from typing_extensions import override

from ecom_assets.core.errors import SourceError
from ecom_assets.core.settings import BUCKET, Settings

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from pyarrow.fs import S3FileSystem

READ_BYTES = 16 << 20
"""Bytes of an object in one request: with fewer, most of the time is the store's latency."""
SILENCE_SECONDS = 5.0
"""Seconds without a byte from the store after which a request has failed."""
ATTEMPTS = 2
"""Requests for the same before that is an error: with the time above, a sensor learns of it within its 60 seconds."""

_LASTING = re.compile(r"NO_SUCH_BUCKET|ACCESS_DENIED|SIGNATURE|ACCESS_KEY|TOKEN|CREDENTIALS|PERMANENT_REDIRECT")
"""In a message of the store: what does not pass by itself."""


class SourceAwayError(SourceError):
    """The store of the source does not answer, or refuses to."""


@dataclass(frozen=True)
class Entry:
    """A file of a place.

    Attributes:
        path: Where it is in the place.
        bytes: Its size.
        modified_ns: When it was last written, nanoseconds since 1970.
    """

    path: PurePosixPath
    bytes: int
    modified_ns: int


class Place(ABC):
    """Where the files of a source are; its ``str`` is its address."""

    appears_whole: ClassVar[bool]
    """Whether a file is there as a whole or not at all, so that none is still being written."""

    @abstractmethod
    def lacks(self) -> str:
        """What is there in its stead; empty if it can be listed."""

    @abstractmethod
    def entries(self, depth: int) -> Iterator[Entry]:
        """Its files, and those in folders up to a depth; without what hidden folders hold.

        Raises:
            OSError: A folder cannot be read.
            SourceAwayError: The store of a bucket does not answer.
        """

    @abstractmethod
    def state(self, path: PurePosixPath) -> tuple[object, ...]:
        """What differs when a file has been changed or replaced.

        Raises:
            OSError: There is none, or it cannot be read.
            SourceAwayError: The store of a bucket does not answer.
        """

    @abstractmethod
    def open(self, path: PurePosixPath) -> BinaryIO:
        """Open a file to be read from its start to its end; raises what ``state`` does."""


def place(settings: Settings) -> Place:
    """The source of a home into which files come."""
    if settings.source.startswith(BUCKET):
        return Bucket(settings.source)
    return Folder(Path(settings.source).expanduser().resolve())


def is_hidden(name: str) -> bool:
    """Whether a file or folder is meant for programs, by its name."""
    return name.startswith((".", "_"))


class Folder(Place):
    """A folder of this machine.

    Args:
        path: The folder.
    """

    appears_whole = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    @override
    def lacks(self) -> str:
        if self.path.is_dir():
            return ""
        return "a file" if self.path.exists() else "nothing of that name"

    @override
    def entries(self, depth: int) -> Iterator[Entry]:
        return self._entries("", depth)

    def _entries(self, inside: str, depth: int) -> Iterator[Entry]:
        """Those of a folder within the source; of its thousands of files most have been there for long."""
        with os.scandir(self.path / inside) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            path = f"{inside}{entry.name}"
            if entry.is_file():
                state = entry.stat()
                yield Entry(PurePosixPath(path), state.st_size, state.st_mtime_ns)
            elif depth and not is_hidden(entry.name) and entry.is_dir():
                yield from self._entries(f"{path}/", depth - 1)

    @override
    def state(self, path: PurePosixPath) -> tuple[object, ...]:
        found = (self.path / path).stat()
        return found.st_ino, found.st_size, found.st_mtime_ns

    @override
    def open(self, path: PurePosixPath) -> BinaryIO:
        return (self.path / path).open("rb")


class Bucket(Place):
    """A bucket, or what is in it below a prefix.

    Args:
        address: ``s3://bucket/prefix``.
    """

    appears_whole = True

    def __init__(self, address: str) -> None:
        self._address = address
        self._prefix = address.removeprefix(BUCKET)

    def __str__(self) -> str:
        return self._address

    @override
    def lacks(self) -> str:
        return ""  # a prefix without objects is as good as an empty folder

    @override
    def entries(self, depth: int) -> Iterator[Entry]:
        from pyarrow.fs import FileSelector, FileType

        try:
            with self._answered():
                found = self._store.get_file_info(FileSelector(self._prefix, recursive=True))
        except FileNotFoundError:  # no object has the prefix; a bucket that is not there is another error
            return
        for each in sorted(found, key=lambda each: each.path):
            name = each.path.removeprefix(f"{self._prefix}/")
            path = PurePosixPath(name)
            is_plain = each.type == FileType.File and str(path) == name  # in a//b, no tool agrees on what is what
            if is_plain and len(path.parts) <= depth + 1 and not any(map(is_hidden, path.parts[:-1])):
                yield Entry(path, each.size, each.mtime_ns)

    @override
    def state(self, path: PurePosixPath) -> tuple[object, ...]:
        with self._answered(), self._store.open_input_file(self._key(path)) as found:
            known = found.metadata()
        return tuple(known.get(name) for name in ("ETag", "VersionId", "Content-Length", "Last-Modified"))

    @override
    def open(self, path: PurePosixPath) -> BinaryIO:
        return io.BufferedReader(_Object(self, self._key(path)), READ_BYTES)

    def _key(self, path: PurePosixPath) -> str:
        return f"{self._prefix}/{path}"

    @property
    def _store(self) -> S3FileSystem:
        return _store(endpoint())

    @contextmanager
    def _answered(self) -> Generator[None]:
        """Explain what the store answers, or that it does not.

        Raises:
            FileNotFoundError: There is no such object.
            SourceAwayError: It was something else.
        """
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            asked = urlsplit(endpoint())
            at = f"{asked.scheme}://{asked.netloc.rpartition('@')[2]}" if asked.netloc else "Amazon S3"
            raise SourceAwayError(
                f"{self}: expected {at} to list and read it, got: {error}",
                "see that it answers and that AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and"
                " AWS_SECRET_ACCESS_KEY are set for it, or correct --source (ECOM_SOURCE)",
                transient=not _LASTING.search(str(error)),
            ) from None


class _Object(io.RawIOBase):
    """An object that is read in ranges, so that a connection that breaks costs one of them.

    Args:
        bucket: Where it is.
        key: Bucket and key.
    """

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket = bucket
        with bucket._answered():  # noqa: SLF001  the same module
            self._stream = bucket._store.open_input_file(key)  # noqa: SLF001

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: WriteableBuffer, /) -> int:
        with self._bucket._answered():  # noqa: SLF001
            return self._stream.readinto(buffer)

    @override
    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def endpoint() -> str:
    """Address of the store, as Amazon's tools take it from the environment; empty for Amazon's own."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


@cache
def _store(at: str) -> S3FileSystem:
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    return S3FileSystem(
        endpoint_override=at or None,
        connect_timeout=SILENCE_SECONDS,
        request_timeout=SILENCE_SECONDS,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )
