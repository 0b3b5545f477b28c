"""Live days: rows of other producers in the streamed tables, by the UTC day of their records.

What belongs here: finding such rows among the files that a table has got since the last look, and their record in the
books. What does not: which layers a day has passed; see ``reconcile.deliveries`` and ``defs.live_days``.

A row without the number of a delivery was sent by another producer. Those that one look finds, of a day, are a *live
delivery*, also called a window; a live day is the sum of its windows. The books keep each day, the last few windows,
and the version of the table up to which all is counted, in one transaction: what a killed process has not recorded is
found by the next look, and nothing is counted twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from ecom_assets.core.books import Books
from ecom_assets.core.location import Location
from ecom_assets.dataset.model import Table
from ecom_assets.lake import delta
from ecom_assets.lake.delta import Version
from ecom_assets.lake.query import Place

if TYPE_CHECKING:
    from ecom_assets.core.context import Context

KEPT = 200
"""Windows that the books keep of each table, the newest: those of a quarter of an hour of a continuous stream."""

LAYERS = ("topic", "streamed", "merged")
"""Layers that are known to hold live rows; those before them have none."""


@dataclass(frozen=True)
class LiveRows:
    """Live rows of a table: those of a window, or of a day.

    Attributes:
        day: The day of their records, ISO 8601, in UTC.
        rows: How many there are.
        first: Kafka's time of the earliest record, ISO 8601 in UTC.
        last: That of the latest one.
        version: Number of the version of the streamed table that holds them all.
        windows: Number of windows that they came in.
    """

    day: str
    rows: int
    first: str
    last: str
    version: int
    windows: int = 1

    def __add__(self, other: Self) -> LiveRows:
        """The rows of both; they are of the same day."""
        return LiveRows(
            self.day,
            self.rows + other.rows,
            min(self.first, other.first),
            max(self.last, other.last),
            max(self.version, other.version),
            self.windows + other.windows,
        )


# Recording


def record(at: Context, table: Table) -> None:
    """Count the live rows that a streamed table has got since this was called last; its lock must be held.

    Only files that were added since are looked at, and of those only the ones that have such rows. All files are, once,
    if the table was rebuilt, or the files of that time are gone.
    """
    path, key = Place.of(table, at.settings).table, _key(table.name)
    version, known = delta.rows_version(path), at.books.state(key)
    if version is None or (known and known["version"] == str(version)):
        return
    parts = _news(path, Version.parse(known["version"]), version) if known else None
    if whole := parts is None:
        parts = [(delta.at_version(path, version), None)]
    found = _sums(_counted(part, names, version.number) for part, names in parts)
    windows = [*(known["windows"] if known and not whole else []), *map(asdict, found.values())]
    before = at.books.states(f"{key}/") if whole else {}
    entries: dict[str, Any] = dict.fromkeys(before)
    entries |= {key: {"version": str(version), "windows": windows[-KEPT:], "dropped": len(windows) > KEPT}}
    for day, more in found.items():
        old = None if whole else at.books.state(f"{key}/{day}")
        entries[f"{key}/{day}"] = asdict(LiveRows(**old) + more if old else more)
    at.books.set_states(entries)


def _news(path: Location, old: Version, new: Version) -> list[tuple[DeltaTable, set[str] | None]] | None:
    """The files that a table has got since a version, each with a version that has it; ``None`` if that is unknown.

    Maintenance moves rows to other files: what came before and after it is looked at in the versions of that time.
    """
    now = delta.latest(path)
    behind = now.version() - old.number
    if old.id != new.id or behind < 1:
        return None
    commits = sorted(now.history(behind), key=lambda commit: commit["version"])
    if len(commits) < behind:
        return None
    parts: list[tuple[DeltaTable, set[str] | None]] = []
    try:
        for moved, group in itertools.groupby(commits, lambda commit: commit.get("operation") in delta.MAINTENANCE):
            numbers = [commit["version"] for commit in group]
            if not moved:
                before, after = (delta.pinned(str(path), new.id, n) for n in (numbers[0] - 1, numbers[-1]))
                gone, came = delta.difference(before, after)
                if gone or not all((path / name).exists() for name in came):
                    return None
                parts.append((after, set(came)))
    except DeltaError:
        return None
    return parts


def _counted(found: DeltaTable, names: set[str] | None, version: int) -> Iterable[LiveRows]:
    """The live rows of a table's files, or of some of them, by day; several may be of one day."""
    for batch in delta.batches(found, ["_delivery", "_timestamp"], "_undecoded", _with_live_rows(found, names)):
        times = batch.filter(pc.is_null(batch["_delivery"]))["_timestamp"]
        by_day = pa.table({"day": times.cast(pa.date32()), "time": times}).group_by("day")
        for each in by_day.aggregate([("time", "count"), ("time", "min"), ("time", "max")]).to_pylist():
            first, last = (each[f"time_{end}"].isoformat() for end in ("min", "max"))
            yield LiveRows(each["day"].isoformat(), each["time_count"], first, last, version)


