"""How numbers look: one way of writing numbers, a function per kind of chart.

Takes frames and gives HTML, every bar an element with its number as a hint: a library for charts would take a browser
longer than all the rest of a page. Colors and sizes are in ``style.css``. Knows nothing of Streamlit.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, NamedTuple, assert_never

import polars as pl

from ecom_assets.dataset.chart import Bars, Chart, Columns, Funnel, Map, Table

DOT = 0.045
"""Width of a map's biggest dot, of the map's width."""

LABELS = 5
"""Labels below an axis of time at most; a phone has no room for more."""

TICKS = 16
"""Labels below other axes at most."""

Bar = tuple[float, float, str]
"""Of an upright bar: its middle in percent of the width, its value, and its tooltip."""

Label = tuple[float, str]
"""Of an axis: its middle in percent of the width, and its text."""

_SIZES = ((1e12, "tn"), (1e9, "bn"), (1e6, "m"), (1e3, "k"))


class Area(NamedTuple):
    """What a map shows, in degrees."""

    west: float
    south: float
    east: float
    north: float

    def place(self, longitude: float, latitude: float) -> tuple[float, float]:
        """A point, as shares of the map's width and height."""
        return (longitude - self.west) / (self.east - self.west), (self.north - latitude) / (self.north - self.south)


def number(value: Any) -> str:
    """A value as people read it: ``1,234``, ``0.50``, ``2026-11-30``, and a dash for a null."""
    match value:
        case None:
            return "–"
        case bool() | str():
            return str(value)
        case float():
            return f"{value:,.2f}"
        case int() | Decimal():
            return f"{value:,}"
    return str(value)


def short(amount: float) -> str:
    """A number in few digits: ``449.0 bn``."""
    for size, name in _SIZES:
        if abs(amount) >= size:
            return f"{amount / size:.1f} {name}"
    return f"{amount:,.0f}"


def summary(template: str, total: float, given: float) -> str:
    """The line above a chart."""
    text = escape(template).replace("{total}", f"<b>{short(total)}</b>").replace("{given}", f"<b>{given:.1%}</b>")
    return f'<p class="summary">{text}</p>'


def drawn(chart: Chart, frame: pl.DataFrame) -> str:
    """A chart as HTML; empty if there is nothing to draw.

    Args:
        chart: What it is.
        frame: Its numbers, from ``figures.shown``.
    """
    match chart:
        case Bars(x=x, y=y, unit=unit, most=most):
            return bars(frame, x, y, unit, most)
        case Columns(x=x, y=y, unit=unit):
            return columns(frame, x, y, unit)
        case Funnel():
            return steps(frame)
        case Map(x=x, y=y, size=size, unit=unit, outline=outline):
            return dots(frame.select(x, y, size), unit, outline)
        case Table(columns=headings, by=by):
            return rows(frame, headings, by)
    assert_never(chart)


def bars(frame: pl.DataFrame, name: str, value: str, unit: str, most: int = 12) -> str:
    """Horizontal bars with their numbers, the biggest above; beyond ``most`` the rest is one bar.

    Args:
        frame: ``name`` and ``value``, the biggest first.
        name: Column of the names.
        value: Column of the numbers.
        unit: What is counted.
        most: Bars shown.
    """
    found: list[tuple[str, int]] = frame.select(name, value).rows()
    if len(found) > most:
        rest = found[most - 1 :]
        found = [*found[: most - 1], (f"{len(rest)} others", sum(n for _, n in rest))]
    if not found:
        return ""
    total = sum(n for _, n in found) or 1
    # Room at the right for the numbers.
    width = 72 / (max(n for _, n in found) or 1)
    drawn = (
        f'<tr title="{number(n)} {escape(unit)}, {n / total:.1%}"><th scope="row">{escape(text)}</th>'
        f'<td><i style="width:{n * width:.1f}%"></i>{number(n)}</td></tr>'
        for text, n in found
    )
    return f'<table class="bars">{"".join(drawn)}</table>'


