"""How numbers look: one way of writing numbers, a function per form of chart.

Takes frames and gives HTML, every bar an element with its number as a hint: a library for charts would take a browser
longer than all the rest of a page. Colours and sizes are in ``style.css``. Knows nothing of Streamlit.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import cache
from html import escape
from pathlib import Path

import polars as pl

WEST, EAST, NORTH, SOUTH = 94.0, 142.0, 7.0, -12.0
"""What the map shows, in degrees; as near to the equator, degrees are squares."""

DOT = 0.045
"""Width of the map's biggest dot, of the map's width."""

Bar = tuple[float, float, str]
"""Of an upright bar: its middle in percent of the width, its value, and its tooltip."""

Label = tuple[float, str]
"""Of an axis: its middle in percent of the width, and its text."""


def rupiah(amount: float) -> str:
    """An amount in IDR, short: ``Rp 449.0 bn``."""
    for size, name in ((1e12, "tn"), (1e9, "bn"), (1e6, "m"), (1e3, "k")):
        if abs(amount) >= size:
            return f"Rp {amount / size:.1f} {name}"
    return f"Rp {amount:.0f}"


def bars(frame: pl.DataFrame, name: str, value: str, title: str, most: int = 12) -> str:
    """Horizontal bars with their numbers, the biggest above; beyond ``most`` the rest is one bar.

    Args:
        frame: ``name`` and ``value``, the biggest first.
        name: Column of the names.
        value: Column of the numbers.
        title: What is counted.
        most: Bars shown.
    """
    rows: list[tuple[str, int]] = frame.select(name, value).rows()
    if len(rows) > most:
        rest = rows[most - 1 :]
        rows = [*rows[: most - 1], (f"{len(rest)} others", sum(n for _, n in rest))]
    total = sum(n for _, n in rows) or 1
    # Room at the right for the numbers.
    width = 72 / max((n for _, n in rows), default=1)
    drawn = (
        f'<tr title="{n:,} {escape(title)}, {n / total:.1%}"><th scope="row">{escape(text)}</th>'
        f'<td><i style="width:{n * width:.1f}%"></i>{n:,}</td></tr>'
        for text, n in rows
    )
    return f'<table class="bars">{"".join(drawn)}</table>'


def columns(frame: pl.DataFrame, name: str, value: str, title: str, axis: str) -> str:
    """Upright bars in the order of ``name``."""
    rows: list[tuple[int, int]] = frame.select(name, value).rows()
    step = 100 / max(1, len(rows))
    at = [(place + 0.5) * step for place in range(len(rows))]
    points = [(x, n, f"{axis} {key}: {n:,} {title}") for x, (key, n) in zip(at, rows, strict=True)]
    labels = [(x, str(key)) for x, (key, _) in zip(at, rows, strict=True)]
    return _plot(points, f"{step * 0.8:.2f}%", labels, title)


def trend(frame: pl.DataFrame, value: str, title: str) -> str:
    """A value over months."""
    rows = frame.select("month", value).sort("month").rows()
    if not rows:
        return ""
    # Months without a value keep their place.
    first = rows[0][0].year * 12 + rows[0][0].month
    step = 100 / (rows[-1][0].year * 12 + rows[-1][0].month - first + 1)
    points = [
        ((month.year * 12 + month.month - first + 0.5) * step, n, f"{month:%B %Y}: {n:,} {title}") for month, n in rows
    ]
    years = range(rows[0][0].year, rows[-1][0].year + 1)
    labels = [(at, str(year)) for year in years if 0 <= (at := (year * 12 + 1 - first + 0.5) * step) <= 100]
    return _plot(points, f"{step * 0.8:.2f}%", labels, title)


def moments(frame: pl.DataFrame, value: str, title: str) -> str:
    """Single moments in time and how much came with each."""
    rows = frame.select("at", value).sort("at").rows()
    if not rows:
        return ""
    first = rows[0][0]
    span = max(rows[-1][0] - first, timedelta(seconds=1))

    def place(part: float) -> float:
        return 10 + 80 * part  # labels at the ends are not cut off

    points = [(place((at - first) / span), n, f"{at:%d %b %H:%M:%S} UTC: {n:,} {title}") for at, n in rows]
    labels = [(place(part), f"{first + span * part:%H:%M:%S}") for part in (0, 0.5, 1)]
    return _plot(points, "8px", labels, f"{title}, by time in UTC")


def steps(frame: pl.DataFrame) -> str:
    """A funnel: what share of all sessions came to each step."""
    drawn = (
        f"<dt>{escape(step)}<span><b>{share:.1%}</b> · {sessions:,}</span></dt>"
        f'<dd><i style="width:{share:.2%}"></i></dd>'
        for step, sessions, share in frame.select("step", "sessions", "share").rows()
    )
    return f'<dl class="steps">{"".join(drawn)}</dl>'


def shipment_map(frame: pl.DataFrame) -> str:
    """Where bookings go, on Indonesia's outline: an area of a dot is its number."""
    rows = frame.select("latitude", "longitude", "bookings").rows()
    most = max((n for _, _, n in rows), default=1)
    dots = (
        f'<i style="left:{(lon - WEST) / (EAST - WEST):.2%};top:{(NORTH - lat) / (NORTH - SOUTH):.2%};'
        f'width:{DOT * math.sqrt(n / most):.2%}" title="{n:,} bookings at {lat:.2f}, {lon:.2f}"></i>'
        for lat, lon, n in rows
    )
    return f'<div class="map"><img src="{_land()}" alt="Indonesia">{"".join(dots)}</div>'


