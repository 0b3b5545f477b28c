"""A scan's cells taken apart in columns, against the reference that takes rows one by one."""

from __future__ import annotations

import random
import struct
from dataclasses import replace

import numpy as np
import pytest

from ecom_assets.core.row_hash import row_hash
from ecom_assets.dataset.model import Table
from ecom_assets.hbase import rpc, scan, wire
from ecom_assets.hbase.layout import Layout
from ecom_assets.hbase.rpc import Cells, Page, plain_counts
from ecom_assets_tests.tables import CLICK_STREAM, TABLES

Rows = list[tuple[bytes, dict[bytes, bytes]]]


def page(rows: Rows, kind: int = 4) -> Page:
    """A page as a region server sends it."""
    block = bytearray()
    for key, cells in rows:
        for column, value in sorted(cells.items()):
            family, _, qualifier = column.partition(b":")
            name = struct.pack(">h", len(key)) + key + bytes([len(family)]) + family + qualifier
            cell = struct.pack(">ii", len(name) + 9, len(value)) + name + struct.pack(">qb", 1, kind) + value
            block += struct.pack(">i", len(cell)) + cell
    return Page(bytes(block) + bytes(12), np.array([len(cells) for _, cells in rows], np.int64))


def sound(table: Table, rows: int) -> Rows:
    """Rows of a table as they lie in HBase, hard values among them."""
    rng = random.Random(table.name)
    layout = Layout(table)
    texts = [b"", b"\0", b"x\0", b"12 bytes long", b"twelve bytes", b"|", b"\xff" * 40, b"0", b"a" * 3000]
    made = []
    for number in range(rows):
        cells = {c: rng.choice(texts) for c in layout.cells if c in layout._parts or rng.random() < 0.7}
        forms = [b"%d"] if "int64" in layout.forms else [b"k%d", b"\0%d", b"%d\1"]
        derived = rng.choice(forms) % number
        if cells:
            made.append((layout.key([cells[part] if part else derived for part in layout._parts]), cells))
    return made


def reference(table: Table, rows: Rows) -> scan.Page:
    """What the slow way makes of rows."""
    return scan._hash_page(Layout(table), rows)


def hashed(table: Table, rows: Rows) -> scan.Page:
    """What the fast way makes of them."""
    layout = Layout(table)
    return scan._hash_cells(layout, Cells(page(rows), list(layout.cells)))


def pairs(page: scan.Page) -> list[tuple[bytes, int]]:
    """Row keys and hashes; damaged rows may come last."""
    return sorted(zip(page.keys.to_pylist(), page.hashes.tolist(), strict=True))


NUMBERED = replace(TABLES["customer"], hbase=replace(TABLES["customer"].hbase, forms=("int64",)))


@pytest.mark.parametrize("table", [*TABLES.values(), NUMBERED], ids=[*TABLES, "a number in the row key alone"])
def test_sound_rows(table: Table) -> None:
    """Broken: the proof of HBase takes sound rows for damaged, or gives them another checksum than other layers."""
    rows = sound(table, 500)
    found = hashed(table, rows)
    layout = Layout(table)
    assert found.problems == ()
    assert pairs(found) == sorted(
        (key, row_hash(zip(table.ids.values(), layout.fields(key, cells), strict=True))) for key, cells in rows
    )
    assert found.last == rows[-1][0]


KEY, CELLS = (
    b"s\0t\0e",
    {b"event_details:event_id": b"e", b"event_details:event_time": b"t", b"metadata:event_metadata": b"m"},
)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        (KEY, {b"event_details:event_id": b"f"}),
        (KEY, {b"event_details:event_id": None}),
        (b"s\0t", {}),
        (b"\0e", {b"event_details:event_time": b"very long, longer than the key"}),
        (KEY, {b"metadata:other": b""}),
        (KEY, {b"metadata:event_metadatb": b""}),
        (KEY, {b"other:event_metadata": b""}),
        (KEY, {b"event_details:": b""}),
        (KEY, {b"metadata:event_metadata\0": b""}),
    ],
)
def test_damaged_rows_are_told(key: bytes, change: dict[bytes, bytes | None]) -> None:
    """Broken: a damaged row counts as sound, is not named, or spoils the sound ones around it."""
    damaged = {c: v for c, v in (CELLS | change).items() if v is not None}
    rows = [(KEY, CELLS), (key, damaged), (KEY, CELLS)]
    found = hashed(CLICK_STREAM, rows)
    assert pairs(found) == pairs(reference(CLICK_STREAM, rows))
    assert found.problems == reference(CLICK_STREAM, rows).problems
    assert len(found.problems) == 1
    assert found.last == KEY


