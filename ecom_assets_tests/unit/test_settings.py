"""Settings and the tables' contract."""

import json
from pathlib import Path

import fastavro
import pytest

from ecom_assets.core.errors import HomeError
from ecom_assets.core.settings import SECRETS, HomeMismatchError, SecretFileError, Settings, load, remember
from ecom_assets.dataset.model import Table
from ecom_assets.dataset.shop import TABLES


def test_a_home_remembers_its_data(tmp_path: Path) -> None:
    """If this fails, a second run without options would mix other data into a home."""
    remember(load(home=tmp_path, scale=0.5, expand="2"))
    again = load(home=tmp_path)
    assert (again.scale, again.expand) == (0.5, "2")
    assert load(home=tmp_path, scale=0.5).scale == 0.5
    with pytest.raises(HomeMismatchError, match=r"expected scale 0\.5, with which it was built, got 0\.1"):
        load(home=tmp_path, scale=0.1)


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
    assert {table.primary_key, table.entity_key, *table.keys} <= set(table.names)
    assert table.primary_key in table.hbase.row_key
    assert not next(c for c in table.columns if c.name == table.primary_key).nullable
    typed = {c.parsed_as[0] for c in table.columns if c.parsed_as}
    for reference in table.references:
        assert reference.path.split(".")[0] in {*table.names, *typed}
        assert reference.column in TABLES[reference.table].names
