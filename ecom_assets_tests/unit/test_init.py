"""A data set from a folder of CSV files: what is found in it, what is written, and what a second run leaves alone."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ecom_assets.cli.app import app
from ecom_assets.dataset import declaration
from ecom_assets.dataset.discovery import candidates, discover, hashes, infer, names
from ecom_assets.dataset.discovery.hashes import Hashes
from ecom_assets.dataset.loader import FILE, load
from ecom_assets.dataset.model import Dataset, Table
from ecom_assets.source import synthetic
from ecom_assets.source.folder import locate
from ecom_assets.source.places import Folder
from ecom_assets_tests.tables import TABLES

ORDERS = range(1000, 1400)


def table(folder: Path, name: str, header: str, rows: Iterable[object]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.csv").write_text("\n".join([header, *map(str, rows)]) + "\n", encoding="utf-8")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small retailer: keys of one and of two columns, nulls, money, dates, and a few values that lead nowhere."""
    at = tmp_path / "files"
    table(at, "customers", "id,name,joined", (f"{n},Name {n % 37},2024-01-{n % 28 + 1:02}" for n in range(1, 301)))
    table(at, "products", "sku,title", (f"p{n},Thing {n % 9}" for n in range(120)))
    table(
        at, "orders", "order_no,customer_id,total,placed_at",
        (f"{n},{n % 300 + 1 if n % 9 else ''},{n * 7}.{n % 100:02},2024-02-0{n % 9 + 1}T10:00:00Z" for n in ORDERS),
    )  # fmt: skip
    table(
        at, "order_lines", "order_no,no,sku,price,note",
        (f"{n},{line},p{(n + line) % 120},{n % 90}.{line}5,note of {n} {line}" for n in ORDERS for line in (1, 2, 3)),
    )  # fmt: skip
    table(at, "returns", "return_id,order_no,no", (f"{n},{1000 + n},{n % 3 + 1}" for n in range(200)))
    table(at, "visits", "visit_id,customer_id", (f"{n},{n % 300 + 1 if n % 250 else 9999}" for n in range(1, 2001)))
    return at


def init(folder: Path, source: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["init", str(folder), "--from", str(source), *options])


def loaded(folder: Path) -> Dataset:
    load.cache_clear()
    return load(folder)


def references(declared: Table) -> list[tuple[str, float]]:
    return [(each.label, each.tolerated) for each in declared.references]


def test_a_folder_declares_itself(source: Path, tmp_path: Path) -> None:
    """If this fails, a team with tables of its own has to write what its data show."""
    done = init(tmp_path / "retail", source)
    assert done.exit_code == 0, done.output
    found = loaded(tmp_path / "retail")
    assert found.name == "retail"
    assert {name: each.primary_key for name, each in found.tables.items()} == {
        "customers": ("id",), "order_lines": ("order_no", "no"), "orders": ("order_no",), "products": ("sku",),
        "returns": ("return_id",), "visits": ("visit_id",),
    }  # fmt: skip
    assert {name: references(each) for name, each in found.tables.items() if each.references} == {
        "orders": [("customer_id -> customers.id", 0)],
        "order_lines": [("order_no -> orders.order_no", 0), ("sku -> products.sku", 0)],
        "returns": [("order_no -> orders.order_no", 0), ("order_no, no -> order_lines.(order_no, no)", 0)],
        "visits": [("customer_id -> customers.id", 0.004)],
    }
    assert found.tables["orders"].domains == {"order_no": "orders", "customer_id": "customers"}
    assert found.tables["order_lines"].domains == {"order_no": "orders", "no": "order_lines.no", "sku": "products"}
    assert found.tables["returns"].domains["no"] == "order_lines.no"
    assert {c.name: (c.kind.name, c.nullable, c.parsed_as) for c in found.tables["orders"].columns} == {
        "order_no": ("long", False, None), "customer_id": ("long", True, None),
        "total": ("string", False, ("total_dec", "decimal(8,2)")),
        "placed_at": ("string", False, ("placed_at_ts", "timestamp")),
    }  # fmt: skip
    assert found.tables["order_lines"].hbase.forms == ("int64", "int64")
    assert found.tables["products"].hbase.forms == ("text",)


