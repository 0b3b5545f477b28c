"""The sources: the generator against the facts of the published data, and the ways to fail of the others."""

from __future__ import annotations

import ast
import csv
import gzip
import hashlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import kagglehub
import polars as pl
import pytest
import requests
from kagglehub.exceptions import KaggleApiHTTPError, UnauthenticatedError

from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Dataset, Published
from ecom_assets.source import (
    SourceChangedError,
    SourceMismatchError,
    SourceNotFoundError,
    acquire,
    folder,
    synthetic,
)
from ecom_assets.source.kaggle import KaggleError
from ecom_assets.source.places import Folder
from ecom_assets_tests.tables import SHOP, TABLES

SCALE = 0.01
UUID = r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
MOMENT = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$"


def digests(where: Path) -> dict[str, str]:
    """SHA-256 of each file in a folder."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(where.iterdir())}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("shop")
    synthetic.generate(where, SCALE, 7)
    return where


@pytest.fixture(scope="module")
def customer(shop: Path) -> pl.DataFrame:
    return pl.read_csv(shop / "customer.csv", infer_schema=False)


@pytest.fixture(scope="module")
def product(shop: Path) -> list[list[str]]:
    """Product lines cut at every comma, as no quoting protects any."""
    return [line.split(",") for line in (shop / "product.csv").read_text(encoding="utf-8").splitlines()[1:]]


@pytest.fixture(scope="module")
def transactions(shop: Path) -> pl.DataFrame:
    money = pl.col("promo_amount", "shipment_fee", "total_amount").cast(pl.Int64)
    return pl.read_csv(shop / "transactions.csv", infer_schema=False).with_columns(money)


@pytest.fixture(scope="module")
def items(transactions: pl.DataFrame) -> list[list[dict[str, int]]]:
    return [ast.literal_eval(text) for text in transactions["product_metadata"]]


@pytest.fixture(scope="module")
def clicks(shop: Path) -> pl.DataFrame:
    return pl.read_csv(shop / "click_stream.csv", infer_schema=False)


# ------------------------------------------------------------- the generator


def test_same_seed_same_bytes(tmp_path, monkeypatch):
    """Two runs of one home would not prove equal, or the number of threads would show in the data."""
    synthetic.generate(tmp_path / "a", 0.002, 7)
    monkeypatch.setattr(synthetic, "_WORKERS", 1)
    synthetic.generate(tmp_path / "b", 0.002, 7)
    synthetic.generate(tmp_path / "c", 0.002, 8)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    assert not set(a.values()) & set(c.values())


@pytest.mark.parametrize("scale", [1e-6, 2e-6, 1.3e-5, 0.0001, 0.00137, 0.0061])
def test_exact_counts_at_any_scale(tmp_path, scale):
    """A scale would not tell the size of the data, or a small shop could not be made."""
    reported: dict[str, tuple[int, int]] = {}
    rows = synthetic.generate(tmp_path, scale, 1, lambda table, done, total: reported.update({table: (done, total)}))
    full = {"customer": 100_000, "product": 44_446, "transactions": 852_584, "click_stream": 12_833_602}
    expected = {table: max(1, round(count * scale)) for table, count in full.items()}
    assert rows == expected
    assert reported == {table: (count, count) for table, count in expected.items()}
    for table, count in expected.items():
        lines = (tmp_path / f"{table}.csv").read_bytes()
        assert lines.count(b"\n") == count + 1
        assert lines.split(b"\n", 1)[0].decode() == ",".join(TABLES[table].names)
    events = pl.read_csv(tmp_path / "click_stream.csv", infer_schema=False)
    assert min(Counter(events["session_id"]).values()) >= 2


def test_scale_one_is_the_published_size():
    """The full size would not be the published one."""
    assert synthetic.sizes(1.0) == {
        "customer": 100_000, "product": 44_446, "transactions": 852_584, "click_stream": 12_833_602,
    }  # fmt: skip


@pytest.mark.parametrize("scale", [0, -1, 1e-9, float("nan")])
def test_scale_too_small_is_said(tmp_path, scale):
    """A senseless scale would hang or write rubbish."""
    with pytest.raises(ValueError, match="scale: expected a number from"):
        synthetic.generate(tmp_path / "none", scale, 1)
    assert not (tmp_path / "none").exists()


def test_negative_seed_is_said(tmp_path):
    """A negative seed would end in NumPy's words, which name no setting."""
    with pytest.raises(ValueError, match=r"seed: expected a whole number from 0 up, got -1; .* ECOM_SEED"):
        synthetic.generate(tmp_path, 0.0005, -1)


