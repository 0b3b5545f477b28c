"""Expansion and chunking by Spark's tasks, compared with the same on one machine, byte by byte."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from pyspark.sql import SparkSession

from ecom_assets.core.errors import ServiceError
from ecom_assets.core.location import Location
from ecom_assets.core.settings import Settings
from ecom_assets.csv import blocks, chunk, expand, fold, spark_tasks
from ecom_assets.csv.contract import header_line
from ecom_assets.csv.plan import plan
from ecom_assets.dataset.model import Table
from ecom_assets.source import synthetic
from ecom_assets_tests.tables import CLICK_STREAM, CUSTOMER, PRODUCT, SHOP, TABLES


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw files with all that makes a block odd: bad rows, a stray quote, carriage returns, no line end at the end."""
    folder = tmp_path_factory.mktemp("raw")
    synthetic.generate(folder, 0.001, 7)
    for table, change in (
        (
            CUSTOMER,
            lambda lines: [*lines[:40], b"broken,row\n", *lines[40:70], b'a "stray quote"\n', *lines[70:]],
        ),
        (CLICK_STREAM, lambda lines: [*lines[:-500], *(line.replace(b"\n", b"\r\n") for line in lines[-500:])]),
        (PRODUCT, lambda lines: [*lines[:-1], lines[-1].rstrip(b"\n")]),
    ):
        path = folder / table.csv
        path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    return folder


@pytest.fixture
def here(settings: Settings, tmp_path: Path, raw: Path) -> Settings:
    """A home that does it on one machine."""
    shutil.copytree(raw, tmp_path / "local" / "raw")
    return settings.model_copy(update={"home": tmp_path / "local", "chunk_bytes": 5000})


@pytest.fixture
def there(settings: Settings, tmp_path: Path, raw: Path) -> Settings:
    """A home that lets Spark do it."""
    shutil.copytree(raw, tmp_path / "spark" / "raw")
    own = {"home": tmp_path / "spark", "chunk_bytes": 5000, "csv_engine": "spark", "namespace": f"csv_{uuid4().hex}"}
    return settings.model_copy(update=own)