def _with_live_rows(found: DeltaTable, names: set[str] | None) -> set[str]:
    """The files that have live rows, or of which the log does not say; see ``sink``."""
    files = delta.files(found)
    if names is not None:
        files = files.filter(pc.is_in(files["path"], pa.array(names, pa.string())))
    known = {"null_count._delivery", "null_count._undecoded.reason"}
    if known <= set(files.column_names):
        undecoded = pc.subtract(files["num_records"], files["null_count._undecoded.reason"])
        live = pc.subtract(files["null_count._delivery"], undecoded)
        files = files.filter(pc.fill_null(pc.greater(live, 0), True))
    return set(files["path"].to_pylist())


def _sums(parts: Iterable[Iterable[LiveRows]]) -> dict[str, LiveRows]:
    """Day -> what was found of it, as one window."""
    found: dict[str, LiveRows] = {}
    for each in itertools.chain.from_iterable(parts):
        known = found.get(each.day)
        found[each.day] = replace(known + each, windows=1) if known else each
    return dict(sorted(found.items()))


# Looking


def counted(books: Books, table: str) -> Version | None:
    """The version of a streamed table up to which its live rows are counted; ``None`` if nothing is."""
    entry = books.state(_key(table))
    return Version.parse(entry["version"]) if entry else None


def held(books: Books, table: str) -> dict[str, Version]:
    """Layer -> the version of the streamed table whose live rows it holds; of a topic, those that were streamed.

    Rows of a later version that are merged and not counted yet are not among them.
    """
    if not (known := counted(books, table)):
        return {}
    found = dict.fromkeys(LAYERS[:2], known)
    if build := books.build(LAYERS[-1], table):
        merged = Version.parse(build.fingerprint)
        if merged.id == known.id:
            found[LAYERS[-1]] = min(merged, known, key=lambda version: version.number)
    return found


def days(books: Books, table: str) -> dict[str, LiveRows]:
    """The live days of a table, in order."""
    return {each.day: each for _, each in sorted(_days(books, table).items())}


def windows(books: Books, table: str) -> list[LiveRows]:
    """The last windows of a table, in order."""
    entry = books.state(_key(table))
    return [LiveRows(**each) for each in entry["windows"]] if entry else []


def changed(books: Books, table: str, since: Version | None, upto: Version) -> dict[str, tuple[int, int]]:
    """The days of a table that have got rows since a version.

    Args:
        books: The home's books.
        table: Name of the table.
        since: A version of its streamed table; ``None`` for all days.
        upto: A later one.

    Returns:
        Day -> rows and windows that the later version holds. A day is left out if it holds none, or if that is unknown
        because too many windows have come since then; of a later version it will be known.
    """
    entry = books.state(_key(table))
    if not entry or Version.parse(entry["version"]).id != upto.id:
        return {}
    first = since.number if since and since.id == upto.id else -1
    kept = [LiveRows(**each) for each in entry["windows"]]
    reaches_back = not entry["dropped"] or kept[0].version <= upto.number
    found = {}
    for day, whole in days(books, table).items():
        later = [each for each in kept if each.day == day and each.version > upto.number]
        rows = whole.rows - sum(each.rows for each in later)
        if whole.version > first and rows and (reaches_back or whole.version <= upto.number):
            found[day] = rows, whole.windows - len(later)
    return found


def _days(books: Books, table: str) -> dict[str, LiveRows]:
    return {key: LiveRows(**each) for key, each in books.states(f"{_key(table)}/").items()}


def _key(table: str) -> str:
    return f"streamed/{table}/live"
