"""Declarations: what they are loaded into, and how their faults are reported."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml

from ecom_assets.dataset import chart, declaration, query
from ecom_assets.dataset.document import DatasetError, Document
from ecom_assets.dataset.loader import FILE, bundled, load, named
from ecom_assets.serving import declared

SHOP = bundled() / "shop"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A copy of the shop's declaration."""
    return Path(shutil.copytree(SHOP, tmp_path / "shop"))


def edited(folder: Path, old: str, new: str, file: str = FILE) -> Path:
    text = (folder / file).read_text(encoding="utf-8")
    assert text.count(old) == 1, text.count(old)
    (folder / file).write_text(text.replace(old, new), encoding="utf-8")
    return folder


def faults(folder: Path) -> list[str]:
    load.cache_clear()
    with pytest.raises(DatasetError) as found:
        load(folder)
    return [str(fault).replace(f"{folder}/", "") for fault in found.value.faults]


def test_the_shop() -> None:
    """If this fails, the published data set is not what every other test rests on."""
    tables = load(SHOP).tables
    assert list(tables) == ["customer", "product", "transactions", "click_stream"]
    clicks = tables["click_stream"]
    assert (clicks.primary_key, clicks.topic_key) == (("event_id",), ("session_id",))
    assert clicks.hbase.row_key == ("session_id", "event_time", "event_id")
    assert clicks.hbase_table("ecom") == "ecom_clickstream"
    assert tables["product"].hbase_table("ecom") == "ecom_product"
    assert tables["product"].topic_key == ("id",)
    assert [r.label for r in tables["transactions"].references] == [
        "customer_id -> customer.customer_id",
        "session_id -> click_stream.session_id",
        "items.product_id -> product.id",
    ]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        pytest.param(
            "    primary_key: [booking_id]\n",
            "    primary_key: [bookingid]\n",
            "tables.transactions.primary_key[0]: expected a column of transactions.avsc, got 'bookingid'; did you mean"
            " booking_id?",
            id="a column that is none",
        ),
        pytest.param(
            "{columns: [customer_id], table: customer, to: [customer_id]}",
            "{columns: [customer_id], table: customers, to: [customer_id]}",
            "tables.transactions.references[0].table: expected a table of this data set, got 'customers'; did you mean"
            " customer?",
            id="a table that is none",
        ),
        pytest.param(
            "table: customer, to: [customer_id]}",
            "table: customer, to: [id]}",
            "tables.transactions.references[0].to[0]: expected a column of customer.avsc, got 'id'; there are",
            id="a column that is none over there",
        ),
        pytest.param(
            "items.product_id",
            "item.product_id",
            "tables.transactions.references[2].columns[0]: expected a column of transactions.avsc or a member of a"
            " companion, got 'item.product_id'; did you mean items?",
            id="a companion that is none",
        ),
        pytest.param(
            "        join_info: [first_join_date]\n",
            "",
            "tables.customer.hbase.families: expected every column in a family or, one at most, in the row key"
            " alone, got none with first_join_date; name them, or give a family",
            id="a column that HBase would lose",
        ),
        pytest.param(
            "join_info: [first_join_date]",
            "join_info: [first_join_date, email]",
            "tables.customer.hbase.families.join_info[1]: expected each column in one family, got 'email' in"
            " personal_info as well",
            id="a column in two families",
        ),
        pytest.param(
            "row_key: [session_id, event_time, event_id]",
            "row_key: [session_id, event_time]",
            "tables.click_stream.hbase.row_key: expected the primary key among its columns, got it without event_id",
            id="a row key that is not unique",
        ),
        pytest.param(
            "row_key: [session_id, event_time, event_id]",
            "row_key: [session_id, event_metadata, event_id]",
            "tables.click_stream.hbase.row_key[1]: expected a column that is never null, got 'event_metadata', which"
            " may be; make its type",
            id="a key that may be null",
        ),
        pytest.param(
            "domains: {id: product}",
            "domains: {id: customer}",
            "tables.product.domains.id: expected one table with a primary key of the domain 'customer', got customer as"
            " well",
            id="two owners of a domain",
        ),
        pytest.param(
            "table: clickstream",
            "table: customers",
            "tables.click_stream.hbase.table: expected a table of its own in HBase, got customers again",
            id="two tables of one name in HBase",
        ),
        pytest.param(
            "        product_info: [",
            '        "product:info": [',
            "tables.product.hbase.families.product:info: expected a name that HBase takes",
            id="a family that HBase refuses",
        ),
        pytest.param(
            "tolerated: 0.001",
            "tolerated: 1.5",
            "tables.transactions.references[1].tolerated: expected it to be less than or equal to 1, got 1.5",
            id="a share above one",
        ),
        pytest.param(
            "    topic_key: [customer_id]\n",
            "    topickey: [customer_id]\n",
            "tables.transactions.topickey: expected a value that a declaration has, got another",
            id="a value that is none",
        ),
        pytest.param(
            "primary_key: [booking_id]",
            "primary_key: [no]",
            "tables.transactions.primary_key[0]: expected text, got False; put it in quotes",
            id="a word that YAML takes for a truth value",
        ),
        pytest.param(
            "    primary_key: [booking_id]\n",
            "    primary_key: [booking_id]\n    primary_key: [session_id]\n",
            "tables.transactions.primary_key: expected each name once, got it again",
            id="a value that comes twice",
        ),
    ],
)
def test_a_fault_is_named_with_its_line(shop: Path, old: str, new: str, fault: str) -> None:
    """If this fails, a declaration that contradicts itself is found out in the middle of a run, or not at all."""
    (found,) = faults(edited(shop, old, new))
    where, _, text = found.partition(": ")
    assert text.startswith(fault)
    file, _, line = where.partition(":")
    assert file == FILE
    changed = (shop / FILE).read_text(encoding="utf-8").splitlines()[int(line) - 1]
    name = re.split(r"[.\[]", fault.partition(":")[0].removesuffix("]"))
    assert any(part in changed for part in name if part), changed


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            '"name": "season", "field-id": 7, "type": ["null", "string"]',
            '"name": "season", "field-id": 7, "type": ["null", "fixed"]',
            "expected an Avro schema",
        ),
        (
            '["null", "string"], "doc": "Summer',
            '["null", {"type": "long", "logicalType": "timestamp-nanos"}], "doc": "Summer',
            "column season: expected one of string, long, int, boolean,",
        ),
        (
            '["null", "string"], "doc": "Summer',
            '["null", {"type": "bytes", "logicalType": "decimal", "precision": 39}], "doc": "Summer',
            "column season: expected one of string, long, int, boolean,",
        ),
        (
            '["null", "string"], "doc": "Summer',
            '["null", "long"], "parsed_as": {"name": "d", "type": "date"}, "doc": "Summer',
            "column season: expected a typed companion of a string alone, got long",
        ),
        (
            '"season", "field-id": 7',
            '"season"',
            "column season: expected a field-id of 1 to 2,147,483,647, as other fields have one, got None",
        ),
        ('"season", "field-id": 7', '"season", "field-id": 6', "column season: expected a field-id of its own, got 6"),
        ('"season", "field-id": 7', '"season", "field-id": 0', "column season: expected a field-id of 1 to"),
        ('"name": "season"', '"name": "Gender"', "expected a name of its own, got gender as well"),
        ('"name": "season"', '"name": "_offset"', "expected no underscore first"),
        ('"name": "season"', '"name": "sea son"', "expected letters, digits and _ only"),
        ('"name": "season",', '"name": "season", "parsed_as": "date",', "expected a name and a type, got 'date'"),
        ('"type": "record"', '"type": "enum"', "expected an Avro record with fields"),
        ('"fields": [', '"fields": [[', "expected JSON"),
    ],
)
def test_a_fault_of_a_schema_is_named_with_its_line(shop: Path, old: str, new: str, fault: str) -> None:
    """If this fails, a column that Spark or Avro cannot hold is found out in the middle of a run."""
    found = faults(edited(shop, old, new, "product.avsc"))
    assert re.match(r"product\.avsc:\d+: ", found[0]), found
    assert fault in found[0]