@pytest.fixture
def table(request: pytest.FixtureRequest, raw: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    """A table with several blocks for each of several tasks."""
    table: Table = getattr(request, "param", CUSTOMER)
    size = (raw / table.csv).stat().st_size
    monkeypatch.setattr(expand, "LEAST_BLOCK", size // 20)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", size // 20)
    monkeypatch.setattr(spark_tasks, "PART_BYTES", size // 4)
    return table


def expanded_by_spark(
    spark: SparkSession, table: Table, settings: Settings, progress: Callable[[int], None] | None = None
) -> expand.Expansion:
    """Expand a table by Spark's tasks."""
    return spark_tasks.expand_table(spark, table, settings, plan(table, SHOP, settings), progress)


def expanded_here(table: Table, settings: Settings) -> expand.Expansion:
    """Expand a table on this machine."""
    return expand.build(table, settings, plan(table, SHOP, settings))


def measured(table: Table, settings: Settings) -> fold.Folded:
    """Measure a table's copies."""
    return fold.measure(expand.files(table, settings), table, plan(table, SHOP, settings))


def held(folder: Location) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def copies(files: dict[str, bytes], table: Table) -> dict[int, bytes]:
    """The rows of every copy, its parts joined."""
    found: dict[int, bytes] = {}
    for name in sorted(files):
        header, body = files[name].split(b"\n", 1)
        assert header + b"\n" == header_line(table)
        number = int(name[5:8])
        found[number] = found.get(number, b"") + body
    return found


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES), indirect=True)
def test_many_tasks_write_the_same_bytes(spark: SparkSession, here: Settings, there: Settings, table: Table) -> None:
    """A row would be lost, doubled or changed where one task ends and the next begins, or chunks by Spark differ."""
    size = (here.raw / table.csv).stat().st_size
    grown = {"expand": "2.5", "chunk_bytes": max(2000, size // 40)}
    here, there = (each.model_copy(update=grown) for each in (here, there))
    reported: list[int] = []
    assert expanded_by_spark(spark, table, there, reported.append) == expanded_here(table, here)
    parts = len(reported)
    assert sum(reported) == pytest.approx(size, abs=300)
    files = held(expand.folder(table, there))
    assert len(files) == 3 * parts
    assert parts > 2
    assert copies(files, table) == copies(held(expand.folder(table, here)), table)
    assert expand.quarantine_file(table, there).read_bytes() == expand.quarantine_file(table, here).read_bytes()
    ours, theirs = measured(table, there), measured(table, here)
    assert [replace(copy, bytes=0) for copy in ours.copies] == [replace(copy, bytes=0) for copy in theirs.copies]
    assert ours.measure.same_rows(theirs.measure)

    reported.clear()
    chunks = spark_tasks.chunk_table(spark, table, there, reported.append)
    assert sum(reported) == sum(c.rows for c in chunks) == ours.measure.rows
    shutil.rmtree(here.home / "expanded" / table.name)
    for name, data in files.items():
        path = here.home / "expanded" / table.name / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    assert chunks == chunk.build(table, here)
    assert held(chunk.folder(table, there)) == held(chunk.folder(table, here))
    assert chunk.measure(table, there).same_rows(theirs.measure)
    for layer in (there.expanded, there.chunked):
        assert [path.name for path in layer.iterdir()] == [table.name], "what tasks have left"


def test_one_task_makes_the_same_manifest(spark: SparkSession, here: Settings, there: Settings) -> None:
    """A home of ordinary size would have other chunks, and its topic's ledger would refuse them."""
    expanded_by_spark(spark, PRODUCT, there)
    expanded_here(PRODUCT, here)
    assert list(held(expand.folder(PRODUCT, there)).values()) == list(held(expand.folder(PRODUCT, here)).values())
    assert spark_tasks.chunk_table(spark, PRODUCT, there) == chunk.build(PRODUCT, here)
    assert held(chunk.folder(PRODUCT, there)) == held(chunk.folder(PRODUCT, here))


def test_a_table_without_rows(spark: SparkSession, there: Settings) -> None:
    """It would look as if it had not been made, and be made again by each run."""
    (there.raw / PRODUCT.csv).write_bytes(header_line(PRODUCT))
    assert expanded_by_spark(spark, PRODUCT, there).rows == 0
    assert list(held(expand.folder(PRODUCT, there)).values()) == [header_line(PRODUCT)]
    assert spark_tasks.chunk_table(spark, PRODUCT, there) == []
    assert held(chunk.folder(PRODUCT, there)) == {chunk.MANIFEST: b""}


@pytest.mark.parametrize("moves", [0, 2])
def test_what_broke_off_is_done_again(
    spark: SparkSession, there: Settings, table: Table, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    """A half-made layer would pass for a whole one, or the rest of a killed run would spoil the next."""
    steps: dict[Location, Callable[[], object]] = {
        expand.folder(table, there): lambda: expanded_by_spark(spark, table, there),
        chunk.folder(table, there): lambda: spark_tasks.chunk_table(spark, table, there),
    }
    for folder, step in steps.items():
        with monkeypatch.context() as broken:
            broken.setattr(spark_tasks, "move", breaking(moves))
            with pytest.raises(ConnectionError):
                step()
            assert not folder.exists()
        left = folder.with_name(f".{table.name}.part") / "chunks"
        left.mkdir(parents=True)
        (left / "part-000000.csv").write_bytes(b"left by a kill")
        step()
        whole = held(folder)
        with monkeypatch.context() as broken:
            broken.setattr(spark_tasks, "move", breaking(moves))
            with pytest.raises(ConnectionError):
                step()
        assert held(folder) == whole
        step()
        assert held(folder) == whole
        assert [path.name for path in folder.parent.iterdir()] == [table.name]


def breaking(moves: int) -> Callable[[Location, Location], None]:
    """Moves some files, then the connection is lost."""
    real, left = spark_tasks.move, [None] * moves

    def move(path: Location, target: Location) -> None:
        if not left:
            raise ConnectionError
        left.pop()
        real(path, target)

    return move


def test_a_task_that_fails_says_why(spark: SparkSession, there: Settings) -> None:
    """Rows that cannot be read would be cut all the same, or a stack trace is all that people get."""
    expanded_by_spark(spark, CUSTOMER, there)
    (path,) = expand.files(CUSTOMER, there)
    path.write_bytes(path.read_bytes() + b"broken,row\n")
    with pytest.raises(ServiceError, match=r"chunked/customer: expected .*DamagedError: expanded/customer, line \d+"):
        spark_tasks.chunk_table(spark, CUSTOMER, there)
    assert not chunk.folder(CUSTOMER, there).exists()
    (reported,) = {json.loads(line)["table"] for line in expand.quarantine_file(CUSTOMER, there).open()}
    assert reported == CUSTOMER.name
