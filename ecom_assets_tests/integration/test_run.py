"""End to end on the real stack: two runs, both paths, dirt, damage that is seen and repaired.

The runs go through the command line, as people start them.
"""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import happybase
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from ecom_assets.core import avro
from ecom_assets.core.addresses import Addresses
from ecom_assets.core.context import Context
from ecom_assets.core.location import Location, local
from ecom_assets.csv import chunk, expand, records
from ecom_assets.csv.plan import raw_file
from ecom_assets.kafka.clients import Clients
from ecom_assets.lake import delta, merge, streamed
from ecom_assets.paths import LAYERS, engine, open_home
from ecom_assets.reconcile import report
from ecom_assets.servers.stack import Stack
from ecom_assets.source import synthetic
from ecom_assets_tests.runs import built, ecom, environment, finish, settings_of, start, wait_for
from ecom_assets_tests.tables import CLICK_STREAM, CUSTOMER, PRODUCT, TABLES, TRANSACTIONS

SCALE = 0.001


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory, stack: Stack) -> dict[str, str]:
    return environment(tmp_path_factory.mktemp("run"), stack.addresses(), "whole")


@pytest.fixture(scope="module")
def first(env: dict[str, str]) -> dict[str, Any]:
    code, reported, err = ecom(env, "run", "--scale", str(SCALE), "--json")
    assert code == 0, err
    return reported


@pytest.fixture(scope="module")
def at(env: dict[str, str], first: dict[str, Any]) -> Iterator[Context]:
    with open_home(settings_of(env)) as at:
        yield at


def test_every_layer_holds_the_same_rows(first: dict[str, Any]) -> None:
    """If this fails, rows are lost, doubled or changed on the way, or the JSON contract is broken."""
    assert first["ok"] is True
    assert first["seconds"] > 0
    expected = {"customer": 100, "product": 44, "transactions": 853, "click_stream": 12834}
    for name, rows in expected.items():
        table = first["tables"][name]
        assert {layer: table[layer]["rows"] for layer in LAYERS} == dict.fromkeys(LAYERS, rows)
        assert len({table[layer]["checksum"] for layer in LAYERS}) == 1
        assert all(table[layer]["seconds"] >= 0 for layer in LAYERS)
        assert table["quarantined"] == 0


def test_a_second_run_changes_nothing_and_says_so(first: dict[str, Any], env: dict[str, str]) -> None:
    """If this fails, running again doubles rows or does the work again."""
    code, reported, err = ecom(env, "run", "--json")
    assert code == 0, err
    assert reported["unchanged"] is True
    assert "nothing changed" in err
    for name, layers in first["tables"].items():
        for layer in LAYERS:
            assert reported["tables"][name][layer]["checksum"] == layers[layer]["checksum"]


def test_another_scale_needs_another_home(env: dict[str, str], first: dict[str, Any]) -> None:
    """If this fails, two data sets are mixed in one home."""
    code, _, err = ecom(env, "run", "--scale", "0.002", "--json")
    assert code == 1
    assert "got 0.002" in err
    assert "Traceback" not in err


