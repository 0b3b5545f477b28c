"""The proof: one sheet over all tables and layers, at the end of the graph."""

import dagster as dg

from ecom_assets.dataset.shop import TABLES
from ecom_assets.defs import factory
from ecom_assets.defs.resources.home import HomeResource
from ecom_assets.reconcile import report


@dg.asset(
    key=["proof", "sheet"],
    deps=[factory.asset_key("hbase", t) for t in TABLES.values()],
    group_name="proof",
    kinds={"python"},
    owners=factory.OWNERS,
    automation_condition=dg.AutomationCondition.eager(),
    freshness_policy=factory.WEEKLY,
)
def proof_sheet(home: HomeResource) -> dg.MaterializeResult:
    """Rows and checksum of every table in every layer: `in = out + set aside` at each hand-off."""
    flow = home.flow
    verdicts = flow.verdicts(flow.route_used())
    return dg.MaterializeResult(
        metadata={
            "sheet": dg.MetadataValue.md(report.to_markdown(verdicts)),
            "balances": all(v.ok for v in verdicts.values()),
            "quarantined": sum(report.quarantined(v.proofs) for v in verdicts.values()),
        }
    )


@dg.asset_check(asset=proof_sheet, blocking=True)
def balances(home: HomeResource) -> dg.AssetCheckResult:
    """Every layer of every table holds the same rows, those set aside included."""
    flow = home.flow
    verdicts = flow.verdicts(flow.route_used())
    faults = {f"{name}/{layer}": said for name, v in verdicts.items() for layer, said in v.faults.items()}
    return dg.AssetCheckResult(passed=not faults, metadata={"faults": dg.MetadataValue.json(faults)})
