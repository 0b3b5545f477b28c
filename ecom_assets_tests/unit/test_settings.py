"""Settings and the tables' contract."""

import json
import os
from pathlib import Path

import fastavro
import pytest

from ecom_assets.core.errors import HomeError
from ecom_assets.core.home import create, hint
from ecom_assets.core.settings import (
    SECRETS,
    HomeMismatchError,
    SecretFileError,
    Settings,
    SettingsError,
    load,
    remember,
)
from ecom_assets.dataset.model import Table
from ecom_assets_tests.tables import TABLES


def test_a_home_remembers_its_data(tmp_path: Path) -> None:
    """If this fails, a second run without options would mix other data into a home."""
    remember(load(home=tmp_path, scale=0.5, expand="2"))
    again = load(home=tmp_path)
    assert (again.scale, again.expand) == (0.5, "2")
    assert load(home=tmp_path, scale=0.5).scale == 0.5
    with pytest.raises(HomeMismatchError, match=r"expected scale 0\.5, with which it was built, got 0\.1"):
        load(home=tmp_path, scale=0.1)


def test_a_home_holds_one_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, the tables of two shops are mixed in one home."""
    monkeypatch.chdir(tmp_path)
    remember(load(home=tmp_path, dataset="./mine"))
    assert load(home=tmp_path).dataset == str(tmp_path / "mine")
    with pytest.raises(HomeMismatchError, match=r"expected dataset '.*/mine', with which it was built, got 'shop'"):
        load(home=tmp_path, dataset="shop")


def test_a_folder_of_the_working_directory_is_remembered_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a home is read with another declaration, or none, from another folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "dataset.yaml").touch()
    assert load(home=tmp_path, dataset="mine").dataset == str(tmp_path / "mine")
    assert load(home=tmp_path, dataset=".").dataset == str(tmp_path)
    assert load(home=tmp_path, dataset="shop").dataset == "shop"


def test_a_bucket_has_one_name(tmp_path: Path) -> None:
    """If this fails, a bucket is taken for a folder, or a run that adds a slash is refused as another source."""
    remember(load(home=tmp_path, source="s3://shop-exports/daily/"))
    assert load(home=tmp_path).source == "s3://shop-exports/daily"
    assert load(home=tmp_path, source="s3://shop-exports/daily").source == "s3://shop-exports/daily"
    with pytest.raises(HomeMismatchError, match=r"expected source 's3://shop-exports/daily', with which"):
        load(home=tmp_path, source="s3://shop-exports/weekly")


@pytest.mark.parametrize(
    "source",
    ["s3://", "s3://key:hidden@bucket/x", "s3://bucket/x?secret_key=hidden", "gs://bucket", "https://hidden/x"],
)
def test_an_address_that_is_no_bucket_is_refused(tmp_path: Path, source: str) -> None:
    """If this fails, a key in an address gets into the home and its logs, or a folder named `gs:` is looked for."""
    with pytest.raises(SettingsError, match="expected a folder or s3://bucket/folder, got another address") as raised:
        load(home=tmp_path, source=source)
    assert "hidden" not in str(raised.value)


def test_a_home_from_before_data_sets_holds_the_shop(tmp_path: Path) -> None:
    """If this fails, another data set is written over the shop's."""
    (tmp_path / "home.json").write_text(json.dumps({"source": "synthetic", "namespace": "ecom"}))
    assert load(home=tmp_path).dataset == "shop"
    with pytest.raises(HomeMismatchError, match="expected dataset 'shop'"):
        load(home=tmp_path, dataset="/mine")


def test_a_home_that_was_only_begun_may_change_its_mind(tmp_path: Path) -> None:
    """If this fails, a first run that was broken off is not resumed, or can't be asked for with other options."""
    remember(load(home=tmp_path, scale=0.5, expand="2", postgres="postgresql://u:hunter2@h/d"), begun=True)
    again = load(home=tmp_path)
    assert (again.scale, again.expand, again.postgres) == (0.5, "2", "")
    other = load(home=tmp_path, scale=0.1)
    assert (other.scale, other.expand) == (0.1, "2")
    remember(other, begun=True)
    assert load(home=tmp_path).scale == 0.1
    remember(other)
    with pytest.raises(HomeMismatchError, match=r"expected scale 0\.1"):
        load(home=tmp_path, scale=0.5)
    remember(other, begun=True)
    with pytest.raises(HomeMismatchError, match=r"expected scale 0\.1"):
        load(home=tmp_path, scale=0.5)


def test_a_home_remembers_where_its_data_are(tmp_path: Path) -> None:
    """If this fails, a variable that is unset the next time sends the same rows to another lake or broker."""
    remember(load(home=tmp_path, lake_uri="hdfs://n:8020/lake", kafka="a:9092,b:9092", hbase_zookeeper="z:2181"))
    again = load(home=tmp_path)
    assert (again.lake_uri, again.kafka, again.hbase_zookeeper) == ("hdfs://n:8020/lake", "a:9092,b:9092", "z:2181")
    assert load(home=tmp_path, kafka="").kafka == "a:9092,b:9092", "an empty variable is none"
    assert load(home=tmp_path, kafka="b:9092,c:9092").kafka == "b:9092,c:9092", "one cluster, other brokers of it"
    for name, other in (("lake_uri", "hdfs://n:8020/other"), ("kafka", "c:9092"), ("hbase_zookeeper", "y:2181")):
        with pytest.raises(HomeMismatchError, match=rf"expected {name} '.*', with which it was built, got '{other}'"):
            load(home=tmp_path, **{name: other})


