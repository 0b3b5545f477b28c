"""What a run would do, and how long that might take, by what the books record of earlier builds.

What belongs here: asking, for each layer of a table, whether it is due. What does not: building (``engine``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ecom_assets.core.books import Build
from ecom_assets.core.engine import Engine
from ecom_assets.core.errors import NotBuiltError
from ecom_assets.dataset.model import Table

SMALL = 1000
"""Rows of a build below which its time is no rate: it was spent on what does not grow with them."""


@dataclass(frozen=True)
class Step:
    """What a run would do with a layer of a table.

    Attributes:
        table: Name of the table.
        layer: Name of the layer.
        why: Why it is to be built; empty if it stays as it is.
        blocked: Why it cannot be; the run would stop here.
        rows: Rows that the build would look at, as far as the books know: the new ones where files wait in the source,
            else those that the layer before has now; ``None`` if they do not know.
        seconds: Estimated time; ``None`` if nothing like it has been built yet.
    """

    table: str
    layer: str
    why: str = ""
    blocked: str = ""
    rows: int | None = None
    seconds: float | None = None


def steps(engine: Engine, tables: Iterable[Table], waiting: Mapping[str, int] | None = None) -> list[Step]:
    """What a run would do with each layer of some tables, in order; reads no data.

    Args:
        engine: The path.
        tables: Which tables.
        waiting: Table -> bytes of its files that wait in the source.

    Raises:
        EcomError: A server is away.
    """
    builds = engine.at.books.builds()
    return [step for table in tables for step in _of_table(engine, table, builds, (waiting or {}).get(table.name, 0))]


def _of_table(engine: Engine, table: Table, builds: Sequence[Build], waiting: int) -> list[Step]:
    found: list[Step] = []
    new = _rows_of(engine, table, waiting)
    rows: int | None = None
    before = ""
    for layer in engine.layers:
        last = next((b for b in builds if (b.layer, b.table) == (layer.name, table.name)), None)
        try:
            why = f"{before} is built before it" if before else engine.due(layer.name, table)
        except NotBuiltError as error:
            why = str(error)
        blocked = engine.refusal(layer.name, engine.damage(layer.name, table))
        measured = engine.at.books.last_measurement(layer.name, table.name)
        here = measured.measure.rows if measured else last.rows if last else None
        if new is not None and layer.upstream is None:
            why = f"about {new:,} rows wait in the source"
        rows = here if not why and here is not None else rows if rows is not None else here
        if new is not None and last:
            rows = new
        found.append(
            Step(table.name, layer.name, why, blocked, rows, _seconds(layer.name, table, rows, builds) if why else 0.0)
        )
        before = layer.name if why else before
    return found


def _rows_of(engine: Engine, table: Table, size: int) -> int | None:
    """About how many rows so many bytes of files are; ``None`` where none wait, or no row is known."""
    known = engine.at.books.last_measurement(engine.layers[0].name, table.name)
    if not size or not known or not known.measure.bytes:
        return None
    return round(size * known.measure.rows / known.measure.bytes)


def _seconds(layer: str, table: Table, rows: int | None, builds: Sequence[Build]) -> float | None:
    """The time that so many rows may take: at the rate of the table's last build, or that of all others' together."""
    alike = [build for build in builds if build.layer == layer and build.seconds]
    known = [build for build in alike if build.table == table.name] or alike
    if not known or rows is None:
        return None
    built, seconds = sum(build.rows for build in known), sum(build.seconds for build in known)
    share = rows / built if built else 1.0
    return seconds * (share if built > SMALL else max(1.0, share))