def test_bytes_per_row_as_published(shop):
    """Sizes stated for a scale would be wrong, and benchmarks would not compare."""
    for table, published in {"customer": 261, "product": 97, "transactions": 301, "click_stream": 134}.items():
        rows = synthetic.sizes(SCALE)[table]
        assert (shop / f"{table}.csv").stat().st_size / rows == pytest.approx(published, rel=0.05), table


def test_memory_stays_flat(tmp_path):
    """The full size would not fit into memory beside the services."""
    peaks = []
    for scale in (0.01, 0.04):
        tracemalloc.start()
        synthetic.generate(tmp_path, scale, 1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]  # four times the rows
    assert peaks[1] < 400e6


def test_killed_generation_leaves_no_complete_file(tmp_path):
    """Half a file would be taken for the whole."""
    script = (
        "import os, signal, sys; from pathlib import Path; from ecom_assets.source import synthetic\n"
        "kill = lambda table, done, total: table == 'click_stream' and os.kill(os.getpid(), signal.SIGKILL)\n"
        "synthetic.generate(Path(sys.argv[1]), 0.02, 7, kill)"
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert run.returncode == -signal.SIGKILL
    assert not list(tmp_path.glob("*.csv"))
    synthetic.generate(tmp_path, 0.002, 7)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(t.csv for t in TABLES.values())


def test_failed_generation_cleans_up(tmp_path):
    """A full disk or Ctrl-C would leave gigabytes of useless files."""

    def fail(table: str, done: int, total: int) -> None:
        if table == "transactions":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic.generate(tmp_path, 0.002, 7, fail)
    assert not list(tmp_path.iterdir())


def test_customers(customer):
    """Demography would not be the published one."""
    assert customer["customer_id"].cast(pl.Int64).n_unique() == len(customer)
    assert customer["device_id"].n_unique() == len(customer)
    assert Counter(customer["gender"]) == {"F": 642, "M": 358}
    assert Counter(customer["device_type"]) == {"Android": 766, "iOS": 234}
    assert customer["home_location"].n_unique() == 33
    assert set(customer["home_country"]) == {"Indonesia"}
    assert customer.filter(pl.col("birthdate") > pl.col("first_join_date")).is_empty()
    assert customer["birthdate"].min() >= "1954-06-30"
    assert customer["birthdate"].max() <= "2016-07-27"
    assert "2016-06-30" <= customer["first_join_date"].min() <= customer["first_join_date"].max() <= "2022-07-31"
    assert customer["username"].str.contains(UUID).all()
    assert customer["device_id"].str.contains(UUID).all()
    local = customer["email"].str.extract(r"^(.*)@example\.(?:com|org)$")
    assert (local == customer["username"].str.replace_all("-", "_")).all()
    assert customer["home_location_lat"].cast(pl.Float64).is_between(-11, 5.88).all()
    assert customer["home_location_long"].cast(pl.Float64).is_between(95, 141.1).all()
    ios = customer.filter(pl.col("device_type") == "iOS")["device_version"]
    assert ios.str.contains(r"^(iPhone|iPad); CPU (iPhone|iPad) OS [\d_]+ like Mac OS X$").all()


def test_customers_join_most_in_july(customer):
    """The yearly wave of sign-ups, and growth, would be missing."""
    months = Counter(day[:7] for day in customer["first_join_date"])
    for year in range(2017, 2022):
        assert months[f"{year}-07"] > 1.4 * months[f"{year}-06"]
    years = Counter(day[:4] for day in customer["first_join_date"])
    assert years["2017"] < years["2019"] < years["2021"]


def test_products(product):
    """Categories and attributes would not have the published shares."""
    full = {"Apparel": 21_400, "Accessories": 11_289, "Footwear": 9_222, "Personal Care": 2_404, "Free Items": 105}
    masters = Counter(row[2] for row in product)
    for master, count in full.items():
        assert abs(masters[master] - count * SCALE) <= 1, master
    assert len({row[0] for row in product}) == len(product)
    assert all(1_163 <= int(row[0]) <= 60_000 for row in product)
    assert {row[1] for row in product} <= {"Men", "Women", "Boys", "Girls", "Unisex"}
    assert {row[6] for row in product} == {"Summer", "Fall", "Winter", "Spring", ""}
    assert Counter(row[6] for row in product)["Summer"] == pytest.approx(0.483 * len(product), abs=2)
    assert all(re.fullmatch(r"20\d\d|", row[7]) for row in product)
    names = " ".join(row[9] for row in product)
    assert "'" in names
    assert "&" in names


@pytest.mark.parametrize(
    ("scale", "eleven", "twelve", "nulls"),
    [
        (0.0003, 0, 0, [0] * 5),
        (0.0005, 1, 0, [1] * 5),
        (0.1, 2, 0, [2, 2, 1, 32, 1]),
        (1.0, 20, 2, [15, 21, 1, 317, 7]),
    ],
)
def test_product_dirt(scale, eleven, twelve, nulls):
    """Broken lines and nulls would be too few to test repair, or other than published at full size."""
    shop = synthetic.Shop({**dict.fromkeys(TABLES, 20), "product": round(44_446 * scale)}, orphans=0, seed=3)
    text = "\n" + synthetic.draw_products(shop, 0)["product"][1].decode()
    rows = [line.split(",") for line in text.splitlines()[1:]]
    assert '"' not in text
    widths = Counter(map(len, rows))
    assert (widths[11], widths[12], widths[10]) == (eleven, twelve, len(rows) - eleven - twelve)
    assert [sum(row[i] == "" for row in rows) for i in (5, 6, 7, 8, 9)] == nulls
    assert all(row.count("") == 0 for row in rows if len(row) > 10)
    assert all(row.count("") <= 1 for row in rows)
    if scale == 1.0:
        broken = Counter(row[2] for row in rows if len(row) > 10)
        assert broken == {"Accessories": 15, "Apparel": 3, "Footwear": 3, "Personal Care": 1}
        assert Counter(row[3] for row in rows)["Shoes"] == 7_346
        assert Counter(row[5] for row in rows)["Lime Green"] == 6
        assert len({row[4] for row in rows}) > 120
        assert any(", " in ",".join(row[9:]) for row in rows if len(row) > 10)
        assert any(re.search(r",\S", ",".join(row[9:])) for row in rows if len(row) > 10)


def test_transactions(transactions, customer, product, items):
    """Keys, references or formats of bookings would break every layer after."""
    assert transactions["booking_id"].n_unique() == transactions["session_id"].n_unique() == len(transactions)
    for column in ("booking_id", "session_id"):
        assert transactions[column].str.contains(UUID).all()
    for column in ("created_at", "shipment_date_limit"):
        assert transactions[column].str.contains(MOMENT).all()
    assert set(transactions["customer_id"]) <= set(customer["customer_id"])
    assert transactions["customer_id"].n_unique() == 507
    assert {str(i["product_id"]) for booking in items for i in booking} == {row[0] for row in product}
    assert {tuple(i) for booking in items for i in booking} == {("product_id", "quantity", "item_price")}
    assert set(transactions["shipment_fee"]) == {0, 5_000, 10_000, 15_000, 25_000, 50_000}


def test_metadata_text_is_a_python_literal_of_the_published_shape(transactions):
    """Readers made for the published text would fail on ours."""
    one = r"\{'product_id': \d+, 'quantity': \d+, 'item_price': \d+\}"
    assert transactions["product_metadata"].str.contains(rf"^\[{one}(, {one})*\]$").all()


def test_amounts_add_up(transactions, items):
    """The amount formula, and the rule that a promotion has a code, would not hold."""
    worth = pl.Series([sum(i["quantity"] * i["item_price"] for i in booking) for booking in items])
    paid = worth - transactions["promo_amount"] + transactions["shipment_fee"]
    assert (paid == transactions["total_amount"]).all()
    assert transactions["total_amount"].min() > 0
    assert ((transactions["promo_amount"] > 0) == transactions["promo_code"].is_not_null()).all()
    assert transactions["promo_amount"].max() <= 24_519


def test_shares_of_bookings(transactions, items):
    """Shares and distributions of bookings would not be the published ones."""
    n = len(transactions)
    for column, value, share in [
        ("payment_status", "Success", 0.9570), ("payment_method", "Credit Card", 0.3514),
        ("payment_method", "LinkAja", 0.0884), ("promo_code", None, 0.6170), ("promo_code", "AZ2022", 0.1047),
    ]:  # fmt: skip
        assert abs(Counter(transactions[column])[value] - share * n) <= 2, value
    sizes = Counter(map(len, items))
    for size, share in {1: 0.8289, 2: 0.0799, 3: 0.0331, 10: 0.0020}.items():
        assert abs(sizes[size] - share * n) <= 2, size
    lines = [i for booking in items for i in booking]
    assert len(lines) / n == pytest.approx(1.4715, abs=0.02)
    assert sum(i["quantity"] for i in lines) / len(lines) == pytest.approx(1.476, abs=0.05)
    prices = sorted(i["item_price"] for i in lines)
    assert prices[len(prices) // 2] == pytest.approx(233_540, rel=0.03)
    assert prices[0] >= 5_600
    assert prices[-1] <= 1_200_357
    points = transactions.select("shipment_location_lat", "shipment_location_long").n_unique()
    assert points / n == pytest.approx(440_963 / 852_584, abs=0.03)


def test_weekend_codes_stand_at_weekends(transactions):
    """Weekend promotions would be used on weekdays."""
    weekend = transactions.filter(pl.col("promo_code").is_in(["LIBURDONG", "WEEKENDMANTAP", "WEEKENDSERU"]))
    assert len(weekend) == pytest.approx(0.1211 * len(transactions), abs=3)
    assert set(weekend["created_at"].str.slice(0, 10).str.to_date().dt.weekday()) == {6, 7}


def test_times_of_bookings(transactions, customer):
    """Somebody would buy before joining, or the shop would not grow."""
    joined = dict(customer.select("customer_id", "first_join_date").rows())
    assert all(joined[c] <= t[:10] for c, t in transactions.select("customer_id", "created_at").rows())
    years = Counter(t[:4] for t in transactions["created_at"])
    assert years["2017"] < years["2018"] < years["2019"] < years["2020"] < years["2021"]
    early, late = (transactions.filter(pl.col("created_at").str.starts_with(y))["promo_code"] for y in ("2017", "2022"))
    assert early.is_not_null().mean() > late.is_not_null().mean() + 0.1
    moment = "%Y-%m-%dT%H:%M:%S%.6fZ"
    left = transactions["shipment_date_limit"].str.to_datetime(moment) - transactions["created_at"].str.to_datetime(
        moment
    )
    assert left.min().total_seconds() >= 86_400
    assert left.max().total_seconds() < 6 * 86_400 + 3_600
    assert (
        transactions.group_by("customer_id").agg(pl.col("created_at").str.slice(20).n_unique())["created_at"].max() == 1
    )


def test_buyers_differ(transactions):
    """Every buyer would buy alike, and features of customers would be void."""
    per = transactions.group_by("customer_id").len()["len"]
    assert per.mean() == pytest.approx(16.8, abs=0.1)
    assert 4 <= per.median() <= 9
    assert per.max() > 80
    assert 0.72 < (per >= 2).mean() < 0.9


def test_sessions_and_bookings_match(clicks, transactions):
    """The relation of click stream and transactions, with its known gaps, would not hold."""
    booked, clicked = set(transactions["session_id"]), set(clicks["session_id"])
    assert len(booked - clicked) == 2
    assert len(clicked - booked) == 426
    events = clicks.filter(pl.col("event_name") == "BOOKING")
    assert events["session_id"].n_unique() == len(events) == len(booked & clicked)
    reported = events.select("session_id", pl.col("event_metadata").str.extract(r"^\{'payment_status': '(\w+)'\}$"))
    both = reported.join(transactions, on="session_id")
    assert len(both) == len(events)
    assert (both["event_metadata"] == both["payment_status"]).all()
    promos = clicks.filter(pl.col("event_name") == "ADD_PROMO").with_columns(
        pl.col("event_metadata").str.extract(r"^\{'promo_code': '(\w+)', 'promo_amount': \d+\}$").alias("code"),
        pl.col("event_metadata").str.extract(r"'promo_amount': (\d+)\}$").cast(pl.Int64).alias("amount"),
    )
    used = transactions.filter(pl.col("promo_code").is_not_null() & pl.col("session_id").is_in(list(clicked)))
    assert sorted(promos.select("session_id", "code", "amount").rows()) == sorted(
        used.select("session_id", "promo_code", "promo_amount").rows()
    )


def test_two_silent_bookings_at_small_scale(tmp_path):
    """The dirt of bookings without clicks would show in large data only."""
    synthetic.generate(tmp_path, 0.00002, 1)
    t, c = (pl.read_csv(tmp_path / f"{n}.csv", infer_schema=False) for n in ("transactions", "click_stream"))
    assert len(t) == 17
    assert len(set(t["session_id"]) - set(c["session_id"])) == 2


def test_sessions(clicks):
    """Sessions would be torn apart, too short, or of another shape than published."""
    runs = clicks["session_id"].rle().struct.unnest()
    assert runs["value"].n_unique() == len(runs) == 8950
    assert runs["len"].min() == 2
    assert runs["len"].max() <= 650
    assert runs["len"].mean() == pytest.approx(14.336, abs=0.01)
    sizes = Counter(runs["len"])
    assert sizes.most_common(1)[0][0] == 4
    for size, published in {2: 4_794, 4: 90_348, 5: 83_283, 10: 43_231, 15: 26_203, 20: 16_312}.items():
        assert sizes[size] == pytest.approx(published * SCALE, rel=0.1), size
    sources = clicks.group_by("session_id").agg(
        pl.col("traffic_source").n_unique(), pl.col("traffic_source").first().alias("s")
    )
    assert sources["traffic_source"].max() == 1
    assert abs(Counter(sources["s"])["MOBILE"] - 0.8998 * len(sources)) <= 2
    starts = clicks.group_by("session_id", maintain_order=True).agg(pl.col("event_time").min())["event_time"]
    assert not starts.is_sorted()
    inner = clicks.group_by("session_id").agg("event_time")
    assert sum(times != sorted(times) for times in inner["event_time"].to_list()) > len(inner) / 2


def test_events(clicks, product):
    """Kinds of events, their shares or their metadata would not be the published ones."""
    published = {
        "CLICK": 0.1946, "HOMEPAGE": 0.1938, "ADD_TO_CART": 0.1509, "SCROLL": 0.1296, "ITEM_DETAIL": 0.1005,
        "SEARCH": 0.0914, "BOOKING": 0.0664, "PROMO_PAGE": 0.0471, "ADD_PROMO": 0.0254,
    }  # fmt: skip
    shares = {name: n / len(clicks) for name, n in Counter(clicks["event_name"]).items()}
    assert shares == pytest.approx(published, abs=0.0005)
    assert clicks["event_id"].n_unique() == len(clicks)
    assert clicks["event_id"].str.contains(UUID).all()
    assert clicks["event_time"].str.contains(MOMENT).all()
    with_text = {"ADD_TO_CART", "BOOKING", "SEARCH", "ADD_PROMO"}
    assert set(clicks.filter(pl.col("event_metadata").is_not_null())["event_name"]) == with_text
    assert set(clicks.filter(pl.col("event_metadata").is_null())["event_name"]) == set(published) - with_text
    carts = [ast.literal_eval(m) for m in clicks.filter(pl.col("event_name") == "ADD_TO_CART")["event_metadata"]]
    assert {tuple(cart) for cart in carts} == {("product_id", "quantity", "item_price")}
    assert {str(cart["product_id"]) for cart in carts} <= {row[0] for row in product}
    words = clicks.filter(pl.col("event_name") == "SEARCH")["event_metadata"]
    assert words.str.contains(r"^\{'search_keywords': '[A-Z][a-z]+'\}$").all()


def test_share_of_sessions_with_an_event(clicks):
    """The funnel from homepage to booking would have another shape."""
    per = clicks.group_by("session_id").agg(pl.col("event_name").unique())["event_name"].explode().value_counts()
    shares = {name: n / 8950 for name, n in per.rows()}
    assert shares["HOMEPAGE"] == 1
    assert shares["ADD_TO_CART"] == pytest.approx(0.9741, abs=0.002)
    assert shares["BOOKING"] == pytest.approx(0.9524, abs=0.001)
    for name, published in {"ITEM_DETAIL": 0.5817, "SEARCH": 0.5483, "PROMO_PAGE": 0.3922}.items():
        assert shares[name] == pytest.approx(published, abs=0.03), name


def test_booking_is_the_last_event_at_the_time_of_the_transaction(clicks, transactions):
    """A session would go on after its booking, or book at another time than its transaction."""
    last = clicks.group_by("session_id").agg(
        pl.col("event_time").max().alias("last"),
        pl.col("event_time").filter(pl.col("event_name") == "BOOKING").first().alias("booked"),
    )
    both = last.drop_nulls().join(transactions, on="session_id")
    assert len(both) == len(transactions) - 2
    assert (both["booked"] == both["created_at"]).all()
    assert (both["last"] == both["booked"]).all()


@pytest.mark.parametrize("table", ["customer", "transactions", "click_stream"])
def test_quoting_is_minimal(shop, table):
    """Readers that rely on the published quoting, or comparisons of bytes per row, would go wrong."""
    text = (shop / f"{table}.csv").read_text(encoding="utf-8")
    with (shop / "again.csv").open("w+", newline="", encoding="utf-8") as again:
        csv.writer(again, lineterminator="\n").writerows(csv.reader(text.splitlines()))
        again.seek(0)
        assert again.read() == text
    (shop / "again.csv").unlink()
    assert text.isascii()
    assert "\0" not in text


# ------------------------------------------------------------------- acquire


@pytest.fixture
def user_files(tmp_path) -> Path:
    """A user's folder with the four files, names in other cases."""
    where = tmp_path / "mine"
    where.mkdir()
    for table in TABLES.values():
        (where / table.csv.upper()).write_text(",".join(table.names) + "\n1\n", encoding="utf-8")
    return where


def settings(home: Path, source: object = "synthetic", scale: float = 0.0005, seed: int = 1) -> Settings:
    return Settings(home=home, source=str(source), scale=scale, seed=seed)


def test_acquire_is_idempotent(tmp_path, caplog):
    """Each run would make 2 GB anew, and change the times other assets look at."""
    caplog.set_level(logging.INFO)
    files = acquire(settings(tmp_path), SHOP)
    assert files == {table: tmp_path / "raw" / f"{table}.csv" for table in TABLES}
    before = {f: (f.stat().st_ino, f.stat().st_mtime_ns) for f in files.values()}
    assert "nothing to do" not in caplog.text
    assert acquire(settings(tmp_path), SHOP) == files
    assert {f: (f.stat().st_ino, f.stat().st_mtime_ns) for f in files.values()} == before
    assert "scale 0.0005 and seed 1; nothing to do" in caplog.text


@pytest.mark.parametrize("other", [{"scale": 0.0006}, {"seed": 2}, {"source": "kaggle"}, {"source": "/elsewhere"}])
def test_home_remembers_its_source(tmp_path, other):
    """Layers of two data sets would mix in one home."""
    acquire(settings(tmp_path), SHOP)
    before = digests(tmp_path / "raw")
    with pytest.raises(
        SourceMismatchError, match=r"holds synthetic data of scale 0.0005 and seed 1, but .* choose another"
    ):
        acquire(settings(tmp_path, **other), SHOP)
    assert digests(tmp_path / "raw") == before


def test_files_of_unknown_origin_are_left_alone(tmp_path):
    """Files that a user put into the raw folder would be overwritten."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "product.csv").write_text("mine")
    with pytest.raises(SourceMismatchError, match="unknown origin"):
        acquire(settings(tmp_path), SHOP)
    assert (tmp_path / "raw" / "product.csv").read_text() == "mine"


@pytest.mark.parametrize(
    "damage", [lambda f: f.unlink(), lambda f: f.write_text("short"), lambda f: os.utime(f, (1, 1))]
)
def test_damaged_synthetic_files_are_generated_again(tmp_path, caplog, damage):
    """A file that vanished or was cut would go unnoticed."""
    files = acquire(settings(tmp_path), SHOP)
    before = {t: f.read_bytes() for t, f in files.items()}
    damage(files["transactions"])
    acquire(settings(tmp_path), SHOP)
    assert {t: f.read_bytes() for t, f in files.items()} == before
    assert f"{files['transactions']}: " in caplog.text
    assert "fetching it from the source again" in caplog.text


def test_interrupted_acquire_is_finished_later(tmp_path):
    """A home whose first run was interrupted would be lost, or taken for complete."""

    def interrupt(table: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        acquire(settings(tmp_path), SHOP, interrupt)
    (tmp_path / "raw" / ".click_stream.csv.partial").write_text("left by a kill")
    (tmp_path / "raw" / "customer.csv").write_text("left by a kill")
    acquire(settings(tmp_path, seed=2), SHOP)
    synthetic.generate(tmp_path / "again", 0.0005, 2)
    got = digests(tmp_path / "raw")
    assert got.pop("source.json")
    assert got == digests(tmp_path / "again")


def test_a_folder_is_copied_and_untouched(tmp_path, user_files):
    """What the user does with the files later would change the home's, or the user's files be changed."""
    before = digests(user_files)
    files = acquire(settings(tmp_path / "home", user_files), SHOP)
    assert acquire(settings(tmp_path / "home", f"{user_files}/../mine"), SHOP) == files
    assert digests(user_files) == before
    copied = {file.name.upper(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files.values()}
    assert copied == before
    for file in user_files.iterdir():
        file.unlink()
    user_files.rmdir()
    assert acquire(settings(tmp_path / "home", user_files), SHOP) == files
    assert {f.name.upper(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files.values()} == before


def test_packed_files_are_unpacked(tmp_path, user_files):
    """A folder of .csv.gz would not do, or be preferred to the plain file beside it."""
    plain = user_files / "PRODUCT.CSV"
    (user_files / "product.csv.gz").write_bytes(gzip.compress(b"packed"))
    assert folder.locate(Folder(user_files), SHOP)["product"].path.name == plain.name
    plain.unlink()
    files = acquire(settings(tmp_path / "home", user_files), SHOP)
    assert files["product"].read_bytes() == b"packed"


def test_missing_file_is_said_once_and_clearly(tmp_path, user_files):
    """The user would not learn which file is missing, where, and what to do."""
    (user_files / "PRODUCT.CSV").rename(user_files / "products.csv")
    with pytest.raises(SourceNotFoundError) as error:
        acquire(settings(tmp_path / "home", user_files), SHOP)
    for part in (str(user_files), "product.csv is missing", "products.csv", "CUSTOMER.CSV", "put the missing files"):
        assert part in str(error.value)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(("make", "found"), [(False, "found nothing of that name"), (True, "found a file")])
def test_missing_folder_is_said(tmp_path, make, found):
    """A misspelt source would end in a bare traceback."""
    if make:
        (tmp_path / "gone").touch()
    with pytest.raises(SourceNotFoundError, match=rf"gone: expected a folder with customer.csv.*{found}.*set --source"):
        acquire(settings(tmp_path / "home", tmp_path / "gone"), SHOP)


def test_a_home_that_lost_its_copy(tmp_path, user_files, caplog):
    """A home would silently mix the old and the new data of its source."""
    home, source = settings(tmp_path / "home", user_files), user_files / "CUSTOMER.CSV"
    held = acquire(home, SHOP)["customer"]
    old = source.read_bytes()
    held.unlink()
    source.write_bytes(old + b"2\n")  # as much as was there at first is copied again
    acquire(home, SHOP)
    assert held.read_bytes() == old
    assert "customer.csv: vanished" in caplog.text
    held.unlink()
    source.write_bytes(old.replace(b"1", b"7"))
    for _ in range(2):
        with pytest.raises(SourceChangedError, match=rf"expected the {len(old)} bytes .* own copy is gone"):
            acquire(home, SHOP)
    source.unlink()
    with pytest.raises(SourceNotFoundError, match=r"customer.csv is missing"):
        acquire(home, SHOP)
    source.write_bytes(old)
    acquire(home, SHOP)
    assert held.read_bytes() == old


def test_spoilt_record_is_said(tmp_path):
    """A home with a spoilt record would end in a bare traceback."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "source.json").write_text("{")
    with pytest.raises(SourceMismatchError, match=r"source.json: expected JSON"):
        acquire(settings(tmp_path), SHOP)


@pytest.mark.parametrize("source", ["synthetic", "kaggle"])
def test_a_source_that_the_data_set_does_not_have(tmp_path, source):
    """The shop's rows would be made for other tables, or a folder of that name looked for."""
    with pytest.raises(SourceNotFoundError, match=rf"source {source}: expected one that .* library declares, got none"):
        acquire(settings(tmp_path, source), Dataset.of("library", TABLES["product"]))
    assert not (tmp_path / "raw").exists()


# -------------------------------------------------------------------- kaggle


def test_kaggle_files_are_linked_and_recognized(tmp_path, user_files, monkeypatch):
    """The published files would not be distinguished from others."""
    asked = []
    monkeypatch.setattr(kagglehub, "dataset_download", lambda handle: asked.append(handle) or str(user_files))
    content = (user_files / "PRODUCT.CSV").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    same_size = (user_files / "CUSTOMER.CSV").stat().st_size
    known = {"product": Published(len(content), digest[:8]), "customer": Published(same_size, "00000000")}
    tables = {name: replace(table, published=known.get(name, table.published)) for name, table in SHOP.tables.items()}
    shop = replace(SHOP, tables=tables)
    files = acquire(settings(tmp_path / "home", "kaggle"), shop)
    assert asked == ["bytadit/transactional-ecommerce"]
    assert files["product"].samefile(user_files / "PRODUCT.CSV")
    record = json.loads((tmp_path / "home" / "raw" / "source.json").read_text())
    assert record["published"] == {"product": True, "customer": False, "transactions": False, "click_stream": False}
    assert acquire(settings(tmp_path / "home", "kaggle"), shop) == files
    assert len(asked) == 1


def http_error(status: int) -> Exception:
    response = requests.Response()
    response.status_code = status
    return KaggleApiHTTPError(f"{status} Client Error.", response=response)


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (http_error(401), "no valid credentials.*kaggle.json"),
        (http_error(403), "accept the license there"),
        (http_error(404), "no data set .* any more"),
        (http_error(503), "HTTP 503"),
        (UnauthenticatedError(), "no valid credentials.*KAGGLE_KEY"),
        (requests.exceptions.ChunkedEncodingError("cut"), "the connection broke"),
    ],
    ids=["401", "403", "404", "503", "unauthenticated", "broken"],
)
def test_kaggle_failures_name_the_remedy(tmp_path, monkeypatch, raised, message):
    """The user would get kagglehub's traceback instead of what to do."""

    def fail(handle: str) -> str:
        raise raised

    monkeypatch.setattr(kagglehub, "dataset_download", fail)
    with pytest.raises(KaggleError, match=rf"(?s){message}.*--source synthetic") as error:
        acquire(settings(tmp_path / "home", "kaggle"), SHOP)
    assert error.value.__cause__ is raised
    assert not (tmp_path / "home").exists()


def test_kaggle_without_network(tmp_path, monkeypatch):
    """Without a network the real kagglehub would fail in a way we do not catch."""
    # A port nobody listens on stands for the missing network, also where there is one.
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(KaggleError, match=r"can't be reached.*Check the network"):
        acquire(settings(tmp_path / "home", "kaggle"), SHOP)
    assert not (tmp_path / "home").exists()
