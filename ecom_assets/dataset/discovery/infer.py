"""An Avro schema for a CSV file that has none yet.

What belongs here: guessing columns, types and nulls from the text of a file. The rules are those of the files in
``schemas/``: integers are ``long``, everything else stays ``string`` so that no byte of the source is lost, and
``parsed_as`` names a typed companion column. What does not: keys (``candidates``) and references (``references``), for
which a survey can leave the hashes of each column in files.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from ecom_assets.dataset import kind as kinds
from ecom_assets.dataset.discovery import dialect, hashes
from ecom_assets.dataset.discovery.hashes import Hashes

_BLOCK_BYTES = 1 << 20  # with 8 MB blocks, what Arrow reads ahead took 530 MB

_SHORT_TOLERATED = 0.01
"""Share of rows that may have too few fields; a run quarantines such rows."""

_DIGITS, _SCALE = 18, 9
"""Digits of a decimal at most, and those of them behind the point; what has more is a double."""

_SPARE = 2
"""Digits that a decimal has in addition to those seen: tomorrow's amounts may be larger."""

LONGEST_KEY = 255
"""Bytes of a key at most; a column with a longer text is prose."""

_SUFFIX = {"decimal": "dec", "double": "num", "date": "date", "timestamp": "ts"}

_MOMENT = f"^{kinds.DAY}{kinds.TIME}"
_FORMS: dict[str, tuple[str, pa.DataType | None]] = {
    "long": (r"^(0|-?[1-9][0-9]*)$", pa.int64()),
    "decimal": (rf"^-?(0|[1-9][0-9]{{0,{_DIGITS - 1}}})(\.[0-9]{{1,{_SCALE}}})?$", None),
    # A whole number of more than 15 digits has no exact double.
    "double": (r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,300})?([eE][+-]?[0-9]{1,2})?$", pa.float64()),
    "date": (f"^{kinds.DAY}$", pa.date32()),
    "timestamp": (f"{_MOMENT}$", pa.timestamp("us")),
    "timestamp with zone": (f"{_MOMENT}{kinds.ZONE}$", pa.timestamp("us", "UTC")),
}
"""Kind -> what every value must look like, and the Arrow type it must also convert to.

The pattern keeps out what Arrow takes and we don't (007, +5, nan), the type what is no such value (2022-02-30, an
integer beyond 64 bits)."""

_WIDER = {"long": ("long", "decimal", "double"), "decimal": ("decimal", "double")}
"""Kind -> kinds that its values are of as well; itself alone if not listed."""


@dataclass(frozen=True)
class Column:
    """What is known of a column.

    Attributes:
        name: Its name.
        field: Its field of the schema.
        kind: ``long``, ``decimal``, ``double``, ``date``, ``timestamp`` or ``string``.
        nulls: Rows without a value.
        empty: Whether a value is an empty text.
        hashes: The hashes of its values; ``None`` if they were not wanted, or it is of a kind that is no key.
    """

    name: str
    field: dict[str, Any]
    kind: str
    nulls: int
    empty: bool
    hashes: Hashes | None

    @property
    def avro(self) -> str:
        """Its Avro type."""
        return "long" if self.kind == "long" else "string"


@dataclass(frozen=True)
class Survey:
    """What a look at a file found.

    Attributes:
        schema: Its Avro record schema.
        columns: Its columns.
        rows: Rows seen.
        short: Further rows, which have too few fields.
    """

    schema: dict[str, Any]
    columns: tuple[Column, ...]
    rows: int
    short: int


def infer(path: Path, rows: int | None = None) -> dict[str, Any]:
    """Guess the Avro record schema of a CSV file; arguments and errors are those of ``survey``."""
    return survey(path, rows).schema


