"""Files of a declaration, read so that each value still knows its line, and the faults found in them.

What belongs here: reading YAML, JSON and the headers of SQL files, and naming places in them. What does not: what the
values mean (``declaration``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Self

import yaml

_COMMENT = re.compile(r"--[ ]?")

Key = tuple[str | int, ...]
"""The names and positions that lead to a value: ``("tables", "book", "primary_key", 0)``."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a declaration.

    Attributes:
        where: File and line.
        field: The value, as ``tables.book.primary_key``; empty for the file as a whole.
        message: What was expected, and what came.
        remedy: What to do, as a clause; empty where the message includes it.
    """

    where: str
    field: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.where, self.field, self.message))) + (
            f"; {self.remedy}" * bool(self.remedy)
        )


class DatasetError(ValueError):
    """A declaration that cannot be used; lists all of its faults at once.

    Attributes:
        faults: What is wrong with it.
    """

    def __init__(self, folder: Path, faults: Sequence[Fault]) -> None:
        count = "one fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__("\n  ".join([f"data set in {folder}: {count}", *map(str, faults)]))
        self.faults = tuple(faults)


@dataclass(frozen=True)
class Document:
    """A file's values, and the line of each.

    Attributes:
        file: The file.
        values: What it holds: mappings, lists, texts, numbers.
        faults: Why it could not be read, or not all of it.
    """

    file: Path
    values: Any = None
    faults: tuple[Fault, ...] = ()
    _lines: dict[Key, int] = field(default_factory=dict, repr=False)

    @classmethod
    def yaml(cls, file: Path) -> Self:
        """Read a YAML file."""
        return cls._read(file, cls._of_yaml)

    @classmethod
    def json(cls, file: Path) -> Self:
        """Read a JSON file."""
        return cls._read(file, cls._of_json)

    @classmethod
    def sql(cls, file: Path) -> Self:
        """Read an SQL file: the values of the comment that it begins with, which is YAML, and its text as ``""``."""
        return cls._read(file, cls._of_sql)

    @classmethod
    def _read(cls, file: Path, parse: Callable[[Path, str], Self]) -> Self:
        try:
            return parse(file, file.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            fault = Fault(str(file), "", f"expected UTF-8, got {error.reason} at byte {error.start:,}")
        except OSError as error:
            fault = Fault(str(file), "", f"expected a file, got: {error.strerror}")
        return cls(file, faults=(fault,))

    @classmethod
    def _of_yaml(cls, file: Path, text: str) -> Self:
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            if root is None:
                return cls(file, faults=(Fault(str(file), "", "expected a declaration, got an empty file"),))
            lines = dict(_lines(root))
            repeated = tuple(
                Fault(f"{file}:{line}", _name(key), "expected each name once, got it again", "take one of the two out")
                for key, line in _repeated(root)
            )
            return cls(file, yaml.SafeLoader("").construct_document(root), repeated, lines)
        except yaml.YAMLError as error:
            return cls(file, faults=(_not_parsed(file, "YAML", error),))

    @classmethod
    def _of_json(cls, file: Path, text: str) -> Self:
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            return cls(file, faults=(Fault(f"{file}:{error.lineno}", "", f"expected JSON, got {error.msg}"),))
        try:  # nearly all JSON is YAML, whose parser knows lines
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            return cls(file, values, (), dict(_lines(root)) if root else {})
        except yaml.YAMLError:
            return cls(file, values)

    @classmethod
    def _of_sql(cls, file: Path, text: str) -> Self:
        lines = text.splitlines(keepends=True)
        comment = list(takewhile(_COMMENT.match, lines))
        if not comment:
            return cls(file, {"": text}, (), {(): 1})
        header = cls._of_yaml(file, "".join(_COMMENT.sub("", line, count=1) for line in comment))
        if header.faults:
            return header
        if not isinstance(header.values, dict):
            fault = header.fault((), "expected lines `-- name: value` at the top, got another comment")
            return cls(file, faults=(fault,))
        return replace(header, values=header.values | {"": "".join(lines[len(comment) :])})

    def fault(self, key: Key, message: str, remedy: str = "") -> Fault:
        """A fault at a value, or where the nearest one around it is."""
        around = next((key[:n] for n in range(len(key), -1, -1) if key[:n] in self._lines), None)
        line = f":{self._lines[around]}" if around is not None else ""
        return Fault(f"{self.file}{line}", _name(key), message, remedy)


def _not_parsed(file: Path, kind: str, error: yaml.YAMLError) -> Fault:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return Fault(f"{file}:{mark.line + 1}" if mark else str(file), "", f"expected {kind}, got {problem}")


def _lines(node: yaml.Node, key: Key = ()) -> Iterator[tuple[Key, int]]:
    yield key, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from _lines(value, (*key, str(name.value)))
            yield (*key, str(name.value)), name.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            yield from _lines(value, (*key, position))


def _repeated(node: yaml.Node, key: Key = ()) -> Iterator[tuple[Key, int]]:
    """Names that a mapping has more than once, of which YAML would keep the last without a word."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for name, value in node.value:
            inner = (*key, str(name.value))
            if name.value in seen:
                yield inner, name.start_mark.line + 1
            seen.add(name.value)
            yield from _repeated(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            yield from _repeated(value, (*key, position))


def _name(key: Iterable[str | int]) -> str:
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")
