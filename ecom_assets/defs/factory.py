"""Assets and checks of a layer, made from the tables: the shell that is the same for all of them.

What a layer is called, built from and depends on is defined in ``defs/<layer>/assets.py``; the work is done by the room
of its system, through a ``Flow``.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

import dagster as dg

from ecom_assets.core.progress import note
from ecom_assets.dataset.model import Table
from ecom_assets.dataset.shop import TABLES
from ecom_assets.defs.resources.home import HomeResource
from ecom_assets.flow import Built, Flow
from ecom_assets.preview import markdown, preview
from ecom_assets.reconcile import quality
from ecom_assets.reconcile.report import Proof

OWNERS = ["team:data-platform"]

PARITY = "parity"
"""Name of the check that compares a layer with the one before."""

POOLS = {
    "raw": "files",
    "expanded": "files",
    "chunked": "files",
    "topic": "kafka",
    "streamed": "spark",
    "merged": "spark",
    "hbase": "hbase",
}
"""Layer -> pool: one run at a time works in each, so two never fight for a server or a table."""

CARRIES_ON = {layer: dg.AutomationCondition.eager() for layer in ("expanded", "chunked", "topic")}
"""Layers that are made when what they are made from was made; behind Kafka, sensors decide (``defs.sensors``)."""

WEEKLY = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=7), warn_window=timedelta(days=2))
"""What people read is to be made, or at least proven, every other day."""

TRANSIENT = (ConnectionError, TimeoutError)
"""What passes by itself: worth another try of the step, and nothing else is."""
RETRIES = 2
RETRY_SECONDS = 15

D = TypeVar("D")
R = TypeVar("R")


class LayerConfig(dg.Config):
    """Settings of one materialisation."""

    route: str = "stream"
    """For HBase: ``stream`` loads the merged tables, ``bulk`` the expanded files."""


def asset_name(layer: str, table: Table) -> str:
    """The last part of an asset's key: HBase's tables have their own names."""
    return table.hbase.table if layer == "hbase" else table.name


def asset_key(layer: str, table: Table) -> dg.AssetKey:
    """The key of a table's asset in a layer."""
    return dg.AssetKey([layer, asset_name(layer, table)])


def spec(
    layer: str,
    table: Table,
    *,
    deps: Iterable[dg.AssetKey],
    kinds: set[str],
    description: str,
    stored_as: Callable[[Table], str],
) -> dg.AssetSpec:
    """What the UI shows of an asset before it is materialised."""
    return dg.AssetSpec(
        asset_key(layer, table),
        deps=list(deps),
        description=f"{table.avsc['doc']} {description}",
        group_name=layer,
        kinds=kinds,
        owners=OWNERS,
        tags={"table": table.name},
        automation_condition=CARRIES_ON.get(layer),
        freshness_policy=WEEKLY if layer == "hbase" else None,
        metadata={
            "dagster/column_schema": column_schema(table, layer),
            "dagster/table_name": stored_as(table),
            "primary_key": table.primary_key,
            "avro_schema": dg.MetadataValue.json(json.loads(table.avro)),
        },
    )


def column_schema(table: Table, layer: str) -> dg.TableSchema:
    """A layer's columns as Dagster shows them: the table's own, and what the lake has beside them."""
    own = [
        dg.TableColumn(
            c.name,
            c.avro,
            c.doc,
            dg.TableColumnConstraints(nullable=c.nullable, unique=c.name == table.primary_key),
        )
        for c in table.columns
    ]
    if layer == "merged":
        own += [
            dg.TableColumn(c.parsed_as[0], c.parsed_as[1], f"{c.name}, typed") for c in table.columns if c.parsed_as
        ]
    return dg.TableSchema(own)


def layer_assets(
    layer: str,
    *,
    deps: Callable[[Table], Iterable[dg.AssetKey]],
    kinds: set[str],
    description: str,
    stored_as: Callable[[Table], str],
) -> dg.AssetsDefinition:
    """Make the assets of one layer, one for each table; any of them can be materialised alone.

    Args:
        layer: One of ``LAYERS``.
        deps: What a table's asset is made from.
        kinds: Technologies, for the UI.
        description: What the layer is, a sentence.
        stored_as: Name of what holds the table.
    """
    specs = [
        spec(layer, t, deps=deps(t), kinds=kinds, description=description, stored_as=stored_as) for t in TABLES.values()
    ]

    @dg.multi_asset(name=layer, specs=specs, can_subset=True, pool=POOLS[layer])
    def build(
        context: dg.AssetExecutionContext, config: LayerConfig, home: HomeResource
    ) -> Iterator[dg.MaterializeResult]:
        flow = home.flow
        route = config.route if layer == "hbase" else None
        due = [t for t in TABLES.values() if asset_key(layer, t) in context.selected_asset_keys]
        for table, built in _for_each(due, lambda t: flow.build(layer, t, route)):
            said = "nothing to do" if built.unchanged else f"{built.rows:,} rows in {built.seconds:.1f} s"
            context.log.info("%s/%s: %s", layer, table.name, said)
            yield dg.MaterializeResult(
                asset_key=asset_key(layer, table), metadata=built_metadata(built, flow, layer, table)
            )

    return build


