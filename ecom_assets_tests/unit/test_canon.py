"""The canonical form: one number per row, whoever computes it."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecom_assets.core import row_hash

FIELD = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))


def as_bytes(row: tuple[str | None, ...]) -> list[bytes | None]:
    return [None if f is None else f.encode() for f in row]


@pytest.mark.parametrize(("row", "expected"), row_hash.TEST_VECTORS)
def test_vectors(row: tuple[str | None, ...], expected: int) -> None:
    """If this fails, checksums differ from those of other versions and engines."""
    names = [str(i) for i in range(len(row))]
    batch = pa.table({name: pa.array([value], pa.string()) for name, value in zip(names, row, strict=True)})
    assert row_hash.row_hash(as_bytes(row)) == expected
    assert row_hash.batch_hashes(batch, names).tolist() == [expected]


@given(st.lists(st.tuples(FIELD, st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), FIELD), max_size=20))
def test_arrow_equals_the_reference(rows: list[tuple]) -> None:
    """If this fails, the fast hash of some text, integer or null is not the documented one."""
    schema = pa.schema([("a", pa.string()), ("n", pa.int64()), ("b", pa.string())])
    batch = pa.RecordBatch.from_pylist([dict(zip("anb", r, strict=True)) for r in rows], schema=schema)
    expected = [row_hash.row_hash(as_bytes((a, None if n is None else str(n), b))) for a, n, b in rows]
    assert row_hash.batch_hashes(batch, ["a", "n", "b"]).tolist() == expected
    assert row_hash.total(row_hash.batch_hashes(batch, ["a", "n", "b"])) == sum(expected) % row_hash.MODULUS


@given(st.tuples(FIELD, FIELD), st.tuples(FIELD, FIELD))
def test_different_rows_have_different_forms(one: tuple, other: tuple) -> None:
    """If this fails, two different rows look alike to every checksum (a shifted comma, a null for an empty text)."""
    assert (row_hash.row_hash(as_bytes(one)) == row_hash.row_hash(as_bytes(other))) == (one == other)


def test_slices_hash_as_they_stand() -> None:
    """If this fails, a batch cut out of a larger one is hashed by the wrong rows."""
    batch = pa.RecordBatch.from_pydict({"a": ["x", "y", "z"], "b": [None, "", "c"]})
    assert (
        row_hash.batch_hashes(batch.slice(1), ["a", "b"]).tolist()
        == row_hash.batch_hashes(batch, ["a", "b"])[1:].tolist()
    )
