"""The layer raw: the files as published, which nothing of ours may change.

What belongs here: bringing the files once for all tables, and measuring them by the second reader (``audit``). What
does not: where they come from, which functions know that this layer is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from typing_extensions import override

from ecom_assets.core.context import Context
from ecom_assets.core.layer import Built, Cut, Layer, Measurement, Row
from ecom_assets.core.measure import Measure
from ecom_assets.core.progress import track
from ecom_assets.core.settings import Settings, remember
from ecom_assets.csv import plan, states
from ecom_assets.csv.audit import Audit, audit
from ecom_assets.csv.contract import HeaderError
from ecom_assets.csv.parts import counted, parts, raw_chain
from ecom_assets.csv.plan import raw_file
from ecom_assets.dataset.model import Dataset, Table

Waiting = Callable[[Settings, Dataset], Sequence[tuple[str, str]]]
"""What a build would bring: table, and a name of the file and its state. Reads no file."""

FRESH_SECONDS = 1.0
"""For so long, what was found to wait in the source does: it may have thousands of files, and each table asks."""

Acquire = Callable[[Settings, Dataset, Callable[[str, int, int], None] | None], Mapping[str, Path]]
"""Puts the files of all tables in their places, or finds them there; reports table, rows done and rows in all."""


class RawLayer(Layer):
    """The raw files.

    Args:
        acquire: Brings them.
        waiting: Lists what it would bring.
    """

    name = "raw"
    upstream = None
    pool = "files"
    kinds = frozenset({"csv"})
    replaceable = False
    description = "The files as published, unchanged: the first one and that of each delivery."

    def __init__(self, acquire: Acquire, waiting: Waiting) -> None:
        self._acquire, self._waiting = acquire, waiting

    @override
    def fingerprint(self, at: Context, table: Table) -> str:
        """Name the source, the files that are there, and those that wait in the source.

        A file that was touched since is compared with the source again.
        """
        settings, now = at.settings, _state(table, at.settings)
        if settings.source == "synthetic":
            return states.digest(settings.source, settings.scale, settings.seed, now)
        new = [name for of, name in self._look(at) if of == table.name]
        return states.digest(settings.source, now, *new)

    @override
    def exists(self, at: Context, table: Table) -> bool:
        return raw_file(table, at.settings).exists()

    @override
    def build(self, at: Context, table: Table, *, repair: bool = False) -> Built:
        """Bring the files of all tables, unless another table's build has just done so.

        Returns:
            The table's share: its rows, and the seconds by its bytes.
        """
        waits = any(of == table.name for of, _ in self._look(at))
        return at.opened(type(self), _acquisition).built(at, table, self._acquire, waits=waits)

    def _look(self, at: Context) -> Sequence[tuple[str, str]]:
        """What waits in the source: as ``receive`` has just found, or by a look of its own."""
        since, found = at.opened(type(self), _acquisition).looked
        if time.monotonic() - since < FRESH_SECONDS:
            return found
        return self._waiting(at.settings, at.dataset)

    @override
    def receive(self, at: Context) -> None:
        acquisition, found = at.opened(type(self), _acquisition), self._waiting(at.settings, at.dataset)
        if found:
            acquisition.receive(at, self._acquire)
            found = self._waiting(at.settings, at.dataset)
        acquisition.looked = time.monotonic(), found

    @override
    def position(self, at: Context, table: Table, cut: Cut) -> str:
        return _state(table, at.settings)

    @override
    def measure(self, at: Context, table: Table, cut: Cut) -> Measurement:
        """Read the files by the second reader; a file that it cannot read is a measurement with a problem."""
        return self._measured(at, table, Audit(), 0)

    @override
    def derive(self, at: Context, table: Table, known: Measurement, cut: Cut) -> Measurement | None:
        """Read the files alone that came since; those before as well, if one of them was touched."""
        count = counted(known.position)
        if not raw_file(table, at.settings).exists() or known.last_copy is None or not count:
            return None
        names = raw_chain(table, at.settings)
        if count > len(names):
            return None
        if names[count - 1] != known.position:
            again = self._measured(at, table, Audit(), 0, count)
            if again.problems or not (again.measure.same_rows(known.measure) and again.excluded == known.excluded):
                return None
        before = Audit(known.measure.before, known.excluded["quarantined"], known.last_copy)
        found = self._measured(at, table, before, count)
        return None if found.problems else found

    def _measured(self, at: Context, table: Table, found: Audit, begin: int, end: int | None = None) -> Measurement:
        """Read some of the files, and add what those before were found to hold."""
        position = _state(table, at.settings)
        left = [part.path for part in parts(table, at.settings)][begin:end]
        try:
            sample = plan.last_copy(table, at.dataset, at.settings).sample
            size = sum(path.stat().st_size for path in left)
            with track(f"check: raw/{table.name}", size, "bytes") as advance:
                for path in left:
                    found += audit(path, table, sample, progress=advance)
        except HeaderError as error:
            return Measurement(table.name, self.name, Measure(), position=position, problems=(str(error),))
        except FileNotFoundError as error:
            problem = f"{error.filename or raw_file(table, at.settings)}: expected a raw file, got none"
            return Measurement(table.name, self.name, Measure(), position=position, problems=(problem,))
        return Measurement(
            table.name, self.name, found.rows, {"quarantined": found.quarantined}, position, last_copy=found.sampled
        )

    @override
    def delete(self, at: Context, table: Table) -> None:
        """Delete nothing: raw files are the source's own."""

    @override
    def preview(self, at: Context, table: Table, rows: int) -> Sequence[Row]:
        return states.first_rows([raw_file(table, at.settings)], table, rows) if self.exists(at, table) else ()

    @override
    def stored_as(self, settings: Settings, table: Table) -> str:
        return str(raw_file(table, settings))