def test_a_home_with_its_own_servers_keeps_to_them(tmp_path: Path) -> None:
    """If this fails, a home whose topics are in its own Kafka silently continues with another one."""
    remember(load(home=tmp_path))
    with pytest.raises(HomeMismatchError, match=r"expected kafka to be empty, for its own server, .* got 'a:9092'"):
        load(home=tmp_path, kafka="a:9092")


@pytest.mark.parametrize("name", ["postgres", "books"])
def test_a_password_is_not_remembered(name: str, tmp_path: Path) -> None:
    """If this fails, a password is on disk, or a home goes on without the database that holds its data."""
    address = "postgresql://me:hunter2@db:5432/shop"
    remember(load(home=tmp_path, **{name: address}))
    assert "hunter2" not in (tmp_path / "home.json").read_text()
    assert getattr(load(home=tmp_path, **{name: address.replace("hunter2", "hunter3")}), name)
    with pytest.raises(HomeMismatchError, match=rf"'postgresql://db:5432/shop', .* got no ECOM_{name.upper()}"):
        load(home=tmp_path)
    with pytest.raises(HomeMismatchError, match="got 'postgresql://other:5432/shop'") as refused:
        load(home=tmp_path, **{name: "postgresql://me:hunter2@other:5432/shop"})
    assert "hunter2" not in str(refused.value)


def test_a_home_is_for_its_owner_alone(tmp_path: Path) -> None:
    """If this fails, every user of the machine reads raw data, quarantine and passwords."""
    old = os.umask(0o022)
    try:
        for home in (tmp_path / "new", tmp_path / "empty"):
            (tmp_path / "empty").mkdir(exist_ok=True)
            remember(load(home=home))
            assert home.stat().st_mode & 0o777 == 0o700
            assert (home / "home.json").stat().st_mode & 0o777 == 0o600
        shared = tmp_path / "shared"
        (shared / "of others").mkdir(parents=True)
        create(load(home=shared))
        assert shared.stat().st_mode & 0o777 == 0o755, "somebody else's folder is not closed"
    finally:
        os.umask(old)


@pytest.mark.parametrize("name", ["a[b]", "a|b", "a^b", "a\\b"])
def test_a_path_that_no_lake_can_have_is_refused(tmp_path: Path, name: str) -> None:
    """If this fails, a run ends in the middle with a panic of the library that writes Delta tables."""
    with pytest.raises(HomeError, match=r"(?s)expected a home whose path has none of .*--home"):
        create(load(home=tmp_path / name))
    assert not (tmp_path / name).exists()


def test_a_hint_names_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a remedy that is followed starts another stack in the current folder."""
    monkeypatch.chdir(tmp_path)
    assert hint("up", load(home=Path(".ecom"))) == "ecom up"
    assert hint("reset topic", load(home=tmp_path / "a b")) == f"ecom reset topic --home '{tmp_path}/a b'"


def test_a_target_that_makes_no_sense_is_refused_at_once(tmp_path: Path) -> None:
    """If this fails, it is noticed after servers have started, and the home refuses every correct call after it."""
    with pytest.raises(HomeError, match=r"--expand: expected none, a factor .* got 'lots'"):
        load(home=tmp_path / "new", expand="lots")
    assert not (tmp_path / "new").exists()


def test_the_environment_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a variable is ignored, or wins over what is typed."""
    monkeypatch.setenv("ECOM_HOME", str(tmp_path))
    monkeypatch.setenv("ECOM_REGIONS", "7")
    monkeypatch.setenv("ECOM_KAFKA_CONFIG", '{"security.protocol": "SASL_SSL"}')
    assert load().regions == 7
    assert load(regions=3).regions == 3
    assert load().kafka_config == {"security.protocol": "SASL_SSL"}


def test_secrets_stay_out_of_the_home(tmp_path: Path) -> None:
    """If this fails, a password is written to disk."""
    remember(load(home=tmp_path, kafka_config={"sasl.password": "hunter2"}))
    assert "hunter2" not in (tmp_path / "home.json").read_text()


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_may_stand_in_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, passwords must stand in variables, where whoever may inspect a container reads them."""
    variable, file = f"ECOM_{name.upper()}", tmp_path / "secret"
    secret = '{"sasl.password": "hunter2"}' if name == "kafka_config" else "hunter2"
    monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(f"{variable}_FILE", str(file))
    with pytest.raises(SecretFileError, match=f"{variable}_FILE: expected a file that can be read at {file}"):
        load(home=tmp_path)
    file.write_text("\n")
    with pytest.raises(SecretFileError, match="got an empty file"):
        load(home=tmp_path)
    file.write_text(secret + "\n")
    assert getattr(load(home=tmp_path), name) == (json.loads(secret) if name == "kafka_config" else secret)
    monkeypatch.setenv(variable, secret)
    with pytest.raises(SecretFileError, match=f"expected {variable} or {variable}_FILE, got both"):
        load(home=tmp_path)


def test_every_setting_is_described() -> None:
    """If this fails, a setting cannot be understood from its listing."""
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_the_contract_is_whole(table: Table) -> None:
    """If this fails, a column has no place in HBase, a key is unknown, or the schema is no Avro."""
    fastavro.parse_schema(json.loads(table.avro))
    placed = {c for columns in table.hbase.families.values() for c in columns} | set(table.hbase.row_key)
    assert placed == set(table.names)
    assert table.key_columns <= set(table.names)
    assert {*table.primary_key} <= {*table.hbase.row_key}
    assert not any(c.nullable for c in table.columns if c.name in table.primary_key)
    typed = {c.parsed_as[0] for c in table.columns if c.parsed_as}
    for reference in table.references:
        assert {path.split(".")[0] for path in reference.columns} <= {*table.names, *typed}
        assert {*reference.to} <= {*TABLES[reference.table].names}
