"""Records of a topic as rows: tombstones among them."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from ecom_assets.core import avro, ordered_key, topic_rows
from ecom_assets.dataset.model import Table
from ecom_assets_tests.tables import PRODUCT
from ecom_assets_tests.topics import encode, product

TWO = replace(PRODUCT, primary_key=("id", "gender"), topic_key=("id", "gender"))


def rows(table: Table, values: list[bytes | None], keys: list[bytes | None]) -> tuple[pa.RecordBatch, dict[int, str]]:
    found, bad = topic_rows.rows_of(pa.array(values, pa.binary()), table, lambda: pa.array(keys, pa.binary()))
    assert found.schema == topic_rows.schema(table)
    return found, dict(bad)


def test_tombstones_are_rows_of_their_key() -> None:
    """If this fails, a row that Kafka was asked to delete stays, or the rows around it move to other offsets."""
    values = [encode(PRODUCT, product(1)), None, encode(PRODUCT, product(3)), None, b"bad", None, None]
    found, bad = rows(PRODUCT, values, [b"1", b"2", b"3", b"x", b"5", None, b"7"])
    assert found["id"].to_pylist() == [1, 2, 3, 7]
    assert found["_tombstone"].to_pylist() == [False, True, False, True]
    assert found["usage"].to_pylist() == [product(1)["usage"], None, product(3)["usage"], None]
    assert bad.keys() == {3, 4, 5}
    assert "expected a key of product" in bad[3]


def test_a_tombstone_names_every_part_of_a_key() -> None:
    """If this fails, a key of two columns deletes another row, or none."""
    (whole,) = ordered_key.encode([pa.array([5]), pa.array(["a\0b\1"])], ["text", "text"]).to_pylist()
    found, bad = rows(TWO, [None, None], [whole, b"5"])
    assert found.select(["id", "gender"]).to_pylist() == [{"id": 5, "gender": "a\0b\1"}]
    assert bad.keys() == {1}


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(replace(PRODUCT, write="append", history=False), id="rows never change"),
        pytest.param(replace(PRODUCT, topic_key=("gender",)), id="a key is of many rows"),
    ],
)
def test_elsewhere_a_tombstone_is_no_row(table: Table) -> None:
    """If this fails, one record deletes rows that nobody named."""
    found, bad = rows(table, [None], [b"1"])
    assert len(found) == 0
    assert bad == {0: avro.tombstone(table)}