def test_all_faults_come_at_once(shop: Path) -> None:
    """If this fails, a person corrects one fault per attempt."""
    edited(shop, "primary_key: [booking_id]", "primary_key: [nothing]")
    edited(shop, "domains: {id: product}", "domains: {ids: product}")
    (shop / "customer.avsc").unlink()
    text = " ".join(faults(shop))
    for part in ("'nothing'", "'ids'", "customer.avsc: expected a file"):
        assert part in text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "expected a declaration, got an empty file"),
        ("dataset: [", "expected YAML, got"),
        ("- 1\n", "expected it to be a valid dictionary"),
        ("dataset: shop\n", "tables: expected a value, got none"),
        ("dataset: shop\ntables: {}\n", "tables: expected"),
    ],
)
def test_a_file_that_is_no_declaration(tmp_path: Path, text: str, fault: str) -> None:
    """If this fails, people get a traceback."""
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    (found,) = faults(tmp_path)
    assert fault in found


def test_a_folder_without_a_declaration(tmp_path: Path) -> None:
    """If this fails, people get a traceback."""
    (found,) = faults(tmp_path)
    assert "expected a file, got: No such file or directory" in found


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        pytest.param(
            "row_key: [booking_id]",
            "row_key: [{column: booking_id, as: int64}]",
            "transactions.hbase.row_key[0].as: expected a column of the type long or int, got 'booking_id', which",
            id="a text as int64",
        ),
        pytest.param(
            "row_key: [booking_id]",
            "row_key: [{column: booking_id, as: fixed}]",
            "transactions.hbase.row_key[0].width: expected a width with the form fixed alone, got none",
            id="no width",
        ),
        pytest.param(
            "row_key: [booking_id]",
            "row_key: [{column: booking_id, as: reversed_time}]",
            "transactions.hbase.row_key: expected a time next to the primary key, got booking_id, which is a part of",
            id="two texts of one time",
        ),
        pytest.param(
            "row_key: [booking_id]",
            "row_key: [{column: booking_id, width: 3}]",
            "transactions.hbase.row_key[0].width: expected a width with the form fixed alone, got 3",
            id="a width of nothing",
        ),
        pytest.param(
            "row_key: [booking_id]",
            "row_key: [{column: booking_id, as: int}]",
            "transactions.hbase.row_key[0].as: expected it to be 'text', 'int64', 'fixed' or 'reversed_time'",
            id="a form that is none",
        ),
        pytest.param(
            "row_key: [booking_id]",
            "row_key: [booking_id]\n      salt: 300",
            "transactions.hbase.salt: expected it to be less than or equal to 256, got 300",
            id="more salt than a byte",
        ),
        pytest.param(
            "{columns: [customer_id], table: customer, to: [customer_id]}",
            "{columns: [customer_id, session_id], table: customer}",
            "transactions.references[0]: expected as many columns as they refer to, got 2 for 1",
            id="two columns for one",
        ),
        pytest.param(
            "{columns: [items.product_id], table: product, to: [id]}",
            "{columns: [items.product_id, customer_id], table: customer, to: [customer_id, customer_id]}",
            "transactions.references[2].columns[0]: expected a column of transactions.avsc, got 'items.product_id'",
            id="a member within a compound reference",
        ),
        pytest.param(
            "{columns: [customer_id], table: customer, to: [customer_id]}",
            "{columns: [booking_id], table: customer, to: [customer_id]}",
            "transactions.references[0].columns[0]: expected long, the type of customer_id, got 'booking_id', which is",
            id="columns of two types",
        ),
        pytest.param(
            "    primary_key: [booking_id]\n",
            "    primary_key: [booking_id]\n    file: Customer.csv\n",
            "transactions.file: expected a CSV file of its own, got that of customer",
            id="one file for two tables",
        ),
    ],
)
def test_keys_and_references_that_cannot_be(shop: Path, old: str, new: str, fault: str) -> None:
    """If this fails, a key that no store can hold is found in the middle of a run."""
    edited(shop, old, new)
    assert any(fault in found for found in faults(shop)), faults(shop)


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ('"brand"', ""),
        ('"year"', "product.avsc:"),
        ('""', "column usage: expected the text of a CSV header, got ''"),
        ('"a\\nb"', "expected the text of a CSV header"),
    ],
)
def test_headers_that_a_file_can_have(shop: Path, header: str, fault: str) -> None:
    """If this fails, a column is read from another one of its file, or no file can ever fit."""
    edited(shop, '{"name": "usage",', f'{{"name": "usage", "header": {header},', "product.avsc")
    if not fault:
        assert load(shop).tables["product"].headers[-2] == "brand"
        return
    assert any(fault in found for found in faults(shop)), faults(shop)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('"type": "timestamp"', '"type": "decimal(40,2)"', "expected timestamp, date, double"),
        ('"type": "timestamp"', '"type": "decimal(12,2)"', ""),
        ('"type": "timestamp"', '"type": "text"', "got 'text'"),
    ],
)
def test_types_of_companions(shop: Path, old: str, new: str, fault: str) -> None:
    """If this fails, a run ends in Spark because no engine knows a type."""
    edited(shop, old, new, "click_stream.avsc")
    if not fault:
        assert load(shop).tables["click_stream"].columns[2].parsed_as == ("event_time_ts", "decimal(12,2)")
        return
    assert any(fault in found for found in faults(shop)), faults(shop)


