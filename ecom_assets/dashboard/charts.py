"""How numbers look: one palette, one way of writing numbers, a function per form of chart.

Takes frames and gives Altair charts; knows nothing of Streamlit.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl

INK, MUTED, RULE = "#1C2430", "#6B7280", "#E3DFD6"
TEAL, AMBER, PALE = "#0F6E6E", "#D9822B", "#CFE3E0"

ROW = 26
"""Height of a horizontal bar, pixels."""

LABELS = 130
"""Most pixels that the names beside bars take; a phone is 360 wide."""

NUMBER = "~s"
"""Axes: 1.2M rather than 1,200,000."""

_FORMAT: dict[str, Any] = {
    "background": "transparent",
    "font": "Source Sans, sans-serif",
    "view": {"stroke": "transparent"},
    "axis": {
        "labelColor": MUTED, "titleColor": MUTED, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal",
        "gridColor": RULE, "domainColor": RULE, "tickColor": RULE, "labelLimit": LABELS,
    },
    "legend": {"labelColor": MUTED, "titleColor": MUTED, "orient": "bottom"},
}  # fmt: skip


def rupiah(amount: float) -> str:
    """An amount in IDR, short: ``Rp 449.0 bn``."""
    for size, name in ((1e12, "tn"), (1e9, "bn"), (1e6, "m"), (1e3, "k")):
        if abs(amount) >= size:
            return f"Rp {amount / size:.1f} {name}"
    return f"Rp {amount:.0f}"


def bars(frame: pl.DataFrame, name: str, value: str, title: str, most: int = 12) -> alt.LayerChart:
    """Horizontal bars with their numbers, the biggest above; beyond ``most`` the rest is one bar.

    Args:
        frame: ``name`` and ``value``, the biggest first.
        name: Column of the names.
        value: Column of the numbers.
        title: What is counted.
        most: Bars shown.
    """
    if frame.height > most:
        rest = frame.slice(most - 1)
        label = f"{rest.height} others"
        frame = pl.concat([frame.head(most - 1), pl.DataFrame({name: [label], value: [rest[value].sum()]})])
    total = frame[value].sum() or 1
    frame = frame.with_columns((pl.col(value) / total).alias("share"))
    longest = int(frame[value].max() or 1)  # ty: ignore[invalid-argument-type]  # a number
    base = alt.Chart(frame).encode(
        y=alt.Y(f"{name}:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False)),
        tooltip=[
            alt.Tooltip(f"{name}:N", title=" "),
            alt.Tooltip(f"{value}:Q", title=title, format=","),
            alt.Tooltip("share:Q", title="share", format=".1%"),
        ],
    )
    # Room at the right for the numbers.
    scale = alt.Scale(domain=[0, longest * 1.3])
    bar = base.mark_bar(color=TEAL, cornerRadiusEnd=3, height={"band": 0.68}).encode(
        x=alt.X(f"{value}:Q", axis=None, scale=scale)
    )
    text = base.mark_text(align="left", dx=5, color=INK, fontSize=12).encode(
        x=alt.X(f"{value}:Q", scale=scale), text=alt.Text(f"{value}:Q", format=",")
    )
    return _finished(bar + text, height=max(90, ROW * frame.height))


def columns(frame: pl.DataFrame, name: str, value: str, title: str, axis: str) -> alt.LayerChart:
    """Vertical bars in the order of ``name``, with their numbers."""
    base = alt.Chart(frame).encode(
        x=alt.X(f"{name}:O", title=axis, axis=alt.Axis(labelAngle=0, labelOverlap=True, ticks=False)),
        tooltip=[alt.Tooltip(f"{name}:O", title=axis), alt.Tooltip(f"{value}:Q", title=title, format=",")],
    )
    bar = base.mark_bar(color=TEAL, cornerRadiusEnd=3).encode(
        y=alt.Y(f"{value}:Q", title=title, axis=alt.Axis(format=NUMBER, tickCount=4, domain=False, ticks=False))
    )
    return _finished(alt.layer(bar), height=260)


def trend(frame: pl.DataFrame, value: str, title: str) -> alt.LayerChart:
    """A value over months."""
    # A date without a time would be read as midnight in the zone of whoever looks.
    frame = frame.with_columns(pl.col("month").dt.strftime("%Y-%m-%dT00:00:00"))
    base = alt.Chart(frame).encode(
        x=alt.X("month:T", title=None, axis=alt.Axis(format="%Y", tickCount="year", grid=False)),
        y=alt.Y(f"{value}:Q", title=title, axis=alt.Axis(format=NUMBER, tickCount=5, domain=False, ticks=False)),
        tooltip=[
            alt.Tooltip("month:T", title="month", format="%B %Y"),
            alt.Tooltip(f"{value}:Q", title=title, format=","),
        ],
    )
    area = base.mark_area(color=PALE, line={"color": TEAL, "strokeWidth": 2}, interpolate="monotone")
    points = base.mark_point(opacity=0, size=200)
    return _finished(area + points, height=280)


def steps(frame: pl.DataFrame) -> alt.LayerChart:
    """A funnel: what share of all sessions came to each step."""
    labels = [f"{row['share']:.1%}  ·  {row['sessions']:,}" for row in frame.to_dicts()]
    frame = frame.with_columns(pl.lit(1.0).alias("whole"), pl.Series("label", labels, pl.String))
    base = alt.Chart(frame).encode(
        y=alt.Y("step:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False)),
        tooltip=[
            alt.Tooltip("step:N", title=" "),
            alt.Tooltip("sessions:Q", format=","),
            alt.Tooltip("share:Q", title="of all sessions", format=".1%"),
        ],
    )
    scale = alt.Scale(domain=[0, 1])
    whole = base.mark_bar(color=RULE, cornerRadius=3, height={"band": 0.7}).encode(
        x=alt.X("whole:Q", axis=None, scale=scale)
    )
    bar = base.mark_bar(color=TEAL, cornerRadius=3, height={"band": 0.7}).encode(
        x=alt.X("share:Q", axis=None, scale=scale)
    )
    text = base.mark_text(align="left", color="white", fontSize=12, fontWeight="bold", dx=8).encode(
        x=alt.datum(0, scale=scale), text="label:N"
    )
    return _finished(alt.layer(whole, bar, text), height=54 * frame.height)


def shipment_map(frame: pl.DataFrame) -> alt.LayerChart:
    """Where bookings go, on Indonesia's outline."""
    land = alt.Chart(alt.InlineData(values=_land())).mark_geoshape(fill="#E6E2D8", stroke="#CFC9BB", strokeWidth=0.6)
    points = (
        alt.Chart(frame)
        .mark_circle(color=TEAL, opacity=0.55, stroke="white", strokeWidth=0.3)
        .encode(
            longitude="longitude:Q",
            latitude="latitude:Q",
            size=alt.Size("bookings:Q", scale=alt.Scale(range=[6, 420]), legend=None),
            tooltip=[
                alt.Tooltip("bookings:Q", format=","),
                alt.Tooltip("latitude:Q", format=".2f"),
                alt.Tooltip("longitude:Q", format=".2f"),
            ],
        )
    )
    return _finished((land + points).project("mercator"), height=360)


