"""An Avro schema for a CSV file that has none yet.

What belongs here: guessing columns, types and nulls from the text of a file. The
rules are those of the files in ``schemas/``: integers are ``long``, everything
else stays ``string`` so that no byte of the source is lost, and ``parsed_as``
names a typed companion column.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.csv as pa_csv

_BLOCK_BYTES = 1 << 20  # with 8 MB blocks, what Arrow reads ahead took 530 MB

_COMPANION = {"double": "num", "date": "date", "timestamp": "ts"}


def infer(path: Path, rows: int | None = None) -> dict[str, Any]:
    """Guess the Avro record schema of a CSV file.

    An empty field is a null; a quoted empty field is an empty text. Rows with more
    fields than the header result in ``"overflow": "last"``: surplus fields belong to
    the last column, which is then text.

    Args:
        path: The file, in UTF-8, with a header; ``.gz`` is unpacked.
        rows: How many rows to look at; all of them by default, in flat memory.

    Returns:
        The schema, as a file of ``schemas/``.

    Raises:
        ValueError: No header, names that collide, a row with too few fields, or text that is not UTF-8 CSV.
        OSError: The file can't be read.
    """
    header = _header(path)
    columns = [_Guess() for _ in header]
    seen = surplus = 0
    for batch, overflowing in _batches(path, len(header)):
        part = batch if rows is None else batch.slice(0, rows - seen)
        for guess, values in zip(columns, part.columns, strict=True):
            guess.look(values)
        seen += part.num_rows
        surplus = overflowing
        if rows is not None and seen >= rows:
            break
    if surplus:
        columns[-1].kinds.clear()
        columns[-1].filled = True
    names = _legal(header, path)
    taken = set(names)
    schema: dict[str, Any] = {
        "type": "record",
        "name": _identifier(path.name.split(".")[0]),
        "namespace": "ecom",
        "doc": f"Inferred from {seen + surplus} rows of {path.name}.",
    }
    if surplus:
        schema["overflow"] = "last"
    return schema | {"fields": [g.field(name, taken) for g, name in zip(columns, names, strict=True)]}


def render(schema: dict[str, Any]) -> str:
    """The schema as JSON with one field per line, as in ``schemas/``."""
    head = [f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}," for k, v in schema.items() if k != "fields"]
    fields = ",\n".join(f"    {json.dumps(field, ensure_ascii=False)}" for field in schema["fields"])
    return "\n".join(["{", *head, '  "fields": [', fields, "  ]", "}"])


@cache
def _kinds() -> dict[str, tuple[str, pa.DataType]]:
    """Kind -> what every value must look like, and the Arrow type it must also convert to.

    The pattern keeps out what Arrow takes and we don't (007, +5, nan), the type what is
    no such value (2022-02-30, an integer beyond 64 bits).
    """
    import pyarrow as pa

    time = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
    return {
        "long": (r"^(0|-?[1-9][0-9]*)$", pa.int64()),
        # A whole number of more than 15 digits has no exact double.
        "double": (r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]+)?([eE][+-]?[0-9]+)?$", pa.float64()),
        "date": (r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", pa.date32()),
        "timestamp": (f"{time}$", pa.timestamp("us")),
        "timestamp with zone": (f"{time}(Z|[+-][0-9]{{2}}:?[0-9]{{2}})$", pa.timestamp("us", "UTC")),
    }


class _Guess:
    """What the values of one column still allow."""

    def __init__(self) -> None:
        self.kinds = dict(_kinds())
        self.nulls = False
        self.filled = False

    def look(self, values: pa.Array) -> None:
        """Take note of some more values."""
        import pyarrow.compute as pc

        self.nulls |= values.null_count > 0
        present = values.drop_null()
        self.filled |= len(present) > 0
        for kind, (pattern, arrow) in list(self.kinds.items()):
            alike = pc.all(pc.match_substring_regex(present, pattern), min_count=0).as_py()
            if not (alike and _fits(present, arrow)):
                del self.kinds[kind]

    def field(self, name: str, taken: set[str]) -> dict[str, Any]:
        """The column as a field of the schema; the name of its companion is added to ``taken``."""
        kind = next(iter(self.kinds), "string").removesuffix(" with zone") if self.filled else "string"
        avro = "long" if kind == "long" else "string"
        nullable = self.nulls or not self.filled
        field: dict[str, Any] = {"name": name, "type": ["null", avro] if nullable else avro, "doc": ""}
        if nullable:
            field["default"] = None
        if kind in _COMPANION:
            companion = f"{name}_{_COMPANION[kind]}"
            while companion in taken:
                companion += "_"
            taken.add(companion)
            field["parsed_as"] = {"name": companion, "type": kind}
        return field


def _fits(values: pa.Array, arrow: pa.DataType) -> bool:
    import pyarrow as pa

    try:
        values.cast(arrow)
    except pa.ArrowInvalid:
        return False
    return True


def _header(path: Path) -> list[str]:
    """The column names as in the file."""
    import pyarrow as pa

    try:
        with io.TextIOWrapper(pa.input_stream(str(path)), encoding="utf-8-sig", newline="") as text:
            header = next(csv.reader(text), [])
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8, found something else ({error}); convert the file") from error
    if not header:
        raise ValueError(f"{path}: expected a first line with column names, found none; add a header")
    return header


def _batches(path: Path, width: int) -> Iterator[tuple[pa.RecordBatch, int]]:
    """The rows as text, and how many rows with too many fields have been passed over so far."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    surplus = 0

    def uneven(row: pa_csv.InvalidRow) -> str:
        nonlocal surplus
        surplus += row.actual_columns > row.expected_columns
        return "skip" if row.actual_columns > row.expected_columns else "error"

    names = [f"f{i}" for i in range(width)]
    try:
        # Arrow takes the header for a row, so that neither repeated names nor a line break in one disturb it.
        with pa_csv.open_csv(
            path,
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
                yield (batch if number else batch.slice(1)), surplus
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{path}: expected CSV in UTF-8 with at least {width} fields per row, as in the header ({error}); "
            "correct that row, or the header"
        ) from error


def _identifier(name: str) -> str:
    """A legal Avro name close to the given one."""
    legal = re.sub(r"[^A-Za-z0-9_]", "_", name.strip())
    return legal if re.match(r"[A-Za-z_]", legal) else f"_{legal}"


def _legal(header: list[str], path: Path) -> list[str]:
    names = [_identifier(name) for name in header]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        clashes = "; ".join(f"{n} from {[h for h in header if _identifier(h) == n]}" for n in twice)
        raise ValueError(
            f"{path}: expected column names that differ also when only A-Z, a-z, 0-9 and _ are kept, "
            f"found {clashes}; rename these columns in the header"
        )
    return names