def columns(frame: pl.DataFrame, name: str, value: str, unit: str) -> str:
    """Upright bars in the order of ``name``; of times, months or days without a value keep their place."""
    found = frame.select(name, value).rows()
    if not found:
        return ""
    if frame.schema[name].is_temporal():
        return _over_time(found, unit)
    step = 100 / len(found)
    at = [(place + 0.5) * step for place in range(len(found))]
    called = name.replace("_", " ")
    points = [(x, n, f"{called} {key}: {number(n)} {unit}") for x, (key, n) in zip(at, found, strict=True)]
    labels = [(x, str(key)) for x, (key, _) in zip(at, found, strict=True)]
    return _plot(points, f"{step * 0.8:.2f}%", labels[:: math.ceil(len(labels) / TICKS)], unit)


def _over_time(found: Sequence[tuple[date, float]], unit: str) -> str:
    """Bars at their months, or at their days where these are not all the first of a month."""
    monthly = all(day.day == 1 for day, _ in found)

    def ordinal(day: date) -> int:
        return day.year * 12 + day.month if monthly else day.toordinal()

    first, last = ordinal(found[0][0]), ordinal(found[-1][0])
    step = 100 / (last - first + 1)

    def place(day: date) -> float:
        return (ordinal(day) - first + 0.5) * step

    form = "{:%B %Y}" if monthly else "{:%d %B %Y}"
    points = [(place(day), n, f"{form.format(day)}: {number(n)} {unit}") for day, n in found]
    years = [date(year, 1, 1) for year in range(found[0][0].year, found[-1][0].year + 1)]
    labels = [(place(day), str(day.year)) for day in years if first <= ordinal(day) <= last]
    if len(labels) < 2:
        brief = "{:%b %Y}" if monthly else "{:%d %b}"
        labels = [(place(day), brief.format(day)) for day, _ in found[:: math.ceil(len(found) / LABELS)]]
    return _plot(points, f"{step * 0.8:.2f}%", labels, unit)


def moments(frame: pl.DataFrame, value: str, unit: str) -> str:
    """Single moments in time and how much came with each."""
    found = frame.select("at", value).sort("at").rows()
    if not found:
        return ""
    first = found[0][0]
    span = max(found[-1][0] - first, timedelta(seconds=1))

    def place(part: float) -> float:
        return 10 + 80 * part  # labels at the ends are not cut off

    points = [(place((at - first) / span), n, f"{at:%d %b %H:%M:%S} UTC: {n:,} {unit}") for at, n in found]
    labels = [(place(part), f"{first + span * part:%H:%M:%S}") for part in (0, 0.5, 1)]
    return _plot(points, "8px", labels, f"{unit}, by time in UTC")


def steps(frame: pl.DataFrame) -> str:
    """A funnel: what share of the whole came to each ``step``."""
    if not frame["came"].sum():
        return ""
    drawn = (
        f"<dt>{escape(step)}<span><b>{share:.1%}</b> · {number(came)}</span></dt>"
        f'<dd><i style="width:{share:.2%}"></i></dd>'
        for step, came, share in frame.select("step", "came", "share").rows()
    )
    return f'<dl class="steps">{"".join(drawn)}</dl>'


def dots(frame: pl.DataFrame, unit: str, outline: str = "") -> str:
    """Dots on a map, their area by their number.

    Args:
        frame: Longitude, latitude and number.
        unit: What is counted.
        outline: File with the land below them; without it, the map shows where the dots are.
    """
    found = frame.rows()
    if not found:
        return ""
    area = _land(outline)[0] if outline else _around([(x, y) for x, y, _ in found])
    image = _land(outline)[1] if outline else _image(area, "")
    most = max(n for *_, n in found) or 1
    drawn = []
    for longitude, latitude, n in found:
        left, top = area.place(longitude, latitude)
        drawn.append(
            f'<i style="left:{left:.2%};top:{top:.2%};width:{DOT * math.sqrt(n / most):.2%}"'
            f' title="{number(n)} {escape(unit)} at {latitude:.2f}, {longitude:.2f}"></i>'
        )
    return f'<div class="map"><img src="{image}" alt="Map">{"".join(drawn)}</div>'


