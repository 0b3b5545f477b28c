"""Reconciliation: do all layers hold the same rows, what is in quarantine and why, and which runs were the last."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import streamlit as st
from deltalake import DeltaTable

from ecom_assets.core.boundary import LEFT_OUT
from ecom_assets.core.home import hint
from ecom_assets.core.location import exists
from ecom_assets.csv import expand, unique
from ecom_assets.dashboard.common import ago, card, dataset, guarded, header, service, settings, when
from ecom_assets.lake import quarantine as lake_quarantine
from ecom_assets.paths import PATHS, engine, open_home, path_used
from ecom_assets.reconcile import deliveries, report
from ecom_assets.reconcile.report import Verdict
from ecom_assets.serving import analysis, history

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster import DagsterInstance, RunRecord

    from ecom_assets.reconcile.deliveries import LiveDay, Progress

RUNS = 8
SHOWN = 200
"""Rows of a quarantine that are shown; all are counted."""

MARKS = {"passed": "✓", "warns": "!", "failed": "✗"}

DAGSTER = "http://127.0.0.1:3000"
"""Where `ecom dev` puts Dagster's pages."""


def page() -> None:
    """The page."""
    header(
        "Reconciliation",
        "Each layer holds the rows of the one before it, plus what was left out: by count and checksum.",
    )
    with guarded("The reconciliation report"), open_home(settings()) as at:
        verdict(report.recorded(at.books, [layer.name for layer in PATHS[path_used(at)]], at.dataset.tables))
    with guarded("The deliveries"), open_home(settings()) as at:
        used = engine(at, path_used(at))
        delivered(deliveries.progress(used))
        sent(deliveries.live(used))
    with guarded("The quarantine"):
        quarantine()
    with guarded("The two paths"):
        two_paths()
    with guarded("The checks and runs"):
        checks_and_runs()


def verdict(verdicts: dict[str, Verdict]) -> None:
    """The report, table by table."""
    if not any(v.measurements for v in verdicts.values()):
        text = f"Nothing has been verified yet; `{hint('run', settings())}` builds every layer and verifies it."
        st.info(text, icon=":material/rule:")
        return
    wrong = [f"{layer}: {s}" for v in verdicts.values() for layer, found in v.mismatches.items() for s in found]
    rows = sum(v.measurements[-1].measure.rows for v in verdicts.values() if v.measurements)
    if wrong:
        st.error("The layers do not reconcile.\n\n" + "\n".join(f"- {s}" for s in wrong), icon=":material/error:")
    else:
        bad = sum(report.quarantined(v.measurements) for v in verdicts.values())
        st.success(f"All layers reconcile: {rows:,} rows verified, {bad:,} in quarantine.", icon=":material/verified:")
    for column, (name, judged) in zip(_pairs(len(verdicts)), verdicts.items(), strict=True):
        with column, card(f"report-{name}", f"{name} {'✓' if judged.ok else '✗'}"):
            lines = [
                {
                    "": "✗" if found.layer in judged.mismatches else "✓",
                    "layer": found.layer,
                    "rows": report.rows(found),
                    "excluded": sum(report.excluded(found).values()),
                    "checksum": found.measure.hex,
                }
                for found in judged.measurements
            ]
            number = st.column_config.NumberColumn(format="localized")
            st.dataframe(lines, hide_index=True, column_config={"rows": number, "excluded": number})


def delivered(found: Sequence[Progress]) -> None:
    """The deliveries, the last one first."""
    if not any(each.sequence for each in found):
        return  # a home with its first files alone
    st.header("Deliveries", anchor=False)
    lines = [
        {
            "#": each.sequence,
            "delivery": each.name,
            "accepted": each.accepted,
            "rows": sum(counts[0] for counts in each.tables.values() if counts),
            "quarantined": sum(counts[1] for counts in each.tables.values() if counts),
            **{what: sum(c.get(what, 0) for c in each.counted().values()) for what in ("inserted", *LEFT_OUT)},
            "tables": ", ".join(each.tables),
            "up to": each.layer,
        }
        for each in reversed(found)
    ]
    lines = [{name: value for name, value in line.items() if name in _shown(lines)} for line in lines]
    number = st.column_config.NumberColumn(format="localized")
    config = dict.fromkeys(("rows", "quarantined", "inserted", *LEFT_OUT), number)
    with card(
        "deliveries", f"{len(lines):,} deliveries, the first files included, and the last layer that each passed"
    ):
        st.dataframe(lines[:SHOWN], hide_index=True, column_config=config, height=min(420, 35 * (len(lines) + 1) + 3))


def sent(found: Sequence[LiveDay]) -> None:
    """The live days, the last one first."""
    if not found:
        return
    st.header("Live days", anchor=False)
    lines = [
        {
            "day": each.day,
            "rows": sum(rows.rows for rows in each.tables.values()),
            "windows": sum(rows.windows for rows in each.tables.values()),
            "tables": ", ".join(f"{table} {rows.rows:,}" for table, rows in each.tables.items()),
            "up to": each.layer,
        }
        for each in reversed(found)
    ]
    config = dict.fromkeys(("rows", "windows"), st.column_config.NumberColumn(format="localized"))
    with card("live-days", "Rows that other producers sent, by day (UTC)"):
        st.dataframe(lines[:SHOWN], hide_index=True, column_config=config, height=min(420, 35 * (len(lines) + 1) + 3))


