"""A source that is a bucket, in a store that speaks S3."""

from __future__ import annotations

import gzip
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import dagster as dg
import pytest

from ecom_assets.core import delivery
from ecom_assets.core.context import Context
from ecom_assets.core.settings import Settings, load
from ecom_assets.dataset.model import Dataset
from ecom_assets.definitions import defs
from ecom_assets.defs import deliveries, sensors
from ecom_assets.defs.names import Names
from ecom_assets.defs.resources.home import HomeResource
from ecom_assets.paths import LAYERS
from ecom_assets.servers.stack import Stack
from ecom_assets.source import (
    SourceAwayError,
    SourceChangedError,
    SourceNotFoundError,
    acceptance,
    acquire,
    overview,
    places,
    waiting,
)
from ecom_assets_tests import exports
from ecom_assets_tests.offline import nowhere
from ecom_assets_tests.runs import ecom, environment
from ecom_assets_tests.s3 import KEY, S3, SECRET, s3_in
from ecom_assets_tests.tables import CUSTOMER, PRODUCT

SET = Dataset.of("d", replace(CUSTOMER, name="order"), replace(PRODUCT, name="item"))
HEADER = b"a,b\n"
FIRST = HEADER + b"first,1\n"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_in(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def shop(s3: S3, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A folder of the bucket with the first files, one of them packed; found as Amazon's tools find it."""
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    shop = Shop(s3, request.node.name)
    shop.put("order.csv", FIRST)
    shop.put("item.csv.gz", gzip.compress(HEADER + b"item,1\n"))
    return shop


class Shop:
    """What is below a prefix of the bucket."""

    def __init__(self, s3: S3, folder: str) -> None:
        self.s3, self.folder, self.uri = s3, folder, f"{s3.uri}/{folder}"

    def put(self, name: str, data: bytes) -> None:
        self.s3.put(f"{self.folder}/{name}", data)

    def delete(self, name: str) -> None:
        self.s3.delete(f"{self.folder}/{name}")


@pytest.fixture
def begun(tmp_path: Path, shop: Shop) -> Settings:
    """A home with the first files."""
    settings = load(home=tmp_path / "home", source=f"{shop.uri}/")
    acquire(settings, SET)
    return settings


def accepted(home: Settings) -> list[tuple[str, dict[str, bytes]]]:
    """Accept what is new; the name of each delivery, and the content of its files."""
    acquire(home, SET)
    assert not waiting(home, SET), "what was looked at is not looked at again"
    found = []
    for each in delivery.deliveries(home):
        folder = delivery.folder(home, each.sequence)
        found.append((each.name, {f.table: (folder / SET.tables[f.table].csv).read_bytes() for f in each.files}))
    return found


def states(home: Settings, dataset: Dataset = SET) -> dict[str, tuple[str, str]]:
    return {str(each.file.path): (each.state, each.detail) for each in overview.of(home, dataset)}


def test_objects_are_accepted_as_files_are(begun: Settings, shop: Shop) -> None:
    """If this fails, an export to a bucket is not loaded, loaded twice, or a part of it is."""
    assert (begun.raw / "order.csv").read_bytes() == FIRST
    assert (begun.raw / "item.csv").read_bytes() == HEADER + b"item,1\n"
    assert accepted(begun) == []
    shop.put("order-10.csv", HEADER + b"10,1\n")
    shop.put("9/order.csv", HEADER + b"9,1\n")
    shop.put("9/item.csv.gz", gzip.compress(HEADER + b"9,2\n"))
    for ignored in ("notes.txt", ".order-8.csv", "_temporary/order-7.csv", "a/b/c/order-5.csv"):
        shop.put(ignored, HEADER)
    found = [
        ("9", {"order": HEADER + b"9,1\n", "item": HEADER + b"9,2\n"}),
        ("10", {"order": HEADER + b"10,1\n"}),
    ]
    assert accepted(begun) == found
    assert accepted(begun) == found
    shop.put("order-11.csv", HEADER + b"10,1\n")
    assert accepted(begun) == found
    assert states(begun) == {
        "order.csv": (overview.LOADED, ""),
        "item.csv.gz": (overview.LOADED, ""),
        "9/order.csv": (overview.LOADED, ""),
        "9/item.csv.gz": (overview.LOADED, ""),
        "order-10.csv": (overview.LOADED, ""),
        "order-11.csv": (overview.REPEATED, "order-10.csv"),
        "notes.txt": (overview.FOREIGN, ""),
    }
    shop.delete("9/order.csv")  # what becomes of the source does not matter any more
    assert accepted(begun) == found


def test_an_object_that_has_grown_or_was_changed(begun: Settings, shop: Shop) -> None:
    """If this fails, rows behind those of yesterday are lost or come twice, or old and new rows are mixed."""
    shop.put("order.csv", FIRST + b"second,2\n")
    ((_, files),) = accepted(begun)
    assert files == {"order": HEADER + b"second,2\n"}
    shop.put("order.csv", HEADER + b"others,1\n")
    assert len(accepted(begun)) == 1
    state, why = states(begun)["order.csv"]
    assert (state, why.partition(" that")[0]) == (overview.REFUSED, f"expected the {len(FIRST) + 9} bytes")


def test_objects_that_wait_for_a_marker(begun: Settings, shop: Shop) -> None:
    """If this fails, a day is loaded before all of its objects are there."""
    marked = replace(SET, marker="_SUCCESS")
    shop.put("2026-11-28/order.csv", HEADER + b"x,1\n")
    assert waiting(begun, marked) == []
    assert states(begun, marked)["2026-11-28/order.csv"][0] == overview.INCOMPLETE
    shop.put("2026-11-28/_SUCCESS", b"")
    assert [table for table, _ in waiting(begun, marked)] == ["order"]


LONG = HEADER + b"x" * (2 * places.READ_BYTES) + b",1\n"


@pytest.mark.parametrize("taken", [LONG + b"y,2\n", HEADER + b"y,2\n", None], ids=["longer", "shorter", "gone"])
def test_an_object_that_is_replaced_while_it_is_copied(
    begun: Settings, shop: Shop, monkeypatch: pytest.MonkeyPatch, taken: bytes | None
) -> None:
    """If this fails, a mixture of two objects is loaded, or one object's trouble keeps the others out."""
    shop.put("1/order.csv", LONG)
    shop.put("1/item.csv", HEADER + b"y,1\n")
    real = acceptance._blocks

    def changed(content, *args):
        for number, block in enumerate(real(content, *args)):
            if number == 0 and block.startswith(LONG[:100]):
                shop.put("1/order.csv", taken) if taken else shop.delete("1/order.csv")
            yield block

    with monkeypatch.context() as patch:
        patch.setattr(acceptance, "_blocks", changed)
        acquire(begun, SET)
    first = ("1", {"item": HEADER + b"y,1\n"})
    assert accepted(begun) == [first, *([("1 (2)", {"order": taken})] if taken else [])]


def test_a_first_object_that_is_replaced_while_it_is_copied(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, a home begins with a mixture of two objects."""
    shop.put("order.csv", LONG)
    home, real = load(home=tmp_path / "home", source=shop.uri), acceptance._blocks

    def changed(content, *args):
        yield from real(content, *args)
        shop.put("order.csv", FIRST)

    with monkeypatch.context() as patch:
        patch.setattr(acceptance, "_blocks", changed)
        with pytest.raises(SourceChangedError, match=r"order.csv: expected an object that stays") as raised:
            acquire(home, SET)
    assert raised.value.transient
    assert acquire(home, SET)["order"].read_bytes() == FIRST


def test_a_store_that_is_away_for_a_while(begun: Settings, shop: Shop, tmp_path: Path) -> None:
    """If this fails, a run ends in a stack trace or blocks, or a delivery counts of which half was copied."""
    shop.put("order-1.csv", HEADER + b"1,1\n")
    shop.s3.stop()
    began = time.monotonic()
    try:
        with pytest.raises(SourceAwayError) as raised:
            acquire(begun, SET)
        with pytest.raises(SourceAwayError):
            acquire(load(home=tmp_path / "fresh", source=shop.uri), SET)
    finally:
        shop.s3.start()
    assert time.monotonic() - began < 60
    assert raised.value.transient
    for part in (shop.uri, shop.s3.at, "AWS_ENDPOINT_URL", "ECOM_SOURCE"):
        assert part in str(raised.value)
    assert not (tmp_path / "fresh").exists()
    assert delivery.deliveries(begun) == []
    assert accepted(begun) == [("1", {"order": HEADER + b"1,1\n"})]


def test_the_sensor_looks_into_a_bucket(begun: Settings, shop: Shop) -> None:
    """If this fails, new objects wait for a click, or a store that is away blocks or breaks the sensor."""
    with dg.DagsterInstance.ephemeral() as instance, Context(begun, SET, nowhere) as at:

        def look() -> object:
            home = cast("HomeResource", SimpleNamespace(at=at))
            return sensors.new_files(dg.build_sensor_context(instance, definitions=defs()), home, Names())

        shop.put("order-1.csv", HEADER + b"1,1\n")
        requested = look()
        assert isinstance(requested, dg.RunRequest)
        assert requested.tags[deliveries.PARTITION] == "000001 1"
        shop.s3.stop()
        try:
            skipped = look()
        finally:
            shop.s3.start()
        assert isinstance(skipped, dg.SkipReason)
        assert f"{shop.uri}: expected {shop.s3.at} to list and read it" in str(skipped.skip_message)


def test_a_store_that_is_silent(begun: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a store that takes connections and never answers holds a sensor beyond its 60 seconds."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(SourceAwayError, match=r"Timeout|too slow"):
            waiting(begun, SET)
        assert time.monotonic() - began < 60


def test_a_store_that_refuses(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a wrong key or bucket is tried again and again, or nobody learns which is wrong."""
    with pytest.raises(SourceNotFoundError, match=r"item.csv are missing, found no file"):
        acquire(load(home=tmp_path / "empty", source=f"{shop.uri}/nothing"), SET)
    with pytest.raises(SourceAwayError, match=r"s3://no-such-bucket: expected .* NO_SUCH_BUCKET") as raised:
        acquire(load(home=tmp_path / "strange", source="s3://no-such-bucket"), SET)
    assert not raised.value.transient
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    places._store.cache_clear()
    with pytest.raises(SourceAwayError, match="SIGNATURE") as raised:
        acquire(load(home=tmp_path / "locked", source=shop.uri), SET)
    assert not raised.value.transient
    places._store.cache_clear()


def test_no_key_is_written_down(begun: Settings, shop: Shop) -> None:
    """If this fails, whoever reads a home can read the bucket."""
    shop.put("order-1.csv", HEADER + b"1,1\n")
    accepted(begun)
    for file in begun.home.rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        assert SECRET.encode() not in content, file
        assert KEY.encode() not in content, file


def test_a_day_from_a_bucket_to_hbase(s3: S3, stack: Stack, tmp_path: Path) -> None:
    """If this fails, a shop that exports to a bucket has to copy each day's files to this machine first."""
    (tmp_path / "exports").mkdir()
    days = exports.Shop(tmp_path / "exports")
    env = environment(tmp_path / "home", stack.addresses(), "bucket") | s3.env

    def run(folder: Path, *options: str) -> None:
        for file in (path for path in folder.rglob("*") if path.is_file()):
            s3.put(f"days/{file.relative_to(days.folder)}", file.read_bytes())
        code, reported, err = ecom(env, "run", "--json", *options)
        assert code == 0, err
        for name in exports.FRESH:
            held = {layer: reported["tables"][name][layer]["rows"] for layer in LAYERS}
            assert held == dict.fromkeys(LAYERS, days.rows(name)), name

    run(days.folder, "--source", f"{s3.uri}/days")
    run(days.deliver(20, "customer", "click_stream"))
    code, reported, err = ecom(env, "deliveries", "--json")
    assert code == 0, err
    assert reported["source"] == f"{s3.uri}/days"
    listed = [(each["name"], each["layer"]) for each in reported["deliveries"]]
    assert listed == [("first files", "hbase"), ("2026-12-01", "hbase")]
    assert {(each["state"], each["delivery"]) for each in reported["files"]} == {("loaded", 0), ("loaded", 1)}