@pytest.mark.parametrize(
    ("index", "fault"),
    [
        (
            "{row_key: [created_at, customer_id]}",
            "expected the primary key among its columns, got it without booking_id",
        ),
        ("{row_key: [customer, booking_id]}", "expected a column of transactions.avsc, got 'customer'"),
        ("{row_key: [promo_code, booking_id]}", "expected a column that is never null, got 'promo_code'"),
        ('{row_key: [customer_id, booking_id], family: "a:b"}', "expected a name that HBase takes, got 'a:b'"),
        ("{row_key: [booking_id]}", "expected two columns or more, got one"),
    ],
)
def test_an_index_that_cannot_be(shop: Path, index: str, fault: str) -> None:
    """If this fails, an index loses rows of its table, or HBase refuses it in the middle of a run."""
    edited(shop, "{row_key: [customer_id, created_at, booking_id], family: order}", index)
    (found,) = faults(shop)
    assert re.match(rf"{re.escape(FILE)}:\d+: tables\.transactions\.indexes\.orders_by_customer", found)
    assert fault in found


def test_an_index_leads_to_the_rows_of_its_table(shop: Path) -> None:
    """If this fails, a lookup through the index ends in a KeyError."""
    edited(
        shop,
        "domains: {session_id: session, event_id: event}",
        "domains: {session_id: session, event_id: event}\n    indexes: {by_name: {row_key: [event_name, event_id]}}",
    )
    (found,) = faults(shop)
    assert "expected the table's row key among its columns, got it without event_time, session_id" in found


