"""Where the lake and what goes by it into HBase lie, without a server."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ecom_assets.core.errors import HBaseError, LakeError
from ecom_assets.core.location import HdfsPath, hadoop_uri, local, rmtree, stamp
from ecom_assets.core.settings import Settings
from ecom_assets.csv import chunk, expand
from ecom_assets.hbase import bulk_load, importtsv
from ecom_assets.hbase.layout import Target
from ecom_assets.lake import merge, quarantine, streamed
from ecom_assets.lake.query import Place
from ecom_assets_tests.tables import PRODUCT


def test_paths() -> None:
    """Spark, delta-rs and HBase would be given other names than the files have."""
    path = HdfsPath("hdfs://namenode:8020/lake/") / "ecom" / "a b"
    assert str(path) == hadoop_uri(path) == "hdfs://namenode:8020/lake/ecom/a b"
    assert (path.name, str(path.parent), path.at) == ("a b", "hdfs://namenode:8020/lake/ecom", "hdfs://namenode:8020")
    assert path.with_name("c") == HdfsPath("hdfs://namenode:8020/lake/ecom/c")
    assert str(HdfsPath("hdfs://namenode:8020") / "x") == "hdfs://namenode:8020/x"
    assert pickle.loads(pickle.dumps(path)) == path  # Spark's tasks get it so
    assert hadoop_uri(Path("/a b")) == "file:///a b"


def test_the_lake_lies_where_the_setting_says(tmp_path: Path) -> None:
    """Two homes that share a cluster would write one another's tables, or some tables would stay behind in the home."""
    here = Settings(home=tmp_path, namespace="one")
    assert here.lake == tmp_path / "lake"
    assert bulk_load.folder("one_product", here) == tmp_path / "staging" / "one_product"
    there = here.model_copy(update={"lake_uri": "hdfs://n:8020/lake"})
    for place in (streamed.folder, merge.folder, quarantine.folder, lambda t, s: Place.of(t, s).checkpoint):
        assert str(place(PRODUCT, there)).startswith("hdfs://n:8020/lake/one/")
    assert str(bulk_load.folder("one_product", there)).startswith("hdfs://n:8020/lake/one/")
    shared = there.model_copy(update={"hbase_staging": tmp_path})
    assert bulk_load.folder("one_product", shared) == tmp_path / "one_product"
    for place in (expand.folder, chunk.folder):
        assert local(place(PRODUCT, there)).is_relative_to(tmp_path)
        assert str(place(PRODUCT, there.model_copy(update={"csv_engine": "spark"}))).startswith(
            "hdfs://n:8020/lake/one/"
        )


def test_one_machine_does_not_write_into_hdfs(tmp_path: Path) -> None:
    """Files of a home would be looked for in HDFS, or made there by the wrong one."""
    there = Settings(home=tmp_path, lake_uri="hdfs://n:8020/lake", csv_engine="spark")
    with pytest.raises(LakeError, match=r"^hdfs://n:8020/lake/ecom/chunked/product: expected a folder of this machine"):
        chunk.build(PRODUCT, there)


@pytest.mark.parametrize("uri", ["s3://bucket/lake", "/lake", "hdfs:///lake", "hdfs://"])
def test_a_lake_elsewhere_is_refused(uri: str) -> None:
    """A lake that nobody can read would be found out by the first table."""
    with pytest.raises(ValidationError, match="lake_uri"):
        Settings(lake_uri=uri)


def test_an_hdfs_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would look like an empty lake."""
    monkeypatch.setattr("ecom_assets.core.location.CLIENT", {"dfs.client.failover.max.attempts": "1"})
    with pytest.raises(LakeError, match=r"^hdfs://127\.0\.0\.1:2/x: expected HDFS to answer at .*refused.*LAKE_URI"):
        HdfsPath("hdfs://127.0.0.1:2/x").exists()


def test_a_file_that_was_replaced_is_seen(tmp_path: Path) -> None:
    """Pages would show what a table of the same version number held before."""
    file = tmp_path / "0.json"
    file.write_text("a")
    before = stamp(file)
    assert stamp(file) == before
    other = tmp_path / "other"
    other.write_text("a")
    other.replace(file)
    assert stamp(file) != before


def test_yarn_needs_hdfs(tmp_path: Path) -> None:
    """Nodes would look for the rows on their own disks."""
    settings = Settings(home=tmp_path, yarn="127.0.0.1:8032")
    nobody: Any = None
    with pytest.raises(HBaseError, match=f"(?s)expected ImportTsv's files in HDFS.*got {tmp_path}.*ECOM_LAKE_URI"):
        importtsv.load(Target.public(PRODUCT, settings, 1), [], settings, nobody, nobody)


def test_what_is_written_while_a_folder_is_deleted_is_deleted_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that learns of the end of its job only now would leave its files behind."""
    folder, late = tmp_path / "staging", iter(range(3))
    delete = shutil.rmtree

    def deleted_under_a_task(path: Path, **given: Any) -> None:
        delete(path, **given)
        if next(late, None) is not None:
            (path / "attempt").mkdir(parents=True)

    monkeypatch.setattr(shutil, "rmtree", deleted_under_a_task)
    folder.mkdir()
    rmtree(folder)
    assert not folder.exists()
