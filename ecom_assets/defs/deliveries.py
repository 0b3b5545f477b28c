"""Deliveries as Dagster's partitions: which delivery has passed which layer.

What belongs here: names of partitions, and the events that say that a layer holds one. What does not: what a delivery
is (``core.delivery``), and any decision what to build: whichever partitions a run is for, a layer is brought up to all
that is before it, so each run of any of them leads to the same state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import dagster as dg

from ecom_assets.core import delivery
from ecom_assets.core.delivery import DIGITS
from ecom_assets.core.engine import Engine
from ecom_assets.defs import live_days
from ecom_assets.defs.names import Names
from ecom_assets.paths import LAYERS
from ecom_assets.reconcile.deliveries import FIRST

if TYPE_CHECKING:
    from ecom_assets.core.context import Context
    from ecom_assets.core.settings import Settings
    from ecom_assets.dataset.model import Table

PARTITION = "dagster/partition"
"""Dagster's run tag of a partition. Each run that builds has one, or a range of them: Dagster resolves none without."""
DEFAULT = {PARTITION: f"{0:0{DIGITS}d} {FIRST}"}
"""Run tags of a job that is launched without a partition."""
EXPECTED = "ecom/expected"
"""Run tag: the partition is of a delivery that had not been accepted when the run was requested."""
PARTITIONED = LAYERS[:-1]
"""Layers whose assets are partitioned; HBase, which is read, shows all deliveries at once."""
SAFE = " ()"
"""Characters that stay as they are in names of partitions, next to letters, digits, ``_``, ``.``, ``-`` and ``~``."""


def partitions(names: Names) -> dg.DynamicPartitionsDefinition:
    """The deliveries of a data set."""
    return dg.DynamicPartitionsDefinition(name=names.of("deliveries"))


def partition(sequence: int, name: str) -> str:
    """The name of a delivery's partition: names sort by the order of deliveries, and have no character that is odd."""
    return f"{sequence:0{DIGITS}d} {quote(name, safe=SAFE)}"


def known(settings: Settings) -> dict[int, str]:
    """Sequence -> partition of all deliveries of a home, the first files included, whether they are loaded or not."""
    later = {each.sequence: partition(each.sequence, each.name) for each in delivery.deliveries(settings)}
    return {0: partition(0, FIRST), **later}


def tags(settings: Settings) -> dict[str, str]:
    """Run tags of a run that is for the last delivery; what else it brings into a layer, ``passed`` says."""
    return {PARTITION: list(known(settings).values())[-1]}


def expected(sequence: int, name: str) -> dict[str, str]:
    """Run tags of a run that is going to accept a delivery."""
    return {PARTITION: partition(sequence, name), EXPECTED: "true"}


def settle(instance: dg.DagsterInstance, at: Context, names: Names, partition: str) -> None:
    """Let Dagster know what became of a delivery that was expected; no run for it may be under way.

    If it did not come, its partition is removed.
    """
    came = [sequence for sequence, name in known(at.settings).items() if name == partition]
    if came:
        _report_untouched(instance, at, names, came)
    else:
        instance.delete_dynamic_partition(names.of("deliveries"), partition)


def came(context: dg.AssetExecutionContext, at: Context, names: Names) -> bool:
    """Whether the home has the deliveries that a run is for; live days that Dagster knows count as such.

    Those that a sensor has expected may not have come: their files were refused, or repeat what is loaded.

    Raises:
        dagster.Failure: It has not, and nobody expected them.
    """
    strange = sorted(_own(context) - set(known(at.settings).values()))
    if strange:
        live = live_days.there(context.instance, names.of("deliveries"))
        strange = [name for name in strange if name not in live]
    if strange and not context.has_tag(EXPECTED):
        raise dg.Failure(
            f"expected deliveries of {at.settings.home}, got {', '.join(strange)}; `ecom deliveries` lists them",
            allow_retries=False,
        )
    return not strange


def _own(context: dg.AssetExecutionContext) -> set[str]:
    """The partitions that a run is for."""
    return set(context.partition_keys) if context.has_partition_key or context.has_partition_key_range else set()


def announce(instance: dg.DagsterInstance, at: Context, names: Names) -> None:
    """Let Dagster know all deliveries and live days of a home.

    A table that one of them does not touch has passed all layers at once.
    """
    name, found = names.of("deliveries"), known(at.settings)
    there = set(instance.get_dynamic_partitions(name))
    new = {sequence: partition for sequence, partition in found.items() if partition not in there}
    if new:
        instance.add_dynamic_partitions(name, list(new.values()))
        _report_untouched(instance, at, names, new)
    live_days.report(instance, at, names, name, PARTITIONED)


def _report_untouched(instance: dg.DagsterInstance, at: Context, names: Names, sequences: Iterable[int]) -> None:
    """Report that tables which deliveries have no rows of have passed all layers."""
    found = known(at.settings)
    for sequence in sequences:
        for table in at.dataset.tables.values():
            if table.name not in _touched(at, sequence):
                for layer in PARTITIONED:
                    instance.report_runless_asset_event(
                        dg.AssetMaterialization(
                            names.asset_key(layer, table),
                            partition=found[sequence],
                            metadata={"rows": 0},
                            description="the delivery has no rows of this table",
                        )
                    )


def _touched(at: Context, sequence: int) -> set[str]:
    """Tables that a delivery has rows of."""
    if sequence == 0:
        return set(at.dataset.tables)
    files = next(each.files for each in delivery.deliveries(at.settings) if each.sequence == sequence)
    return {file.table for file in files}


def passed(
    context: dg.AssetExecutionContext, engine: Engine, layer: str, table: Table, before: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The deliveries that a build was the first to bring into a layer; those of the run itself left out.

    Args:
        context: The run.
        engine: What has built the layer.
        layer: Name of the layer.
        table: The table.
        before: The last delivery that it held before; -1 if it was not built.

    Yields:
        Partition and metadata of its materialization.
    """
    at = engine.at
    of, reached, own = known(at.settings), engine.reached(layer, table), _own(context)
    rows = at.books.builds_by_delivery("expanded")
    for sequence, name in of.items():
        if before < sequence <= reached and name not in own and table.name in _touched(at, sequence):
            built = rows.get((table.name, str(sequence)))
            quarantined = built.notes.get("quarantined", 0) if built else 0
            yield name, {"rows": built.rows if built else 0, "quarantined": quarantined}
