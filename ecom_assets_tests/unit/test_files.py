"""Expanded and chunked files: fresh keys, kept references, and no row lost at a border."""

import json
import os
import shutil
import subprocess
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from ecom_assets.core import row_hash
from ecom_assets.core.disk import DiskFullError
from ecom_assets.core.engine import Engine
from ecom_assets.core.errors import CsvError, HomeError, NotBuiltError
from ecom_assets.core.expansion import Target
from ecom_assets.core.files import temporary
from ecom_assets.core.location import local
from ecom_assets.core.measure import Measure
from ecom_assets.core.settings import Settings, load
from ecom_assets.csv import blocks, chunk, expand, fold, records, spark_tasks, unique
from ecom_assets.csv.audit import Audit, audit
from ecom_assets.csv.contract import header_line
from ecom_assets.csv.plan import last_copy, plan, raw_file
from ecom_assets.dataset.model import Dataset, HBaseLayout, Table
from ecom_assets.paths import engine, open_home
from ecom_assets.source import synthetic
from ecom_assets_tests.tables import CLICK_STREAM, CUSTOMER, PRODUCT, SHOP, TABLES, TRANSACTIONS


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    synthetic.generate(folder, 0.001, 7)
    return folder


@pytest.fixture
def home(tmp_path: Path, raw: Path) -> Callable[..., Settings]:
    def make(**given: object) -> Settings:
        settings = load(home=tmp_path / "home", **given)
        settings.raw.mkdir(parents=True, exist_ok=True)
        for table in TABLES.values():
            (settings.raw / table.csv).write_bytes((raw / table.csv).read_bytes())
        return settings

    return make


def frame(table: Table, settings: Settings) -> pl.DataFrame:
    return pl.concat([pl.read_csv(local(p)) for p in expand.files(table, settings)])


def build(table: Table, settings: Settings) -> expand.Expansion:
    return expand.build(table, settings, plan(table, SHOP, settings))


def measured(table: Table, settings: Settings) -> fold.Folded:
    return fold.measure(expand.files(table, settings), table, plan(table, SHOP, settings))


def measured_raw(table: Table, settings: Settings) -> Audit:
    return audit(raw_file(table, settings), table, last_copy(table, SHOP, settings).sample)


def build_all(settings: Settings) -> dict[str, expand.Expansion]:
    return {name: build(table, settings) for name, table in TABLES.items()}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_without_expansion_the_rows_are_the_raw_ones(home: Callable[..., Settings], table: Table) -> None:
    """If this fails, the first step already changes, loses or doubles rows."""
    settings = home()
    done = build(table, settings)
    raw = measured_raw(table, settings)
    folded = measured(table, settings)
    assert done.copies == len(folded.copies) == 1
    assert folded.measure.rows == done.rows > 0
    assert folded.measure.same_rows(raw.rows)
    assert raw.quarantined.rows == done.quarantined == 0


@pytest.mark.parametrize("spec", ["3", "2.5"])
def test_copies_have_fresh_keys_and_kept_references(home: Callable[..., Settings], spec: str) -> None:
    """If this fails, a store takes a copy for an update of the first row, or a copy's references lead nowhere."""
    settings = home(expand=spec)
    build_all(settings)
    customers, bookings, events = (frame(t, settings) for t in (CUSTOMER, TRANSACTIONS, CLICK_STREAM))
    for table in TABLES.values():
        rows = frame(table, settings)
        assert rows.n_unique(subset=table.primary_key) == rows.height
    assert bookings.join(customers, on="customer_id", how="anti").is_empty()
    assert bookings["session_id"].n_unique() == bookings.height
    lost = bookings.join(events, on="session_id", how="anti").height
    assert 4 <= lost <= 6, "2 sessions of each copy have no events at all"
    raw = pl.read_csv(settings.raw / "transactions.csv")
    assert bookings.height == pytest.approx(float(spec) * raw.height, rel=0.1)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_copy_folds_back_to_the_raw_rows(home: Callable[..., Settings], table: Table) -> None:
    """If this fails, expansion changes something else than keys, or the proof of it is blind."""
    settings = home(expand="2.5")
    build(table, settings)
    raw = measured_raw(table, settings)
    first, second, third = measured(table, settings).copies
    assert first.same_rows(raw.rows)
    assert second.same_rows(raw.rows)
    assert third.same_rows(raw.sampled)
    path = local(expand.files(table, settings)[1])
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert not measured(table, settings).copies[1].same_rows(raw.rows)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("none", {"a": 1.0, "b": 1.0}),
        ("2.5", {"a": 2.5, "b": 2.5}),
        ("500MB", {"a": 5.0, "b": 1.25}),
        ("1GB", {"a": 2.0, "b": 2.0}),
        ("1GB/table", {"a": 10.0, "b": 2.5}),
        ("750MB/all", {"a": 1.5, "b": 1.5}),
        ("1MB", {"a": 1.0, "b": 1.0}),
    ],
)
def test_targets(spec: str, expected: dict[str, float]) -> None:
    """If this fails, a target means another size than documented."""
    assert Target.parse(spec).factors({"a": 100_000_000, "b": 400_000_000}) == expected