def _shown(lines: Sequence[dict[str, Any]]) -> set[str]:
    """The columns to show: all but reasons for which no row was ever left out."""
    return {name for line in lines for name, value in line.items() if value or name not in LEFT_OUT}


def _pairs(count: int) -> list[Any]:
    return [column for _ in range((count + 1) // 2) for column in st.columns(2)][:count]


def quarantine() -> None:
    """What was moved to quarantine, and why."""
    st.header("Quarantine", anchor=False)
    found = [row for name in dataset().tables for row in _quarantined(name)]
    if not found:
        st.success("Quarantine is empty.", icon=":material/inventory_2:")
        return
    with card("quarantine", f"{len(found):,} row{'s' * (len(found) != 1)}, and why"):
        st.dataframe(found[:SHOWN], hide_index=True, height=min(420, 35 * (len(found) + 1) + 3))


def _quarantined(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    table = dataset().tables[name]
    files = [*expand.quarantine_files(table, settings()), unique.conflicts_file(table, settings())]
    for path in filter(Path.exists, files):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                where = f"{row['source']}, line {row['line']}" if "line" in row else f"key {row.get('key')}"
                rows.append(
                    {"table": name, "where": where, "reason": row["reason"], "row": str(row.get("raw", row.get("row")))}
                )
    path = lake_quarantine.folder(table, settings())
    if exists(path):
        kept = pa.table(DeltaTable(str(path)).to_pyarrow_table())
        rows += [
            {
                "table": name,
                "where": f"{r['source']}, offset {r['line_or_offset']}",
                "reason": r["reason"],
                "row": r["raw"],
            }
            for r in kept.to_pylist()
        ]
    return rows


def two_paths() -> None:
    """Whether PostgreSQL and the merged tables give the same answers."""
    st.header("Two paths, one answer", anchor=False)
    with card(
        "ways",
        "Files → PostgreSQL → Spark → Redis, compared with Kafka → Delta → Redis",
        "The same questions, answered from the tables of both paths.",
    ):
        asked, cache = service().snapshot(), service().cache
        lines, equal, known = [], 0, 0
        for name, query in dataset().queries.items():
            kept, left = cache.get(f"analysis:{name}")
            same = kept is not None and analysis.same(kept.table, asked.ask(name).table)
            known, equal = known + (kept is not None), equal + same
            lines.append(
                {
                    "": "" if kept is None else MARKS["passed" if same else "failed"],
                    "question": query.doc,
                    "by PostgreSQL": "not computed" if kept is None else f"{kept.table.num_rows:,} rows",
                    "stays": ago(left) if kept else "",
                }
            )
        if not known:
            st.info(
                "The PostgreSQL path has not been run yet, or Redis is not available. The job `analysis` in Dagster"
                " loads PostgreSQL, computes the answers and caches them in Redis.",
                icon=":material/alt_route:",
            )
            return
        if equal < known:
            st.warning(
                f"{known - equal} of {known} answers differ: PostgreSQL holds the tables of other files, or one path is"
                " wrong. The job `analysis` reloads them.",
                icon=":material/alt_route:",
            )
        else:
            st.markdown(f"{MARKS['passed']} {equal} of {len(lines)} answers computed on both paths, all equal.")
        st.dataframe(lines, hide_index=True)


@st.cache_resource(show_spinner=False)
def _instance(folder: str) -> DagsterInstance:
    import dagster as dg

    os.environ["DAGSTER_HOME"] = folder  # the instance's own file names it; these pages are of one home
    return dg.DagsterInstance.from_config(folder)


def checks_and_runs() -> None:
    """What each check found last, and the last runs."""
    st.header("Checks and runs", anchor=False)
    if not (settings().dagster / "dagster.yaml").exists():
        st.info(f"No run yet; `{hint('run', settings())}` starts one.", icon=":material/history:")
        return
    instance = _instance(str(settings().dagster))
    records = instance.get_run_records(limit=RUNS)
    with card(
        "checks",
        "Checks",
        f"What each found last, by the last {RUNS} runs; `{hint('check', settings())}` evaluates all.",
    ):
        checks(history.checks(instance, [r.dagster_run.run_id for r in records]))
    with card(
        "runs", "Runs of this home", f"The links open in Dagster while `{hint('dev', settings())}` runs, at {DAGSTER}."
    ):
        runs(records)


def checks(found: list[dict[str, str]]) -> None:
    """What each check found, the worst first."""
    if not found:
        text = f"No check has been evaluated yet; `{hint('check', settings())}` does so."
        st.info(text, icon=":material/rule:")
        return
    count = {state: sum(c["state"] == state for c in found) for state in history.STATES}
    text = f"{count['passed']} passed, {count['warns']} warn, {count['failed']} failed."
    st.markdown(f"{MARKS['failed' if count['failed'] else 'passed']} {text}")
    lines = [
        {"": MARKS[c["state"]], **{k: c[k] for k in ("asset", "check", "found")}, "when": when(c["at"])} for c in found
    ]
    st.dataframe(lines, hide_index=True, height=min(320, 35 * (len(lines) + 1) + 3))


def runs(records: Sequence[RunRecord]) -> None:
    """The last runs."""
    if not records:
        st.info(f"No run yet; `{hint('run', settings())}` starts one.", icon=":material/history:")
        return
    lines = []
    for record in records:
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
    link = st.column_config.LinkColumn(display_text="open")
    st.dataframe(lines, hide_index=True, column_config={"in Dagster": link})


page()
