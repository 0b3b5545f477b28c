"""The lake in a real HDFS: what holds of a local folder holds there, and an HDFS that is away is reported."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

from ecom_assets.core import location
from ecom_assets.core.addresses import Addresses
from ecom_assets.core.errors import LakeError
from ecom_assets.core.location import HdfsPath, exists, remove
from ecom_assets.core.settings import Settings
from ecom_assets.hbase import bulk_load
from ecom_assets.hbase.admin import HBaseAdmin
from ecom_assets.lake import delta, maintenance, query, streamed
from ecom_assets.lake.query import Place
from ecom_assets.serving import live
from ecom_assets.serving.publication import current
from ecom_assets_tests.hdfs import Hdfs
from ecom_assets_tests.integration import test_csv_spark, test_hfile
from ecom_assets_tests.integration.test_csv_spark import (
    test_many_tasks_write_the_same_bytes,  # noqa: F401  runs here too, with the settings made below
    test_what_broke_off_is_done_again,  # noqa: F401  and so does this
)
from ecom_assets_tests.integration.test_hfile import (
    repeated_after_a_break,
    test_a_task_that_fails_says_why,  # noqa: F401  runs here too, with the settings made below
)
from ecom_assets_tests.integration.test_streamed import test_stream  # noqa: F401  runs here too, on a topic made below
from ecom_assets_tests.tables import PRODUCT, SHOP, TRANSACTIONS
from ecom_assets_tests.topics import MakeTopic, product, rows_of

addresses, admin, named = test_hfile.addresses, test_hfile.admin, test_hfile.named
raw, here, there, table = test_csv_spark.raw, test_csv_spark.here, test_csv_spark.there, test_csv_spark.table


@pytest.fixture(scope="session")
def settings(settings: Settings, hdfs: Hdfs) -> Settings:
    """The session's home, with its lake in HDFS."""
    return settings.model_copy(update={"lake_uri": f"{hdfs.uri}/lakes"})


@pytest.fixture
def folder(hdfs: Hdfs, request: pytest.FixtureRequest) -> HdfsPath:
    """A folder in HDFS."""
    path = HdfsPath(hdfs.uri) / request.node.name
    path.mkdir(parents=True)
    return path


def test_files(folder: HdfsPath) -> None:
    """Files of a lake would be read wrong, not found, or found where there are none."""
    data = bytes(range(256)) * 20_000  # several packets
    assert (folder / "a" / "12").write_bytes(data) == len(data)
    (folder / "a" / "x7").write_bytes(b"")
    with (folder / "a" / "12").open("rb") as file:
        file.seek(-5, io.SEEK_END)
        assert file.read() == data[-5:]
        file.seek(1000)
        assert file.read(256) == data[1000:1256]
    assert {p.name for p in (folder / "a").iterdir()} == {"12", "x7"}
    assert (folder / "a" / "12").stat().st_size == len(data)
    assert list(folder.glob("*/[0-9]*")) == [folder / "a" / "12"]
    assert list((folder / "none").glob("*")) == []
    assert ((folder / "a").exists(), (folder / "none").exists()) == (True, False)
    (folder / "a" / "x7").write_bytes(b"new")
    assert (folder / "a" / "x7").read_text() == "new"
    with pytest.raises(FileNotFoundError):
        (folder / "none").open("rb")
    with pytest.raises(FileNotFoundError):
        (folder / "none").unlink()
    with pytest.raises(FileNotFoundError):
        list((folder / "none").iterdir())
    (folder / "none").unlink(missing_ok=True)
    with pytest.raises(FileExistsError):
        (folder / "a").mkdir()
    (folder / "a").mkdir(exist_ok=True)
    (folder / "b").mkdir()
    with pytest.raises(FileExistsError):
        (folder / "a" / "12").rename(folder / "a" / "x7")
    (folder / "a" / "12").rename(folder / "b" / "12")
    assert [p.name for p in folder.glob("*/12")] == ["12"]


def test_remove(folder: HdfsPath) -> None:
    """A rest of a removed table, left by a crash, would keep the next one from being removed."""
    table = folder / "t"
    for _ in range(2):
        write_deltalake(str(table), pa.table({"id": [1]}))
        assert exists(table)
        (folder / ".t.gone").mkdir(exist_ok=True)
        ((folder / ".t.gone") / "left").write_bytes(b"x")
        remove(table)
        assert not exists(table)
    assert list(folder.iterdir()) == []
    remove(table)


def test_pages_and_maintenance(spark: SparkSession, make_topic: MakeTopic) -> None:
    """The dashboard would show nothing of a lake in HDFS, or an old state; maintenance would skip it, or lose rows."""
    topic = make_topic(PRODUCT)
    rows = [product(k) for k in range(1, 5)]
    seen = [current(topic.settings, SHOP, topic.at.books).merged["product"]]
    for row in rows:
        topic.send(row)
        topic.stream()
        topic.merge()
        seen.append(current(topic.settings, SHOP, topic.at.books).merged["product"])
    assert seen[0] == ""
    assert len(set(seen)) == len(seen)
    (last,) = live.last_records(PRODUCT, topic.settings, 1)
    assert last["id"] == 4
    assert maintenance.compact_lake(topic.at)["streamed/product"]["compacted"] == len(rows)
    assert rows_of(spark, PRODUCT, topic.settings) == rows
    assert current(topic.settings, SHOP, topic.at.books).merged["product"] == seen[-1]
    assert topic.merge().unchanged


def test_interrupted_load_goes_on(
    settings: Settings, addresses: Addresses, admin: HBaseAdmin, named: Callable[[str], str]
) -> None:
    """What a broken load has left in HDFS or in HBase would spoil the next one, or stay for good."""
    here = settings.model_copy(update={"namespace": "test_lake_again"})
    assert isinstance(bulk_load.folder(TRANSACTIONS.hbase_table(here.namespace), here), HdfsPath)
    repeated_after_a_break(here, addresses, admin, named)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clients that do not wait for a namenode."""
    monkeypatch.setattr(location, "CLIENT", {"dfs.client.failover.max.attempts": "1"})
    location._client.cache_clear()
    yield
    location._client.cache_clear()


@pytest.mark.usefixtures("hasty")
def test_hdfs_that_is_away(make_topic: MakeTopic, hdfs: Hdfs) -> None:
    """A lake whose HDFS does not answer would look like an empty one, and be built again next to the old."""
    topic = make_topic(PRODUCT)
    topic.send(product(1), product(2))
    assert topic.stream() == 2
    hdfs.stop("namenode")
    try:
        for ask in (
            lambda: delta.records(streamed.folder(PRODUCT, topic.settings)),
            lambda: query.unread(Place.of(PRODUCT, topic.settings), PRODUCT, topic.name, {0: 1}),
            lambda: current(topic.settings, SHOP, topic.at.books),
        ):
            with pytest.raises(LakeError, match=rf"{topic.settings.lake}/.*expected HDFS to answer at {hdfs.uri}.*URI"):
                ask()
    finally:
        hdfs.start()
    topic.send(product(3))
    assert topic.stream() == 1
    assert DeltaTable(str(streamed.folder(PRODUCT, topic.settings))).to_pyarrow_table().num_rows == 3