@pytest.mark.parametrize("spec", ["0.5", "lots", "nan", "inf", "-1", "3TB", "500 MB"])
def test_targets_that_make_no_sense(spec: str) -> None:
    """If this fails, a typing error grows the data without end or shrinks it."""
    with pytest.raises(HomeError, match="--expand: expected"):
        Target.parse(spec)


SALE = {
    "type": "record",
    "name": "Sale",
    "fields": [
        {"name": "ticket", "type": "long"},
        {"name": "item", "type": "long"},
        {"name": "buyer", "type": ["null", "string"]},
    ],
}


def sales(domains: dict[str, str]) -> Dataset:
    """Items, and sales of a compound key that refer to them."""
    item = replace(
        PRODUCT, name="item", avsc=SALE | {"fields": SALE["fields"][1:2]}, primary_key=("item",), topic_key=("item",),
        domains={"item": "item"}, hbase=HBaseLayout("item", {}, ("item",), ("text",)),
    )  # fmt: skip
    key = ("ticket", "item")
    sale = replace(
        item, name="sale", avsc=SALE, primary_key=key, topic_key=key, domains=domains,
        hbase=HBaseLayout("sale", {"d": ("ticket", "buyer")}, key, ("int64", "int64")),
    )  # fmt: skip
    return Dataset.of("sales", item, sale)


def sold(folder: Path) -> Settings:
    """Their raw files, and a size to grow to."""
    settings = Settings(home=folder, expand="3")
    settings.raw.mkdir(parents=True)
    (settings.raw / "item.csv").write_text("item\n7\n12\n")
    (settings.raw / "sale.csv").write_text("ticket,item,buyer\n1,7,b\n1,12,\n2,7,c\n")
    return settings


def test_copies_of_a_compound_key_differ(tmp_path: Path) -> None:
    """If this fails, a copy of a table with a key of several columns overwrites the original, or a null stops it."""
    dataset = sales({"ticket": "ticket", "item": "item", "buyer": "buyer"})
    settings = sold(tmp_path)
    for table in dataset.tables.values():
        expand.build(table, settings, plan(table, dataset, settings))
    items, rows = (frame(table, settings) for table in dataset.tables.values())
    assert rows.height == 9
    assert rows.n_unique(subset=["ticket", "item"]) == 9
    assert rows.join(items, on="item", how="anti").is_empty()
    assert rows["buyer"].null_count() == 3


def test_copies_that_could_not_be_told_apart_are_refused(tmp_path: Path) -> None:
    """If this fails, copies share their keys, and all but one of them vanish as duplicates."""
    dataset = sales({"buyer": "buyer"})
    with pytest.raises(CsvError, match=r"sale: expected a column of the primary key \(ticket, item\) that each of 3"):
        plan(dataset.tables["sale"], dataset, sold(tmp_path))


def test_keys_that_leave_no_room_for_copies_are_refused(tmp_path: Path) -> None:
    """If this fails, a copy of a long number ends in an overflow in the middle of a build (A7)."""
    dataset = sales({"ticket": "ticket", "item": "item"})
    settings = sold(tmp_path)
    (settings.raw / "item.csv").write_text(f"item\n{2**62}\n")
    with pytest.raises(CsvError, match="integer keys of the domain item that leave room for 3 copies"):
        plan(dataset.tables["item"], dataset, settings)


