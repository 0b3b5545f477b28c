"""Acceptance: new files of a source are copied into the home, once, as deliveries.

What belongs here: which files are taken, what a changed one means, and copying. What does not: which file is of which
table (``arrival``), and what is in it.

A file counts by its content. The same content under another name, or once more under its own, is not stored again. A
file that was accepted before and has only grown brings its new rows alone; one that was changed otherwise is refused,
and stays refused until it changes again: its rows are in the home already, and what replaces them nobody has declared.
Files that are no part of a delivery, repeated and refused ones, are remembered in ``looked_at.json``, so that none is
read at every look.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain, groupby
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, cast

from ecom_assets.core import delivery, locks
from ecom_assets.core.delivery import Accepted, Delivery, Origin
from ecom_assets.core.errors import SourceError
from ecom_assets.core.expansion import Target
from ecom_assets.core.files import read_json, write_json
from ecom_assets.core.progress import note
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Dataset, Table
from ecom_assets.source import arrival, places
from ecom_assets.source.arrival import Arrived
from ecom_assets.source.places import Entry, Place

BLOCK = 4 << 20
"""Bytes copied at a time."""

Progress = Callable[[int], object]


@dataclass(frozen=True)
class Known:
    """What a home knows of its source.

    Attributes:
        accepted: Path in the source -> the file as it was accepted last from there, or found to repeat another.
        contents: Table, size and SHA-256 -> path of the file that had this content first.
        last: Table -> its file that was accepted last.
        refused: Path in the source -> the file as it was when it was refused, and why.
    """

    accepted: dict[str, Accepted]
    contents: dict[tuple[str, int, str], str]
    last: dict[str, Accepted]
    refused: dict[str, tuple[Origin, str]]

    @classmethod
    def of(cls, settings: Settings, first: Iterable[Accepted]) -> Known:
        """Read what is recorded.

        Args:
            settings: The home.
            first: The files that it was begun with.
        """
        files = [*first, *(file for each in delivery.deliveries(settings) for file in each.files)]
        looks = _looks(settings)
        repeated = {path: Accepted.from_json(each) for path, each in looks["repeated"].items()}
        return cls(
            {file.origin.path: file for file in files} | repeated,
            {(f.table, f.bytes, f.sha256): f.origin.path for f in reversed(files)},
            {file.table: file for file in files},
            {path: (Origin(**each["origin"]), each["why"]) for path, each in looks["refused"].items()},
        )

    def is_new(self, origin: Origin) -> bool:
        """Whether a file is to be looked at: it is not known, or has changed since."""
        known, refused = self.accepted.get(origin.path), self.refused.get(origin.path)
        return not (known and known.origin == origin) and not (refused and refused[0] == origin)


class UnsteadyError(Exception):
    """A file was changed, or taken away, while it was copied."""


class _RefusedError(Exception):
    """A file that changed in a way that is not declared."""


def origin(file: Arrived | Entry) -> Origin:
    """A file as it is now."""
    return Origin(str(file.path), file.bytes, file.modified_ns)


def waiting(settings: Settings, dataset: Dataset, first: Sequence[Accepted]) -> list[Arrived]:
    """The files of a home's source that a call of ``accept`` would look at, in order; no file is read.

    Args:
        settings: The home; its source is a folder or a bucket.
        dataset: Its data set.
        first: The files that the home was begun with.

    Raises:
        OSError: The source cannot be read.
        SourceAwayError: The store of a bucket does not answer.
    """
    source, known = places.place(settings), Known.of(settings, first)
    # The home has copies of all that it has accepted. Tables that grow do so by the sizes of their first files.
    if grows(settings) or source.lacks():
        return []
    # Of thousands of files most have been accepted for long.
    found = arrival.scan(source, dataset, lambda entry: known.is_new(origin(entry)))
    named = [f for f in found if f.table and settings.delivery in ("", f.delivery)]
    return [f for f in named if f.is_settled and f.is_complete]


def upcoming(settings: Settings, dataset: Dataset, first: Sequence[Accepted]) -> tuple[int, str] | None:
    """Number and name of the delivery that ``accept`` would begin with, if it takes a file of it; none if none waits.

    No file is read: one whose content is known, or that is refused, makes no delivery in the end.

    Args:
        settings: The home; its source is a folder or a bucket.
        dataset: Its data set.
        first: The files that the home was begun with.

    Raises:
        OSError: The source cannot be read.
        SourceAwayError: The store of a bucket does not answer.
    """
    together = next(_deliveries(waiting(settings, dataset, first)), None)
    before = delivery.deliveries(settings)
    return (_next(before), _name(together, before)) if together else None


def grows(settings: Settings) -> bool:
    """Whether tables grow beyond their files."""
    return Target.parse(settings.expand) != Target()


def accept(settings: Settings, dataset: Dataset, first: Sequence[Accepted]) -> list[Delivery]:
    """Accept what is new in the source of a home, file by file; safe to repeat, and after a crash.

    Args:
        settings: The home; its source is a folder or a bucket.
        dataset: Its data set.
        first: The files that the home was begun with.

    Returns:
        The new deliveries, in order. A file that changes while it is copied waits for the next call.

    Raises:
        OSError: The source cannot be read, or the home cannot be written.
        SourceAwayError: The store of a bucket does not answer.
    """
    with locks.acceptance(settings):
        new = _deliveries(waiting(settings, dataset, first))
        taken = [_Taker(settings, dataset, first).take(files) for files in new]
    return [each for each in taken if each]


def _deliveries(files: Iterable[Arrived]) -> Iterator[list[Arrived]]:
    """Files that come together; of several files of a table under one name each further one comes later."""
    for _, together in groupby(files, key=lambda file: file.delivery):
        left = list(together)
        while left:
            chosen = {file.table: file for file in reversed(left)}
            yield [file for file in left if chosen[file.table] is file]
            left = [file for file in left if chosen[file.table] is not file]


class _Taker:
    """Takes one delivery.

    Args:
        settings: The home.
        dataset: Its data set.
        first: The files that it was begun with.
    """

    def __init__(self, settings: Settings, dataset: Dataset, first: Sequence[Accepted]) -> None:
        self.settings, self.dataset = settings, dataset
        self.source, self.known = places.place(settings), Known.of(settings, first)
        self.before = delivery.deliveries(settings)
        self.sequence = _next(self.before)

    def take(self, files: list[Arrived]) -> Delivery | None:
        """Copy the files of a delivery; ``None`` if none of them could be taken."""
        target = delivery.folder(self.settings, self.sequence)
        work = target.with_name(f".{target.name}.part")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        accepted, repeated, refused = [], {}, {}
        for file in files:
            place, copy = origin(file), work / self.dataset.tables[file.table].csv
            try:
                found = self._copied(file, copy)
            except UnsteadyError as error:
                copy.unlink(missing_ok=True)
                note(f"  {self.source}/{file.path}: {error}; it is left for the next run")
            except _RefusedError as error:
                copy.unlink(missing_ok=True)
                refused[place.path] = {"origin": asdict(place), "why": str(error)}
                note(f"  {self.source}/{file.path}: {error}; nothing of it is loaded")
            else:
                if found.same_as:
                    repeated[place.path] = asdict(found)
                else:
                    accepted.append(found)
        before = _looks(self.settings)
        old = {path: each for path, each in before["repeated"].items() if path not in (f.origin.path for f in accepted)}
        looks = {"repeated": old | repeated, "refused": before["refused"] | refused}
        if looks != before:
            write_json(_looked_at(self.settings), looks)
        if not accepted:
            shutil.rmtree(work)
            return None
        taken = Delivery(self.sequence, _name(files, self.before), self._now().isoformat(), tuple(accepted))
        write_json(work / delivery.RECORD, taken.to_json())
        work.rename(target)
        return taken

    def _now(self) -> datetime:
        """The time, later than that of any delivery before, whatever the clock shows: rows are ordered by it."""
        now = datetime.now(UTC)
        if not self.before:
            return now
        return max(now, datetime.fromisoformat(self.before[-1].at) + timedelta(milliseconds=1))

    def _copied(self, file: Arrived, target: Path) -> Accepted:
        """Copy what is new in a file.

        Raises:
            UnsteadyError: It was changed meanwhile.
            _RefusedError: It was accepted before, and is another one now.
        """
        place = origin(file)
        table = self.dataset.tables[file.table]
        before = self.known.accepted.get(place.path)
        last = None if table.on_change == "replace" else before
        begin = last.bytes if last else 0
        with _steady(self.source, file.path) as content, target.open("wb") as out:
            hashed, blocks = hashlib.sha256(), _blocks(content)
            if last:
                header, ended = _passed(content, last, hashed)
                if more := next(blocks, None):
                    _refuse_growth(table, ended=ended)
                    out.write(header)
                    blocks = chain([more], blocks)
            size = begin + _written(blocks, out, hashed)
        found = Accepted(file.table, place, size, hashed.hexdigest(), begin)
        if same := self._repeated(found, table, before):
            target.unlink()
            return replace(found, begin=0, same_as=same)
        return found

    def _repeated(self, found: Accepted, table: Table, before: Accepted | None) -> str:
        """The file whose content one repeats; empty for new content.

        A table may come back to a state that it had: where each file is a state, only the last one counts.
        """
        if table.write == "replace":
            before = self.known.last.get(table.name)
        elif table.on_change != "replace" or not before:
            return self.known.contents.get((found.table, found.bytes, found.sha256), "")
        same = before and (before.bytes, before.sha256) == (found.bytes, found.sha256)
        return before.origin.path if before and same else ""


def _next(before: Sequence[Delivery]) -> int:
    return 1 + (before[-1].sequence if before else 0)


def _name(files: Sequence[Arrived], before: Iterable[Delivery]) -> str:
    """A name that no other delivery of the home has; of files without one, when they were written."""
    written = datetime.fromtimestamp(max(file.modified for file in files), UTC)
    name = files[0].delivery or f"{written:%Y-%m-%dT%H%M%SZ}"
    others = {each.name for each in before}
    return next(n for n in (name, *(f"{name} ({k})" for k in range(2, len(others) + 3))) if n not in others)


def _passed(content: IO[bytes], last: Accepted, hashed: hashlib._Hash) -> tuple[bytes, bool]:
    """Read the part of a file that was accepted before.

    Returns:
        Its header, and whether its last line has ended.

    Raises:
        _RefusedError: It is another one now.
    """
    header = end = b""
    left = last.bytes
    for data in _blocks(content, left):
        header = header or data[: data.find(b"\n") + 1]
        hashed.update(data)
        end, left = data[-1:], left - len(data)
    if left or hashed.hexdigest() != last.sha256:
        raise _RefusedError(
            f"expected the {last.bytes:,} bytes that were accepted from it, and perhaps rows behind them, got others"
        )
    return header, end == b"\n"


def _refuse_growth(table: Table, *, ended: bool) -> None:
    """See that rows may follow those that were accepted before.

    Raises:
        _RefusedError: They may not.
    """
    if table.on_change == "refuse":
        raise _RefusedError(f"expected no change, as {table.name} declares (on_change: refuse), got further rows")
    if not ended:
        raise _RefusedError("expected a line feed at the end of what was accepted before, got further bytes")


def copy(source: Place, file: PurePosixPath, target: Path, size: int | None = None) -> tuple[int, str]:
    """Copy a file's content, unpacked; of a folder, where it may be written to meanwhile, as it is at the moment.

    Args:
        source: Where it is.
        file: The file, by its place there.
        target: Where to; what is there is lost.
        size: How many bytes, from its beginning on; all if not given.

    Returns:
        The bytes copied, and their SHA-256.

    Raises:
        OSError: It cannot be read, or the target cannot be written.
        SourceAwayError: The store of a bucket does not answer.
        UnsteadyError: An object of a bucket was replaced meanwhile.
    """
    hashed = hashlib.sha256()
    opened = _steady if source.appears_whole else _opened
    with opened(source, file) as content, target.open("wb") as out:
        copied = _written(_blocks(content, size), out, hashed)
    return copied, hashed.hexdigest()


def _written(blocks: Iterable[bytes], out: BinaryIO, hashed: hashlib._Hash) -> int:
    """Write blocks, hash them, and see that they are on the disk; returns their bytes."""
    size = 0
    for data in blocks:
        hashed.update(data)
        size += out.write(data)
    out.flush()
    os.fsync(out.fileno())
    return size


def _blocks(content: IO[bytes], size: int | None = None) -> Iterator[bytes]:
    while data := content.read(BLOCK if size is None else min(BLOCK, size)):
        size = None if size is None else size - len(data)
        yield data


@contextmanager
def _opened(source: Place, file: PurePosixPath) -> Generator[IO[bytes]]:
    with source.open(file) as stored:
        if file.suffix.lower() != ".gz":
            yield stored
            return
        with gzip.open(stored) as content:
            yield cast("IO[bytes]", content)


@contextmanager
def _steady(source: Place, file: PurePosixPath) -> Generator[IO[bytes]]:
    """A file to be read, seen to be the same one before and after."""
    try:
        before = source.state(file)
        with _opened(source, file) as content:
            try:
                yield content
            except SourceError:  # the object that took its place may be shorter
                if source.state(file) == before:
                    raise
        after = source.state(file)
    except (FileNotFoundError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UnsteadyError(f"cannot be read ({error})") from error
    if before != after:
        raise UnsteadyError("it was changed while it was copied")


def _looked_at(settings: Settings) -> Path:
    return delivery.folder(settings) / "looked_at.json"


def _looks(settings: Settings) -> dict[str, dict[str, Any]]:
    return {"repeated": {}, "refused": {}} | (read_json(_looked_at(settings)) or {})
