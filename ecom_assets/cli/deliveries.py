"""What has arrived in the source of a home, which deliveries were accepted, and how far each has come."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table as Grid

from ecom_assets.cli.console import console, inform, right
from ecom_assets.cli.options import AsJson, Home, configure_existing
from ecom_assets.core.errors import SourceError

if TYPE_CHECKING:
    from ecom_assets.core.settings import Settings
    from ecom_assets.reconcile.deliveries import LiveDay, Progress
    from ecom_assets.source.overview import Listed


SHOWN = 30
"""Deliveries, and loaded files, that are listed one by one."""
TIMEOUT = 20.0
"""Seconds that a run waits for files that are still being written."""


def deliveries(*, home: Home = None, as_json: AsJson = False) -> None:
    """List the deliveries and live days of a home, how far each has come, and files of the source not loaded."""
    settings = configure_existing(home=home)
    from ecom_assets.core.home import hint
    from ecom_assets.dataset.loader import named
    from ecom_assets.source import overview, receives_files

    found, (accepted, live) = overview.of(settings, named(settings.dataset)), _accepted(settings)
    _print_deliveries(accepted)
    _print_live_days(live)
    if receives_files(settings):
        _print_files(found, settings)
    else:
        inform(f"the source is {settings.source}: one delivery, which `{hint('run', settings)}` loads")
    if as_json:
        files = [_json(each, settings.source) for each in found]
        listed = {"deliveries": list(map(_as_json, accepted)), "live_days": list(map(_live_as_json, live))}
        print(json.dumps({"source": settings.source, **listed, "files": files}))


def settle(settings: Settings) -> None:
    """Wait a while for files of the source that were written a moment ago, so that a run takes them."""
    from ecom_assets.dataset.loader import named
    from ecom_assets.source import overview, recorded

    if not recorded(settings):  # the first files are taken as they are
        return
    deadline, said = time.monotonic() + TIMEOUT, False
    while time.monotonic() < deadline:
        try:
            found = overview.of(settings, named(settings.dataset))
        except (OSError, SourceError):
            return
        fresh = [each.file for each in found if each.state in overview.WAITING and not each.file.is_settled]
        if not fresh:
            return
        if not said:
            said = True
            inform(f"waiting until {settings.source}/{fresh[0].path} is complete: it was written a moment ago")
        time.sleep(0.5)


def require_folder(settings: Settings) -> None:
    """Refuse to watch a source that gets no further files.

    Raises:
        SourceError: It is neither a folder nor a bucket.
    """
    from ecom_assets.source import receives_files

    if not receives_files(settings):
        raise SourceError(
            f"--watch: expected a source that is a folder or a bucket, got {settings.source}", "set --source to one"
        )


def require_delivery(settings: Settings) -> None:
    """See that the delivery that is asked for is there, or was accepted before.

    Raises:
        SourceError: It is not; names those that wait.
    """
    from ecom_assets.core import delivery
    from ecom_assets.core.home import hint
    from ecom_assets.dataset.loader import named
    from ecom_assets.source import overview, recorded

    if not recorded(settings):
        raise SourceError(
            f"--delivery {settings.delivery}: expected a home with its first files, got none in {settings.home}",
            f"`{hint('run', settings)}` loads them",
        )
    found = overview.of(settings, named(settings.dataset))
    names = sorted({each.file.delivery for each in found if each.state in overview.WAITING and each.file.delivery})
    if settings.delivery not in {*names, *(each.name for each in delivery.deliveries(settings))}:
        raise SourceError(
            f"--delivery {settings.delivery}: expected a delivery that waits in {settings.source}, got none of that"
            f" name; {'these wait: ' + ', '.join(names) if names else 'none waits'}",
            f"`{hint('deliveries', settings)}` lists the files",
        )


def await_files(settings: Settings, seconds: float | None) -> None:
    """Wait until further files are complete in the source, or for some time."""
    from ecom_assets.dataset.loader import named
    from ecom_assets.source import waiting as files_waiting

    inform(f"watching {settings.source}; Ctrl-C ends it")
    deadline = None if seconds is None else time.monotonic() + seconds
    while deadline is None or time.monotonic() < deadline:
        try:
            if files_waiting(settings, named(settings.dataset)):
                return
        except (OSError, SourceError) as error:  # a share or a store that is away for a while
            inform(f"{settings.source} cannot be read: {error}")
        time.sleep(2)


def waiting(settings: Settings) -> str:
    """A sentence about files of the source that are not loaded; empty if there are none, or the source is away."""
    from ecom_assets.core.home import hint
    from ecom_assets.dataset.loader import named
    from ecom_assets.source import overview

    try:
        found = overview.of(settings, named(settings.dataset))
    except (OSError, SourceError):
        return ""
    left = sum(not each.is_loaded for each in found)
    files = "one file" if left == 1 else f"{left:,} files"
    return f"{files} of the source not loaded: `{hint('deliveries', settings)}` lists them" if left else ""


def waiting_bytes(settings: Settings) -> dict[str, int]:
    """Table -> bytes of its files that the next run looks at; empty if the source is away."""
    from ecom_assets.dataset.loader import named
    from ecom_assets.source import overview

    sizes: dict[str, int] = {}
    try:
        for each in overview.of(settings, named(settings.dataset)):
            if each.state in overview.WAITING:
                sizes[each.file.table] = sizes.get(each.file.table, 0) + each.file.bytes
    except (OSError, SourceError) as error:
        inform(f"{settings.source} cannot be read, so its files are left out: {error}")
    return sizes


def _accepted(settings: Settings) -> tuple[list[Progress], list[LiveDay]]:
    from ecom_assets.paths import engine, open_home, path_used
    from ecom_assets.reconcile import deliveries

    with open_home(settings) as at:
        used = engine(at, path_used(at))
        return deliveries.progress(used), deliveries.live(used)


def _print_deliveries(found: list[Progress]) -> None:
    if not found:
        return
    columns = (right("#"), "delivery", "accepted", "rows", "quarantined", "what they did", "up to")
    grid = Grid(*columns, title="Deliveries", title_justify="left")
    if len(found) > SHOWN:
        inform(f"{len(found) - SHOWN:,} earlier deliveries; --json lists them")
    for each in found[-SHOWN:]:
        known = {table: counts for table, counts in each.tables.items() if counts}
        rows = ", ".join(f"{table} {good:,}" for table, (good, _) in known.items())
        bad = ", ".join(f"{table} {bad:,}" for table, (_, bad) in known.items() if bad)
        did = "; ".join(
            f"{table} {', '.join(f'{count:,} {what}' for what, count in counts.items())}"
            for table, counts in each.counted().items()
        )
        number, name = str(each.sequence), escape(each.name)
        grid.add_row(number, name, each.accepted, rows or "not expanded yet", bad, did, each.layer)
    console.print(grid)


def _print_live_days(found: list[LiveDay]) -> None:
    if not found:
        return
    columns = ("live day", "rows of other producers", right("windows"), "first", "last", "up to")
    grid = Grid(*columns, title="Live days, UTC", title_justify="left")
    if len(found) > SHOWN:
        inform(f"{len(found) - SHOWN:,} earlier live days; --json lists them")
    for each in found[-SHOWN:]:
        known = each.tables.values()
        rows = ", ".join(f"{table} {its.rows:,}" for table, its in each.tables.items())
        ends = min(its.first for its in known), max(its.last for its in known)
        grid.add_row(
            each.day, rows, f"{sum(its.windows for its in known):,}", *(end[11:19] for end in ends), each.layer
        )
    console.print(grid)


def _print_files(found: list[Listed], settings: Settings) -> None:
    from ecom_assets.source import overview

    loaded = sum(each.is_loaded for each in found)
    if loaded > SHOWN:
        inform(f"{loaded:,} files of {settings.source} are loaded; --json lists them")
        found = [each for each in found if not each.is_loaded]
    if not found:
        return
    columns = ("file", "table", "delivery", right("bytes"), "written", "")
    grid = Grid(*columns, title=f"Files of {settings.source}", title_justify="left")
    for each in found:
        file, state = each.file, each.state
        if each.state in overview.WAITING and not file.is_settled:
            state = f"{each.state}, still being written"
        if each.detail:
            state += f": {escape(each.detail)}"
        grid.add_row(
            escape(str(file.path)),
            file.table,
            "" if each.sequence is None else str(each.sequence),
            f"{file.bytes:,}",
            f"{datetime.fromtimestamp(file.modified, UTC):%Y-%m-%d %H:%M:%S}",
            f"[green]{state}[/green]" if each.is_loaded else f"[yellow]{state}[/yellow]",
        )
    console.print(grid)


def _as_json(each: Progress) -> dict[str, Any]:
    tables = {
        table: None if counts is None else {"rows": counts[0], "quarantined": counts[1]}
        for table, counts in each.tables.items()
    }
    return {
        "sequence": each.sequence,
        "name": each.name,
        "accepted_at": each.at,
        "tables": tables,
        "layer": each.layer,
        "accounts": {table: account.to_json() for table, account in each.accounts.items()},
    }


def _live_as_json(each: LiveDay) -> dict[str, Any]:
    tables = {
        table: {"rows": rows.rows, "windows": rows.windows, "first": rows.first, "last": rows.last}
        for table, rows in each.tables.items()
    }
    return {"day": each.day, "tables": tables, "layer": each.layer}


def _json(each: Listed, source: str) -> dict[str, object]:
    file = each.file
    return {
        "delivery": each.sequence,
        "name": file.delivery,
        "table": file.table,
        "file": f"{source}/{file.path}",
        "bytes": file.bytes,
        "written_at": datetime.fromtimestamp(file.modified, UTC).isoformat(),
        "settled": file.is_settled,
        "state": each.state,
        "detail": each.detail,
    }