def test_files_go_to_the_disk_while_they_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, the disk idles until a file is whole, or a part of the file never gets there by itself."""
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(expand, "_EAGER", 1000)
    monkeypatch.setattr(os, "posix_fadvise", lambda _, start, size, __: begun.append((start, size)), raising=False)
    text = bytes(range(256)) * 9
    with expand._Output(tmp_path / "file") as output:
        for start in range(0, len(text), 300):
            output.write(text[start : start + 300])
    assert (tmp_path / "file").read_bytes() == text
    assert begun == [(0, 1200), (1200, 1104)]


def test_dirt_goes_to_quarantine(home: Callable[..., Settings]) -> None:
    """If this fails, a row that cannot be read vanishes without a trace, or takes others along."""
    settings = home()
    path = settings.raw / CUSTOMER.csv
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b"broken,row\n", *lines[3:]]))
    done = build(CUSTOMER, settings)
    assert (done.rows, done.quarantined) == (len(lines) - 1, 1)
    (reported,) = map(json.loads, expand.quarantine_file(CUSTOMER, settings).read_text().splitlines())
    assert (reported["source"], reported["line"], reported["raw"]) == ("customer.csv", 4, "broken,row")
    assert "expected 15 fields, got 2" in reported["reason"]


@pytest.mark.parametrize(
    "dirt",
    [b"", b"broken,row\n", b'a "stray quote"\n', b"\r\n", b'"no end\n', b'a "stray quote"' + b"x" * 3000 + b"\n"],
    ids=["none", "row", "quote", "CR", "end", "a quote that the next block begins with"],
)
def test_tasks_are_told_of_the_same_blocks(
    home: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dirt: bytes
) -> None:
    """If this fails, Spark's tasks read other rows than one machine, or set other rows aside."""
    settings = home()
    path = settings.raw / TRANSACTIONS.csv
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line + dirt * (not at % 30) for at, line in enumerate(lines, 1)).rstrip(b"\n"))
    monkeypatch.setattr(expand, "LEAST_BLOCK", 10_000)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 10_000)
    monkeypatch.setattr(spark_tasks, "PART_BYTES", 50_000)
    growth = plan(TRANSACTIONS, SHOP, settings)
    reported = spark_tasks._sent(TRANSACTIONS, settings, growth, tmp_path).to_pylist()
    assert [unit["part"] for unit in reported] == sorted(unit["part"] for unit in reported)
    assert 3 < len({unit["part"] for unit in reported}) < len(reported)
    with (tmp_path / "raw").open("rb") as raw:
        found = list(spark_tasks._read(raw, reported))
    expected = list(expand.raw_blocks(TRANSACTIONS, settings, growth))
    ours, theirs = (
        [(b.data, b.line, None if b.ends is None else b.ends.tolist()) for b in each] for each in (found, expected)
    )
    assert ours == theirs


@pytest.mark.parametrize("chunk_bytes", [1024, 20_000, 10_000_000])
@pytest.mark.parametrize("table", [PRODUCT, TRANSACTIONS], ids=lambda t: t.name)
def test_chunks_hold_every_row_once(home: Callable[..., Settings], table: Table, chunk_bytes: int) -> None:
    """If this fails, a row is lost or doubled at a chunk's border, as the original did."""
    settings = home(chunk_bytes=chunk_bytes)
    build(table, settings)
    chunks = chunk.build(table, settings)
    folder = local(chunk.folder(table, settings))
    assert chunk.read_manifest(folder) == chunks
    expected = measured(table, settings).measure
    assert chunk.measure(table, settings).same_rows(expected)
    assert Measure(sum(c.rows for c in chunks), sum(c.checksum for c in chunks) % row_hash.MODULUS).same_rows(expected)
    for each in chunks:
        data = (folder / each.name).read_bytes()
        assert len(data) == each.bytes
        assert each.bytes <= chunk_bytes or each.rows == 1
        assert records.read_clean(data, table).num_rows == each.rows
    # Row by row, in order, read by a reader that is not ours.
    ours = pl.concat([pl.read_csv(folder / c.name, infer_schema=False) for c in chunks])
    assert ours.equals(pl.read_csv(local(expand.files(table, settings)[0]), infer_schema=False))


