"""The canonical form: one number per row, whoever computes it."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecom_assets.core import row_hash

FIELD = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
IDS = {"a": 7, "n": 2, "b": 70_000}


def as_bytes(row: dict[int, str | None]) -> list[tuple[int, bytes | None]]:
    return [(number, None if text is None else text.encode()) for number, text in row.items()]


@pytest.mark.parametrize(("row", "expected"), row_hash.TEST_VECTORS)
def test_vectors(row: dict[int, str | None], expected: int) -> None:
    """If this fails, checksums differ from those of other versions and engines."""
    ids = {str(number): number for number in row}
    batch = pa.table({name: pa.array([row[number]], pa.string()) for name, number in ids.items()})
    assert row_hash.row_hash(as_bytes(row)) == expected
    assert row_hash.batch_hashes(batch, ids).tolist() == [expected]


def test_vectors_are_published() -> None:
    """If this fails, somebody else's implementation is tested against other hashes than ours."""
    page = (Path(__file__).parents[2] / "docs" / "types.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| `(\{.*\})` \| `([0-9a-f]{16})` \|$", page, re.MULTILINE)
    published = [({int(number): text for number, text in json.loads(row).items()}, int(h, 16)) for row, h in lines]
    assert published == list(row_hash.TEST_VECTORS)


def test_the_form_of_a_row() -> None:
    """If this fails, the documented bytes are not those that are hashed."""
    form = row_hash.canonical_form([(2, b"b"), (1, None), (258, b"")])
    assert form.hex(" ") == "02 00 00 00 01 00 00 00 02 01 00 00 00 00 00 00 62"


@given(st.lists(st.tuples(FIELD, st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), FIELD), max_size=20))
def test_arrow_equals_the_reference(rows: list[tuple]) -> None:
    """If this fails, the fast hash of some text, integer or null is not the documented one."""
    schema = pa.schema([("a", pa.string()), ("n", pa.int64()), ("b", pa.string())])
    batch = pa.RecordBatch.from_pylist([dict(zip("anb", r, strict=True)) for r in rows], schema=schema)
    texts = [{7: a, 2: None if n is None else str(n), 70_000: b} for a, n, b in rows]
    expected = [row_hash.row_hash(as_bytes(row)) for row in texts]
    assert row_hash.batch_hashes(batch, IDS).tolist() == expected
    assert row_hash.total(row_hash.batch_hashes(batch, IDS)) == sum(expected) % row_hash.MODULUS


@given(st.tuples(FIELD, FIELD), st.tuples(FIELD, FIELD))
def test_different_rows_have_different_forms(one: tuple, other: tuple) -> None:
    """If this fails, two different rows look alike to every checksum (a shifted comma, a null for an empty text)."""
    forms = [row_hash.canonical_form(as_bytes(dict(enumerate(row)))) for row in (one, other)]
    assert (forms[0] == forms[1]) == (one == other)


@given(FIELD, FIELD)
def test_a_column_that_is_new_renamed_or_moved_changes_no_hash(one: str | None, other: str | None) -> None:
    """If this fails, all of a table must be read again because somebody has added a column to it."""
    before = pa.table({"a": pa.array([one], pa.string()), "b": pa.array([other], pa.string())})
    columns = {"new": pa.array([None], pa.string()), "other": before["b"], "a": before["a"]}
    after = row_hash.batch_hashes(pa.table(columns), {"new": 3, "other": 2, "a": 1})
    assert after.tolist() == row_hash.batch_hashes(before, {"a": 1, "b": 2}).tolist()


def test_slices_hash_as_they_stand() -> None:
    """If this fails, a batch cut out of a larger one is hashed by the wrong rows."""
    batch = pa.RecordBatch.from_pydict({"a": ["x", "y", "z"], "b": [None, "", "c"]})
    ids = {"a": 1, "b": 2}
    assert row_hash.batch_hashes(batch.slice(1), ids).tolist() == row_hash.batch_hashes(batch, ids)[1:].tolist()
