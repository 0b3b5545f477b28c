"""Live days as Dagster's partitions: what other producers put into the topics, a partition for each day.

What belongs here: their names, and the events that say what of a day a layer holds. What does not: how live rows are
found and counted (``lake.live_days``), and the partitions of deliveries, which have the same definition
(``deliveries``).

A day may get rows as long as producers send some, so a layer reports one whenever it has got further rows of it. What
was reported last, Dagster's own storage remembers: a new instance gets all of it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import dagster as dg

from ecom_assets.defs.names import Names
from ecom_assets.lake import live_days
from ecom_assets.lake.delta import Version

if TYPE_CHECKING:
    from ecom_assets.core.context import Context
    from ecom_assets.dataset.model import Table

NAME = re.compile(r"live (\d{4}-\d\d-\d\d)")
"""Names of their partitions: they sort by the day, and behind those of deliveries."""
COUNTS = ("rows", "windows")
"""Metadata of a partition."""
NONE = {"rows": 0}
"""Metadata of a partition that has no rows."""


def partition(day: str) -> str:
    """The name of a day's partition."""
    return f"live {day}"


def there(instance: dg.DagsterInstance, partitions: str) -> set[str]:
    """The live days among the dynamic partitions of an instance."""
    return {name for name in instance.get_dynamic_partitions(partitions) if NAME.fullmatch(name)}


def report(instance: dg.DagsterInstance, at: Context, names: Names, partitions: str, layers: tuple[str, ...]) -> None:
    """Let Dagster know the live days of a home, and the rows of each that have passed a layer since the last report.

    Args:
        instance: Dagster.
        at: The home.
        names: What its assets are called.
        partitions: Name of the partitions' definition.
        layers: All layers that are partitioned.
    """
    key = f"ecom/{names.of('live_days')}"
    reported = json.loads(instance.daemon_cursor_storage.get_cursor_values({key}).get(key, "{}"))
    tables = at.dataset.tables
    now = {f"{layer}/{n}": str(version) for n in tables for layer, version in live_days.held(at.books, n).items()}
    if now == reported:
        return
    news: dict[tuple[str, str, str], dict[str, int]] = {}
    for place, version in now.items():
        last, (layer, name) = reported.get(place), place.split("/")
        if last != version:
            since = Version.parse(last) if last else None
            changed = live_days.changed(at.books, name, since, Version.parse(version))
            news |= {(day, layer, name): dict(zip(COUNTS, found, strict=True)) for day, found in changed.items()}
    known = there(instance, partitions)
    new = [day for day in sorted({day for day, _, _ in news}) if partition(day) not in known]
    for day in new:
        for layer in layers:
            for name, table in tables.items():
                if layer not in live_days.LAYERS or (day, "streamed", name) not in news:
                    _report(instance, names.asset_key(layer, table), day, NONE)
    # After these: a day that is there is never reported as untouched again.
    instance.add_dynamic_partitions(partitions, [partition(day) for day in new])
    for (day, layer, name), shown in news.items():
        _report(instance, names.asset_key(layer, tables[name]), day, shown)
    instance.daemon_cursor_storage.set_cursor_values({key: json.dumps(now)})


def _report(instance: dg.DagsterInstance, key: dg.AssetKey, day: str, shown: dict[str, int]) -> None:
    why = "" if shown["rows"] else "the day has no live rows of this table"
    instance.report_runless_asset_event(
        dg.AssetMaterialization(key, partition=partition(day), metadata=shown, description=why or None)
    )


def own(context: dg.AssetExecutionContext, at: Context, layer: str, table: Table) -> dict[str, Any]:
    """Metadata of what a run for a live day materializes; none if it is for something else, or for several."""
    day = NAME.fullmatch(context.partition_key) if context.has_partition_key else None
    if not day:
        return {}
    version = live_days.held(at.books, table.name).get(layer)
    found = live_days.changed(at.books, table.name, None, version).get(day[1]) if version else None
    return dict(zip(COUNTS, found, strict=True)) if found else NONE