def moments(frame: pl.DataFrame, value: str, title: str) -> alt.LayerChart:
    """Single moments in time and how much came with each."""
    frame = frame.with_columns(pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%S"))
    bar = (
        alt.Chart(frame)
        .mark_bar(color=AMBER, width=8, cornerRadiusEnd=2)
        .encode(
            x=alt.X("at:T", title="UTC", axis=alt.Axis(format="%H:%M:%S", labelOverlap=True, tickCount=5)),
            y=alt.Y(f"{value}:Q", title=title, axis=alt.Axis(format=NUMBER, tickCount=4, domain=False)),
            tooltip=[alt.Tooltip("at:T", format="%H:%M:%S"), alt.Tooltip(f"{value}:Q", title=title, format=",")],
        )
    )
    return _finished(alt.layer(bar), height=220)


def _finished(chart: alt.LayerChart, height: int) -> alt.LayerChart:
    return chart.properties(width="container", height=height).configure(**_FORMAT)


@cache
def _land() -> dict[str, object]:
    """Indonesia's outline, from Natural Earth's 1:50m countries (public domain), as packed by world-atlas 2.0.2.

    Rounded to hundredths of a degree, islands smaller than 0.01 square degrees left out.
    """
    shape = json.loads((Path(__file__).parent / "indonesia.json").read_text(encoding="utf-8"))
    # d3 takes the inside of a ring to lie at its left when it goes anticlockwise: files write it the other way.
    turned = [[ring if _clockwise(ring) else ring[::-1] for ring in polygon[:1]] for polygon in shape["coordinates"]]
    return {"type": "Feature", "geometry": {"type": "MultiPolygon", "coordinates": turned}, "properties": {}}


def _clockwise(ring: list[list[float]]) -> bool:
    pairs = zip(ring, [*ring[1:], ring[0]], strict=True)
    return sum((b[0] - a[0]) * (b[1] + a[1]) for a, b in pairs) > 0