def rows(frame: pl.DataFrame, headings: Mapping[str, str], by: str = "") -> str:
    """Rows as they are; behind the numbers of one column, a bar.

    Args:
        frame: The rows.
        headings: Column -> what people call it; the name itself where it has none.
        by: The column with bars.
    """
    if frame.is_empty():
        return ""
    of_number = {name for name, kind in frame.schema.items() if kind.is_numeric()}
    most = max((float(value or 0) for value in frame[by]), default=0.0) or 1.0 if by in of_number else 1.0

    def cell(name: str, value: Any) -> str:
        bar = (
            f' style="background-size:{max(0.0, float(value or 0)) / most:.1%} 70%"'
            if name == by and by in of_number
            else ""
        )
        return f"<td{' class=n' * (name in of_number)}{bar}>{escape(number(value))}</td>"

    head = "".join(
        f'<th scope="col"{" class=n" * (name in of_number)}>{escape(headings.get(name) or name.replace("_", " "))}</th>'
        for name in frame.columns
    )
    body = "".join(
        f"<tr>{''.join(cell(name, value) for name, value in row.items())}</tr>" for row in frame.iter_rows(named=True)
    )
    return f'<div class="rows"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(values: Mapping[str, Any]) -> str:
    """One row: each name with its value."""
    drawn = (f"<div><dt>{escape(name)}</dt><dd>{escape(number(v))}</dd></div>" for name, v in values.items())
    return f'<dl class="facts">{"".join(drawn)}</dl>'


def _plot(points: Sequence[Bar], width: str, labels: Iterable[Label], title: str) -> str:
    """Upright bars over an axis with labels, before lines with numbers."""
    most = max((n for _, n, _ in points), default=0) or 1
    size = 10 ** math.floor(math.log10(most / 4))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor * 4 >= most)
    if all(isinstance(n, int) for _, n, _ in points):
        step = max(1, step)
    top = math.ceil(most / step) * step
    lines = (f'<hr style="bottom:{n * step / top:.2%}">' for n in range(round(top / step) + 1))
    numbers = (f'<b style="bottom:{n * step / top:.2%}">{_tick(n * step)}</b>' for n in range(round(top / step) + 1))
    bars = (
        f'<i style="left:{x:.2f}%;width:{width};height:{n / top:.2%}" title="{escape(text)}"></i>'
        for x, n, text in points
    )
    axis = (f'<span style="left:{x:.2f}%">{escape(text)}</span>' for x, text in labels)
    parts = (part for of in (lines, numbers, bars, axis) for part in of)
    return f'<small>{escape(title)}</small><div class="plot">{"".join(parts)}</div>'


def _tick(number: float) -> str:
    """A number of an axis: ``1.5 m``."""
    for size, name in _SIZES:
        if number >= size:
            return f"{number / size:g}{name if name == 'k' else ' ' + name}"
    return f"{number:g}"


@cache
def _land(outline: str) -> tuple[Area, str]:
    """An outline: the area around it, and an image of it."""
    shape = json.loads(Path(outline).read_text(encoding="utf-8"))
    rings = [polygon[0] for polygon in shape["coordinates"]]
    area = _around([point for ring in rings for point in ring])
    return area, _image(area, "".join(f"M{' '.join(f'{x:g},{-y:g}' for x, y in ring)}z" for ring in rings))


def _around(points: Sequence[Sequence[float]]) -> Area:
    """The area of some points, with a degree more on each side."""
    longitudes, latitudes = [x for x, _ in points], [y for _, y in points]
    return Area(min(longitudes) - 1, min(latitudes) - 1, max(longitudes) + 1, max(latitudes) + 1)


def _image(area: Area, land: str) -> str:
    """A map as an image, in light or dark as the page is; a degree of longitude as wide as in the map's middle."""
    width, height = area.east - area.west, area.north - area.south
    scale = max(0.1, math.cos(math.radians((area.north + area.south) / 2)))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width * scale * 20:.0f}" height="{height * 20:.0f}"'
        f' viewBox="{area.west:g} {-area.north:g} {width:g} {height:g}" preserveAspectRatio="none">'
        "<style>path{fill:#E6E2D8;stroke:#CFC9BB}"
        "@media(prefers-color-scheme:dark){path{fill:#39424E;stroke:#4B5563}}</style>"
        f'<path stroke-width="0.05" d="{land}"/></svg>'
    )
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
