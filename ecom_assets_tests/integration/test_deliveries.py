"""Deliveries end to end: a folder that gets ever more files, run by run, while people read."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from typing_extensions import override

from ecom_assets.cli.deliveries import settle
from ecom_assets.core.books import Books, Build
from ecom_assets.core.layer import Cut
from ecom_assets.core.location import local
from ecom_assets.csv import chunk
from ecom_assets.hbase import get, rebuild, thrift
from ecom_assets.hbase.scan import regions
from ecom_assets.lake import merge
from ecom_assets.paths import LAYERS, PATHS, engine, open_home
from ecom_assets.servers.stack import Stack
from ecom_assets_tests.exports import Shop
from ecom_assets_tests.readers import Reader
from ecom_assets_tests.runs import ecom, environment, settings_of, start, wait_for
from ecom_assets_tests.tables import CLICK_STREAM, CUSTOMER, PRODUCT, TABLES

HBASE = PATHS["stream"][-1]


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory, stack: Stack) -> dict[str, str]:
    return environment(tmp_path_factory.mktemp("days"), stack.addresses(), "days")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("exports"))


@pytest.fixture(scope="module")
def first(env: dict[str, str], shop: Shop) -> dict[str, Any]:
    return run(env, "--source", str(shop.folder))


def run(env: dict[str, str], *options: str) -> dict[str, Any]:
    """Run it, and see that it reconciles."""
    code, reported, err = ecom(env, "run", "--json", *options)
    assert code == 0, err
    assert reported["ok"]
    return reported


def rows(reported: dict[str, Any], table: str) -> dict[str, int]:
    return {layer: reported["tables"][table][layer]["rows"] for layer in LAYERS}


def deliveries(env: dict[str, str]) -> list[dict[str, Any]]:
    code, reported, err = ecom(env, "deliveries", "--json")
    assert code == 0, err
    return reported["deliveries"]


class Customers(Reader):
    """Looks up some rows all the time, and notes where one is another."""

    def __init__(self, env: dict[str, str], keys: list[str]) -> None:
        super().__init__()
        self.settings, self.keys = settings_of(env), keys

    @override
    def look(self) -> None:
        with open_home(self.settings) as at:
            due = {key: get.get(CUSTOMER, [key], at.settings, at.addresses) for key in self.keys}
            while not self.stop.is_set():
                for key in self.keys:
                    found = get.get(CUSTOMER, [key], at.settings, at.addresses)
                    self.looks += 1
                    if not found or found != due[key]:
                        self.wrong.append(f"{key}: {found}")


def test_a_day_is_added_while_people_read(env: dict[str, str], shop: Shop, first: dict[str, Any]) -> None:
    """If this fails, a second file is not loaded, one layer lacks it, or a lookup finds nothing meanwhile."""
    assert rows(first, "customer") == dict.fromkeys(LAYERS, shop.rows("customer"))
    keys = [line.split(b",")[0].decode() for line in shop.lines["customer"][1:11]]
    shop.deliver(20, "customer", "click_stream")
    with Customers(env, keys) as reader:
        reported = run(env)
    assert reader.looks > 100
    assert reader.wrong == []
    for name in TABLES:
        assert rows(reported, name) == dict.fromkeys(LAYERS, shop.rows(name)), name
    found = deliveries(env)
    assert [(d["sequence"], d["name"], d["layer"]) for d in found] == [
        (0, "first files", "hbase"),
        (1, "2026-12-01", "hbase"),
    ]
    assert found[1]["tables"] == {n: {"rows": 20, "quarantined": 0} for n in ("customer", "click_stream")}


def test_rows_are_looked_up_as_of_a_delivery(env: dict[str, str], shop: Shop, first: dict[str, Any]) -> None:
    """If this fails, nobody can see what HBase held yesterday, or gets the rows of today in its place."""
    new = str(1_000_000 + len(shop.lines["customer"]) - 1)  # of the day above
    for as_of, rows in (((), 1), (("--as-of", "1"), 1), (("--as-of", "0"), 0)):
        code, reported, err = ecom(env, "lookup", "customer", new, "--json", *as_of)
        assert code == 0, err
        assert [row["customer_id"] for row in reported["rows"]] == [new] * rows
    code, reported, _ = ecom(env, "lookup", "orders_by_customer", "1", "--json", "--as-of", "0")
    assert code == 0
    code, _, err = ecom(env, "lookup", "customer", new, "--json", "--as-of", "99")
    assert code == 1
    assert "as of delivery 99, got delivery 1 as the last one that is loaded" in err.replace("\n", " ")


def test_rows_that_come_again_contradict_or_are_bad(env: dict[str, str], shop: Shop, first: dict[str, Any]) -> None:
    """If this fails, a row that is sent again counts twice, or one bad row stops a day."""
    again = shop.lines["click_stream"][1]
    shop.deliver(30, "click_stream", further=again + b"broken,row\n")
    reported = run(env)
    table, sent = reported["tables"]["click_stream"], shop.rows("click_stream")
    assert [table[layer]["rows"] for layer in LAYERS] == [sent + 2] + [sent + 1] * 4 + [sent] * 2
    assert table["quarantined"] == 1
    assert deliveries(env)[-1]["tables"] == {"click_stream": {"rows": 31, "quarantined": 1}}


def test_a_run_without_news_changes_nothing(env: dict[str, str], first: dict[str, Any]) -> None:
    """If this fails, each run loads the last delivery again."""
    assert run(env)["unchanged"]


def test_only_new_rows_go_to_hbase(env: dict[str, str], shop: Shop, first: dict[str, Any]) -> None:
    """If this fails, a small delivery costs a load of the whole table, or replaces it."""
    shop.deliver(10, "product", "click_stream")
    with open_home(settings_of(env)) as at:
        before = [r.name for r in get_regions(at, CLICK_STREAM)]
        run(env)
        build = at.books.build("hbase", "click_stream")
        assert build
        assert build.rows == 10
        assert [r.name for r in get_regions(at, CLICK_STREAM)] == before, "it is the table that was there"
        found = HBASE.measure(at, CLICK_STREAM, Cut())
        assert found.measure.rows == shop.rows("click_stream")
        whole = DeltaTable(str(merge.folder(PRODUCT, at.settings))).to_pyarrow_table()
        assert whole.num_rows == shop.rows("product")


def get_regions(at: Any, table: Any) -> list[Any]:
    with thrift.Connection(at.addresses.hbase_thrift) as connection:
        return regions(table.hbase_table(at.settings.namespace), connection.happybase)


@pytest.mark.parametrize(("rows", "files_from"), [(4000, 100), (40, 100)], ids=["as files", "as puts"])
def test_what_was_added_is_measured_by_itself(
    env: dict[str, str], shop: Shop, first: dict[str, Any], monkeypatch: pytest.MonkeyPatch, rows: int, files_from: int
) -> None:
    """If this fails, new rows overwrite others or are lost where regions meet, or a sum of parts differs from all."""
    shop.deliver(rows, "click_stream")
    settle(settings_of(env))
    monkeypatch.setattr(rebuild, "FILE_ROWS", files_from)
    with open_home(settings_of(env)) as at:
        used = engine(at, "stream")
        for layer in used.layers:
            known = at.books.last_measurement(layer.name, "click_stream")
            assert known
            used.build(layer.name, CLICK_STREAM)
            cut = used.cut(CLICK_STREAM, layer.name)
            derived, whole = layer.derive(at, CLICK_STREAM, known, cut), layer.measure(at, CLICK_STREAM, cut)
            assert derived, layer.name
            assert derived.measure.same_rows(whole.measure), layer.name
            assert {r: (m.rows, m.checksum) for r, m in derived.excluded.items() if m.rows} == {
                r: (m.rows, m.checksum) for r, m in whole.excluded.items() if m.rows
            }
            verified = used.verify(layer.name, CLICK_STREAM)
            assert verified.mismatches == ()
            assert verified.measurement.measure.same_rows(whole.measure)
        build = at.books.build("hbase", "click_stream")
        assert build
        assert build.rows == rows


@pytest.mark.parametrize("broken", LAYERS)
def test_a_crash_between_the_work_and_the_books(
    env: dict[str, str], shop: Shop, first: dict[str, Any], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """If this fails, a commit of Delta, or a load of HBase, that the books do not know of is done twice or never."""
    shop.deliver(15, "customer")
    settle(settings_of(env))
    real = Books.record_build

    def crash(books: Books, build: Build, delivery: str = "") -> None:
        if build.layer == broken:
            raise KeyboardInterrupt
        real(books, build, delivery)

    with open_home(settings_of(env)) as at, monkeypatch.context() as patch:
        patch.setattr(Books, "record_build", crash)
        used = engine(at, "stream")
        with pytest.raises(KeyboardInterrupt):
            [used.build(layer, CUSTOMER) for layer in LAYERS]
    with open_home(settings_of(env)) as at:
        used = engine(at, "stream")
        for layer in LAYERS:
            used.build(layer, CUSTOMER)
            assert used.verify(layer, CUSTOMER).mismatches == ()
            assert used.verify(layer, CUSTOMER, whole=True).measurement.measure.rows == shop.rows("customer")


def test_rows_that_hbase_lost_meanwhile(env: dict[str, str], shop: Shop, first: dict[str, Any]) -> None:
    """If this fails, a load that HBase did not keep passes the check of what was added."""
    shop.deliver(30, "click_stream")
    settle(settings_of(env))
    with open_home(settings_of(env)) as at:
        used = engine(at, "stream")
        for layer in used.layers:
            used.build(layer.name, CLICK_STREAM)
            if layer is not HBASE:
                assert used.verify(layer.name, CLICK_STREAM).mismatches == ()
        name = CLICK_STREAM.hbase_table(at.settings.namespace)
        with thrift.Connection(at.addresses.hbase_thrift) as connection:
            table = connection.happybase.table(name)
            key, cells = max(table.scan(include_timestamp=True), key=lambda row: max(t for _, t in row[1].values()))
            table.delete(key)
        assert used.verify("hbase", CLICK_STREAM).mismatches
        table_cells = {column: value for column, (value, _) in cells.items()}
        with thrift.Connection(at.addresses.hbase_thrift) as connection:
            connection.happybase.table(name).put(key, table_cells)
        assert used.verify("hbase", CLICK_STREAM).mismatches == ()


def test_repair_keeps_all_deliveries(env: dict[str, str], shop: Shop, first: dict[str, Any]) -> None:
    """If this fails, a rebuild of a layer takes the first files alone."""
    with open_home(settings_of(env)) as at:
        path = local(chunk.files(CUSTOMER, at.settings)[-1])
        path.write_bytes(path.read_bytes()[:-30])
    code, reported, _ = ecom(env, "run", "--json")
    assert code == 1 or not reported["ok"]
    reported = run(env, "--repair")
    assert rows(reported, "customer") == dict.fromkeys(LAYERS, shop.rows("customer"))


def test_files_are_watched(env: dict[str, str], shop: Shop, first: dict[str, Any]) -> None:
    """If this fails, somebody has to start a run each day, or cannot end the watch."""
    process = start(env, "run", "--watch", "--json")
    began = datetime.now(UTC)

    def loaded(books: Books) -> bool:
        found = books.verification("hbase", "product")
        return bool(found and found.at > began)

    wait_for(loaded, settings_of(env), process)
    for _ in range(2):
        began = datetime.now(UTC)
        shop.deliver(5, "product")
        wait_for(loaded, settings_of(env), process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "watching" in err
    assert json.loads(out.splitlines()[-1])["tables"]["product"]["hbase"]["rows"] == shop.rows("product")


def test_the_list_is_read_by_people(env: dict[str, str], shop: Shop, first: dict[str, Any]) -> None:
    """If this fails, an analyst cannot see which of her files is loaded."""
    (shop.folder / "notes.txt").write_text("")
    code, reported, err = ecom(env, "deliveries", "--json")
    assert code == 0
    states = {Path(each["file"]).name: each["state"] for each in reported["files"]}
    assert states["notes.txt"] == "of no table"
    assert json.dumps(reported)
    assert "2026-12-01" in err
