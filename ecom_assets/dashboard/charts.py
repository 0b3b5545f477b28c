"""How numbers look: one palette, one way of writing numbers, a function per form of chart.

Takes frames and gives Vega-Lite specifications as plain data: a library to write them would take ten times as long
as all the rest of a page. Knows nothing of Streamlit.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

INK, MUTED, RULE, LAND = "#1C2430", "#6B7280", "#E3DFD6", "#E6E2D8"
TEAL, AMBER, PALE = "#0F6E6E", "#D9822B", "#CFE3E0"

ROW = 28
"""Height of a horizontal bar, pixels."""

LABELS = 120
"""Most pixels that the names beside bars take; a phone is 360 wide."""

SHORT = "~s"
"""Axes: 1.2M rather than 1,200,000."""

Chart = dict[str, Any]

_CONFIG: Chart = {
    "font": '"Source Sans", sans-serif',
    "view": {"stroke": None},
    "axis": {
        "labelColor": MUTED, "titleColor": MUTED, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal",
        "gridColor": RULE, "domainColor": RULE, "tickColor": RULE, "labelLimit": LABELS,
    },
}  # fmt: skip


def rupiah(amount: float) -> str:
    """An amount in IDR, short: ``Rp 449.0 bn``."""
    for size, name in ((1e12, "tn"), (1e9, "bn"), (1e6, "m"), (1e3, "k")):
        if abs(amount) >= size:
            return f"Rp {amount / size:.1f} {name}"
    return f"Rp {amount:.0f}"


def bars(frame: pl.DataFrame, name: str, value: str, title: str, most: int = 12) -> Chart:
    """Horizontal bars with their numbers, the biggest above; beyond ``most`` the rest is one bar.

    Args:
        frame: ``name`` and ``value``, the biggest first.
        name: Column of the names.
        value: Column of the numbers.
        title: What is counted.
        most: Bars shown.
    """
    rows: list[dict[str, Any]] = frame.select(pl.col(name).alias("name"), pl.col(value).alias("value")).to_dicts()
    if len(rows) > most:
        rest = rows[most - 1 :]
        rows = [*rows[: most - 1], {"name": f"{len(rest)} others", "value": sum(r["value"] for r in rest)}]
    total = sum(r["value"] for r in rows) or 1
    rows = [r | {"share": r["value"] / total} for r in rows]
    # Room at the right for the numbers.
    x: Chart = {"field": "value", "type": "quantitative", "axis": None}
    x["scale"] = {"domain": [0, 1.3 * max((r["value"] for r in rows), default=1)]}
    chart = {
        "encoding": {
            "y": _names("name"),
            "tooltip": [_tip("name", " "), _tip("value", title, ","), _tip("share", "share", ".1%")],
        },
        "layer": [
            {"mark": _bar(height={"band": 0.68}, cornerRadiusEnd=3), "encoding": {"x": x}},
            {
                "mark": {"type": "text", "align": "left", "dx": 5, "color": INK, "fontSize": 12},
                "encoding": {"x": x, "text": {"field": "value", "format": ","}},
            },
        ],
    }
    return _finished(chart, rows, max(ROW, ROW * len(rows)))


def columns(frame: pl.DataFrame, name: str, value: str, title: str, axis: str) -> Chart:
    """Vertical bars in the order of ``name``."""
    chart = {
        "mark": _bar(cornerRadiusEnd=3),
        "encoding": {
            "x": {
                "field": name, "type": "ordinal", "title": axis,
                "axis": {"labelAngle": 0, "labelOverlap": True, "ticks": False},
            },
            "y": _amounts(value, title),
            "tooltip": [_tip(name, axis), _tip(value, title, ",")],
        },
    }  # fmt: skip
    return _finished(chart, frame.to_dicts(), 230)


def trend(frame: pl.DataFrame, value: str, title: str) -> Chart:
    """A value over months."""
    # A date without a time would be read as midnight in the zone of whoever looks.
    rows = [{"month": f"{r['month']}T00:00:00", value: r[value]} for r in frame.to_dicts()]
    chart = {
        "encoding": {
            "x": {
                "field": "month", "type": "temporal", "title": None,
                "axis": {"format": "%Y", "tickCount": "year", "grid": False},
            },
            "y": _amounts(value, title),
            "tooltip": [
                {"field": "month", "type": "temporal", "title": "month", "format": "%B %Y"},
                _tip(value, title, ","),
            ],
        },
        "layer": [
            {
                "mark": {
                    "type": "area", "color": PALE, "interpolate": "monotone",
                    "line": {"color": TEAL, "strokeWidth": 2},
                }
            },
            {"mark": {"type": "point", "opacity": 0, "size": 200}},
        ],
    }  # fmt: skip
    return _finished(chart, rows, 280)


def steps(frame: pl.DataFrame) -> Chart:
    """A funnel: what share of all sessions came to each step."""
    rows = [r | {"whole": 1, "label": f"{r['share']:.1%}  ·  {r['sessions']:,}"} for r in frame.to_dicts()]
    shape: Chart = {"height": {"band": 0.7}, "cornerRadius": 3}

    def x(field: str) -> Chart:
        return {"field": field, "type": "quantitative", "axis": None, "scale": {"domain": [0, 1]}}

    chart = {
        "encoding": {
            "y": _names("step"),
            "tooltip": [_tip("step", " "), _tip("sessions", "sessions", ","), _tip("share", "of all sessions", ".1%")],
        },
        "layer": [
            {"mark": _bar(RULE, **shape), "encoding": {"x": x("whole")}},
            {"mark": _bar(**shape), "encoding": {"x": x("share")}},
            {
                "mark": {
                    "type": "text", "align": "left", "dx": 8, "color": "white", "fontSize": 12, "fontWeight": "bold",
                },
                "encoding": {"x": {"datum": 0, "type": "quantitative"}, "text": {"field": "label"}},
            },
        ],
    }  # fmt: skip
    return _finished(chart, rows, 56 * len(rows))


def shipment_map(frame: pl.DataFrame) -> Chart:
    """Where bookings go, on Indonesia's outline."""
    chart = {
        "projection": {"type": "mercator"},
        "layer": [
            {
                "data": {"values": _land()},
                "mark": {"type": "geoshape", "fill": LAND, "stroke": "#CFC9BB", "strokeWidth": 0.6},
            },
            {
                "data": {"values": frame.to_dicts()},
                "mark": {"type": "circle", "color": TEAL, "opacity": 0.6, "stroke": "white", "strokeWidth": 0.3},
                "encoding": {
                    "longitude": {"field": "longitude", "type": "quantitative"},
                    "latitude": {"field": "latitude", "type": "quantitative"},
                    "size": {
                        "field": "bookings", "type": "quantitative", "scale": {"range": [8, 420]}, "legend": None,
                    },
                    "tooltip": [
                        _tip("bookings", "bookings", ","),
                        _tip("latitude", "latitude", ".2f"),
                        _tip("longitude", "longitude", ".2f"),
                    ],
                },
            },
        ],
    }  # fmt: skip
    return _finished(chart, None, 250)


