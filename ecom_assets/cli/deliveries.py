"""What has arrived in the source of a home, and what of it is loaded."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table as Grid

from ecom_assets.cli.console import console, inform, right
from ecom_assets.cli.options import AsJson, Home, configure_existing

if TYPE_CHECKING:
    from ecom_assets.core.settings import Settings
    from ecom_assets.source.overview import Listed


def deliveries(*, home: Home = None, as_json: AsJson = False) -> None:
    """List the files of the home's source: which are loaded, which are not, and which are of no table."""
    settings = configure_existing(home=home)
    from ecom_assets.core.home import hint
    from ecom_assets.dataset.loader import named
    from ecom_assets.source import overview

    found = overview.of(settings, named(settings.dataset))
    if settings.source in ("synthetic", "kaggle"):
        inform(f"the source is {settings.source}: one delivery, which `{hint('run', settings)}` loads")
    else:
        _print(found, settings)
    if as_json:
        print(json.dumps({"source": settings.source, "files": [_json(each) for each in found]}))


def waiting(settings: Settings) -> str:
    """A sentence about files of the source that are not loaded; empty if there are none, or the folder is away."""
    from ecom_assets.core.home import hint
    from ecom_assets.dataset.loader import named
    from ecom_assets.source import overview

    try:
        found = overview.of(settings, named(settings.dataset))
    except OSError:
        return ""
    left = sum(each.state in (overview.LATER, overview.FOREIGN) for each in found)
    files = "one file" if left == 1 else f"{left:,} files"
    return f"{files} of the source not loaded: `{hint('deliveries', settings)}` lists them" if left else ""


def _print(found: list[Listed], settings: Settings) -> None:
    folder = Path(settings.source).expanduser().resolve()
    columns = ("delivery", "table", "file", right("bytes"), "written", "")
    grid = Grid(*columns, title=f"Files of {folder}", title_justify="left")
    for each in found:
        file = each.file
        state = each.state if file.is_settled else f"{each.state}, still being written"
        grid.add_row(
            escape(file.delivery),
            file.table,
            escape(str(file.path.relative_to(folder))),
            f"{file.bytes:,}",
            f"{datetime.fromtimestamp(file.modified, UTC):%Y-%m-%d %H:%M:%S}",
            f"[green]{state}[/green]" if state == "loaded" else state,
        )
    console.print(grid)


def _json(each: Listed) -> dict[str, object]:
    file = each.file
    return {
        "delivery": file.delivery,
        "table": file.table,
        "file": str(file.path),
        "bytes": file.bytes,
        "written_at": datetime.fromtimestamp(file.modified, UTC).isoformat(),
        "settled": file.is_settled,
        "state": each.state,
    }
