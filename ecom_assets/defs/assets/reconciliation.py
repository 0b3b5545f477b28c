"""The reconciliation report: all tables and layers at one cut each, at the end of the graph."""

import dagster as dg

from ecom_assets.dataset.model import Dataset
from ecom_assets.defs.names import OWNERS, WEEKLY, Names
from ecom_assets.paths import LAYERS, PATHS, path_used
from ecom_assets.reconcile import report


def report_asset(dataset: Dataset, names: Names) -> dg.AssetsDefinition:
    """The report's asset."""

    @dg.asset(
        key=names.report,
        deps=[names.asset_key(LAYERS[-1], t) for t in dataset.tables.values()],
        group_name=names.of("reconciliation"),
        kinds={"python"},
        owners=OWNERS,
        freshness_policy=WEEKLY,
        required_resource_keys={names.home},
    )
    def reconciliation_report(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """Rows and checksum of every table in every layer; each equals the layer before it, plus what was left out."""
        home = names.home_of(context)
        engine = home.engine(path_used(home.at))
        verdicts = dict(report.reconcile(engine, home.at.dataset.tables.values(), fresh=False))
        failed = sum(len(v.mismatches) for v in verdicts.values())
        return dg.MaterializeResult(
            metadata={
                "report": dg.MetadataValue.md(report.to_markdown(verdicts)),
                "balances": all(v.ok for v in verdicts.values()),
                "failed_boundaries": failed,
                "quarantined": sum(report.quarantined(v.measurements) for v in verdicts.values()),
            }
        )

    return reconciliation_report


def report_check(dataset: Dataset, names: Names) -> dg.AssetChecksDefinition:
    """The report's check."""

    @dg.asset_check(asset=names.report, blocking=True, required_resource_keys={names.home})
    def balances(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        """Every layer of every table was measured, and holds the same rows, those left out included."""
        at = names.home_of(context).at
        path = [layer.name for layer in PATHS[path_used(at)]]
        verdicts = report.recorded(at.books, path, dataset.tables)
        wrong = {f"{name}/{layer}": list(s) for name, v in verdicts.items() for layer, s in v.mismatches.items()}
        return dg.AssetCheckResult(passed=not wrong, metadata={"mismatches": dg.MetadataValue.json(wrong)})

    return balances
