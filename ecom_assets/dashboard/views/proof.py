"""Proof: do all layers hold the same rows, what was set aside and why, and which runs were the last."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import streamlit as st
from deltalake import DeltaTable

from ecom_assets.dashboard.common import ago, card, guarded, header, service, settings, when
from ecom_assets.pipeline import sheet, streamed
from ecom_assets.pipeline.flow import Flow
from ecom_assets.pipeline.sheet import Verdict
from ecom_assets.serving import analysis
from ecom_assets.serving.questions import QUESTIONS
from ecom_assets.tables import TABLES

if TYPE_CHECKING:
    from dagster import DagsterInstance

RUNS = 8
SHOWN = 200
"""Rows of a quarantine that are shown; all are counted."""

DAGSTER = "http://127.0.0.1:3000"
"""Where `ecom dev` puts Dagster's pages."""


def page() -> None:
    """The page."""
    header("Proof", "Rows before = rows after + rows set aside, at every hand-off, by count and by checksum.")
    with guarded("The proof sheet"):
        flow = Flow(settings())
        verdicts = flow.verdicts(flow.route_used())
        verdict(verdicts)
    with guarded("The quarantine"):
        quarantine()
    with guarded("The two ways"):
        two_ways()
    with guarded("The last runs"):
        runs()


def verdict(verdicts: dict[str, Verdict]) -> None:
    """The sheet, table by table."""
    if not any(v.proofs for v in verdicts.values()):
        st.info("Nothing has been proven yet; `ecom run` makes every layer and proves it.", icon=":material/rule:")
        return
    wrong = [f"{layer}: {s}" for v in verdicts.values() for layer, said in v.faults.items() for s in said]
    rows = sum(v.proofs[-1].measure.rows for v in verdicts.values() if v.proofs)
    if wrong:
        st.error("The sheet does not balance.\n\n" + "\n".join(f"- {s}" for s in wrong), icon=":material/error:")
    else:
        aside = sum(sheet.quarantined(v.proofs) for v in verdicts.values())
        st.success(f"The sheet balances: {rows:,} rows proven, {aside:,} in quarantine.", icon=":material/verified:")
    for column, (name, judged) in zip(_pairs(len(verdicts)), verdicts.items(), strict=True):
        with column, card(f"sheet-{name}", f"{name} {'✗' if judged.faults else '✓'}"):
            lines = [
                {
                    "layer": p.layer,
                    "rows": p.measure.rows + (p.aside_rows if p.layer == "raw" else 0),
                    "set aside": 0 if p.layer == "raw" else p.aside_rows,
                    "checksum": p.measure.hex,
                    "": "✗" if p.layer in judged.faults else "✓",
                }
                for p in judged.proofs
            ]
            number = st.column_config.NumberColumn(format="localized")
            st.dataframe(lines, hide_index=True, column_config={"rows": number, "set aside": number})


def _pairs(count: int) -> list[Any]:
    return [column for _ in range((count + 1) // 2) for column in st.columns(2)][:count]


def quarantine() -> None:
    """What was set aside, and why."""
    st.header("Quarantine", anchor=False)
    found = [row for name in TABLES for row in _set_aside(name)]
    if not found:
        st.success("Nothing had to be set aside.", icon=":material/inventory_2:")
        return
    with card("quarantine", f"{len(found):,} rows with their reasons"):
        st.dataframe(found[:SHOWN], hide_index=True, height=min(420, 35 * (len(found) + 1) + 3))


def _set_aside(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in sorted(settings().quarantine.glob(f"{name}*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                where = f"{row['source']}, line {row['line']}" if "line" in row else f"key {row.get('key')}"
                rows.append(
                    {"table": name, "where": where, "reason": row["reason"], "row": str(row.get("raw", row.get("row")))}
                )
    path = streamed.quarantine(TABLES[name], settings())
    if streamed.exists(path):
        table = pa.table(DeltaTable(str(path)).to_pyarrow_table())
        rows += [
            {
                "table": name,
                "where": f"{r['source']}, offset {r['line_or_offset']}",
                "reason": r["reason"],
                "row": r["raw"],
            }
            for r in table.to_pylist()
        ]
    return rows


def two_ways() -> None:
    """Whether PostgreSQL and the merged tables give the same answers."""
    st.header("Two ways, one answer", anchor=False)
    with card(
        "ways",
        "Files → PostgreSQL → Spark → Redis, beside Kafka → Delta → Redis",
        "The same questions, asked of the tables of both ways.",
    ):
        asked, cache = service().snapshot(), service().cache
        lines = []
        for name in analysis.ANALYSES:
            kept, left = cache.get(f"analysis:{name}")
            same = (
                "" if kept is None else "✓ equal" if analysis.same(kept.table, asked.ask(name).table) else "✗ differs"
            )
            lines.append(
                {
                    "question": QUESTIONS[name].doc,
                    "by PostgreSQL": "not computed" if kept is None else f"{kept.table.num_rows:,} rows",
                    "beside the merged tables": same,
                    "stays": ago(left) if kept else "",
                }
            )
        if all(line["by PostgreSQL"] == "not computed" for line in lines):
            st.info(
                "The second way has not been gone, or Redis does not run. The job `analysis` in Dagster loads"
                " PostgreSQL, computes the answers and puts them into Redis.",
                icon=":material/alt_route:",
            )
        else:
            st.dataframe(lines, hide_index=True)


@st.cache_resource(show_spinner=False)
def _instance(folder: str) -> DagsterInstance:
    import dagster as dg

    return dg.DagsterInstance.from_config(folder)


def runs() -> None:
    """The last runs."""
    st.header("Last runs", anchor=False)
    if not (settings().dagster / "dagster.yaml").exists():
        st.info("No run yet; `ecom run` makes one.", icon=":material/history:")
        return
    lines = []
    for record in _instance(str(settings().dagster)).get_run_records(limit=RUNS):
        run = record.dagster_run
        began = datetime.fromtimestamp(record.start_time, UTC) if record.start_time else None
        took = record.end_time - record.start_time if record.end_time and record.start_time else None
        lines.append(
            {
                "job": run.job_name,
                "state": run.status.value.capitalize(),
                "began": when(began.isoformat()) if began else "",
                "took": ago(took) if took is not None else "",
                "in Dagster": f"{DAGSTER}/runs/{run.run_id}",
            }
        )
    with card("runs", "Runs of this home", f"The links open in Dagster while `ecom dev` runs, at {DAGSTER}."):
        if not lines:
            st.info("No run yet; `ecom run` makes one.", icon=":material/history:")
        else:
            link = st.column_config.LinkColumn(display_text="open")
            st.dataframe(lines, hide_index=True, column_config={"in Dagster": link})


page()
