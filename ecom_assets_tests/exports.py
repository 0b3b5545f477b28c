"""A shop that exports its rows to a folder, and more of them each day."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from uuid import uuid4

from ecom_assets.source import synthetic
from ecom_assets_tests.tables import TABLES

FRESH: dict[str, Callable[[int], str]] = {
    "customer": lambda number: str(1_000_000 + number),
    "product": lambda number: str(1_000_000 + number),
    "click_stream": lambda _: str(uuid4()),
}
"""Table -> a key that no row has yet."""


class Shop:
    """A folder of exports that gets a folder more each day.

    Args:
        folder: The folder, empty.
        scale: Size of the first files.
        day: What each further folder is called.
    """

    def __init__(self, folder: Path, scale: float = 0.001, day: str = "2026-12-{:02}") -> None:
        self.folder, self.day, self.days = folder, day, 0
        synthetic.generate(folder, scale, 7)
        self.lines = {
            name: (folder / table.csv).read_bytes().splitlines(keepends=True) for name, table in TABLES.items()
        }
        self.sent = {name: len(lines) - 1 for name, lines in self.lines.items()}

    def deliver(self, rows: int, *tables: str, further: bytes = b"") -> Path:
        """Write the files of a day, rows as they came before, under keys of their own; returns its folder."""
        self.days += 1
        day = self.folder / self.day.format(self.days)
        day.mkdir()
        for name in tables:
            key, lines = TABLES[name].names.index(TABLES[name].primary_key[0]), self.lines[name]
            made = []
            for number in range(rows):
                fields = lines[1 + number % (len(lines) - 1)].split(b",")
                fields[key] = FRESH[name](self.sent[name] + number).encode()
                made.append(b",".join(fields))
            self.sent[name] += rows
            (day / TABLES[name].csv).write_bytes(b"".join([lines[0], *made]) + further)
        return day

    def changed(self, name: str, column: str, text: bytes, lines: Iterable[bytes]) -> bytes:
        """A file with some lines as they came before (without quotes), another text in one of their columns."""
        place, made = TABLES[name].names.index(column), [self.lines[name][0]]
        for line in lines:
            fields = line.rstrip(b"\n").split(b",")
            fields[place] = text
            made.append(b",".join(fields) + b"\n")
        return b"".join(made)

    def rows(self, name: str) -> int:
        """Rows that were sent, each once."""
        return self.sent[name]
