"""The parts of a table: its first file and that of each delivery, in order, and how many of them a layer holds.

What belongs here: deciding what is new for a layer, so that its cost follows that. What does not: what a delivery is
(``core.delivery``) and what a layer makes of a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecom_assets.core import delivery
from ecom_assets.core.books import Build
from ecom_assets.core.context import Context
from ecom_assets.core.layer import Built
from ecom_assets.core.settings import Settings
from ecom_assets.csv import states
from ecom_assets.csv.plan import raw_file
from ecom_assets.dataset.model import Table

FIRST = 0
"""Sequence of the first file."""


@dataclass(frozen=True)
class Part:
    """A raw file of a table.

    Attributes:
        sequence: That of its delivery; ``FIRST`` of the file that the home was begun with.
        path: Where it lies in the home.
        name: What it is called where it came from, for people.
    """

    sequence: int
    path: Path
    name: str


def parts(table: Table, settings: Settings) -> list[Part]:
    """The raw files of a table in order."""
    names = {
        each.sequence: file.origin.path + (f", from byte {file.begin}" if file.begin else "")
        for each in delivery.deliveries(settings)
        for file in each.files
        if file.table == table.name
    }
    later = [Part(n, path, names.get(n, path.name)) for n, path in delivery.files(table, settings).items()]
    return [Part(FIRST, raw_file(table, settings), table.csv), *later]


def raw_chain(table: Table, settings: Settings) -> list[str]:
    """Names of the first part, of the first two, and so on; see ``chain``.

    Raises:
        FileNotFoundError: There is no first file.
    """
    return chain([[part.sequence, states.file_state(part.path)] for part in parts(table, settings)])


def chain(contents: Sequence[Any]) -> list[str]:
    """Names of ever more of some contents, each with a name that JSON can hold: equal names, equal contents.

    So one short name stands for all that came so far, and shows what was added since.
    """
    names: list[str] = []
    for number, content in enumerate(contents, 1):
        names.append(f"{number}:{states.digest(names[-1] if names else '', content)}")
    return names


def counted(position: str) -> int:
    """How many contents a position names; 0 if it is not one of ``chain``."""
    number = position.partition(":")[0]
    return int(number) if number.isdecimal() else 0


def behind(names: Sequence[str], position: str) -> int | None:
    """How many of the contents a position covers; ``None`` if it is of other ones."""
    return names.index(position) + 1 if position in names else None


@dataclass(frozen=True)
class Held:
    """How many of a table's parts a layer holds, as the books have it.

    Attributes:
        at: The home.
        layer: Name of the layer.
        table: The table.
        inputs: Names what the layer is built from, next to the parts.
    """

    at: Context
    layer: str
    table: Table
    inputs: str

    @property
    def count(self) -> int:
        """How many, from the first on; 0 if the layer was built from others, or with other inputs."""
        known = self.at.books.state(self._key)
        if not known or known["inputs"] != self.inputs:
            return 0
        return behind(raw_chain(self.table, self.at.settings), known["position"]) or 0

    def record(self, number: int, built: Built) -> None:
        """Record a further part: how many there are now, and what was done for it."""
        position = raw_chain(self.table, self.at.settings)[number - 1]
        self.at.books.set_state(self._key, {"inputs": self.inputs, "position": position})
        part = parts(self.table, self.at.settings)[number - 1]
        build = Build(self.layer, self.table.name, position, rows=built.rows, notes=built.notes)
        self.at.books.record_build(build, str(part.sequence))

    @property
    def _key(self) -> str:
        return f"{self.layer}/{self.table.name}/parts"
