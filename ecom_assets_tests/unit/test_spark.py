"""What of the Spark layers needs no server: settings, addresses, and Delta tables read without Spark."""

from __future__ import annotations

import logging
import logging.config
import socket
import time
from pathlib import Path
from typing import cast

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.errors import AnalysisException
from pyspark.errors.exceptions.connect import SparkConnectGrpcException
from pyspark.sql import SparkSession

from ecom_assets.core.context import Context
from ecom_assets.core.errors import LakeError, OwnedError, is_transient
from ecom_assets.core.layer import Cut
from ecom_assets.core.settings import Settings
from ecom_assets.core.spark import SparkConnectionError, connect
from ecom_assets.lake import companions, delta, merge, query
from ecom_assets.lake.kafka_source import java_kafka_config
from ecom_assets.lake.query import Place
from ecom_assets.paths import MERGED, STREAMED
from ecom_assets_tests.tables import PRODUCT, SHOP


def test_the_client_logs_nothing_when_logging_is_configured() -> None:
    """If it failed, `ecom run` would print a warning of Spark's client for each session that ends."""
    log = logging.getLogger("pyspark.sql.connect.logging")
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})  # as Dagster does
    assert not log.disabled
    assert not log.isEnabledFor(logging.CRITICAL)


def test_half_written_files_of_a_checkpoint_are_cleared(tmp_path: Path) -> None:
    """If this fails, a Spark that is killed while it begins its first batch leaves a stream that never starts again."""
    for name in (
        "offsets/.1.f7b788aa.tmp",
        "offsets/..1.f7b788aa.tmp.crc",
        "offsets/0",
        "offsets/.0.crc",
        "commits/.0.crc",  # of a file that is lost
        "sources/0/0",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    query.clear_leftovers(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"offsets/0", "offsets/.0.crc", "sources/0/0"}
    query.clear_leftovers(tmp_path / "none yet")


def test_kafka_settings_for_java(tmp_path: Path) -> None:
    """Spark would not get into a broker that the producer gets into."""
    ca = tmp_path / "ca.pem"
    ca.write_text("CERTIFICATE")
    java = java_kafka_config(
        {
            "security.protocol": "SASL_SSL",
            "sasl.mechanisms": "SCRAM-SHA-512",
            "sasl.username": "shop",
            "sasl.password": 'se"cret',
            "ssl.ca.location": str(ca),
            "ssl.certificate.pem": "CHAIN",
            "ssl.key.pem": "KEY",
            "ssl.key.password": "p",
            "ssl.endpoint.identification.algorithm": "none",
            "linger.ms": "50",
        }
    )
    assert java == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required"
        r' username="shop" password="se\"cret";',
        "ssl.truststore.certificates": "CERTIFICATE",
        "ssl.truststore.type": "PEM",
        "ssl.keystore.certificate.chain": "CHAIN",
        "ssl.keystore.key": "KEY",
        "ssl.keystore.type": "PEM",
        "ssl.key.password": "p",
        "ssl.endpoint.identification.algorithm": "",
    }


def test_plain_login_for_java() -> None:
    """A PLAIN login would be tried with SCRAM's module, and an empty configuration would not stay empty."""
    java = java_kafka_config({"sasl.mechanism": "PLAIN", "sasl.username": "a", "sasl.password": "b"})
    assert "plain.PlainLoginModule" in java["sasl.jaas.config"]
    assert java_kafka_config({}) == {}


@pytest.mark.parametrize("listens", [False, True], ids=["nothing listens", "something listens and never responds"])
def test_no_server(listens: bool) -> None:
    """A step would hang for ten minutes, and end with gRPC's words."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        if listens:
            other.listen()
        address = f"sc://127.0.0.1:{other.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(SparkConnectionError, match=rf"{address}.*ecom status.*ecom up"):
            connect(address, timeout=0.5)
        assert time.monotonic() - began < 5


def test_wrong_address() -> None:
    """A mistyped address would look like a server that is down."""
    with pytest.raises(SparkConnectionError, match="expected an address like sc://"):
        connect("127.0.0.1:15002")


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A Delta table of three files, 100,000 rows each."""
    for part in range(3):
        ids = pa.array(range(part * 100_000, (part + 1) * 100_000))
        write_deltalake(tmp_path / "t", pa.table({"id": ids, "text": ids.cast(pa.string())}), mode="append")
    return tmp_path / "t"


