"""The layers raw, expanded and chunked: when they are built, what they are named by, and what their checks notice."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ecom_assets.core import row_hash
from ecom_assets.core.books import Build
from ecom_assets.core.context import Context
from ecom_assets.core.errors import CsvError, NotBuiltError, ServiceError
from ecom_assets.core.layer import Built, Cut, Layer, Measurement
from ecom_assets.core.location import local
from ecom_assets.core.measure import Measure
from ecom_assets.core.settings import load
from ecom_assets.csv import chunk, expand
from ecom_assets.csv.chunked import ChunkedLayer
from ecom_assets.csv.expanded import ExpandedLayer
from ecom_assets.csv.plan import raw_file
from ecom_assets.csv.raw import RawLayer
from ecom_assets.dataset.model import Table
from ecom_assets.source import SourceNotFoundError, acquire, waiting
from ecom_assets_tests.offline import nowhere
from ecom_assets_tests.tables import CLICK_STREAM, CUSTOMER, PRODUCT, SHOP, TRANSACTIONS

RAW = RawLayer(acquire, waiting)
EXPANDED = ExpandedLayer(RAW)
CHUNKED = ChunkedLayer(EXPANDED)
LAYERS: list[Layer] = [RAW, EXPANDED, CHUNKED]
NOW = Cut()


@pytest.fixture
def open_home(tmp_path: Path) -> Iterator[Callable[..., Context]]:
    opened: list[Context] = []

    def make(**given: object) -> Context:
        settings = load(home=tmp_path / "home", **({"scale": 0.001, "chunk_bytes": 5000} | given))
        opened.append(Context(settings, SHOP, nowhere))
        return opened[-1]

    yield make
    for context in opened:
        context.close()


def build(at: Context, *layers: Layer, tables: tuple[Table, ...] = (), repair: bool = False) -> list[Built]:
    """Build layers as the engine does, and record them."""
    done = []
    for layer in layers:
        for table in tables or tuple(SHOP.tables.values()):
            fingerprint = layer.fingerprint(at, table)
            built = layer.build(at, table, repair=repair)
            declared = layer.declaration(at, table)
            at.books.record_build(Build(layer.name, table.name, fingerprint, declared, rows=built.rows))
            done.append(built)
    return done


def measure(at: Context, layer: Layer, table: Table = CUSTOMER) -> Measurement:
    return layer.measure(at, table, NOW)


def position(at: Context, layer: Layer, table: Table = CUSTOMER) -> str:
    return layer.position(at, table, NOW)


def spoil(at: Context, table: Table, *lines: bytes) -> None:
    """Put lines among those of a raw file."""
    path = raw_file(table, at.settings)
    whole = path.read_bytes().splitlines(keepends=True)
    path.unlink()  # it may be a link
    path.write_bytes(b"".join([*whole[:3], *lines, *whole[3:]]))


def test_rows_pass_all_three(open_home: Callable[..., Context]) -> None:
    """If this fails, a row is lost between two of the layers, or their measurements cannot be compared."""
    at = open_home(expand="2.5")
    build(at, RAW)
    spoil(at, CLICK_STREAM, b"broken,row\n", b'a "stray" quote\n', b"s,CLICK,t\xff,e,WEB,\n")
    build(at, EXPANDED, CHUNKED)
    for table in SHOP.tables.values():
        raw, expanded, chunked = (measure(at, layer, table) for layer in LAYERS)
        assert [m.problems for m in (raw, expanded, chunked)] == [(), (), ()]
        assert raw.measure.rows > 0
        assert raw.last_copy is not None
        due = [raw.measure] * (len(expanded.copies) - 1) + [raw.last_copy]
        assert all(copy.same_rows(whole) for copy, whole in zip(expanded.copies, due, strict=True))
        assert expanded.measure.same_rows(chunked.measure)
        assert raw.excluded["quarantined"].same_rows(expanded.excluded["quarantined"])
        assert raw.excluded["quarantined"].rows == (3 if table is CLICK_STREAM else 0)
        for layer in LAYERS:
            rows = layer.preview(at, table, 3)
            assert [list(row) for row in rows] == [table.names] * 3
            assert str(at.settings.home / layer.name) in layer.stored_as(at.settings, table)


def test_one_acquisition_brings_all_tables(open_home: Callable[..., Context]) -> None:
    """If this fails, data are generated once for each table, or a table's rows and seconds are not reported."""
    asked = []

    def counted(*given: Any) -> dict[str, Path]:
        asked.append(1)
        return acquire(*given)

    at, raw = open_home(), RawLayer(counted, waiting)
    built = build(at, raw)
    assert len(asked) == 1
    assert [b.unchanged for b in built] == [False] * 4
    lines = [raw_file(table, at.settings).read_bytes().count(b"\n") - 1 for table in SHOP.tables.values()]
    assert [b.rows for b in built] == lines
    assert all(b.notes["seconds"] >= 0 and b.notes["bytes"] > 0 for b in built)
    assert [b.unchanged for b in build(at, raw)] == [True] * 4
    assert len(asked) == 2
    # What the last acquisition did is no answer once its file is gone.
    raw.build(at, CUSTOMER)
    raw_file(PRODUCT, at.settings).unlink()
    assert not raw.build(at, PRODUCT).unchanged
    assert raw_file(PRODUCT, at.settings).exists()
    assert len(asked) == 4


