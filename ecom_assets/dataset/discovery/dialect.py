"""Whether a CSV file can be taken as it is: its encoding, its delimiter, its name, and the names of its columns.

What belongs here: a look at the beginning of a file, and what to do where it is something else. What does not: its
rows (``infer``), and the reader that a run uses, which follows the same dialect (RFC 4180).
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from ecom_assets.dataset.rules import COLUMN, TABLE

_HEAD = 1 << 18
"""Bytes to look at: a header and some rows."""

_OTHERS = {";": "';'", "\t": "a tab", "|": "'|'"}
"""Other delimiters, and what they are called."""


def stem(file: Path) -> str:
    """A file's name without ``.csv`` or ``.csv.gz``."""
    return re.sub(r"\.csv(\.gz)?$", "", file.name, flags=re.IGNORECASE)


def table_name(file: Path) -> str:
    """A name for the table that a file holds: that of the file, or one close to it that every system takes."""
    name = stem(file)
    if TABLE.fullmatch(name):
        return name
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", _plain(name)).strip("_.-")[:100] or "table"


def column_names(header: Sequence[str]) -> list[str]:
    """Names for the columns of a file: those of its header, or close to them; no two alike in lower case."""
    names: list[str] = []
    for place, text in enumerate(header, 1):
        name = text if COLUMN.fullmatch(text) and not text.startswith("_") else _proposed(text, place)
        taken = {each.lower() for each in names}
        free = (f"{name}_{count}" for count in itertools.count(2) if f"{name}_{count}".lower() not in taken)
        names.append(next(free) if name.lower() in taken else name)
    return names


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
    return list(_column_names(file, names))


def legal(name: str) -> str:
    """A name that Avro takes, close to another one."""
    text = re.sub(r"[^A-Za-z0-9_]", "_", _plain(name).strip())
    return text if re.match(r"[A-Za-z_]", text) else f"_{text}"


def _column_names(file: Path, names: list[str]) -> Iterator[str]:
    odd = [str(place) for place, name in enumerate(names, 1) if not name or "\n" in name or "\r" in name]
    if odd:
        yield f"{file}, line 1: expected a name for every column, found none for {', '.join(odd)}; name them"
    twice = [name for name, count in Counter(filter(None, names)).items() if count > 1]
    if twice:
        yield (
            f"{file}, line 1: expected column names that differ, found {', '.join(map(repr, twice))} again; rename them"
            " in the header"
        )


def _plain(name: str) -> str:
    """A name without accents."""
    return "".join(each for each in unicodedata.normalize("NFKD", name) if not unicodedata.combining(each))


def _proposed(name: str, place: int) -> str:
    text = re.sub("_+", "_", legal(name)).strip("_")
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