def _for_each(due: Iterable[D], work: Callable[[D], R]) -> Iterator[tuple[D, R]]:
    """Do some work for each that is due; one that fails does not keep the others from being done.

    One after the other: a layer's work keeps all cores busy by itself.

    Raises:
        ExceptionGroup: What those that failed have raised, once all are done; a single one as it is.
    """
    failed: list[Exception] = []
    for each in due:
        try:
            result = work(each)
        except TRANSIENT as error:  # a server is away: the others would only wait for it too
            failed.append(error)
            break
        except Exception as error:  # noqa: BLE001  raised below
            failed.append(error)
        else:
            yield each, result
    if failed and all(isinstance(error, TRANSIENT) for error in failed):
        raise dg.RetryRequested(RETRIES, RETRY_SECONDS) from failed[0]
    if len(failed) > 1:
        raise ExceptionGroup("\n".join(str(error) for error in failed), failed)
    if failed:
        raise failed[0]


def built_metadata(built: Built, flow: Flow, layer: str, table: Table) -> dict[str, dg.MetadataValue]:
    """What the UI shows of a materialisation."""
    told: dict[str, dg.MetadataValue] = {
        "unchanged": dg.MetadataValue.bool(built.unchanged),
        "seconds": dg.MetadataValue.float(round(built.seconds, 3)),
        "preview": dg.MetadataValue.md(preview(flow, layer, table)),
    }
    if built.rows:
        told["dagster/row_count"] = dg.MetadataValue.int(built.rows)
        told["rows_per_second"] = dg.MetadataValue.float(round(built.rows / max(built.seconds, 1e-3), 1))
    for name, value in built.notes.items():
        if name != "unchanged":
            told[name] = dg.MetadataValue.json(value) if isinstance(value, dict) else dg.MetadataValue.int(value)
    return told


def layer_checks(layer: str) -> dg.AssetChecksDefinition:
    """Make the checks of one layer: parity with the layer before it, and those of ``reconcile.quality``.

    All of them block: what is built on a layer is not built if one fails, unless its finding is a warning only.

    Args:
        layer: One of ``LAYERS``.
    """
    parity = (
        "Every row is read back and hashed: rows and checksum must equal those of the layer before,"
        " rows set aside included."
        if layer != "raw"
        else "Every record is read and hashed; the header must be the table's, and the rows those of the first proof."
    )
    kinds = {check.name: check for check in quality.CHECKS if check.layer == layer}
    docs = {PARITY: parity} | {name: check.doc for name, check in kinds.items()}
    specs = [
        dg.AssetCheckSpec(name, asset=asset_key(layer, table), blocking=True, description=doc)
        for table in TABLES.values()
        for name, doc in docs.items()
    ]

    @dg.multi_asset_check(name=f"{layer}_checks", specs=specs, can_subset=True, pool=POOLS[layer])
    def check(context: dg.AssetCheckExecutionContext, home: HomeResource) -> Iterator[dg.AssetCheckResult]:
        flow = home.flow

        def run(due: tuple[str, Table]) -> dg.AssetCheckResult:
            name, table = due
            key = asset_key(layer, table)
            if name == PARITY:
                proof, wrong = flow.prove(layer, table)
                for sentence in wrong:
                    context.log.error(sentence)
                return dg.AssetCheckResult(
                    asset_key=key, check_name=name, passed=not wrong, metadata=proof_metadata(proof, wrong)
                )
            return check_result(key, name, kinds[name].run(flow, table))

        chosen = {(key.name, key.asset_key) for key in context.selected_asset_check_keys}
        due = [(n, t) for n in docs for t in TABLES.values() if (n, asset_key(layer, t)) in chosen]
        for _, result in _for_each(due, run):
            yield result

    return check


def check_result(key: dg.AssetKey, name: str, finding: quality.Finding) -> dg.AssetCheckResult:
    """A finding as Dagster shows it."""
    told = {n: dg.MetadataValue.json(v) if isinstance(v, dict | list) else v for n, v in finding.told.items()}
    if finding.samples:
        told["samples"] = dg.MetadataValue.md(markdown(list(finding.samples[0]), finding.samples))
    severity = dg.AssetCheckSeverity.WARN if finding.warn else dg.AssetCheckSeverity.ERROR
    if not finding.ok:
        note(f"{'!' if finding.warn else '✗'} {key.to_user_string()}: {name} fails: {finding.told}")
    return dg.AssetCheckResult(asset_key=key, check_name=name, passed=finding.ok, severity=severity, metadata=told)


def proof_metadata(proof: Proof, wrong: list[str]) -> dict[str, dg.MetadataValue]:
    """What the UI shows of a proof."""
    told: dict[str, dg.MetadataValue] = {
        "dagster/row_count": dg.MetadataValue.int(proof.measure.rows),
        "checksum": dg.MetadataValue.text(proof.measure.hex),
        "bytes": dg.MetadataValue.int(proof.measure.bytes),
        "seconds": dg.MetadataValue.float(round(proof.measure.seconds, 3)),
        "rows_per_second": dg.MetadataValue.float(round(proof.measure.rows / max(proof.measure.seconds, 1e-3), 1)),
    }
    told |= {reason: dg.MetadataValue.int(m.rows) for reason, m in proof.aside.items()}
    if wrong:
        told["wrong"] = dg.MetadataValue.md("\n".join(f"- {sentence}" for sentence in wrong))
    return told