def test_all_cells_of_a_row() -> None:
    """Broken: the report on a damaged row shows cells of another."""
    rows = [(b"a", {b"f:q": b"1", b"f:": b""}), (b"b", {b"g:x": b"22"}), (b"c", {b"h:y": b"3", b"h:z": b"4"})]
    cells = Cells(page(rows), [b"f:q"])
    assert [cells.row(n) for n in range(3)] == [c for _, c in rows]
    assert cells.keys.to_pylist() == [b"a", b"b", b"c"]
    assert cells.odd.tolist() == [True, True, True]
    assert cells.values[b"f:q"].to_pylist() == [b"1", None, None]


def test_a_cell_that_is_no_put() -> None:
    """Broken: a marker of a deletion passes for a value."""
    assert Cells(page([(b"a", {b"f:q": b"1"})], kind=8), [b"f:q"]).odd.tolist() == [True]


@pytest.mark.parametrize("cut", [1, 13, 30])
def test_block_that_is_cut(cut: int) -> None:
    """Broken: a reply of another form ends in wrong rows instead of an error."""
    whole = page(sound(CLICK_STREAM, 3))
    with pytest.raises(ValueError, match="block of whole cells"):
        Cells(Page(bytes(whole.block)[: -12 - cut] + bytes(12), whole.counts), [b"event_details:event_id"])


@pytest.mark.parametrize(
    ("counts", "plain"),
    [([], 0), ([4], 1), ([3, 8, 0, 127], 4), ([4, 128, 4], 1), ([300, 1], 0)],
    ids=str,
)
def test_counts_of_a_result(counts: list[int], plain: int) -> None:
    """Broken: cells are given to the wrong rows, or the fields behind the counts are read from the wrong place."""
    rest = wire.message({2: 8, 3: 1, 8: 0})
    result = b"".join(wire.message({1: count}) for count in counts) + rest
    found = plain_counts(memoryview(result))
    assert found.tolist() == counts[:plain]
    further = list(wire.read_message(result[2 * plain :]))
    assert further == [*((1, count) for count in counts[plain:]), (2, 8), (3, 1), (8, 0)]


FORGED = struct.pack(">iii", 108, 50, 50) + bytes(100)


@pytest.mark.parametrize(
    ("value", "at_once"),
    [(b"plain", True), (b"\0" * 300, True), (FORGED, False), (b"x" * 70_000, False), (b"", True)],
    ids=["plain", "zeros", "looks like a cell", "longer than a stretch", "empty"],
)
def test_cells_of_a_large_page(value: bytes, at_once: bool) -> None:
    """Broken: bytes of a value are taken for a cell, or the fast way is never taken."""
    rng = random.Random(1)
    fields = [value if rng.random() < 0.2 else bytes(rng.choices(range(256), k=rng.randrange(60))) for _ in range(3000)]
    whole = page([(b"key %d" % n, {b"f:q": field, b"g:r": b"1"}) for n, field in enumerate(fields)])
    if at_once:
        assert rpc._followed_at_once(whole) is not None
    assert rpc.positions(whole).tolist() == rpc._followed(whole).tolist()


@pytest.mark.parametrize("cell", [0, 2500, -1])
def test_a_large_page_that_is_damaged(cell: int) -> None:
    """Broken: cells are read from the wrong places."""
    whole = page([(b"key %d" % n, {b"f:q": b"value"}) for n in range(4000)])
    block = bytearray(whole.block)
    block[rpc.positions(whole)[cell]] = 0xFF
    with pytest.raises(ValueError, match="block of whole cells"):
        rpc.positions(Page(bytes(block), whole.counts))