def test_a_query_that_is_no_text(shop: Path) -> None:
    """If this fails, people get a traceback."""
    (shop / "queries" / "new.sql").write_bytes(b"-- title: A\xff\n")
    assert faults(shop) == ["queries/new.sql: expected UTF-8, got invalid start byte at byte 11"]


def test_an_index_has_a_table_of_its_own(shop: Path) -> None:
    """If this fails, an index overwrites a table in HBase."""
    edited(shop, "orders_by_customer: {row_key", "clickstream: {row_key")
    (found,) = faults(shop)
    assert "expected a table of its own in HBase, got clickstream again" in found


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("queries/new.sql", "SELECT 1", "queries/new.sql:1: tables: expected a value, got none"),
        ("queries/new.sql", "-- title: A.\n-- tables: shop\n", "queries/new.sql:2: tables: expected a table or view"),
        (
            "queries/new.sql",
            "-- title: A.\n-- tables: sales\n-- kind: bar\n",
            "queries/new.sql:3: kind: expected a value that a declaration has",
        ),
        ("queries/new.sql", "-- Sales.\nSELECT 1", "queries/new.sql:1: expected lines `-- name: value` at the top"),
        (
            "queries/new.sql",
            "-- title: A: B\n-- tables: sales\n",
            "queries/new.sql:1: expected YAML, got mapping values",
        ),
        (
            "queries/new.sql",
            "-- title: A.\n-- title: B.\n-- tables: sales\n",
            "queries/new.sql:2: title: expected each name once, got it again",
        ),
        ("queries/counts.sql", "-- title: A.\n-- tables: product\n", "expected another name, got counts"),
        ("views/other.spark.sql", "-- tables: product\n", "views/other.duckdb.sql: expected the view for this engine"),
        (
            "views/visits.sql",
            "-- tables: click_stream, product\n-- by_file: true\nSELECT 1 AS n",
            "views/visits.sql:1: tables: expected one table of a view by file, got several",
        ),
    ],
)
def test_a_query_that_cannot_be(shop: Path, file: str, text: str, fault: str) -> None:
    """If this fails, a query without a title or over unknown tables is found out when a page is open."""
    (shop / file).write_text(text, encoding="utf-8")
    assert fault in faults(shop)[0]