def test_a_wrong_source_is_not_remembered(open_home: Callable[..., Context], tmp_path: Path) -> None:
    """If this fails, a mistyped folder stays with the home, and every later command is refused."""
    at = open_home(source=str(tmp_path / "nowhere"))
    with pytest.raises(SourceNotFoundError):
        RAW.build(at, CUSTOMER)
    assert not (at.settings.home / "home.json").exists()
    build(open_home(), RAW)
    assert json.loads((at.settings.home / "home.json").read_text())["source"] == "synthetic"


def test_raw_files_are_left_alone(open_home: Callable[..., Context]) -> None:
    """If this fails, resetting a table deletes what only its owner has."""
    at = open_home()
    build(at, RAW)
    RAW.delete(at, CUSTOMER)
    assert RAW.exists(at, CUSTOMER)


@pytest.mark.parametrize("change", [b"", b"id,other\n1,2\n"])
def test_a_raw_file_that_cannot_be_read_is_a_problem(open_home: Callable[..., Context], change: bytes) -> None:
    """If this fails, one damaged file ends the whole report."""
    at = open_home()
    build(at, RAW)
    path = raw_file(CUSTOMER, at.settings)
    path.unlink()
    if change:
        path.write_bytes(change)
    found = measure(at, RAW)
    assert found.measure.rows == 0
    assert "customer.csv" in found.problems[0]


def test_nothing_is_built_from_nothing(open_home: Callable[..., Context]) -> None:
    """If this fails, an empty layer is taken for one that was built."""
    at = open_home()
    for layer in LAYERS:
        assert not layer.exists(at, CUSTOMER)
        assert not layer.preview(at, CUSTOMER, 5)
        layer.delete(at, CUSTOMER)
    for layer in (EXPANDED, CHUNKED):
        with pytest.raises(NotBuiltError):
            layer.fingerprint(at, CUSTOMER)
        with pytest.raises(NotBuiltError):
            layer.build(at, CUSTOMER)
        assert measure(at, layer).problems
    with pytest.raises(NotBuiltError):
        CHUNKED.chunks(at.settings, CUSTOMER)
    with pytest.raises(NotBuiltError):
        EXPANDED.left_out(at, CUSTOMER)


def test_fingerprints_name_what_a_layer_is_built_from(open_home: Callable[..., Context]) -> None:
    """If this fails, a layer is not rebuilt after a change upstream, or rebuilt without one."""
    at = open_home()
    build(at, RAW, EXPANDED, CHUNKED)
    first = [layer.fingerprint(at, CUSTOMER) for layer in LAYERS]
    assert first == [layer.fingerprint(at, CUSTOMER) for layer in LAYERS]
    os.utime(raw_file(PRODUCT, at.settings), (1, 1))
    assert first == [layer.fingerprint(at, CUSTOMER) for layer in LAYERS], "another table's file"
    spoil(at, CUSTOMER, b"broken,row\n")
    assert first[1] != EXPANDED.fingerprint(at, CUSTOMER)
    build(at, EXPANDED, tables=(CUSTOMER,))
    assert first[2] != CHUNKED.fingerprint(at, CUSTOMER)
    for given in ({"chunk_bytes": 6000}, {"seed": 8}):
        other = Context(at.settings.model_copy(update=given), SHOP, nowhere)
        layer = CHUNKED if "chunk_bytes" in given else RAW
        assert layer.fingerprint(other, CUSTOMER) != layer.fingerprint(at, CUSTOMER)
        other.close()


