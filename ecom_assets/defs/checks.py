"""The layers' checks: parity with the layer before, and those of data quality.

What belongs here: the shell that is the same for all checks. What does not: what a check looks at; see ``core.engine``
and ``reconcile.quality``. All of them block: what is built on a layer is not built if one fails, unless its finding is
a warning only.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ecom_assets.core import accounts, delivery
from ecom_assets.core.accounts import Account
from ecom_assets.core.engine import Verified
from ecom_assets.core.layer import Layer
from ecom_assets.core.progress import note
from ecom_assets.dataset.model import Dataset, Table
from ecom_assets.defs.names import PARITY, Names, for_each
from ecom_assets.paths import PATHS
from ecom_assets.preview import markdown
from ecom_assets.reconcile import quality
from ecom_assets.reconcile.finding import Finding

COMPARED = (
    "Rows are read back and hashed: their number and checksum equal those of the layer before at the same cut, rows"
    " left out included. Every row is read, but where rows were added since the last check: then these alone, and all"
    " by the jobs `reconcile` and `nightly`."
)
FIRST = "Records are read and hashed; the header is the table's, and the rows are those of the first measurement."
CHECKING = ("reconcile", "nightly")
"""Jobs that read every layer as a whole."""


def layer_checks(dataset: Dataset, names: Names) -> list[dg.AssetChecksDefinition]:
    """The checks of every layer."""
    return [_checks(layer, dataset, names) for layer in PATHS["stream"]]


def _checks(layer: Layer, dataset: Dataset, names: Names) -> dg.AssetChecksDefinition:
    tables = dataset.tables.values()
    kinds = {check.name: check for check in quality.CHECKS if check.layer == layer.name}
    docs = {PARITY: COMPARED if layer.upstream else FIRST} | {name: check.doc for name, check in kinds.items()}
    specs = [
        dg.AssetCheckSpec(name, asset=names.asset_key(layer.name, table), blocking=True, description=doc)
        for table in tables
        for name, doc in docs.items()
    ]

    @dg.multi_asset_check(
        name=names.of(f"{layer.name}_checks"),
        specs=specs,
        can_subset=True,
        pool=names.of(layer.pool),
        required_resource_keys={names.home},
    )
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        home = names.home_of(context)
        whole = context.run.job_name in map(names.of, CHECKING)

        def run(due: tuple[str, Table]) -> dg.AssetCheckResult:
            name, table = due
            engine, key = home.engine_of(layer.name, table), names.asset_key(layer.name, table)
            if name == PARITY:
                verified = engine.verify(layer.name, table, whole=whole)
                last = accounts.of(engine.at.books, layer.name, table)[-1:]
                return _parity(key, verified, last[0] if last else None, context.log)
            kind = kinds[name]
            return _quality(key, name, ((whole and kind.whole) or kind.run)(engine, table))

        chosen = {(key.name, key.asset_key) for key in context.selected_asset_check_keys}
        due = [(n, t) for n in docs for t in tables if (n, names.asset_key(layer.name, t)) in chosen]
        small = not whole and delivery.are_small(home.at.settings)
        for _, result in for_each(due, run, together=small):
            yield result

    return check


def _parity(key: dg.AssetKey, verified: Verified, account: Account | None, log: Any) -> dg.AssetCheckResult:
    for sentence in verified.mismatches:
        log.error(sentence)
    found = verified.measurement
    shown: dict[str, dg.MetadataValue] = {
        "dagster/row_count": dg.MetadataValue.int(found.measure.rows),
        "checksum": dg.MetadataValue.text(found.measure.hex),
        "bytes": dg.MetadataValue.int(found.measure.bytes),
        "verification_seconds": dg.MetadataValue.float(round(found.measure.seconds, 3)),
        "rows_per_second": dg.MetadataValue.float(round(found.measure.rows / max(found.measure.seconds, 1e-3), 1)),
    }
    shown |= {reason: dg.MetadataValue.int(m.rows) for reason, m in found.excluded.items()}
    if account and account.last:
        did = {"received": account.received, "inserted": account.inserted, **account.left}
        lines = [{"": what, "rows": m.rows, "checksum": m.hex} for what, m in did.items() if m.rows]
        shown["last_delivery"] = dg.MetadataValue.md(markdown(["", "rows", "checksum"], lines))
    if verified.before:
        shown["rows_before"] = dg.MetadataValue.int(verified.before.measure.rows)
    if verified.mismatches:
        shown["mismatches"] = dg.MetadataValue.md("\n".join(f"- {sentence}" for sentence in verified.mismatches))
    return dg.AssetCheckResult(asset_key=key, check_name=PARITY, passed=not verified.mismatches, metadata=shown)


def _quality(key: dg.AssetKey, name: str, finding: Finding) -> dg.AssetCheckResult:
    """A finding as Dagster shows it."""
    shown = {n: dg.MetadataValue.json(v) if isinstance(v, dict | list) else v for n, v in finding.figures.items()}
    if finding.samples:
        shown["samples"] = dg.MetadataValue.md(markdown(list(finding.samples[0]), finding.samples))
    severity = dg.AssetCheckSeverity.WARN if finding.warn else dg.AssetCheckSeverity.ERROR
    if not finding.ok:
        note(f"{'!' if finding.warn else '✗'} {key.to_user_string()}: {name} fails: {finding.sentence}")
    return dg.AssetCheckResult(asset_key=key, check_name=name, passed=finding.ok, severity=severity, metadata=shown)