def survey(
    path: Path, rows: int | None = None, store: Path | None = None, progress: Callable[[int], object] | None = None
) -> Survey:
    """Look at the rows of a CSV file.

    An empty field is a null; a quoted empty field is an empty text. Rows with more
    fields than the header result in ``"overflow": "last"``: surplus fields belong to
    the last column, which is then text.

    Args:
        path: The file, in UTF-8, with a header; ``.gz`` is unpacked.
        rows: How many rows to look at; all of them by default, in flat memory.
        store: A folder for the hashes of its columns.
        progress: Called with the bytes of the file read since the last call.

    Returns:
        The schema, as a file of ``schemas/``, and what else is known of the columns.

    Raises:
        ValueError: No header, too many rows with too few fields, or text that is not UTF-8 CSV.
        OSError: The file can't be read.
    """
    header = dialect.header(path)
    names = dialect.column_names(header)
    guesses = [_Guess(store / str(place) if store else None) for place in range(len(names))]
    uneven = _Uneven(len(names))
    seen = 0
    with ThreadPoolExecutor(2) as pool:
        for batch in _batches(path, len(names), uneven, progress):
            part = batch if rows is None else batch.slice(0, rows - seen)
            list(pool.map(_Guess.look, guesses, part.columns))
            seen += part.num_rows
            if rows is not None and seen >= rows:
                break
    if uneven.short > _SHORT_TOLERATED * (seen + uneven.short):
        raise ValueError(
            f"{path}: expected CSV with at least {len(names)} fields per row, as in the header, found {uneven.short:,}"
            f" of {seen + uneven.short:,} rows with fewer; correct these rows, or the header"
        )
    schema: dict[str, Any] = {
        "type": "record",
        "name": dialect.legal(path.name.split(".")[0]),
        "namespace": "ecom",
        "doc": f"Inferred from {seen} rows of {path.name}.",
    }
    if uneven.surplus:
        guesses[-1].kinds.clear()
        schema["overflow"] = "last"
    taken = set(names)
    columns = tuple(guess.column(name, taken, seen) for guess, name in zip(guesses, names, strict=True))
    named = [_with_header(column.field, text) for column, text in zip(columns, header, strict=True)]
    fields = [{"name": field["name"], "field-id": number} | field for number, field in enumerate(named, 1)]
    return Survey(schema | {"fields": fields}, columns, seen, uneven.short)


def _with_header(field: dict[str, Any], header: str) -> dict[str, Any]:
    """A field of the schema with the name that its column has in the file, if that is another."""
    return field if field["name"] == header else {"name": field["name"], "header": header, **field}


def render(schema: dict[str, Any]) -> str:
    """The schema as JSON with one field per line, as in ``schemas/``."""
    head = [f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}," for k, v in schema.items() if k != "fields"]
    fields = ",\n".join(f"    {json.dumps(field, ensure_ascii=False)}" for field in schema["fields"])
    return "\n".join(["{", *head, '  "fields": [', fields, "  ]", "}"])


class _Guess:
    """What the values of one column still allow.

    Args:
        store: The file for their hashes, if they are wanted.
    """

    def __init__(self, store: Path | None) -> None:
        self.kinds = list(_FORMS)
        self.nulls = self._whole = self._scale = 0
        self.filled = self.empty = False
        self._path = store
        self._store: BinaryIO | None = store.open("wb") if store else None

    def look(self, values: pa.Array) -> None:
        """Take note of some more values."""
        self.nulls += values.null_count
        present = values.drop_null() if values.null_count else values
        if len(present):
            self.filled = True
            self._narrow(present)
            self._measure(present)
        if self._store is not None:
            hashes.of_values(values).tofile(self._store)

    def column(self, name: str, taken: set[str], rows: int) -> Column:
        """The column as it is described; the name of its companion is added to ``taken``."""
        kind = next(iter(self.kinds), "string").removesuffix(" with zone") if self.filled else "string"
        if kind == "decimal" and not self._scale:  # such as -0, which is no integer's text
            kind = "double"
        avro = "long" if kind == "long" else "string"
        nullable = bool(self.nulls) or not self.filled
        field: dict[str, Any] = {"name": name, "type": ["null", avro] if nullable else avro, "doc": ""}
        if nullable:
            field["default"] = None
        if kind in _SUFFIX:
            typed = f"{name}_{_SUFFIX[kind]}"
            while typed in taken:
                typed += "_"
            taken.add(typed)
            digits = f"({self._whole + self._scale + _SPARE},{self._scale})"
            field["parsed_as"] = {"name": typed, "type": kind + digits if kind == "decimal" else kind}
        found = self._finish(rows) if _may_be_key(kind) else None
        return Column(name, field, kind, self.nulls, self.empty, found)

    def _narrow(self, present: pa.Array) -> None:
        """Drop the kinds that some values are not of."""
        for place, kind in enumerate(self.kinds):
            if self._fits(kind, present):
                # What fits a kind fits its wider ones, and no other.
                self.kinds = [k for k in self.kinds[place:] if k in _WIDER.get(kind, (kind,))]
                return
        self.kinds = []

    def _fits(self, kind: str, present: pa.Array) -> bool:
        pattern, arrow = _FORMS[kind]
        if not pc.all(pc.match_substring_regex(present, pattern)).as_py():
            return False
        if kind == "decimal":
            length = pc.subtract(pc.binary_length(present), pc.starts_with(present, "-").cast(pa.int32()))
            point = pc.find_substring(present, ".")  # -1 if there is none
            fraction = pc.if_else(pc.less(point, 0), 0, pc.subtract(pc.binary_length(present), pc.add(point, 1)))
            whole = pc.subtract(length, pc.if_else(pc.less(point, 0), 0, pc.add(fraction, 1)))
            self._scale = max(self._scale, pc.max(fraction).as_py())
            self._whole = max(self._whole, pc.max(whole).as_py())
            return self._whole + self._scale <= _DIGITS
        if kind == "double" and self._whole > 15:
            return False
        converted = _cast(present, arrow) if arrow else present
        if kind == "long" and converted is not None:
            span = pc.min_max(converted).as_py()
            self._whole = max(self._whole, *(len(str(abs(number))) for number in span.values()))
        return converted is not None

    def _measure(self, present: pa.Array) -> None:
        """See whether the column is still one that can be a key, or part of one."""
        span = pc.min_max(pc.binary_length(present)).as_py()
        self.empty |= span["min"] == 0
        kind = next(iter(self.kinds), "string")
        if self._store is not None and (span["max"] > LONGEST_KEY or not _may_be_key(kind)):
            self._finish(0)
            self._path = None

    def _finish(self, rows: int) -> Hashes | None:
        if self._store is not None:
            self._store.close()
            self._store = None
        return Hashes((self._path,), rows) if self._path else None