def test_chunks_again_are_the_same(home: Callable[..., Settings]) -> None:
    """If this fails, cutting again gives other chunks, and the ledger refuses them."""
    settings = home(chunk_bytes=5000)
    build(CUSTOMER, settings)
    assert chunk.build(CUSTOMER, settings) == chunk.build(CUSTOMER, settings)


def test_a_missing_chunk_is_missed(home: Callable[..., Settings]) -> None:
    """If this fails, the proof does not see a chunk that is gone."""
    settings = home(chunk_bytes=5000)
    build(CUSTOMER, settings)
    chunks = chunk.build(CUSTOMER, settings)
    whole = chunk.measure(CUSTOMER, settings)
    (chunk.folder(CUSTOMER, settings) / chunks[1].name).unlink()
    assert chunk.measure(CUSTOMER, settings).rows == whole.rows - chunks[1].rows


def cut(home: Callable[..., Settings], table: Table) -> tuple[Settings, Path, Path]:
    """A table in small chunks, and the first two of them."""
    settings = home(chunk_bytes=5000)
    build(table, settings)
    first, second = (local(chunk.folder(table, settings)) / c.name for c in chunk.build(table, settings)[:2])
    return settings, first, second


def test_a_row_torn_between_chunks_is_missed(home: Callable[..., Settings]) -> None:
    """If this fails, a row torn between two chunks, which nobody can read chunk by chunk, passes as sound."""
    settings, first, second = cut(home, CUSTOMER)
    whole = chunk.measure(CUSTOMER, settings)
    data, header = first.read_bytes(), header_line(CUSTOMER)
    first.write_bytes(data[:-9])
    second.write_bytes(header + data[-9:] + second.read_bytes()[len(header) :])
    found = chunk.measure(CUSTOMER, settings)
    assert not found.same_rows(whole)
    assert found.bytes == whole.bytes


def test_a_text_torn_between_chunks_is_missed(home: Callable[..., Settings]) -> None:
    """If this fails, a quoted line break at a chunk's border hides that neither chunk can be read alone."""
    settings, first, second = cut(home, CLICK_STREAM)
    whole = chunk.measure(CLICK_STREAM, settings)
    data, header = first.read_bytes(), header_line(CLICK_STREAM)
    at = data.rindex(b'"')
    data = data[:at] + b"\n" + data[at:]
    rest = second.read_bytes()
    first.write_bytes(data)
    quoted = chunk.measure(CLICK_STREAM, settings)
    assert not quoted.same_rows(whole)
    first.write_bytes(data[: at + 1])
    second.write_bytes(header + data[at + 1 :] + rest[len(header) :])
    assert not chunk.measure(CLICK_STREAM, settings).same_rows(quoted)


def test_no_manifest_no_chunks(home: Callable[..., Settings]) -> None:
    """If this fails, half-made chunks are taken for a whole table."""
    with pytest.raises(NotBuiltError, match="materialize chunked/customer first"):
        chunk.read_manifest(chunk.folder(CUSTOMER, home()))


def test_bulk_rows_come_once(home: Callable[..., Settings]) -> None:
    """If this fails, the bulk path lets HBase overwrite one row by another without counting it."""
    settings = home()
    build(CLICK_STREAM, settings)
    path = expand.files(CLICK_STREAM, settings)[0]
    before = measured(CLICK_STREAM, settings).measure
    lines = path.read_bytes().splitlines(keepends=True)
    changed = lines[9].replace(b",WEB,", b",X,").replace(b",MOBILE,", b",X,")
    path.write_bytes(b"".join([*lines, lines[5], lines[5], changed]))
    rows = unique.Deduplicated(CLICK_STREAM, settings)
    out = Measure()
    for batch in rows:
        out += Measure(batch.num_rows, row_hash.total(row_hash.batch_hashes(batch, CLICK_STREAM.ids)))
    assert out.same_rows(before)
    assert (rows.left["duplicates"].rows, rows.left["conflicts"].rows) == (2, 1)
    assert sum(rows.left.values(), out).same_rows(measured(CLICK_STREAM, settings).measure)
    (reported,) = map(json.loads, (settings.quarantine / "click_stream.conflicts.jsonl").read_text().splitlines())
    assert reported["row"]["traffic_source"] == "X"


