"""Whether a CSV file can be taken as it is: its encoding, its delimiter, its name, and the names of its columns.

What belongs here: a look at the beginning of a file, and what to do where it is something else. What does not: its
rows (``infer``), and the reader that a run uses, which follows the same dialect (RFC 4180).
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ecom_assets.dataset.rules import COLUMN, TABLE

_HEAD = 1 << 18
"""Bytes to look at: a header and some rows."""

_OTHERS = {";": "';'", "\t": "a tab", "|": "'|'"}
"""Other delimiters, and what they are called."""


def table_name(file: Path) -> str:
    """The table that a file holds: its name without ``.csv`` or ``.csv.gz``."""
    return re.sub(r"\.csv(\.gz)?$", "", file.name, flags=re.IGNORECASE)


def header(file: Path) -> list[str]:
    """The names in the first line of a file.

    Raises:
        ValueError: There is no such line, or it is not UTF-8.
        OSError: The file cannot be read.
    """
    if found := encoding(file, _HEAD):
        raise ValueError(f"{file}: expected text in UTF-8, found {found}; convert the file")
    names = _names(_head(file), ",")
    if not names:
        raise ValueError(f"{file}: expected a first line with column names, found none; add a header")
    return names


def faults(file: Path) -> list[str]:
    """What keeps a file from being a table; empty if nothing does.

    Raises:
        OSError: The file cannot be read.
    """
    try:
        names = header(file)
    except ValueError as error:
        return [str(error)]
    data = _head(file)
    for delimiter, called in _OTHERS.items():
        if (count := len(_names(data, delimiter))) > len(names):
            found = f"{called} ({count} columns split that way)"
            return [f"{file}: expected delimiter ',', found {found}; write the file again with commas"]
    return [*_file_name(file), *_column_names(file, names)]


def legal(name: str) -> str:
    """A name that Avro takes, close to another one."""
    text = re.sub(r"[^A-Za-z0-9_]", "_", name.strip())
    return text if re.match(r"[A-Za-z_]", text) else f"_{text}"


def _file_name(file: Path) -> Iterator[str]:
    name = table_name(file)
    if not TABLE.fullmatch(name):
        fitting = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).lstrip("_.-")[:100] or "table"
        yield (
            f"{file}: expected a file name of letters, digits, _, - and ., 100 at most, found {name!r};"
            f" rename it, to {fitting}.csv for example, or declare the table by hand, with its `file`"
        )


def _column_names(file: Path, names: list[str]) -> Iterator[str]:
    odd = [(place, name) for place, name in enumerate(names, 1) if not COLUMN.fullmatch(name) or name.startswith("_")]
    if odd:
        found = ", ".join(f"{name!r} (column {place}; {_proposed(name, place)} would do)" for place, name in odd)
        yield (
            f"{file}, line 1: expected column names of letters, digits and _ that begin with a letter, found {found};"
            " rename them in the header, or declare the table by hand, with a `header` for each of these columns"
        )
    folded = Counter(name.lower() for name in names)
    twice = [name for name in names if folded[name.lower()] > 1]
    if twice:
        yield (
            f"{file}, line 1: expected column names that differ in more than upper and lower case, found"
            f" {', '.join(map(repr, twice))}; rename them in the header"
        )


def _proposed(name: str, place: int) -> str:
    text = legal(name).strip("_")
    return text if COLUMN.fullmatch(text) else f"column_{text or place}"


def encoding(file: Path, most: int | None = None) -> str:
    """What a file is, if it is not UTF-8, and where that shows; empty if it is.

    Args:
        file: The file.
        most: How many bytes to look at, about; all of them by default.

    Raises:
        OSError: The file cannot be read.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    seen, line = 0, 1
    with _opened(file) as opened:
        while (most is None or seen < most) and (data := opened.read(_HEAD)):
            marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            if not seen and (marked or data[:400].count(0) > len(data[:400]) // 4):
                return "UTF-16"
            pending = decoder.getstate()[0]  # the beginning of a character that was cut off
            try:
                decoder.decode(data)
            except UnicodeDecodeError as error:
                line += data.count(b"\n", 0, max(0, error.start - len(pending)))
                return f"byte {(pending + data)[error.start]:#04x} in line {line:,}, which is Latin-1 or Windows-1252"
            seen += len(data)
            line += data.count(b"\n")
    return ""


def _opened(file: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb")


def _head(file: Path) -> bytes:
    with _opened(file) as opened:
        return opened.read(_HEAD)


def _names(data: bytes, delimiter: str) -> list[str]:
    text = codecs.getincrementaldecoder("utf-8-sig")().decode(data)
    return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