def _may_be_key(kind: str) -> bool:
    """Whether values of a kind identify anything; measures and moments do not."""
    return kind in {"long", "date", "string"}


def _cast(values: pa.Array, arrow: pa.DataType) -> pa.Array | None:
    with suppress(pa.ArrowInvalid):
        return values.cast(arrow)
    return None


class _Uneven:
    """Rows that have not as many fields as the header.

    Args:
        width: Fields of the header.

    Attributes:
        short: How many have fewer.
        surplus: How many have more.
    """

    def __init__(self, width: int) -> None:
        self.short = self.surplus = 0
        self._width = width
        self._texts: list[str] = []

    def __call__(self, row: pa_csv.InvalidRow) -> str:
        """Take a row out; called by Arrow."""
        if row.actual_columns < row.expected_columns:
            self.short += 1
        else:
            self.surplus += 1
            self._texts.append(row.text)
        return "skip"

    def drain(self) -> pa.RecordBatch | None:
        """Rows with more fields since the last call, their surplus in the last column."""
        texts, self._texts = self._texts, []
        if not texts:
            return None
        rows = [next(csv.reader([text])) for text in texts]
        last = self._width - 1
        columns = [[row[place] or None for row in rows] for place in range(last)]
        columns.append([",".join(row[last:]) for row in rows])
        return pa.RecordBatch.from_arrays([pa.array(column, pa.string()) for column in columns], _names(self._width))


def _names(width: int) -> list[str]:
    return [f"f{place}" for place in range(width)]


def _batches(
    path: Path, width: int, uneven: _Uneven, progress: Callable[[int], object] | None
) -> Iterator[pa.RecordBatch]:
    """The rows as text; those with too few fields are left out."""
    names = _names(width)
    file = pa.OSFile(str(path))
    source = pa.CompressedInputStream(file, "gzip") if path.suffix.lower() == ".gz" else file
    done = 0
    try:
        # Arrow takes the header for a row, so that neither repeated names nor a line break in one disturb it.
        with pa_csv.open_csv(
            source,
            pa_csv.ReadOptions(block_size=_BLOCK_BYTES, column_names=names),
            pa_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=width > 1, invalid_row_handler=uneven),
            pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        ) as reader:
            for number, batch in enumerate(reader):
                yield batch if number else batch.slice(1)
                if (surplus := uneven.drain()) is not None:
                    yield surplus
                if progress:
                    now = file.tell()
                    progress(now - done)
                    done = now
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: expected CSV in UTF-8, found {_found(path, error)}") from error


def _found(path: Path, error: pa.ArrowInvalid) -> str:
    """What Arrow could not read, and what helps."""
    if encoding := dialect.encoding(path):
        return f"{encoding}; convert the file"
    if "straddling" in str(error):
        return "a row that does not end within 1 MB; close its quotes, or shorten it"
    return f"something else ({error}); correct the file"