@pytest.mark.parametrize(
    ("declared_as", "fault"),
    [
        ("{kind: pie, x: gender}", "kind: expected 'bars', 'columns', 'funnel', 'map', 'table', got 'pie'"),
        ("{x: gender, y: customers, unit: n}", "kind: expected a value, got none"),
        ("{kind: bars, x: gender, unit: n}", "y: expected a value, got none"),
        ("{kind: bars, x: gender, y: customers, unit: n, by: age}", "by: expected a value that a declaration has"),
        ("{kind: bars, x: gender, y: customers, unit: n, width: half}", "width: expected it to be '1/4', '1/3'"),
        ("{kind: bars, x: gender, y: customers, unit: n, summary: '{sum}'}", "summary: expected it to match pattern"),
        ("{kind: funnel, steps: {}, of: customers}", "steps: expected it to have at least 1 item"),
        (
            "{kind: map, x: a, y: b, size: c, unit: n, outline: sea.json}",
            "outline: expected GeoJSON of a MultiPolygon in",
        ),
        ("{kind: map, x: a, y: b, size: c, unit: n, outline: customer.avsc}", "in customer.avsc, got: something else"),
    ],
)
def test_a_chart_that_cannot_be(shop: Path, declared_as: str, fault: str) -> None:
    """If this fails, a page is broken, and nothing says which line of the declaration is to be corrected."""
    header = f"-- title: A.\n-- tables: customer\n-- charts:\n--   By gender:\n--     {declared_as}\n"
    (shop / "queries" / "new.sql").write_text(f"{header}SELECT 1", encoding="utf-8")
    (found,) = faults(shop)
    assert re.match(r"queries/new\.sql:[45]: charts\.By gender\.", found)
    assert fault in found


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("Gender: {kind: bars, x: gender,", "Gender: {kind: bars, x: sex,", r":4: charts\.Gender\.x: .*got 'sex'"),
        (
            "-- charts:",
            "-- filters: {Years: month}\n-- charts:",
            r":3: filters\.Years: .*\(gender, device_type, age, cust",
        ),
        (
            "x: gender, y: customers",
            "x: gender, y: device_type",
            r":4: charts\.Gender\.y: expected a column of numbers \(age, customers\), got 'device_type'",
        ),
        ("FROM customer CROSS", "FROM customers CROSS", ": expected SQL that DuckDB runs, got: Catalog Error"),
    ],
)
def test_columns_that_a_result_does_not_have(shop: Path, old: str, new: str, fault: str) -> None:
    """If this fails, a typing error in a chart or its query is found when a page is open, after a whole run."""
    edited(shop, old, new, "queries/customers.sql")
    load.cache_clear()
    with pytest.raises(DatasetError) as found:
        declared.check(load(shop), shop)
    (one,) = found.value.faults
    assert re.search(f"queries/customers.sql{fault}", str(one))


def test_sums_that_parquet_has_not(shop: Path) -> None:
    """If this fails, a sum of a view by file loses its last digits once it is kept."""
    edited(shop, "count(*) AS events", "sum(1) AS events", "views/monthly_events.sql")
    load.cache_clear()
    with pytest.raises(DatasetError, match=r"the view monthly_events goes by file, so CAST the sums events AS BIGINT"):
        declared.check(load(shop), shop)


def test_every_result_has_its_columns() -> None:
    """If this fails, a chart of the shop cannot be drawn."""
    declared.check(load(SHOP), SHOP)


@pytest.mark.parametrize(
    ("spark", "duckdb"),
    [
        ("timestamp", "TIMESTAMP"),
        ("string", "VARCHAR"),
        ("array<struct<a:decimal(4,2),b:map<string,bigint>>>", 'STRUCT("a" DECIMAL(4,2), "b" MAP(VARCHAR, BIGINT))[]'),
    ],
)
def test_types_of_companions_in_duckdb(spark: str, duckdb: str) -> None:
    """If this fails, a query over nested values is refused although it runs."""
    assert declared._duckdb(spark) == duckdb


