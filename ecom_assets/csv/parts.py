"""The parts of a table: its first file and that of each delivery, in order, and how many of them a layer holds.

What belongs here: deciding what is new for a layer, so that its cost follows that. What does not: what a delivery is
(``core.delivery``) and what a layer makes of a part.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from ecom_assets.core import delivery
from ecom_assets.core.books import Build
from ecom_assets.core.context import Context
from ecom_assets.core.layer import Built
from ecom_assets.core.settings import Settings
from ecom_assets.csv import states
from ecom_assets.csv.plan import raw_file
from ecom_assets.dataset.model import Table

N = TypeVar("N")

FIRST = 0
"""Sequence of the first file."""


@dataclass(frozen=True)
class Part:
    """A raw file of a table.

    Attributes:
        sequence: That of its delivery; ``FIRST`` of the file that the home was begun with.
        path: Where it is stored in the home.
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
    later = {sequence: states.size_and_time(state) for sequence, state in delivery.states(table, settings).items()}
    return _named({FIRST: states.file_state(raw_file(table, settings))} | later)


def _named(files: Mapping[int, str]) -> list[str]:
    return chain([[sequence, state] for sequence, state in files.items()])


def chain(contents: Sequence[Any]) -> list[str]:
    """Names of ever more of some contents, each with a name that JSON can hold: equal names, equal contents.

    So one short name stands for all that came so far, and shows what was added since.
    """
    if not contents:
        return []
    key = json.dumps(contents[0])
    with _naming:
        before, names = _chains.pop(key, ([], []))
    same = next((n for n, (a, b) in enumerate(zip(before, contents, strict=False)) if a != b), len(before))
    names = names[: min(same, len(contents))]
    for number, content in enumerate(contents[len(names) :], len(names) + 1):
        names.append(f"{number}:{states.digest(names[-1] if names else '', content)}")
    with _naming:
        _chains[key] = list(contents), names
        if len(_chains) > KEPT_CHAINS:
            _chains.popitem(last=False)
    return list(names)


KEPT_CHAINS = 256
_chains: OrderedDict[str, tuple[list[Any], list[str]]] = OrderedDict()
"""First content -> the contents that were named last, and their names: a run asks many times, of ever more of them."""
_naming = Lock()
"""Held while they change."""


def counted(position: str) -> int:
    """How many contents a position names; 0 if it is not one of ``chain``."""
    number = position.partition(":")[0]
    return int(number) if number.isdecimal() else 0


def behind(names: Sequence[str], position: str) -> int | None:
    """How many of the contents a position covers; ``None`` if it is of other ones."""
    return names.index(position) + 1 if position in names else None


def by_sequence(names: Iterable[N], sequence: Callable[[N], int]) -> dict[int, list[N]]:
    """What a layer holds of the first files and of each delivery, in order; the former may be nothing."""
    found: dict[int, list[N]] = {FIRST: []}
    for name in names:
        found.setdefault(sequence(name), []).append(name)
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class Held:
    """How many of a table's parts a layer holds, as the books have it, and how they were when a build began.

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

    @cached_property
    def _parts(self) -> list[Part]:
        return parts(self.table, self.at.settings)

    @cached_property
    def _chain(self) -> list[str]:
        return _named({part.sequence: states.file_state(part.path) for part in self._parts})

    def missing(self, *, rebuild: bool) -> list[Part]:
        """The parts that the layer does not hold, in order; all if it was built from others, or with other inputs.

        Args:
            rebuild: All in any case.
        """
        known = self.at.books.state(self._key)
        if rebuild or not known or known["inputs"] != self.inputs:
            return self._parts
        return self._parts[behind(self._chain, known["position"]) or 0 :]

    def record(self, part: Part, built: Built) -> None:
        """Record that the layer holds all parts up to one, and what was done for that one."""
        position = self._chain[self._parts.index(part)]
        self.at.books.set_state(self._key, {"inputs": self.inputs, "position": position})
        build = Build(self.layer, self.table.name, position, rows=built.rows, notes=built.notes)
        self.at.books.record_build(build, str(part.sequence))

    @property
    def _key(self) -> str:
        return f"{self.layer}/{self.table.name}/parts"