def test_growth_depends_on_all_files(open_home: Callable[..., Context]) -> None:
    """If this fails, tables that refer to one another grow by different plans."""
    at = open_home(expand="2")
    build(at, RAW)
    before = EXPANDED.fingerprint(at, CUSTOMER)
    os.utime(raw_file(PRODUCT, at.settings), (1, 1))
    assert EXPANDED.fingerprint(at, CUSTOMER) != before


def test_a_changed_declaration_is_noticed(open_home: Callable[..., Context]) -> None:
    """If this fails, files stay as an older schema had them."""
    at = open_home()
    build(at, RAW, EXPANDED)
    chunked = CHUNKED.fingerprint(at, CUSTOMER)
    changed = replace(CUSTOMER, avsc=CUSTOMER.avsc | {"null_values": ["-"]})
    assert EXPANDED.declaration(at, changed) != EXPANDED.declaration(at, CUSTOMER)
    build(at, EXPANDED, tables=(changed,))
    assert CHUNKED.fingerprint(at, CUSTOMER) != chunked


def test_positions_change_with_every_file(open_home: Callable[..., Context]) -> None:
    """If this fails, a remembered measurement stands for files that have changed since."""
    at = open_home()
    build(at, RAW, EXPANDED, CHUNKED)
    chunks = local(chunk.folder(CUSTOMER, at.settings))
    files = {
        RAW: [raw_file(CUSTOMER, at.settings)],
        EXPANDED: [local(expand.files(CUSTOMER, at.settings)[0]), expand.quarantine_file(CUSTOMER, at.settings)],
        CHUNKED: [*chunks.glob("part-*"), chunks / chunk.MANIFEST],
    }
    for layer, paths in files.items():
        for path in paths:
            before = position(at, layer)
            assert before == position(at, layer) == measure(at, layer).position
            os.utime(path, (1, 1))
            assert before != position(at, layer)
            before = position(at, layer)
            data = path.read_bytes()
            path.unlink()
            assert before != position(at, layer)
            path.write_bytes(data)


def test_an_edited_quarantine_is_noticed(open_home: Callable[..., Context]) -> None:
    """If this fails, the quarantine can hold anything of as many lines, and every check passes."""
    at = open_home()
    build(at, RAW)
    spoil(at, CUSTOMER, b"broken,row\n", b"another\n")
    build(at, EXPANDED)
    due = measure(at, RAW).excluded["quarantined"]
    assert measure(at, EXPANDED).excluded["quarantined"].same_rows(due)
    path = expand.quarantine_file(CUSTOMER, at.settings)
    whole = path.read_text()
    for old, new in (("another", "another "), ('"line": 4', '"line": 14')):
        path.write_text(whole.replace(old, new))
        edited = measure(at, EXPANDED)
        assert edited.excluded["quarantined"].rows == 2
        assert not edited.excluded["quarantined"].same_rows(due)
    path.write_text("garbage\n" * 2)
    damaged = measure(at, EXPANDED)
    assert len(damaged.problems) == 2
    assert "customer.jsonl, line 1" in damaged.problems[0]