def ranking(frame: pl.DataFrame) -> str:
    """Products in their order: ``name``, ``category``, ``units``, ``amount``."""
    rows = frame.select("name", "category", "units", "amount").rows()
    most = max((amount for *_, amount in rows), default=1) or 1
    drawn = (
        f"<tr><td>{escape(name)}</td><td>{escape(category or '–')}</td><td>{units:,}</td>"
        f'<td style="background-size:{amount / most:.1%} 70%">{amount:,}</td></tr>'
        for name, category, units, amount in rows
    )
    head = "".join(f'<th scope="col">{text}</th>' for text in ("Product", "Category", "Units", "Revenue, IDR"))
    return f'<div class="ranking"><table><thead><tr>{head}</tr></thead><tbody>{"".join(drawn)}</tbody></table></div>'


def _plot(points: Sequence[Bar], width: str, labels: Iterable[Label], title: str) -> str:
    """Upright bars over an axis with labels, before lines with numbers."""
    most = max((n for _, n, _ in points), default=0) or 1
    size = 10 ** math.floor(math.log10(most / 4))
    step = max(1, next(size * factor for factor in (1, 2, 5, 10) if size * factor * 4 >= most))
    top = math.ceil(most / step) * step
    lines = (f'<hr style="bottom:{n * step / top:.2%}">' for n in range(round(top / step) + 1))
    numbers = (f'<b style="bottom:{n * step / top:.2%}">{_short(n * step)}</b>' for n in range(round(top / step) + 1))
    bars = (
        f'<i style="left:{x:.2f}%;width:{width};height:{n / top:.2%}" title="{escape(text)}"></i>'
        for x, n, text in points
    )
    axis = (f'<span style="left:{x:.2f}%">{escape(text)}</span>' for x, text in labels)
    parts = (part for of in (lines, numbers, bars, axis) for part in of)
    return f'<small>{escape(title)}</small><div class="plot">{"".join(parts)}</div>'


def _short(number: float) -> str:
    """A number of an axis: ``1.5 m``."""
    for size, name in ((1e12, " tn"), (1e9, " bn"), (1e6, " m"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{name}"
    return f"{number:g}"


@cache
def _land() -> str:
    """Indonesia's outline as an image, from Natural Earth's 1:50m countries (public domain), by world-atlas 2.0.2.

    Rounded to hundredths of a degree, islands smaller than 0.01 square degrees left out.
    """
    shape = json.loads((Path(__file__).parent / "indonesia.json").read_text(encoding="utf-8"))
    land = "".join(f"M{' '.join(f'{x:g},{-y:g}' for x, y in polygon[0])}z" for polygon in shape["coordinates"])
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{WEST:g} {-NORTH:g} {EAST - WEST:g} {NORTH - SOUTH:g}">'
        f'<path fill="#E6E2D8" stroke="#CFC9BB" stroke-width="0.05" d="{land}"/></svg>'
    )
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
