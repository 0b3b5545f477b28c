"""What came out: tables for people, JSON for programs, a history to compare with, and a chart for the README.

Nothing is measured here.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table as Grid

from benchmarks.harness import Goal, Result, Spread
from ecom_assets.core.settings import ROOT

RATIOS = (
    "produce_vs_perf_test", "stream_vs_noop", "hbase_vs_happybase", "hbase_vs_importtsv", "expand_vs_disk",
    "proof_share", "growth_10x",
)  # fmt: skip
"""The ratios that have goals, in the order of JSON."""

SHOWN = {"proof_share": "verification_share", "proof": "verification"}
"""Name in JSON, which stays as it is in the history -> what people are shown."""

HISTORY = ROOT / "benchmarks" / "history.jsonl"
CHART = ROOT / "docs" / "images" / "benchmark.svg"

INK, MUTED, RULE, TEAL, AMBER = "#1C2430", "#6B7280", "#E3DFD6", "#0F6E6E", "#D9822B"
"""Colours of the chart, those of the dashboard."""

Json = dict[str, Any]


def machine(load_before: float) -> Json:
    """What matters of the machine, nothing that identifies its owner, and the peak memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB, on macOS in bytes
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_before": round(load_before, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "peak_memory_mib": peak >> (20 if sys.platform == "darwin" else 10),
    }


def to_json(results: Iterable[Result], rows: int, repeats: int, machine: Json) -> Json:
    """The last line of standard output; a ratio that was not measured is null."""
    results = list(results)
    found = {name: spread.median for r in results for name, spread in r.ratios.items()}
    figures = {
        r.step.name: {
            "unit": f"{r.step.unit}/s",
            "rates": {way: _rounded(spread, 1) for way, spread in r.rates.items()},
            "ratios": {name: _rounded(spread, 3) for name, spread in r.ratios.items()},
        }
        | ({"seconds": {way: _parts(parts) for way, parts in r.parts.items()}} if r.parts else {})
        for r in results
    }
    return {
        "ratios": {name: round(found[name], 3) if name in found else None for name in RATIOS},
        "figures": figures,
        "machine": machine | {"rows": rows, "repeats": repeats},
    }


def _rounded(spread: Spread, digits: int) -> Json:
    values = {"median": spread.median, "low": spread.low, "high": spread.high}
    return {name: round(value, digits) for name, value in values.items()}


def _parts(parts: Any) -> Json:
    return {name: round(spread.median, 3) for name, spread in parts.items()}


def show(console: Console, results: list[Result], last: Json | None) -> None:
    """Print the figures, and the ratios with their goals and those of the last time."""
    rates = Grid(title="Each way, alone on the same servers", title_justify="left")
    for name in ("step", "way", "median", "range"):
        rates.add_column(name, justify="left" if name in ("step", "way") else "right", no_wrap=True)
    for result in results:
        for at, (way, spread) in enumerate(result.rates.items()):
            rates.add_row(
                result.step.name if not at else "",
                way,
                f"{spread.median:,.0f} {result.step.unit}/s",
                f"{spread.low:,.0f} to {spread.high:,.0f}",
                end_section=at == len(result.rates) - 1,
            )
    console.print(rates)
    for result in results:
        for way, parts in result.parts.items():
            reported = ", ".join(f"{SHOWN.get(name, name)} {spread.median:.1f}" for name, spread in parts.items())
            console.print(f"{result.step.name}: {way} in seconds: {reported}", highlight=False)
    ratios = Grid(title="Ours compared with it, round by round", title_justify="left")
    for name in ("ratio", "median", "range", "goal", "", "last time"):
        ratios.add_column(name, justify="left" if name == "ratio" else "right", no_wrap=True)
    before = {
        name: reported["median"]
        for step in (last or {}).get("figures", {}).values()
        for name, reported in step["ratios"].items()
    }
    for result in results:
        for ratio in result.step.ratios:
            spread = result.ratios[ratio.name]
            ratios.add_row(
                SHOWN.get(ratio.name, ratio.name),
                f"{spread.median:,.2f}",
                f"{spread.low:,.2f} to {spread.high:,.2f}",
                str(ratio.goal or ""),
                _mark(ratio.goal, spread.median),
                f"{before[ratio.name]:,.2f}" if ratio.name in before else "",
            )
    console.print(ratios)
    if last:
        console.print(f"Last time: {last['date']}, {last['commit']}, load before {last['machine']['load_before']}.")


