"""``ecom replay``: deliveries brought in once more, from a layer on.

What belongs here: the command. What a layer does when a delivery is replayed is its own (``Layer.replay``).
"""

from __future__ import annotations

import re
from typing import Annotated

import typer

from ecom_assets.cli.console import console, inform
from ecom_assets.cli.options import AsJson, Home, LayerName, configure_existing, dagster_home
from ecom_assets.cli.pipeline import run_once
from ecom_assets.core import locks

_RANGE = re.compile(r"(\d+)(?:[.][.](\d+))?")


def replay(
    deliveries: Annotated[str, typer.Argument(metavar="FROM..TO", help="Numbers of deliveries; 0: the first files.")],
    *,
    layer: Annotated[LayerName, typer.Option(help="The layer to bring them into again.")] = LayerName.topic,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Bring deliveries into a layer once more, then run: every row is as it was.

    Into the topic, their rows are sent again, and are duplicates behind it. Other layers are built again next to what
    is there, and swapped.
    """
    settings = configure_existing(home=home)
    dagster_home(settings)
    from ecom_assets.cli.display import start
    from ecom_assets.core import delivery
    from ecom_assets.core.progress import bars
    from ecom_assets.paths import engine, open_home, path_used

    chosen = _range(deliveries)
    start(settings, console)
    with locks.shared(settings, "ecom replay", log=inform), bars(console), open_home(settings) as at:
        stream = engine(at, path_used(at))
        touched = {
            file.table for each in delivery.deliveries(settings) if each.sequence in chosen for file in each.files
        }
        for table in at.dataset.tables.values():
            if 0 in chosen or table.name in touched:
                done = stream.replay(layer.value, table, chosen)
                inform(f"{layer.value}/{table.name}: {done.rows:,} rows once more")
    raise typer.Exit(run_once(settings, None, repair=False, as_json=as_json))


def _range(text: str) -> range:
    """The numbers that a text names.

    Raises:
        typer.BadParameter: It names none.
    """
    found = _RANGE.fullmatch(text)
    numbers = range(int(found[1]), int(found[2] or found[1]) + 1) if found else range(0)
    if not numbers:
        raise typer.BadParameter(f"expected numbers like 3..5 or 3, got {text}", param_hint="FROM..TO")
    return numbers