@pytest.mark.parametrize("layer", [EXPANDED, CHUNKED], ids=lambda layer: layer.name)
def test_repair_swaps(open_home: Callable[..., Context], layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, repairing a layer deletes what is there before the new content is complete."""
    at = open_home()
    build(at, RAW, EXPANDED, CHUNKED)
    sound = measure(at, layer).measure
    folder = local(at.settings.home / layer.name / CUSTOMER.name)
    file = min(folder.glob("*.csv"))
    file.write_bytes(file.read_bytes()[:-9])
    held = {path.name: path.read_bytes() for path in folder.iterdir()}
    with monkeypatch.context() as broken:
        broken.setattr(expand if layer is EXPANDED else chunk, "replace", _lost)
        with pytest.raises(ConnectionError):
            build(at, layer, tables=(CUSTOMER,), repair=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == held
    assert not measure(at, layer).measure.same_rows(sound)
    build(at, layer, tables=(CUSTOMER,), repair=True)
    assert measure(at, layer).measure.same_rows(sound)
    assert {path.name for path in folder.parent.iterdir()} == set(SHOP.tables)


def _lost(*_: object) -> None:
    raise ConnectionError


@pytest.mark.parametrize("step", ["unlink", "remove", "move", "place"])
def test_a_crash_between_copies_and_quarantine_is_no_build(
    open_home: Callable[..., Context], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, copies and a quarantine of two different builds pass for one."""
    at = open_home()
    build(at, RAW, EXPANDED)
    spoil(at, CUSTOMER, b"broken,row\n")
    with monkeypatch.context() as broken:
        if step == "unlink":
            broken.setattr(expand, "replace", _lost)
        elif step == "place":
            broken.setattr(os, "fsync", _lost)
        else:
            broken.setattr(f"ecom_assets.core.location.{step}", _lost)
        with pytest.raises(ConnectionError):
            EXPANDED.build(at, CUSTOMER)
    assert not EXPANDED.exists(at, CUSTOMER)
    assert measure(at, EXPANDED).problems
    EXPANDED.build(at, CUSTOMER)
    assert EXPANDED.exists(at, CUSTOMER)
    assert measure(at, EXPANDED).excluded["quarantined"].same_rows(measure(at, RAW).excluded["quarantined"])


def test_what_is_deleted_is_gone(open_home: Callable[..., Context]) -> None:
    """If this fails, a reset table still shows its quarantine, or another table's files are deleted."""
    at = open_home()
    build(at, RAW, EXPANDED, CHUNKED)
    EXPANDED.left_out(at, CUSTOMER)
    for layer in (CHUNKED, EXPANDED):
        layer.delete(at, CUSTOMER)
        assert not layer.exists(at, CUSTOMER)
        assert layer.exists(at, PRODUCT)
    assert not list(at.settings.quarantine.glob("*customer*"))


def test_the_bulk_path_takes_each_key_once(open_home: Callable[..., Context]) -> None:
    """If this fails, rows that HBase would overwrite are not counted, or a sample changes from call to call."""
    at = open_home()
    build(at, RAW, EXPANDED)
    path = local(expand.files(TRANSACTIONS, at.settings)[0])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[3], lines[4].replace(b"\n", b"9\n")]))
    whole = measure(at, EXPANDED, TRANSACTIONS).measure
    taken = Measure()
    for batch in EXPANDED.batches(at, TRANSACTIONS, NOW):
        taken += Measure(batch.num_rows, row_hash.total(row_hash.batch_hashes(batch, TRANSACTIONS.ids)))
    left = EXPANDED.left_out(at, TRANSACTIONS)
    assert {reason: measure.rows for reason, measure in left.items() if measure.rows} == {
        "duplicates": 1,
        "superseded": 1,
    }
    assert sum(left.values(), taken).same_rows(whole)
    columns = ["customer_id", "booking_id"]
    some = EXPANDED.sample(at, TRANSACTIONS, columns)
    assert some.column_names == columns
    assert some.equals(EXPANDED.sample(at, TRANSACTIONS, columns))
    with pytest.raises(ServiceError, match="ECOM_HBASE_LOADER"):
        EXPANDED.frame(at, TRANSACTIONS, Cut())


def test_chunks_are_verified_as_they_are_read(open_home: Callable[..., Context]) -> None:
    """If this fails, a damaged chunk gets into a topic."""
    at = open_home()
    build(at, RAW, EXPANDED, CHUNKED)
    settings, chunks = at.settings, CHUNKED.chunks(at.settings, CUSTOMER)
    data = CHUNKED.read(settings, CUSTOMER, chunks)
    rows = CHUNKED.rows(CUSTOMER, chunks, data)
    found = Measure(rows.num_rows, row_hash.total(row_hash.batch_hashes(rows, CUSTOMER.ids)))
    assert found.same_rows(measure(at, EXPANDED).measure)
    changed = [data[0].replace(b"1", b"2", 1), *data[1:]]
    with pytest.raises(CsvError, match=r"(?s)part-000000.csv: expected \d+ rows with checksum .*materialize chunked/"):
        CHUNKED.rows(CUSTOMER, chunks, changed)
    path = local(chunk.folder(CUSTOMER, settings)) / chunks[1].name
    path.write_bytes(data[1][:-20])
    assert f"{path}: expected {len(data[1]):,} bytes" in measure(at, CHUNKED).problems[0]
    path.unlink()
    assert "got no file" in measure(at, CHUNKED).problems[0]
    with pytest.raises(CsvError, match=r"(?s)part-000001.csv: expected a chunk of the manifest.*materialize chunked/"):
        CHUNKED.read(settings, CUSTOMER, chunks)
    (chunk.folder(CUSTOMER, settings) / chunk.MANIFEST).write_bytes(b"x\n")
    with pytest.raises(CsvError, match=r"manifest.jsonl: expected a line of JSON"):
        CHUNKED.chunks(settings, CUSTOMER)
    assert "manifest.jsonl" in measure(at, CHUNKED).problems[0]
