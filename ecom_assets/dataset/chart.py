"""How the result of a query is shown: the kinds of charts, and what each of them takes.

What belongs here: the form of a chart in a query's header, which ``docs/charts.md`` explains with examples. What does
not: where the header is read (``query``), and how a chart is drawn (``dashboard.charts``).
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ecom_assets.dataset.form import Form

Summary = Annotated[str, Field(pattern=r"^([^{}]|\{total\}|\{given\})*$")]
Labels = Annotated[dict[str, str], Field(min_length=1)]


class _Chart(Form):
    note: str = ""
    """A sentence in small print, below the title."""
    section: str = ""
    """Heading that it is shown under, with all others that name the same."""
    order: int | None = None
    """Place on the page, a section's by its first chart; charts without come last."""
    width: Literal["1/4", "1/3", "2/5", "1/2", "3/5", "2/3", "3/4", "full"] = "full"
    """Share of the page's width; charts that fit next to one another are."""

    @property
    def share(self) -> Fraction:
        """Its width, 1 for the page's."""
        return Fraction(1) if self.width == "full" else Fraction(self.width)

    @property
    def columns_used(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Where a column of the result is named, and which."""
        for name, value in self:
            if name in _COLUMNS and value:
                yield (name,), value
            elif name in _LABELS:
                yield from (((name, column), column) for column in value)

    def is_number(self, where: tuple[str, ...]) -> bool:
        """Whether the column that is named there holds numbers."""
        return where[0] in self._numbers

    _numbers: ClassVar = frozenset({"y", "size", "of", "by", "steps"})
    """Fields that name columns of numbers."""


class _Summed(_Chart):
    x: str
    """Column with what each bar is for; rows of one value are added up."""
    y: str
    """Column with the numbers."""
    unit: str
    """What the numbers count, as a word that follows them: `loans`, `EUR`."""
    summary: Summary = ""
    """A line above the chart: `{total}` is the sum, `{given}` the share of it that is not of a null in `x`."""


class Bars(_Summed):
    """Horizontal bars, the longest first: shares by name."""

    kind: Literal["bars"]
    """`bars`"""
    most: Annotated[int, Field(ge=2)] = 12
    """Bars at most; beyond, the rest is one bar."""
    nulls: bool = True
    """Whether rows without a value in `x` are a bar, too."""


class Columns(_Summed):
    """Upright bars in the order of `x`: numbers over time, or over steps of a number."""

    kind: Literal["columns"]
    """`columns`"""


class Funnel(_Chart):
    """How much of a whole comes to each step."""

    kind: Literal["funnel"]
    """`funnel`"""
    steps: Labels
    """Column with the number that came to a step -> what the step is called, in order."""
    of: str
    """Column with the whole."""


class Map(_Chart):
    """Dots on a map, their area by a number."""

    kind: Literal["map"]
    """`map`"""
    x: str
    """Column with the longitude, in degrees."""
    y: str
    """Column with the latitude, in degrees."""
    size: str
    """Column with the numbers; rows of one place are added up."""
    unit: str
    """What the numbers count."""
    _numbers: ClassVar = frozenset({"x", "y", "size"})

    outline: str = ""
    """GeoJSON of one MultiPolygon, the land below the dots: a file next to dataset.yaml."""


class Table(_Chart):
    """Rows as they are."""

    kind: Literal["table"] = "table"
    """`table`"""
    columns: dict[str, str] = Field(default_factory=dict)
    """Columns shown -> their headings, in order; all if not given."""
    by: str = ""
    """Column by whose numbers rows are sorted, the greatest first, with a bar behind them; the result's own order if
    not given."""
    rows: Annotated[int, Field(ge=1, le=1000)] = 200
    """Rows at most."""


Chart = Annotated[Bars | Columns | Funnel | Map | Table, Field(discriminator="kind")]

KINDS: tuple[type[_Chart], ...] = (Bars, Columns, Funnel, Map, Table)
"""All kinds, in the order in which they are explained."""

_COLUMNS = {"x", "y", "size", "of", "by"}
"""Fields that name a column."""

_LABELS = {"steps", "columns"}
"""Fields that name columns, and what people call them."""