def test_read_batches(lake: Path) -> None:
    """The loader would miss or double rows, or hold a whole table in memory."""
    batches = list(delta.batches(DeltaTable(str(lake)), ["text", "id"]))
    assert {tuple(b.schema.names) for b in batches} == {("text", "id")}
    assert max(b.num_rows for b in batches) <= delta.BATCH_ROWS
    assert sorted(pa.Table.from_batches(batches)["id"].to_pylist()) == list(range(300_000))
    assert all(str(r["id"]) == r["text"] for r in batches[-1].slice(0, 10).to_pylist())


def test_read_batches_whoever_wrote_them(lake: Path) -> None:
    """Files that delta-rs has written anew hold texts in another way, and a check would end in an error."""
    DeltaTable(str(lake)).delete("id = 7")
    write_deltalake(lake, pa.table({"id": [-1], "text": pa.array([None], pa.string())}), mode="append")
    assert sum(b.num_rows for b in delta.batches(DeltaTable(str(lake)), ["text"])) == 300_000
    assert [b.to_pylist() for b in delta.batches(DeltaTable(str(lake)), ["id"], "text") if b.num_rows] == [[{"id": -1}]]


def test_sample_keys(lake: Path) -> None:
    """Regions would be split by the keys of a part of the table, or differently on each run."""
    sample = delta.sample(delta.opened(lake), ["id"], 1000)
    assert sample.schema.names == ["id"]
    assert sample["id"].to_pylist() == delta.sample(delta.opened(lake), ["id"], 1000)["id"].to_pylist()
    values = sorted(sample["id"].to_pylist())
    assert 1000 <= len(values) <= 1010
    assert all(abs(values[len(values) * q // 4] - 75_000 * q) < 1000 for q in (1, 2, 3))
    assert delta.sample(delta.opened(lake), ["id"]).num_rows == 100_000
    assert delta.sample(delta.opened(lake), ["id"], 10**6).num_rows == 300_000


def test_versions(lake: Path) -> None:
    """The loader would skip a table that has changed, or load again one that has not."""
    version = delta.rows_version(lake)
    assert version == delta.rows_version(lake)
    write_deltalake(lake, pa.table({"id": [1], "text": ["1"]}), mode="append")
    assert delta.rows_version(lake) != version


def test_versions_are_found_by_a_few_commits(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at a table that is streamed for weeks would read its whole log."""
    for n in range(30):
        write_deltalake(lake, pa.table({"id": [n], "text": ["1"]}), mode="append")
    for _ in range(2):
        DeltaTable(str(lake)).optimize.compact()
    asked: list[int | None] = []
    history = DeltaTable.history

    def counted(table: DeltaTable, limit: int | None = None) -> list:
        asked.append(limit)
        return history(table, limit)

    monkeypatch.setattr(DeltaTable, "history", counted)
    assert delta.rows_version(lake) == delta.Version(str(DeltaTable(str(lake)).metadata().id), 32)
    assert asked == [delta.LOOK_BACK]


def test_no_table(tmp_path: Path) -> None:
    """A missing table would read as an empty one, and be loaded as such."""
    with pytest.raises(LakeError, match="materialize it first"):
        delta.opened(tmp_path)


def test_delete(tmp_path: Path) -> None:
    """A rest of a deleted table would be taken for the table, or a missing one would be an error."""
    settings = Settings(home=tmp_path)
    at = Context(settings, SHOP, lambda: pytest.fail("no server is needed"))
    place = Place.of(PRODUCT, settings)
    STREAMED.delete(at, PRODUCT)
    write_deltalake(str(place.table), pa.table({"id": [1]}))
    place.checkpoint.mkdir(parents=True)
    STREAMED.delete(at, PRODUCT)
    MERGED.delete(at, PRODUCT)
    assert [p.name for p in (tmp_path / "lake").rglob("*") if p.is_file()] == ["owner.json"]
    assert not place.table.exists()
    assert not place.checkpoint.exists()


def test_another_home_may_not_touch_a_lake(tmp_path: Path) -> None:
    """Two homes with one lake would delete each other's tables."""
    settings = Settings(home=tmp_path / "ours")
    MERGED.delete(Context(settings, SHOP, lambda: pytest.fail("no server is needed")), PRODUCT)
    (tmp_path / "theirs" / "lake").parent.mkdir()
    (settings.home / "lake").rename(tmp_path / "theirs" / "lake")
    at = Context(Settings(home=tmp_path / "theirs"), SHOP, lambda: pytest.fail("no server is needed"))
    for layer in (STREAMED, MERGED):
        with pytest.raises(OwnedError, match=f"{settings.home}"):
            layer.delete(at, PRODUCT)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (SparkConnectGrpcException('status = StatusCode.UNAVAILABLE, details = "failed to connect to all"'), True),
        (SparkConnectGrpcException("[INVALID_HANDLE.SESSION_NOT_FOUND] The handle is invalid."), True),
        (SparkConnectGrpcException("[INVALID_HANDLE.SESSION_CHANGED] The existing Spark server driver is gone"), True),
        (ValueError("Cannot invoke RPC on closed channel!"), True),
        (SparkConnectGrpcException("Job aborted due to stage failure: OutOfMemoryError"), False),
        (AnalysisException("[UNRESOLVED_COLUMN] no such column"), False),
        (ValueError("another"), False),
    ],
    ids=["away", "without the session", "restarted", "closed", "a failed job", "a wrong query", "another error"],
)
def test_a_spark_that_is_away_is_told_from_a_query_that_fails(
    error: Exception, passes: bool, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it failed, a Spark that restarts would fail a run, or count as damage of the table that it was reading."""

    def fail(*_: object) -> None:
        raise error

    for module, name in ((merge, "merge"), (companions, "mismatches")):
        monkeypatch.setattr(module, name, fail)
    version = delta.rows_version(lake)
    monkeypatch.setattr(merge, "folder", lambda *_: lake)
    monkeypatch.setattr(delta, "measure", lambda *_: None)
    monkeypatch.setattr(type(MERGED), "_streamed", lambda *_: version)
    session = cast("SparkSession", None)
    at = Context(Settings(home=tmp_path), SHOP, lambda: pytest.fail("no server is needed"), lambda: session)
    for work in (
        lambda: MERGED.build(at, PRODUCT),
        lambda: MERGED.measure(at, PRODUCT, Cut(merged=str(version), streamed=str(version))),
    ):
        with pytest.raises((SparkConnectionError, type(error))) as failed:
            work()
        assert is_transient(failed.value) is passes
        assert ("`ecom up" in str(failed.value)) is passes


def test_versions_outlive_the_log(tmp_path: Path) -> None:
    """A log that was cleaned up after 30 days would leave no version to check, or rows of another one."""
    path = tmp_path / "t"
    for number in range(3):
        write_deltalake(path, pa.table({"id": [number]}), mode="append")
    before = delta.rows_version(path)
    assert before
    assert before.number == 2
    table = DeltaTable(str(path))
    table.optimize.compact()
    table.create_checkpoint()
    for number in range(3):  # what is left is maintenance alone
        (path / "_delta_log" / f"{number:020d}.json").unlink()
    now = delta.rows_version(path)
    assert now
    assert now.id == before.id
    for version in (before, now):  # as other layers were built from it, and as it is named from now on
        assert sorted(delta.at_version(path, version).to_pyarrow_table()["id"].to_pylist()) == [0, 1, 2]