def test_dagster_knows_the_run(env: dict[str, str], first: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, the UI shows nothing of what `ecom run` did."""
    import dagster as dg

    monkeypatch.setenv("DAGSTER_HOME", str(Path(env["ECOM_HOME"]) / "dagster"))
    with dg.DagsterInstance.from_config(str(Path(env["ECOM_HOME"]) / "dagster")) as instance:
        runs = instance.get_runs()
        assert "SUCCESS" in {r.status.value for r in runs}
        for key in (["raw", "customer"], ["hbase", "clickstream"]):
            assert instance.get_latest_materialization_event(dg.AssetKey(key)) is not None
        event = instance.get_latest_materialization_event(dg.AssetKey(["reconciliation", "report"]))
        assert event is not None
        assert event.asset_materialization is not None
        shown = str(event.asset_materialization.metadata["report"].value)
        assert shown.count("✓") == len(TABLES) * len(LAYERS)


def mismatches(at: Context, table: str) -> dict[str, list[str]]:
    ((_, verdict),) = report.reconcile(engine(at, "stream"), [TABLES[table]])
    return {layer: list(sentences) for layer, sentences in verdict.mismatches.items()}


def flip(path: Path, at: int = -20) -> Callable[[], object]:
    """Flip one bit of a file; returns what restores it."""
    whole = path.read_bytes()
    data = bytearray(whole)
    data[at] ^= 1
    path.write_bytes(data)
    return lambda: path.write_bytes(whole)


def drop_row(path: Path) -> Callable[[], object]:
    """Take one row out of a CSV file; returns what restores it."""
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    return lambda: path.write_bytes(whole)


def change_delta(path: Location, change: Callable[[DeltaTable], object]) -> Callable[[], object]:
    """Change a Delta table behind everybody's back; returns what restores it."""
    table = DeltaTable(str(path))
    before = table.version()
    change(table)
    return lambda: DeltaTable(str(path)).restore(before)


def damage(at: Context, layer: str, how: str) -> Callable[[], object]:
    """Damage the customers in one layer; returns what restores it."""
    settings, thrift = at.settings, at.addresses.hbase_thrift
    somebody = delta.head(merge.folder(CUSTOMER, settings), CUSTOMER.names, 8)[7]
    where = f"customer_id = {somebody['customer_id']}"
    if layer in ("raw", "expanded", "chunked"):
        path = {
            "raw": raw_file(CUSTOMER, settings),
            "expanded": local(expand.folder(CUSTOMER, settings)) / "copy-000.csv",
            "chunked": local(chunk.folder(CUSTOMER, settings)) / "part-000000.csv",
        }[layer]
        return flip(path) if how == "flipped" else drop_row(path)
    if layer in ("streamed", "merged"):
        path = {"streamed": streamed.folder, "merged": merge.folder}[layer](CUSTOMER, settings)
        if how == "flipped":
            return change_delta(path, lambda t: t.update({"gender": "'f'"}, predicate=where))
        return change_delta(path, lambda t: t.delete(where))
    connection = happybase.Connection(*thrift)
    table = connection.table(CUSTOMER.hbase_table(settings.namespace))
    key = str(somebody["customer_id"]).encode()
    before = table.row(key)
    if how == "flipped":
        table.put(key, {b"personal_info:gender": b"f"})
    else:
        table.delete(key)

    def restore() -> None:
        table.put(key, before)
        connection.close()

    return restore


@pytest.mark.parametrize("how", ["flipped", "missing"])
@pytest.mark.parametrize("layer", [layer for layer in LAYERS if layer != "topic"])
def test_damage_fails_the_report_and_names_the_layer(at: Context, layer: str, how: str) -> None:
    """If this fails, a flipped byte or a missing row goes unseen, or the wrong layer is blamed."""
    restore = damage(at, layer, how)
    try:
        found = mismatches(at, "customer")
    finally:
        restore()
    assert list(found) == [layer]
    begins = ("customer: ", f"{layer}/customer", f"{chunk.folder(CUSTOMER, at.settings)}/")
    assert all(sentence.startswith(begins) for sentence in found[layer]), found[layer]
    assert not mismatches(at, "customer"), "restored, and sound for the next"


@pytest.mark.parametrize("how", ["gone", "cut short", "no Parquet"])
@pytest.mark.parametrize("layer", ["streamed", "merged"])
def test_a_file_of_the_lake_that_cannot_be_read_fails_its_table_alone(at: Context, layer: str, how: str) -> None:
    """If this fails, a damaged file ends the reconciliation: no report, no table named, later tables not measured."""
    folder = {"streamed": streamed.folder, "merged": merge.folder}[layer](CUSTOMER, at.settings)
    path = local(folder) / delta.files(DeltaTable(str(folder)))["path"][0].as_py()
    whole = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[: len(whole) // 2] if how == "cut short" else b"not Parquet" * 100)
    try:
        found = dict(report.reconcile(engine(at, "stream"), [CUSTOMER, PRODUCT]))
    finally:
        path.write_bytes(whole)
    assert f"{layer}/customer cannot be read" in found["customer"].mismatches[layer][0]
    assert found["product"].ok
    assert not mismatches(at, "customer"), "restored, and sound for the next"


def test_an_extra_record_in_a_topic_is_seen_and_can_be_reset(at: Context, env: dict[str, str]) -> None:
    """If this fails, a foreign record in a topic goes unseen, or a broken topic cannot be rebuilt."""
    batch = records.read_clean((chunk.folder(PRODUCT, at.settings) / "part-000000.csv").read_bytes(), PRODUCT)
    place = pa.RecordBatch.from_arrays([pa.array([0]), pa.array([999])], schema=avro.PLACE)
    (value,) = avro.encode(batch.slice(0, 1), PRODUCT, place)  # as if a delivery had brought it
    producer = Clients(at.addresses.kafka).producer("a-stranger", lambda *_: None)
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(PRODUCT.topic(at.settings.namespace), value, b"1")
    producer.commit_transaction()
    found = mismatches(at, "product")
    assert list(found) == ["topic"]
    code, reported, err = ecom(env, "run", "--json")
    assert code == 1
    assert "ecom reset topic --table product" in err.replace("\n", " ")
    assert reported["ok"] is False
    assert ecom(env, "reset", "topic", "--table", "product", "--yes")[0] == 0
    code, reported, err = ecom(env, "run", "--json")
    assert code == 0, err
    assert reported["tables"]["product"]["topic"]["rows"] == 44


def test_damage_is_repaired_on_request_and_never_without(at: Context, env: dict[str, str]) -> None:
    """If this fails, a failed check deletes a layer, or damage stays until somebody finds out how to fix it."""
    fix = damage(at, "streamed", "flipped")
    damage(at, "hbase", "missing")
    assert mismatches(at, "customer")
    table = DeltaTable(str(streamed.folder(CUSTOMER, at.settings))).metadata().id
    code, _, err = ecom(env, "run", "--json")
    assert code == 1
    assert "ecom run --repair" in err.replace("\n", " ")
    assert DeltaTable(str(streamed.folder(CUSTOMER, at.settings))).metadata().id == table
    fix()
    damage(at, "streamed", "flipped")
    code, reported, err = ecom(env, "run", "--repair", "--json")
    assert code == 0, err
    assert reported["ok"] is True
    assert not mismatches(at, "customer")


def test_an_interrupted_run_is_finished_by_the_next(tmp_path: Path, addresses: Addresses) -> None:
    """If this fails, a run that was interrupted loses or doubles rows, or cannot be resumed."""
    env = environment(tmp_path, addresses, "broken")
    process = start(env, "run", "--scale", "0.0005", "--json")
    wait_for(built("streamed", "customer"), settings_of(env), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert finish(env)["click_stream"]["hbase"]["rows"] == 6417


def test_dirt_is_quarantined_and_counted(tmp_path: Path, addresses: Addresses) -> None:
    """If this fails, bad input stops the run or vanishes."""
    source = tmp_path / "shop"
    source.mkdir()
    synthetic.generate(source, 0.0005, 3)
    customers = (source / CUSTOMER.csv).read_bytes().splitlines(keepends=True)
    (source / CUSTOMER.csv).write_bytes(
        b"\xef\xbb\xbf" + b"".join([*customers, b"short,row\n", customers[1]]).replace(b"\n", b"\r\n")
    )
    events = (source / CLICK_STREAM.csv).read_bytes().splitlines(keepends=True)
    quoted = b'sess,SEARCH,2020-01-01T00:00:00.000000Z,evt,WEB,"two\nlines, ""quoted"""\n'
    empty = b'sess,SEARCH,2020-01-01T00:00:01.000000Z,evt2,WEB,""\n'
    latin = b"sess,CLICK,2020-01-01T00:00:00.000000Z,evt3,W\xe9B,\n"
    (source / CLICK_STREAM.csv).write_bytes(b"".join([*events, quoted, empty, latin, events[1][: len(events[1]) // 2]]))
    (source / TRANSACTIONS.csv).write_bytes((source / TRANSACTIONS.csv).read_bytes().splitlines(keepends=True)[0])

    env = environment(tmp_path / "home", addresses, "dirt")
    code, reported, err = ecom(env, "run", "--source", str(source), "--json")
    assert code == 0, err
    shop = reported["tables"]
    n = len(customers) - 1
    assert shop["customer"]["raw"]["rows"] == n + 2
    assert shop["customer"]["expanded"]["rows"] == n + 1
    assert shop["customer"]["merged"]["rows"] == shop["customer"]["hbase"]["rows"] == n
    assert shop["customer"]["merged"]["duplicates"] == 1
    assert shop["customer"]["quarantined"] == 1, "the short row"
    assert shop["transactions"]["hbase"]["rows"] == 0
    assert shop["click_stream"]["hbase"]["rows"] == len(events) - 1 + 2
    assert shop["click_stream"]["quarantined"] == 2
    bad = [json.loads(x) for x in expand.quarantine_file(CLICK_STREAM, settings_of(env)).read_text().splitlines()]
    assert [b["line"] for b in bad] == [len(events) + 4, len(events) + 5]

    code, bulk, err = ecom(env, "run", "--path", "bulk", "--json")
    assert code == 0, err
    for name, layers in shop.items():
        assert set(bulk["tables"][name]) >= {"raw", "expanded", "hbase"}
        assert "topic" not in bulk["tables"][name]
        assert bulk["tables"][name]["hbase"]["checksum"] == layers["hbase"]["checksum"], "the two paths disagree"
    assert bulk["tables"]["customer"]["quarantined"] == 1
    connection = happybase.Connection(*addresses.hbase_thrift)
    rows = dict(connection.table(CLICK_STREAM.hbase_table("dirt")).scan(row_prefix=b"sess\0"))
    assert [r.get(b"metadata:event_metadata") for r in rows.values()] == [b'two\nlines, "quoted"', b""]
    connection.close()


def test_rows_that_share_a_key_and_differ_refuse_the_run(tmp_path: Path, addresses: Addresses) -> None:
    """If this fails, a key that is too narrow makes a fraction of the rows, and the run is green."""
    source = tmp_path / "shop"
    synthetic.generate(source, 0.0005, 3)
    products = (source / PRODUCT.csv).read_bytes().splitlines(keepends=True)
    head, _, rest = products[1].partition(b",")
    (source / PRODUCT.csv).write_bytes(b"".join([*products, head, b",other ", rest]))

    env = environment(tmp_path / "home", addresses, "narrow")
    code, reported, err = ecom(env, "run", "--path", "bulk", "--source", str(source), "--json")
    assert (code, reported["ok"]) == (1, False)
    assert reported["tables"]["product"]["hbase"]["rows"] == len(products) - 1, "no sound row is left out"
    assert "hbase/product: conflicts" in "".join(reported["errors"])
    said = " ".join(err.split())
    assert f"the key is not unique: 1 of {len(products)} rows share one with another, different row" in said
    assert "every layer reconciles, but the run failed" in said


def test_expansion_goes_all_the_way(tmp_path: Path, addresses: Addresses) -> None:
    """If this fails, copies are lost as updates of the first row somewhere on the way."""
    env = environment(tmp_path, addresses, "grown")
    code, reported, err = ecom(env, "run", "--path", "bulk", "--scale", "0.0005", "--expand", "2.5", "--json")
    assert code == 0, err
    assert reported["tables"]["customer"]["hbase"]["rows"] == 3 * reported["tables"]["customer"]["raw"]["rows"]
    assert reported["tables"]["click_stream"]["hbase"]["rows"] > 2 * reported["tables"]["click_stream"]["raw"]["rows"]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda d: (d / "product.csv").unlink(), "product.csv"),
        (lambda d: (d / "product.csv").write_text("id,wrong\n1,2\n"), "missing: gender"),
    ],
    ids=["missing file", "wrong header"],
)
def test_a_source_that_cannot_be_read_is_one_clear_error(
    tmp_path: Path, addresses: Addresses, break_it: Callable[[Path], object], message: str
) -> None:
    """If this fails, people get a traceback instead of what to fix, or a half-read shop passes as verified."""
    source = tmp_path / "shop"
    source.mkdir()
    synthetic.generate(source, 0.0005, 3)
    break_it(source)
    env = environment(tmp_path / "home", addresses, "broken")
    code, _, err = ecom(env, "run", "--source", str(source), "--json")
    assert code == 1
    assert message in err.replace("\n", " ")
    assert "Traceback" not in err