def doubled(settings: Settings) -> int:
    """A table with every row twice, and every third one once more with another value; returns how many it had."""
    build(CLICK_STREAM, settings)
    path = local(expand.files(CLICK_STREAM, settings)[0])
    header, *lines = path.read_bytes().splitlines(keepends=True)
    changed = [line.replace(b",WEB,", b",X,").replace(b",MOBILE,", b",X,") for line in lines[::3]]
    path.write_bytes(b"".join([header, *lines, *reversed(lines), *changed]))
    return len(lines)


def test_memory_does_not_grow_with_repeated_keys(home: Callable[..., Settings]) -> None:
    """If this fails, a delivery that was loaded twice ends the process that loads HBase."""
    settings = home()
    rows = doubled(settings)
    unique.Deduplicated(CLICK_STREAM, settings).drain()  # what is loaded once stays
    tracemalloc.start()
    found = unique.Deduplicated(CLICK_STREAM, settings)
    held = []
    for batch in found:
        held.append(batch.num_rows)
        del batch
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(held) == rows
    assert found.left["duplicates"].rows == rows
    assert found.left["conflicts"].rows == len(range(0, rows, 3))
    assert peak < 12e6 + 150 * rows / 3  # the conflicts of one batch are written at once
    conflicts = unique.conflicts_file(CLICK_STREAM, settings).read_bytes().splitlines()
    assert len(conflicts) == found.left["conflicts"].rows


def test_two_readers_at_once_do_not_meet(home: Callable[..., Settings]) -> None:
    """If this fails, two processes that load the same table write their conflicts into one file."""
    settings = home()
    doubled(settings)
    first, second = (unique.Deduplicated(CLICK_STREAM, settings).__iter__() for _ in range(2))
    next(first), next(second)
    kept = unique.conflicts_file(CLICK_STREAM, settings)
    assert len(list(kept.parent.glob(f".{kept.name}.*.part"))) == 2
    first.close()  # an abandoned one leaves nothing
    assert not kept.exists()
    for _ in second:
        pass
    assert [p.name for p in kept.parent.iterdir() if "conflicts" in p.name] == [kept.name]
    assert all(json.loads(line)["row"]["traffic_source"] == "X" for line in kept.read_bytes().splitlines())


def test_what_a_kill_has_left_goes(tmp_path: Path) -> None:
    """If this fails, the quarantine folder fills with files of killed processes."""
    old, new = tmp_path / ".x.jsonl.old.part", tmp_path / ".x.jsonl.new.part"
    for path in (old, new):
        path.touch()
    os.utime(old, (1, 1))
    with temporary(tmp_path / "x.jsonl") as (file, place):
        file.write(b"x")
        place()
    assert sorted(tmp_path.iterdir()) == [new, tmp_path / "x.jsonl"]


def test_a_full_disk_is_named_and_the_next_run_goes_on(tmp_path: Path) -> None:
    """If this fails, people get an error number, or start from the beginning when they have made room."""
    if shutil.which("mount") is None or os.geteuid():
        pytest.skip("a small file system can be mounted by root alone")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(small)], check=True)
    try:
        with open_home(load(home=small / "home", scale=0.0025)) as at:
            stream = engine(at, "stream")
            with pytest.raises(
                DiskFullError, match=r"(?s)expanded/click_stream: expected room on the disk of .*home .*run again"
            ):
                whole(stream)
            subprocess.run(["mount", "-o", "remount,size=60m", str(small)], check=True)
            whole(stream)
            for layer in ("raw", "expanded", "chunked"):
                for table in TABLES.values():
                    assert not stream.verify(layer, table).mismatches
    finally:
        subprocess.run(["umount", str(small)], check=True)


def whole(stream: Engine) -> None:
    for layer in ("raw", "expanded", "chunked"):
        for table in TABLES.values():
            stream.build(layer, table)