@contextmanager
def _acquisition() -> Generator[_Acquisition]:
    yield _Acquisition()


class _Acquisition:
    """What the last acquisition did for the tables whose builds have not asked yet."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._pending: dict[str, tuple[str, Built]] = {}
        self.looked: tuple[float, Sequence[tuple[str, str]]] = -FRESH_SECONDS, []

    def receive(self, at: Context, acquire: Acquire) -> None:
        """Bring the files of all tables."""
        with self._lock:
            self._pending = _acquired(at.settings, at.dataset, acquire)

    def built(self, at: Context, table: Table, acquire: Acquire, *, waits: bool) -> Built:
        """What the acquisition did for a table; a new one, if the last one is not about what is there now.

        Args:
            at: The home.
            table: The table.
            acquire: Brings the files.
            waits: Whether one of its files waits in the source.
        """
        with self._lock:
            state, built = self._pending.pop(table.name, ("", Built()))
            if waits or not state or state != _state(table, at.settings):
                self._pending = _acquired(at.settings, at.dataset, acquire)
                _, built = self._pending.pop(table.name)
            return built


def _acquired(settings: Settings, dataset: Dataset, acquire: Acquire) -> dict[str, tuple[str, Built]]:
    """Bring the files; returns each one's state, and what was done for it."""
    tables = dataset.tables
    before = {name: _state(table, settings) for name, table in tables.items()}
    done: dict[str, int] = {}
    began = time.perf_counter()
    with track("raw", None) as advance:

        def progress(table: str, rows: int, _: int) -> None:
            advance(rows - done.get(table, 0))
            done[table] = rows

        acquire(settings, dataset, progress)
    seconds = time.perf_counter() - began
    remember(settings)
    now = {name: _state(table, settings) for name, table in tables.items()}
    sizes = {name: sum(p.path.stat().st_size for p in parts(table, settings)) for name, table in tables.items()}
    whole = sum(size for name, size in sizes.items() if now[name] != before[name]) or 1
    return {name: (now[name], _share(done.get(name, 0), sizes[name], seconds / whole, now[name] == before[name]))
            for name in tables}  # fmt: skip


def _share(rows: int, size: int, seconds_per_byte: float, unchanged: bool) -> Built:
    if unchanged:
        return Built(unchanged=True, notes={"bytes": size})
    return Built(rows, notes={"bytes": size, "seconds": round(size * seconds_per_byte, 3)})


def _state(table: Table, settings: Settings) -> str:
    """Names a table's files; empty if there are none."""
    return raw_chain(table, settings)[-1] if raw_file(table, settings).exists() else ""