def _mark(goal: Goal | None, value: float) -> str:
    return "" if goal is None else "[green]✓[/green]" if goal.met(value) else "[red]✗[/red]"


def history(path: Path = HISTORY) -> Iterator[Json]:
    """What was measured before, the oldest first.

    Raises:
        ValueError: A line is not JSON.
    """
    if path.exists():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: expected JSON, got {error}; fix or delete it") from error


def last_like(rows: int, path: Path = HISTORY) -> Json | None:
    """The last line of the same size; others say little, for what is done once weighs more where rows are few."""
    return next((line for line in reversed(list(history(path))) if line["machine"]["rows"] == rows), None)


def remember(found: Json, path: Path = HISTORY) -> None:
    """Append a line to the history."""
    line = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": _commit(), **found}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _commit() -> str:
    """Which commit was measured; with ``-dirty`` if files had been changed since."""
    reported = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return reported.stdout.strip()


def draw(results: Iterable[Result], machine: Json, path: Path = CHART) -> None:
    """Draw how many times faster ours is than each anchor.

    Raises:
        ModuleNotFoundError: The developers' packages are not installed.
    """
    import vl_convert

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(vl_convert.vegalite_to_svg(chart(results, machine)), encoding="utf-8")


def chart(results: Iterable[Result], machine: Json) -> Json:
    """The chart as Vega-Lite: a dot for the median, a line for the range, a tick for the goal."""
    rows: list[Json] = [
        {
            "name": f"{result.step.name.replace('_', ' ')} / {ratio.anchor}",
            "median": (spread := result.ratios[ratio.name]).median,
            "low": spread.low,
            "high": spread.high,
            "goal": ratio.goal.bound if ratio.goal else None,
            "edge": max(spread.high, ratio.goal.bound if ratio.goal else 0.0),
            "text": f"{spread.median:,.2f} ×" if spread.median < 10 else f"{spread.median:,.0f} ×",
        }
        for result in results
        for ratio in result.step.ratios
        if ratio.anchor
    ]
    extent: list[float] = [*(row["low"] for row in rows), *(row["high"] for row in rows), 0.5, 2.0]
    y = {"field": "name", "type": "nominal", "sort": None, "title": None}

    def x(field: str) -> Json:
        scale = {"type": "log", "domain": [min(extent) / 1.3, max(extent) * 2.2], "nice": False}
        return {
            "field": field,
            "type": "quantitative",
            "scale": scale,
            "title": "times faster (logarithmic)",
            "axis": {"format": "~g", "values": [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]},
        }

    cores, memory = machine["cores"], machine["memory_gib"]
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "background": "white",
        "padding": 12,
        "width": 480,
        "height": {"step": 26},
        "title": {
            "text": "This project compared with what others would use",
            "subtitle": f"{machine['rows']:,} rows, {cores} cores, {memory:.0f} GiB, everything on one machine;"
            f" {machine['repeats']} rounds: median, range, and goal (orange)",
            "anchor": "start",
            "color": INK,
            "subtitleColor": MUTED,
            "offset": 12,
        },
        "config": {
            "font": "Helvetica, Arial, sans-serif",
            "view": {"stroke": None},
            "axis": {"labelColor": INK, "titleColor": MUTED, "gridColor": RULE, "domainColor": RULE, "tickColor": RULE,
                     "labelFontSize": 12, "titleFontWeight": "normal", "labelLimit": 320},
        },
        "data": {"values": rows},
        "layer": [
            {"data": {"values": [{"even": 1}]}, "mark": {"type": "rule", "color": MUTED, "strokeDash": [4, 3]},
             "encoding": {"x": x("even")}},
            {"mark": {"type": "rule", "color": TEAL, "strokeWidth": 3, "opacity": 0.45},
             "encoding": {"y": y, "x": x("low"), "x2": {"field": "high"}}},
            {"transform": [{"filter": "datum.goal != null"}],
             "mark": {"type": "tick", "color": AMBER, "thickness": 3, "size": 18},
             "encoding": {"y": y, "x": x("goal")}},
            {"mark": {"type": "point", "filled": True, "color": TEAL, "size": 90, "opacity": 1},
             "encoding": {"y": y, "x": x("median")}},
            {"mark": {"type": "text", "align": "left", "dx": 8, "color": INK, "fontSize": 12},
             "encoding": {"y": y, "x": x("edge"), "text": {"field": "text"}}},
        ],
    }  # fmt: skip
