"""What is found of a CSV file that nobody has declared: types, nulls, dialect."""

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ecom_assets.cli.app import app
from ecom_assets.dataset.discovery import infer
from ecom_assets.source import synthetic
from ecom_assets_tests.tables import TABLES


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("shop")
    synthetic.generate(where, 0.01, 7)
    return where


@pytest.mark.parametrize("name", TABLES)
def test_inferred_schemas_are_those_of_the_project(shop, name):
    """A schema inferred for a fifth table would not follow the rules of the four."""
    ours, inferred = TABLES[name].avsc, infer.infer(shop / f"{name}.csv")
    for mine, guess in zip(ours["fields"], inferred["fields"], strict=True):
        assert guess["name"] == mine["name"]
        assert guess["type"] == mine["type"], mine["name"]
        assert ("default" in guess) == ("default" in mine)
        kind = mine.get("parsed_as", {}).get("type", "")
        assert guess.get("parsed_as", {}).get("type", "") == (kind if kind in {"double", "date", "timestamp"} else "")
    assert inferred["name"] == name
    assert inferred.get("overflow") == ours.get("overflow")


@pytest.mark.parametrize(
    ("values", "avro", "parsed"),
    [
        (["1", "-20", "0"], "long", None),
        (["9223372036854775807", "-9223372036854775808"], "long", None),
        (["9223372036854775808"], "string", None),
        (["007", "1"], "string", None),
        (["+5"], "string", None),
        (["1", ""], ["null", "long"], None),
        (["", ""], ["null", "string"], None),
        (["1", '""'], "string", None),
        (["1", "2.50", "-3e5"], "string", "double"),
        (["007.5"], "string", None),
        (["nan", "1.0"], "string", None),
        (["2022-02-28", ""], ["null", "string"], "date"),
        (["2022-02-30"], "string", None),
        (["20220228"], "long", None),
        (["2022-02-28T10:00:00.123456Z"], "string", "timestamp"),
        (["2022-02-28 10:00:00"], "string", "timestamp"),
        (["2022-02-28T10:00:00Z", "2022-02-28T10:00:00"], "string", None),
        (["2022-02-28T25:00:00Z"], "string", None),
        (['"a,b"', '"c\nd"', '"e ""f"""'], "string", None),
        (["1", "NA"], "string", None),
        (["1", " 2"], "string", None),
    ],
)
def test_inferred_types(tmp_path, values, avro, parsed):
    """A type would be guessed that loses digits, zeros or nulls of the source."""
    file = tmp_path / "t.csv"
    file.write_text("k,v\n" + "".join(f"x,{value}\n" for value in values), encoding="utf-8", newline="")
    field = infer.infer(file)["fields"][1]
    assert field["type"] == avro
    assert field.get("parsed_as", {}).get("type") == parsed


def test_inferred_from_all_rows_unless_told(tmp_path, monkeypatch):
    """The last row of a long file would not count, or --rows not be heeded."""
    monkeypatch.setattr(infer, "_BLOCK_BYTES", 1024)
    file = tmp_path / "t.csv"
    file.write_text("v,w\n" + "1,2\n" * 5_000 + "x,2\n")
    assert infer.infer(file)["fields"][0]["type"] == "string"
    assert infer.infer(file, rows=5_000)["fields"][0]["type"] == "long"
    assert "5001 rows" in infer.infer(file)["doc"]


def test_line_breaks_in_quotes_at_every_block_border(tmp_path, monkeypatch):
    """A long file with line breaks in its texts would be cut in the middle of a row."""
    monkeypatch.setattr(infer, "_BLOCK_BYTES", 1024)
    file = tmp_path / "t.csv"
    file.write_text("v,w\n" + '1,"a\nb, c"\n' * 2_000)
    assert [f["type"] for f in infer.infer(file)["fields"]] == ["long", "string"]
    assert "2000 rows" in infer.infer(file)["doc"]


def test_inferred_from_packed_file_with_bom_and_crlf(tmp_path):
    """A file from a spreadsheet would get a column with an invisible sign in its name, or text for numbers."""
    file = tmp_path / "my shop.csv.gz"
    file.write_bytes(gzip.compress("\ufeffid,na me,2nd\r\n1,a,\r\n".encode()))
    schema = infer.infer(file)
    assert schema["name"] == "my_shop"
    assert [(f["name"], f["type"]) for f in schema["fields"]] == [
        ("id", "long"), ("na_me", "string"), ("column_2nd", ["null", "string"]),
    ]  # fmt: skip


def test_companion_never_takes_the_name_of_a_column(tmp_path):
    """The merged table would have two columns of one name."""
    (tmp_path / "t.csv").write_text("d,d_date\n2022-01-01,x\n")
    first = infer.infer(tmp_path / "t.csv")["fields"][0]
    assert first["parsed_as"] == {"name": "d_date_", "type": "date"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "expected a first line with column names"),
        (b"a,b\n1\n", "at least 2 fields per row"),
        (b"a,b\n1,\xff\n", "UTF-8"),
    ],
)
def test_what_cannot_be_inferred_is_an_error(tmp_path, text, message):
    """A file that is no table would give a schema that fits nothing, or a bare traceback."""
    file = tmp_path / "t.csv"
    file.write_bytes(text)
    with pytest.raises(ValueError, match=rf"t.csv: .*{message}"):
        infer.infer(file)


def test_infer_command_prints_one_field_per_line(shop, tmp_path):
    """`ecom schema infer` would not print what can be put into schemas/."""
    result = CliRunner().invoke(app, ["schema", "infer", str(shop / "product.csv")])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == infer.infer(shop / "product.csv")
    assert sum(line.startswith('    {"name": ') for line in result.stdout.splitlines()) == 10
    (tmp_path / "empty.csv").touch()
    failed = CliRunner().invoke(app, ["schema", "infer", str(tmp_path / "empty.csv")])
    assert failed.exit_code == 1
    assert "empty.csv: expected a first line" in failed.stderr