def test_charts_are_documented() -> None:
    """If this fails, people have to read the code to declare a chart."""
    text = (bundled().parent / "docs" / "charts.md").read_text(encoding="utf-8")
    names = {field for kind in chart.KINDS for field in kind.model_fields} | set(query.QueryForm.model_fields)
    assert not [name for name in names if f"`{name}`" not in text]
    assert not [kind for kind in chart.KINDS if f"**`{kind.__name__.lower()}`**" not in text]


def test_the_example_of_the_documentation_can_be_read(shop: Path) -> None:
    """If this fails, people copy a header that is refused."""
    text = (bundled().parent / "docs" / "charts.md").read_text(encoding="utf-8")
    example = (
        text.partition("```sql\n")[2].partition("```")[0].replace("-- tables: loan, branch", "-- tables: customer")
    )
    (shop / "queries" / "loans.sql").write_text(example, encoding="utf-8")
    load.cache_clear()
    found = load(shop).queries["loans"]
    assert found.filters == {"Years": ("month",), "Branch": ("branch",)}
    assert [type(each) for each in found.charts.values()] == [chart.Columns, chart.Bars]


def test_queries_know_what_they_read() -> None:
    """If this fails, the pages go on showing the result of a table's older version."""
    queries = load(SHOP).queries
    assert next(iter(queries)) == "counts"
    assert queries["counts"].tables == tuple(load(SHOP).tables)
    assert queries["revenue"].tables == ("product", "transactions"), "what a view reads is read too"
    assert [view.name for view in queries["revenue"].views] == ["sales"]
    assert not queries["revenue"].sql.startswith("--")


def test_a_data_set_is_found_by_its_name_or_folder(shop: Path, tmp_path: Path) -> None:
    """If this fails, a home can hold the shop alone."""
    assert named("shop") is load(SHOP)
    assert named(str(shop)).name == "shop"
    with pytest.raises(DatasetError, match="nowhere"):
        named(str(tmp_path / "nowhere"))


def test_the_rest_goes_into_one_family(shop: Path) -> None:
    """If this fails, a table of hundred columns needs a list of them."""
    edited(shop, "        join_info: [first_join_date]\n", '        rest: "*"\n')
    load.cache_clear()
    families = load(shop).tables["customer"].hbase.families
    assert families["rest"] == ("first_join_date",)


def test_editors_know_the_form() -> None:
    """If this fails, the JSON Schema in ``schemas`` is not the one that declarations are held against."""
    written = json.loads((bundled() / "dataset.schema.json").read_text(encoding="utf-8"))
    assert written == declaration.json_schema()
    values = yaml.safe_load((SHOP / FILE).read_text(encoding="utf-8"))
    jsonschema.validate(values, written)
    values["tables"]["customer"]["primary"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, written)


@pytest.mark.parametrize("read", [Document.yaml, Document.json])
def test_bytes_that_are_no_text(tmp_path: Path, read: Callable[[Path], Document]) -> None:
    """If this fails, people get a traceback."""
    (tmp_path / "x").write_bytes(b"a: \xff")
    assert "expected UTF-8" in str(read(tmp_path / "x").faults[0])


def ecom(*args: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-m", "ecom_assets.cli", *args], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_command_lists_faults(shop: Path) -> None:
    """If this fails, a person finds out by a run."""
    code, _, err = ecom("dataset", "check", str(shop))
    assert code == 0
    assert "data set shop: 4 tables, no fault" in err
    edited(shop, "primary_key: [booking_id]", "primary_key: [nothing]")
    code, _, err = ecom("dataset", "check", str(shop))
    assert code == 1
    assert "one fault" in err
    assert "Traceback" not in err


def test_the_command_draws_tables() -> None:
    """If this fails, the picture is not what Mermaid draws, or lacks a reference."""
    code, out, _ = ecom("dataset", "show")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "erDiagram"
    assert "        long customer_id FK" in lines
    assert '    "transactions" }o--|| "product" : "items.product_id"' in lines


def test_the_command_prints_the_form() -> None:
    """If this fails, editors cannot be given the form of the installed version."""
    code, out, _ = ecom("dataset", "schema")
    assert code == 0
    assert json.loads(out) == declaration.json_schema()
