"""The fast reader: a block of clean records, parsed by Arrow; for anything else it leaves the block to ``exact``.

What belongs here: deciding without a look at each row that all rows of a block are good. What does not: saying what is
wrong with one.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from ecom_assets.core import ordered_key, values
from ecom_assets.csv import contract
from ecom_assets.dataset.kind import DAY
from ecom_assets.dataset.model import Column, Table

_TIME = rf"^{DAY}T\d\d:\d\d:\d\d(\.\d{{1,6}})?Z$"
"""Arrow takes other forms as well."""


def read(data: bytes, records: int, table: Table) -> pa.RecordBatch | None:
    """Parse some records.

    Args:
        data: Whole records with regular quotes, see ``blocks.record_ends``.
        records: How many there are.
        table: What they should hold.

    Returns:
        The rows; ``None`` if anything in them is not as it should be.
    """
    if data.startswith(contract.BOM):  # bytes of a field, which Arrow would leave out
        return None
    odd = False

    def on_invalid(_: object) -> str:
        nonlocal odd
        odd = True
        return "skip"

    try:
        parsed = pa.csv.read_csv(
            pa.py_buffer(data),
            read_options=pa.csv.ReadOptions(
                column_names=table.names, use_threads=False, block_size=max(len(data) + 1, 1024)
            ),
            parse_options=pa.csv.ParseOptions(newlines_in_values=b'"' in data, invalid_row_handler=on_invalid),
            convert_options=pa.csv.ConvertOptions(
                column_types={name: pa.string() for name in table.names},
                null_values=table.null_values,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    if odd or parsed.num_rows != records:
        return None
    columns = []
    for column, texts in zip(table.columns, parsed.combine_chunks().columns, strict=True):
        array = _checked(texts.chunk(0) if texts.num_chunks else pa.array([], pa.string()), column, table)
        if array is None:
            return None
        columns.append(array)
    return pa.RecordBatch.from_arrays(columns, schema=table.arrow)


def _checked(texts: pa.Array, column: Column, table: Table) -> pa.Array | None:
    """Give a column its type; ``None`` if any value breaks the contract."""
    if texts.null_count and not column.nullable:
        return None
    if column.kind.is_plain:
        return texts if _fits_keys(texts, column.name, table) else None
    if column.kind.is_integer:
        try:
            numbers = texts.cast(column.kind.arrow)
        except pa.ArrowInvalid:
            return None
        # "+1" and "007" are numbers that would not come back as they were.
        return numbers if numbers.cast(pa.string()).equals(texts) else None
    parsed = values.parse(texts, column.kind)
    return parsed if parsed.null_count == texts.null_count else None


def _fits_keys(texts: pa.Array, name: str, table: Table) -> bool:
    """Whether all values of a column can be a part of the table's keys."""
    sizes = table.key_sizes.get(name)
    if sizes and len(texts) > texts.null_count:
        span = pc.min_max(pc.binary_length(texts))
        if span["min"].as_py() < sizes[0] or span["max"].as_py() > sizes[1]:
            return False
    if name in table.key_times:
        try:
            ordered_key.part(texts, ["reversed_time"], 0)
        except pa.ArrowInvalid:
            return False
        return pc.all(pc.match_substring_regex(texts, _TIME), min_count=0).as_py()
    return True