def moments(frame: pl.DataFrame, value: str, title: str) -> Chart:
    """Single moments in time and how much came with each."""
    rows = [{"at": f"{r['at']:%Y-%m-%dT%H:%M:%S}", value: r[value]} for r in frame.to_dicts()]
    chart = {
        "mark": _bar(AMBER, width=8, cornerRadiusEnd=2),
        "encoding": {
            "x": {
                "field": "at", "type": "temporal", "title": "UTC",
                "axis": {"format": "%H:%M:%S", "labelOverlap": True, "tickCount": 5, "grid": False},
            },
            "y": _amounts(value, title),
            "tooltip": [
                {"field": "at", "type": "temporal", "title": "at", "format": "%d %b %H:%M:%S"},
                _tip(value, title, ","),
            ],
        },
    }  # fmt: skip
    return _finished(chart, rows, 220)


def _bar(color: str = TEAL, **more: Any) -> Chart:
    return {"type": "bar", "color": color, **more}


def _names(field: str) -> Chart:
    axis = {"ticks": False, "domain": False, "labelPadding": 6}
    return {"field": field, "type": "nominal", "sort": None, "title": None, "axis": axis}


def _amounts(field: str, title: str) -> Chart:
    # Short for a thousand millions is G to physicists alone.
    short = {"format": SHORT, "labelExpr": "replace(datum.label, 'G', ' bn')"}
    axis = {**short, "tickCount": 4, "domain": False, "ticks": False}
    return {"field": field, "type": "quantitative", "title": title, "axis": axis}


def _tip(field: str, title: str, form: str | None = None) -> Chart:
    told = {"field": field, "title": title, "type": "quantitative" if form else "nominal"}
    return told | ({"format": form} if form else {})


def _finished(chart: Chart, rows: list[dict[str, Any]] | None, height: int) -> Chart:
    data = {} if rows is None else {"data": {"values": rows}}
    frame = {"height": height, "background": None, "autosize": {"type": "fit-x", "contains": "padding"}}
    return {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", **data, **chart, **frame, "config": _CONFIG}


@cache
def _land() -> dict[str, object]:
    """Indonesia's outline, from Natural Earth's 1:50m countries (public domain), as packed by world-atlas 2.0.2.

    Rounded to hundredths of a degree, islands smaller than 0.01 square degrees left out.
    """
    shape = json.loads((Path(__file__).parent / "indonesia.json").read_text(encoding="utf-8"))
    # d3 wants outer rings clockwise; the other way round they mean all the world but the island.
    turned = [[ring if _clockwise(ring) else ring[::-1] for ring in polygon[:1]] for polygon in shape["coordinates"]]
    return {"type": "Feature", "geometry": {"type": "MultiPolygon", "coordinates": turned}, "properties": {}}


def _clockwise(ring: list[list[float]]) -> bool:
    pairs = zip(ring, [*ring[1:], ring[0]], strict=True)
    return sum((b[0] - a[0]) * (b[1] + a[1]) for a, b in pairs) > 0