def test_what_is_sure_and_what_is_a_guess_is_said(source: Path, tmp_path: Path) -> None:
    """If this fails, people take a guess for a fact, or are not shown how to go on."""
    done = init(tmp_path / "retail", source)
    assert "key; refers to orders, order_lines" in " ".join(done.stderr.split())
    assert "customer_id -> customers, but 8 dangle" in " ".join(done.stderr.split())
    assert "# A guess: 8 of 2,000 values lead nowhere." in (tmp_path / "retail" / FILE).read_text(encoding="utf-8")
    assert f"ecom run --dataset {tmp_path / 'retail'} --source {source}" in done.stderr


def test_the_command_to_go_on_means_the_new_data_set(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, a data set called like one that comes along is declared, and the other one is run."""
    monkeypatch.chdir(tmp_path)
    assert "ecom run --dataset ./shop --source" in init(Path("shop"), source).stderr


def test_a_second_run_changes_no_line(source: Path, tmp_path: Path) -> None:
    """If this fails, what a person corrected is lost, or what they took out comes back."""
    folder = tmp_path / "retail"
    init(folder, source)
    text = (folder / FILE).read_text(encoding="utf-8")
    begin, end = text.index("  products:"), text.index("  returns:")
    edited = text[:begin] + text[end:].rstrip() + "\n    # below visits\n\n# at the end\nkaggle: a/b\n"
    edited = edited.replace("  orders:\n", "  orders:   # ours\n").replace(", sku: products}", "}")
    edited = edited.replace("      - {columns: [sku], table: products, to: [sku]}\n", "")
    (folder / FILE).write_text(edited, encoding="utf-8")
    kept = {each.name: each.read_bytes() for each in folder.glob("*.avsc")}
    table(source, "payments", "payment_id,order_no,amount", (f"{n},{1000 + n % 400},{n}.50" for n in range(500)))
    table(source, "customers", "id,name,joined,vip", (f"{n},Name,2024-01-01,y" for n in range(1, 301)))

    done = init(folder, source)
    assert done.exit_code == 0, done.output
    after = (folder / FILE).read_text(encoding="utf-8")
    begin, end = after.index("\n  payments:"), after.index("# at the end")
    assert after[:begin] + after[end - 1 :] == edited
    assert "    # below visits\n\n  payments:" in after
    assert list(loaded(folder).tables) == ["customers", "order_lines", "orders", "returns", "visits", "payments"]
    assert references(loaded(folder).tables["payments"]) == [("order_no -> orders.order_no", 0)]
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    assert "customers.csv: new columns vip; add them to" in done.stderr
    assert "products: taken out of dataset.yaml" in done.stderr

    third = init(folder, source)
    assert "nothing to add" in third.stderr
    assert (folder / FILE).read_text(encoding="utf-8") == after


def test_a_table_that_was_declared_by_hand_is_recognized(source: Path, tmp_path: Path) -> None:
    """If this fails, a file with names of its own is declared a second time, or called wrong where it is right."""
    folder = tmp_path / "retail"
    init(folder, source)
    (source / "products.csv").rename(source / "Our products.csv")
    table(source, "Our products", "Stock unit,title", (f"p{n},Thing {n % 9}" for n in range(120)))
    declared = (
        (folder / FILE)
        .read_text(encoding="utf-8")
        .replace("  products:\n", "  products:\n    file: Our products.csv\n")
    )
    (folder / FILE).write_text(declared, encoding="utf-8")
    schema = folder / "products.avsc"
    schema.write_text(
        schema.read_text(encoding="utf-8").replace('"sku",', '"sku", "header": "Stock unit",'), encoding="utf-8"
    )
    table(source, "prices", "price_id,sku,price", (f"{n},p{n % 120},{n}.50" for n in range(500)))
    done = init(folder, source)
    assert "✗" not in done.stderr
    assert references(loaded(folder).tables["prices"]) == [("sku -> products.sku", 0)]


def test_a_declared_table_that_may_refer_to_a_new_one_is_named(source: Path, tmp_path: Path) -> None:
    """If this fails, a table that arrives late is referred to by none, and nobody notices."""
    products = (source / "products.csv").read_text(encoding="utf-8")
    (source / "products.csv").unlink()
    init(tmp_path / "retail", source)
    (source / "products.csv").write_text(products, encoding="utf-8")
    assert "order_lines: all values of sku -> products are found" in init(tmp_path / "retail", source).stderr


def test_what_does_not_load_is_not_written(source: Path, tmp_path: Path) -> None:
    """If this fails, a folder is left that no command can work with."""
    folder = tmp_path / "retail"
    folder.mkdir()
    (folder / "orders.avsc").write_text('{"type": "record", "name": "o", "fields": []}', encoding="utf-8")
    done = init(folder, source)
    assert done.exit_code == 1
    assert "nothing was written" in done.stderr
    assert f"{folder}/orders.avsc:1: fields: expected a field per column, got none" in done.stderr
    assert [each.name for each in folder.iterdir()] == ["orders.avsc"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t", b"id,,b\n1,2,3\n", "expected a name for every column, found none for 2"),
        ("t", b"id,a,a\n1,2,3\n", "expected column names that differ, found 'a' again"),
        ("t", b"id;name\n1;a\n", "expected delimiter ',', found ';' (2 columns split that way)"),
        ("t", b"id\tname\n1\ta\n", "found a tab"),
        ("t", b"id|name\n1|a\n", "found '|'"),
        ("t", "id,name\n1,ö\n".encode("latin-1"), "found byte 0xf6 in line 2, which is Latin-1 or Windows-1252"),
        ("t", "id,name\n1,ö\n".encode("utf-16"), "found UTF-16"),
        ("t", b"id,name\n" + b"1,x\n" * 99_999 + b"2,\xf6\n", "found byte 0xf6 in line 100,001, which is Latin-1"),
        ("t", b'id,name\n1,"' + b"x" * 3_000_000, "found a row that does not end within 1 MB; close its quotes"),
        ("t", b"", "expected a first line with column names"),
        ("t", b"id\n", "expected rows, found none"),
        ("t", b"level,text\n" + b"info,a\n" * 9, "which 8 of 9 rows repeat"),
        ("t", b"id,name\n" + b"1\n" * 9, "found 9 of 9 rows with fewer"),
    ],
)
def test_a_file_that_is_no_table_is_named(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    """If this fails, a file is left out without a word, or all of a folder for one file."""
    table(tmp_path / "files", "good", "id,v", (f"{n},x" for n in range(200)))
    (tmp_path / "files" / f"{name}.csv").write_bytes(data)
    done = init(tmp_path / "out", tmp_path / "files")
    assert done.exit_code == 0, done.output
    assert f"{name}.csv" in done.stderr
    assert message in done.stderr
    assert list(loaded(tmp_path / "out").tables) == ["good"]


def test_files_and_columns_of_any_name(tmp_path: Path) -> None:
    """If this fails, an export has to be renamed by hand before anything can be done with it."""
    rows = [f'{n},"{n % 7},5",x,y,z' for n in range(200)]
    table(tmp_path / "files", "Größe & Preis", 'Order ID,"Preis, netto",_x,2nd,preis netto', rows)
    table(tmp_path / "files", "Größe, Preis", "nr,order id", (f"{n},{n % 50}" for n in range(200)))
    done = init(tmp_path / "out", tmp_path / "files")
    assert done.exit_code == 0, done.output
    tables = loaded(tmp_path / "out").tables
    assert [each.csv for each in tables.values()] == ["Größe & Preis.csv", "Größe, Preis.csv"]
    assert list(tables) == ["Gro_e_Preis", "Gro_e_Preis_2"]
    first, second = tables.values()
    assert first.names == ["Order_ID", "Preis_netto", "x", "column_2nd", "preis_netto_2"]
    assert first.headers == ["Order ID", "Preis, netto", "_x", "2nd", "preis netto"]
    assert first.primary_key == ("Order_ID",)
    assert [each.label for each in second.references] == ["order_id -> Gro_e_Preis.Order_ID"], second.names
    before = sorted((file.name, file.read_bytes()) for file in (tmp_path / "out").iterdir())
    assert "nothing to add" in init(tmp_path / "out", tmp_path / "files").output
    assert sorted((file.name, file.read_bytes()) for file in (tmp_path / "out").iterdir()) == before


def test_files_that_differ_in_case_alone_are_named(tmp_path: Path) -> None:
    """If this fails, two files are declared of which a run finds one, or the whole folder is refused for them."""
    for name in ("orders", "Orders", "visits"):
        table(tmp_path / "files", name, "id,v", (f"{n},x" for n in range(200)))
    done = init(tmp_path / "out", tmp_path / "files")
    assert "orders.csv: expected a name that differs in more than upper and lower case, found Orders.csv" in done.stderr
    assert list(loaded(tmp_path / "out").tables) == ["visits"]


def test_nothing_to_declare_is_an_error(tmp_path: Path) -> None:
    """If this fails, a script goes on with a data set that is not there."""
    table(tmp_path / "files", "log", "level", ["info"] * 9)
    done = init(tmp_path / "out", tmp_path / "files")
    assert done.exit_code == 1
    assert "found none; nothing was written" in done.stderr
    assert not (tmp_path / "out").exists()
    assert "correct --from" in init(tmp_path / "out", tmp_path / "none").stderr
    assert "got a bucket" in init(tmp_path / "out", Path("s3://shop-exports/daily")).stderr


def test_words_that_yaml_takes_for_something_else(tmp_path: Path) -> None:
    """If this fails, a column `no` is declared as false, and a table 2024 as a number."""
    table(tmp_path / "files", "2024", "no,yes", (f"{n},x" for n in range(200)))
    table(tmp_path / "files", "off", "code", (f"c{n}" for n in range(200)))
    init(tmp_path / "out", tmp_path / "files", "--name", "null")
    found = loaded(tmp_path / "out")
    assert (found.name, {name: each.primary_key for name, each in found.tables.items()}) == (
        "null", {"2024": ("no",), "off": ("code",)},
    )  # fmt: skip
    assert found.tables["off"].hbase.families == {"d": ("code",)}, "a row of HBase needs a cell"


def test_two_tables_of_one_key(tmp_path: Path) -> None:
    """If this fails, a table that extends another is declared as the owner of its keys, or both are."""
    table(tmp_path / "files", "customer", "customer_id,name", (f"c{n},x" for n in range(200)))
    table(tmp_path / "files", "profile", "customer_id,likes", (f"c{n},y" for n in range(200)))
    init(tmp_path / "out", tmp_path / "files")
    found = loaded(tmp_path / "out").tables
    assert references(found["profile"]) == [("customer_id -> customer.customer_id", 0)]
    assert not found["customer"].references


def test_the_shop_infers_itself(tmp_path: Path) -> None:
    """If this fails, what is found in the shop's files is not what is declared of them."""
    synthetic.generate(tmp_path / "shop files", 0.002, 7)
    done = init(tmp_path / "again", tmp_path / "shop files")
    assert done.exit_code == 0, done.output
    found = loaded(tmp_path / "again").tables
    assert {name: each.primary_key for name, each in found.items()} == {
        name: TABLES[name].primary_key for name in found
    }
    assert set(found) == set(TABLES)
    # The session is no key of a table, and products are referred to from within lists.
    assert references(found["transactions"]) == [("customer_id -> customer.customer_id", 0)]
    for name, each in found.items():
        assert [(c.name, c.kind.name, c.nullable) for c in each.columns] == [
            (c.name, c.kind.name, c.nullable) for c in TABLES[name].columns
        ]


@pytest.mark.parametrize(
    ("values", "parsed"),
    [
        (["1", "2.50"], "decimal(5,2)"),
        (["-12.5", "3"], "decimal(5,1)"),
        (["0.123456789"], "decimal(12,9)"),
        (["123456789.123456789"], "decimal(20,9)"),
        (["1234567890.123456789"], "double"),
        (["0.1234567890"], "double"),
        (["1.5", "1e5"], "double"),
        (["1234567890123456.5", "1e5"], None),
        (["-0"], "double"),
        (["1.5", "01.5"], None),
        ([".5"], None),
        (["0000-01-01"], None),
        (["2024-01-01T10:00:00+0100"], None),
    ],
)
def test_money_is_decimal(values: list[str], parsed: str | None, tmp_path: Path) -> None:
    """If this fails, sums of money are rounded, or a companion is declared that its texts are not of."""
    (tmp_path / "t.csv").write_text("".join(f"{line}\n" for line in ("v", *values)), encoding="utf-8")
    (field,) = infer.infer(tmp_path / "t.csv")["fields"]
    assert field.get("parsed_as", {}).get("type") == parsed


def test_types_that_narrow_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, digits of the first blocks do not count once a later one shows another kind."""
    monkeypatch.setattr(infer, "_BLOCK_BYTES", 1024)
    table(tmp_path, "t", "a,b", ["123456,1234567890123456"] * 500 + ["1,1"] * 500 + ["1.25,1e5"] * 500)
    a, b = infer.infer(tmp_path / "t.csv")["fields"]
    assert a["parsed_as"]["type"] == "decimal(10,2)"
    assert "parsed_as" not in b, "sixteen digits are no exact double"


def test_columns_that_identify_rows_by_chance_are_said(tmp_path: Path) -> None:
    """If this fails, people take a key for certain where other columns would do as well."""
    table(tmp_path / "files", "t", "a_id,b_id,c_id", (f"{n % 10},{n // 10},{n // 10 + 1}" for n in range(500)))
    done = init(tmp_path / "out", tmp_path / "files")
    assert loaded(tmp_path / "out").tables["t"].primary_key == ("a_id", "b_id")
    assert "unique as well: a_id, c_id together" in " ".join(done.stderr.split())


def test_a_key_is_verified_on_all_rows(tmp_path: Path) -> None:
    """If this fails, a column is declared unique because the rows that were looked at happen to differ in it."""
    rows = [f"{n},{n}" for n in range(150_000)]
    rows[77_777] = "77777,149999"
    table(tmp_path / "files", "t", "b_id,a_id", (row.split(",")[1] + "," + row.split(",")[0] for row in rows))
    init(tmp_path / "out", tmp_path / "files")
    assert loaded(tmp_path / "out").tables["t"].primary_key == ("a_id",)


def test_rows_with_surplus_fields_count(tmp_path: Path) -> None:
    """If this fails, a key is declared unique whose second value is in a row with a comma too many."""
    table(tmp_path / "files", "t", "id,code,text", [*(f"{n},c{n},x" for n in range(200)), "7,c200,y,z"])
    init(tmp_path / "out", tmp_path / "files")
    found = loaded(tmp_path / "out").tables["t"]
    assert found.primary_key == ("code",)
    assert found.overflow


def test_a_few_short_rows_do_not_matter(tmp_path: Path) -> None:
    """If this fails, one damaged row keeps a table from being declared, which a run would only quarantine."""
    table(tmp_path / "files", "t", "id,text", [*(f"{n},x" for n in range(200)), "9999"])
    done = init(tmp_path / "out", tmp_path / "files")
    assert list(loaded(tmp_path / "out").tables) == ["t"]
    assert "1 further rows with too few fields" in " ".join(done.stderr.split())


def test_a_run_finds_the_files_that_were_declared(tmp_path: Path) -> None:
    """If this fails, a folder is declared that a run then calls incomplete, for a capital letter in a file's name."""
    table(tmp_path / "files", "Orders", "id,v", (f"{n},x" for n in range(200)))
    table(tmp_path / "files", "VISITS", "id,v", (f"{n},x" for n in range(200)))
    (tmp_path / "files" / "VISITS.csv").rename(tmp_path / "files" / "VISITS.CSV")
    init(tmp_path / "out", tmp_path / "files")
    found = locate(Folder(tmp_path / "files"), loaded(tmp_path / "out"))
    assert {name: file.path.name for name, file in found.items()} == {"Orders": "Orders.csv", "VISITS": "VISITS.CSV"}


def test_packed_files_and_a_folder_that_holds_both(tmp_path: Path) -> None:
    """If this fails, a packed file is not read, or the files next to the declaration confuse it."""
    (tmp_path / "t.csv.gz").write_bytes(
        gzip.compress(b"\xef\xbb\xbfid,v\r\n" + b"".join(b"%d,x\r\n" % n for n in range(200)))
    )
    assert init(tmp_path, tmp_path).exit_code == 0
    assert loaded(tmp_path).tables["t"].names == ["id", "v"]


def test_of_two_copies_of_a_file_the_plain_one_counts(tmp_path: Path) -> None:
    """If this fails, what is declared is not of the file that a run loads."""
    table(tmp_path / "files", "t", "id,v", (f"{n},x" for n in range(200)))
    (tmp_path / "files" / "t.csv.gz").write_bytes(gzip.compress(b"other\n1\n"))
    found = discover.files(tmp_path / "files", {})
    assert found == {"t": tmp_path / "files" / "t.csv"}
    init(tmp_path / "out", tmp_path / "files")
    located = locate(Folder(tmp_path / "files"), loaded(tmp_path / "out"))
    assert {name: tmp_path / "files" / file.path for name, file in located.items()} == found


def test_hashes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a table that is too large for memory is judged by a part of its rows."""
    import pyarrow as pa

    def stored(name: str, values: list[str | None]) -> Hashes:
        hashes.of_values(pa.array(values, pa.string())).tofile(tmp_path / name)
        return Hashes((tmp_path / name,), len(values))

    key = stored("key", [str(n) for n in range(1000)])
    other = stored("other", [*(str(n % 700) for n in range(990)), None, *("x" * 9)])
    for part, chunk in ((1 << 23, 1 << 20), (100, 7)):
        monkeypatch.setattr(hashes, "_PART", part)
        monkeypatch.setattr(hashes, "_CHUNK", chunk)
        assert (key.repeated(), other.repeated()) == (0, 298)
        assert other.missing_in(key) == (999, 9)
        both = Hashes.joined([other, key])
        assert (both.repeated(), both.missing_in(both)) == (0, (999, 0))
    assert len(key.sample(100)) == 100


def test_every_value_of_a_declaration_is_explained() -> None:
    """If this fails, a value was added that people can only find in the code."""
    page = (Path(__file__).parents[2] / "docs" / "your-own-data.md").read_text(encoding="utf-8")
    schema = declaration.json_schema()
    values = {value for each in (schema, *schema["$defs"].values()) for value in each.get("properties", {})}
    assert not {value for value in values if not re.search(rf"`{value}`|\b{value}: ", page)}


@pytest.mark.parametrize(
    ("column", "table", "key", "fits"),
    [
        ("item_sk", "item", "item_sk", True),
        ("sold_date_sk", "date_dim", "date_sk", True),
        ("cdemo_sk", "customer_demographics", "demo_sk", True),
        ("cdemo_sk", "household_demographics", "demo_sk", False),
        ("current_addr_sk", "customer_address", "address_sk", True),
        ("product_id", "product", "id", True),
        ("categoryId", "categories", "id", True),
        ("parent_id", "product", "id", False),
        ("id", "product", "id", False),
        ("store", "stores", "id", True),
        ("order_nr", "orders", "order_number", True),
        ("storehouse", "item", "item_sk", False),
    ],
)
def test_names_that_resemble_a_key(column: str, table: str, key: str, fits: bool) -> None:
    """If this fails, references are missed, or proposed between columns that have only small numbers in common."""
    assert bool(names.resemblance(names.words(column), table, names.words(key))) == fits


def test_two_moments_are_no_key_by_chance() -> None:
    """If this fails, few rows that happened at different times have their time for a key."""
    assert candidates.says_when("returned_date_sk")
    assert not candidates.says_when("order_number")
