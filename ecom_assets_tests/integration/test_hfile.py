"""HFiles from Arrow and the bulk load, judged by the real HBase: what it reads, splits, compacts and checks itself."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import happybase
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from ecom_assets.core.addresses import Addresses
from ecom_assets.core.errors import HBaseError, ServiceError
from ecom_assets.core.location import HdfsPath
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import HBaseLayout, KeyForm, Table
from ecom_assets.hbase import bulk_load, get, importtsv, scan, spark_load, write
from ecom_assets.hbase.admin import HBaseAdmin
from ecom_assets.hbase.hfile import Files
from ecom_assets.hbase.layout import row_keys, split_keys
from ecom_assets.hbase.thrift import Connection
from ecom_assets.servers.stack import Stack
from ecom_assets_tests.integration.test_hbase import STAMP, expected, found, random_rows, target
from ecom_assets_tests.tables import CLICK_STREAM, PRODUCT, TABLES, TRANSACTIONS
from ecom_assets_tests.unit.test_hfile import read

FAMILIES = {"first": ("a", "", "ü"), "second": ("z", "b"), "third": ("only",)}
Rows = dict[bytes, dict[bytes, bytes]]
"""Row key -> ``b"family:qualifier"`` -> value."""


@pytest.fixture(scope="module")
def addresses(stack: Stack) -> Addresses:
    """Where the servers are."""
    return stack.addresses()


@pytest.fixture(scope="module")
def admin(addresses: Addresses) -> Iterator[HBaseAdmin]:
    """One Admin for all tests: each one is a JVM."""
    with HBaseAdmin(addresses.hbase_zookeeper) as admin:
        yield admin


@pytest.fixture(scope="module")
def thrift(addresses: Addresses) -> Iterator[happybase.Connection]:
    """A connection to read with, as any client would."""
    with Connection(addresses.hbase_thrift) as connection:
        yield connection.happybase


@pytest.fixture(scope="module")
def named(admin: HBaseAdmin) -> Iterator[Callable[[str], str]]:
    """Names tables that are deleted before the test, and after all tests."""
    names: list[str] = []

    def name(text: str) -> str:
        admin.delete_table(text)
        names.append(text)
        return text

    yield name
    for text in names:
        admin.delete_table(text)


def store_files(settings: Settings, admin: HBaseAdmin, name: str) -> dict[tuple[str, str], set[str]]:
    """The files of a table by region and family, as they lie in HBase's folder."""
    own = settings.stack / "hbase" / "data" / "hbase"
    root = (own if own.exists() else HdfsPath(settings.lake_uri).parent / "hbase") / "data" / "default" / name
    regions = [region.getEncodedName() for region in admin._admin.getRegions(admin._name(name))]
    return {
        (region, family.name): {f.name for f in family.iterdir() if not f.name.startswith(".")}
        for region in regions
        for family in (root / region).iterdir()
        if family.name != "recovered.edits" and not family.name.startswith(".")
    }


def fuzz(rows: int, seed: int) -> Rows:
    """Hard rows: binary keys up to 30 kB, empty values and such of 1 MB, and seven of ten cells absent."""
    rng = random.Random(seed)
    made: Rows = {}
    hard = [b"\0", b"\xff", b"\0\0", b"\xff\xff\xff", b"k" * 30_000, b"k" * 29_999 + b"\0", b"a", b"a\0", b"a\xff"]
    keys = [*hard, *(rng.choice(hard)[:200] + rng.randbytes(rng.randint(1, 40)) for _ in range(rows - len(hard)))]
    keys += [rng.randbytes(30_000) for _ in range(40)]
    for key in keys:
        cells = {
            f"{family}:{column}".encode(): rng.choice([b"", b"\0", b"\xff" * 3, rng.randbytes(rng.randint(0, 400))])
            for family, columns in FAMILIES.items()
            for column in columns
            if rng.random() < 0.3
        }
        if cells:
            made[key] = cells
    for key in rng.sample(sorted(made), 3):
        made[key][b"second:b"] = rng.randbytes(1 << 20)
    return made


def write_files(folder: Path, rows: Rows, compression: str, timestamp: int = 5) -> Path:
    """Make a region's files of rows."""
    keys = sorted(rows)
    with Files(folder, "rows", FAMILIES, timestamp, compression=compression) as files:
        for at in range(0, len(keys), 1000):
            part = keys[at : at + 1000]
            # Column names repeat over families in HBase; here they are distinct.
            columns = {
                column: pa.array([rows[k].get(f"{family}:{column}".encode()) for k in part], pa.binary())
                for family, names in FAMILIES.items()
                for column in names
            }
            files.write(pa.array(part, pa.binary()), columns)
    return folder


def stamps(addresses: Addresses, name: str) -> set[int]:
    """The timestamps of all cells of a table."""
    with Connection(addresses.hbase_thrift) as connection:
        rows = connection.happybase.table(name).scan(include_timestamp=True)
        return {stamp for _, cells in rows for _, stamp in cells.values()}


def differences(table: happybase.Table, rows: Rows) -> list[bytes]:
    """Keys of rows that a scan does not find as they should be, lost and surplus ones included."""
    got = {key: cells for key, cells in table.scan(batch_size=200)}  # noqa: C416
    return [key for key in rows.keys() | got.keys() if rows.get(key) != got.get(key)]


@pytest.mark.parametrize("compression", ["none", "gz", "snappy"])
def test_hard_rows_live_through_all_that_hbase_does(
    compression: str,
    settings: Settings,
    admin: HBaseAdmin,
    thrift: happybase.Connection,
    named: Callable[[str], str],
    tmp_path: Path,
) -> None:
    """Broken: cells are lost or changed by a scan, a get, a split of the region, or a compaction of our files."""
    name = named(f"test_hfile_fuzz_{compression}")
    admin.create_table(name, FAMILIES, (), compression)
    rows = fuzz(1500, 1)
    admin.bulk_load(name, write_files(tmp_path / "one", rows, compression))
    table = thrift.table(name)
    assert differences(table, rows) == []
    for key in random.Random(2).sample(sorted(rows), 100):
        assert table.row(key) == rows[key]
        assert table.row(key + b"\0nothing") == {}

    admin._admin.split(admin._name(name))  # at the middle key that our index names
    end = time.monotonic() + 30
    while len(admin.regions(name)) < 2 and time.monotonic() < end:
        time.sleep(0.2)
    assert len(admin.regions(name)) == 2
    assert differences(table, rows) == []

    newer = fuzz(1500, 3)
    keys = sorted(rows)
    changed = {key: newer.get(key, {b"third:only": b"new"}) for key in [*keys[::7], *sorted(newer)[::5]]}
    halves = [{k: c for k, c in changed.items() if (k < border) == left}
              for border in [admin.regions(name)[1][0]] for left in (True, False)]  # fmt: skip
    for number, half in enumerate(halves):
        admin.bulk_load(name, write_files(tmp_path / f"newer-{number}", half, compression, 6))
    for key, cells in changed.items():
        rows[key] = rows.get(key, {}) | cells
    assert differences(table, rows) == []

    while admin._admin.getCompactionState(admin._name(name)).toString() != "NONE":
        time.sleep(0.1)  # HBase parts what two regions still share
    before = store_files(settings, admin, name)
    assert len(before) == 6
    assert min(map(len, before.values())) > 1
    admin.major_compact(name)
    assert differences(table, rows) == []
    # Old files may stay for a while, for readers that still hold them.
    new = {place: files - before[place] for place, files in store_files(settings, admin, name).items()}
    assert {len(files) for files in new.values()} == {1}


@pytest.mark.parametrize("compression", ["none", "gz", "snappy"])
def test_hbase_confirms_every_checksum(compression: str, admin: HBaseAdmin, tmp_path: Path) -> None:
    """Broken: HBase on a file system without checksums of its own takes our blocks for damaged, or can't see damage."""
    path = write_files(tmp_path, fuzz(800, 4), compression) / "second" / "rows"
    data = path.read_bytes()
    blocks = [data[b.at : b.at + b.size] for b in read(path).blocks]
    assert len(blocks) > 10
    validate = checksum_validator(admin)
    assert all(validate(block) for block in blocks)
    damaged = bytearray(max(blocks, key=len))
    damaged[len(damaged) // 2] ^= 1
    assert not validate(bytes(damaged))


def checksum_validator(admin: HBaseAdmin) -> Callable[[bytes], bool]:
    """HBase's own ``ChecksumUtil.validateChecksum``; it is no public method."""
    jvm: Any = admin._jvm
    classes = admin._gateway.new_array(jvm.java.lang.Class, 4)
    for at, name in enumerate(("org.apache.hadoop.hbase.nio.ByteBuff", "java.lang.String")):
        classes[at] = jvm.java.lang.Class.forName(name)
    classes[2], classes[3] = jvm.java.lang.Long.TYPE, jvm.java.lang.Integer.TYPE
    util = jvm.java.lang.Class.forName("org.apache.hadoop.hbase.io.hfile.ChecksumUtil")
    method = util.getDeclaredMethod("validateChecksum", classes)
    method.setAccessible(True)

    def validate(block: bytes) -> bool:
        arguments = admin._gateway.new_array(jvm.java.lang.Object, 4)
        arguments[0] = jvm.org.apache.hadoop.hbase.nio.SingleByteBuff(jvm.java.nio.ByteBuffer.wrap(block))
        arguments[1], arguments[2], arguments[3] = "a block", jvm.java.lang.Long.valueOf(0), 33
        return method.invoke(None, arguments)

    return validate


def test_timestamps_of_rows(
    admin: HBaseAdmin, thrift: happybase.Connection, named: Callable[[str], str], tmp_path: Path
) -> None:
    """Broken: a scan by time skips our file or finds rows of another time."""
    name = named("test_hfile_times")
    admin.create_table(name, ["f"])
    with Files(tmp_path, "rows", {"f": ["q"]}, 1) as files:
        keys = pa.array([b"%02d" % n for n in range(20)])
        files.write(keys, {"q": keys}, pa.array(range(1000, 1020)))
    admin.bulk_load(name, tmp_path)
    scan = thrift.table(name).scan(timestamp=1010, include_timestamp=True)
    assert [(key, cells[b"f:q"]) for key, cells in scan] == [(b"%02d" % n, (b"%02d" % n, 1000 + n)) for n in range(10)]


def test_importtsv_ends_in_the_same_cells(
    settings: Settings, addresses: Addresses, admin: HBaseAdmin, named: Callable[[str], str]
) -> None:
    """Broken: a row that ImportTsv's text cannot hold is lost, torn or changed, or an empty text becomes a null."""
    here = settings.model_copy(update={"namespace": "test_importtsv"})
    named(CLICK_STREAM.hbase_table(here.namespace))
    rows = random_rows(CLICK_STREAM, 1000)
    hard = ["", None, "a\tb\n", f"{importtsv.ROW_END} and {importtsv.FIELD_END.decode()}", importtsv.ROW_END, "\x1f"]
    metadata = pa.array([hard[n % 8] if n % 8 < len(hard) else "{'a': 1}" for n in range(1000)])
    at = CLICK_STREAM.names.index("event_metadata")
    rows = rows.set_column(at, rows.schema.field(at), metadata)
    keys = row_keys(rows, CLICK_STREAM)
    write.create(target(CLICK_STREAM, here), here, admin, split_keys(keys, 3))
    reported: list[int] = []
    batches = [rows.slice(at, 300) for at in range(0, 1000, 300)]
    rows_written = importtsv.load(target(CLICK_STREAM, here), batches, here, admin, addresses, progress=reported.append)
    assert rows_written == sum(reported) == 1000
    assert found(scan.measure(CLICK_STREAM, here, addresses)) == expected(CLICK_STREAM, rows)
    assert stamps(addresses, CLICK_STREAM.hbase_table(here.namespace)) == {STAMP}
    files = store_files(here, admin, CLICK_STREAM.hbase_table(here.namespace))
    assert len({region for region, names in files if names}) == 3
    assert not bulk_load.folder(CLICK_STREAM.hbase_table(here.namespace), here).exists()


def test_importtsv_that_fails_says_why(
    settings: Settings, addresses: Addresses, admin: HBaseAdmin, tmp_path: Path
) -> None:
    """Broken: people get a Java stack trace, or nothing, for a job that ended badly."""
    (tmp_path / "core-site.xml").write_text("<configuration><property>")
    here = settings.model_copy(update={"namespace": "test_importtsv_fails", "hadoop_conf": tmp_path})
    rows = random_rows(PRODUCT, 10)
    write.create(target(PRODUCT, here), here, admin, [])
    try:
        with pytest.raises(ServiceError, match=r"(?s)expected ImportTsv to make files of .*core-site\.xml"):
            importtsv.load(target(PRODUCT, here), [rows], here, admin, addresses)
    finally:
        admin.delete_table(PRODUCT.hbase_table(here.namespace))


@pytest.mark.parametrize("table", [CLICK_STREAM, PRODUCT], ids=lambda table: table.name)
def test_spark_ends_in_the_same_cells(
    settings: Settings,
    addresses: Addresses,
    admin: HBaseAdmin,
    spark: SparkSession,
    named: Callable[[str], str],
    table: Table,
) -> None:
    """Broken: a task loses, doubles or changes rows, puts them into another region, or files are left behind."""
    here = settings.model_copy(update={"namespace": "test_hfile_spark"})
    named(table.hbase_table(here.namespace))
    rows = random_rows(table, 2000)
    write.create(target(table, here), here, admin, split_keys(row_keys(rows, table), 4))
    frame = spark.createDataFrame(pa.Table.from_batches([rows])).repartition(3)
    reported: list[int] = []
    assert spark_load.load(target(table, here), frame, here, admin, progress=reported.append) == sum(reported) == 2000
    assert found(scan.measure(table, here, addresses)) == expected(table, rows)
    assert stamps(addresses, table.hbase_table(here.namespace)) == {STAMP}
    files = store_files(here, admin, table.hbase_table(here.namespace))
    assert len({region for region, _ in files}) == 4
    assert all(len(names) == 1 for names in files.values())
    assert not bulk_load.folder(table.hbase_table(here.namespace), here).exists()
    assert spark_load.load(target(table, here), frame.limit(100), here, admin) == 100
    assert found(scan.measure(table, here, addresses)) == expected(table, rows)


def test_a_task_that_fails_says_why(
    settings: Settings, addresses: Addresses, admin: HBaseAdmin, spark: SparkSession, named: Callable[[str], str]
) -> None:
    """Broken: rows that cannot lie in HBase are loaded all the same, or a stack trace is all that people get."""
    here = settings.model_copy(update={"namespace": "test_hfile_spark_fails"})
    named(PRODUCT.hbase_table(here.namespace))
    rows = random_rows(PRODUCT, 100)
    write.create(target(PRODUCT, here), here, admin, split_keys(row_keys(rows, PRODUCT), 2))
    frame = spark.createDataFrame(pa.Table.from_batches([rows, rows]))
    with pytest.raises(HBaseError, match=r"UnsortedError: expected strictly increasing row keys, but .* comes twice"):
        spark_load.load(target(PRODUCT, here), frame, here, admin)
    assert scan.measure(PRODUCT, here, addresses).measure.rows == 0
    assert not bulk_load.folder(PRODUCT.hbase_table(here.namespace), here).exists()


@pytest.fixture(scope="module", params=TABLES.values(), ids=list(TABLES))
def loaded(
    request: pytest.FixtureRequest, settings: Settings, admin: HBaseAdmin, named: Callable[[str], str]
) -> tuple[Table, pa.RecordBatch, Settings]:
    """Each table with its rows, bulk loaded into four regions."""
    table = request.param
    here = settings.model_copy(update={"namespace": "test_hfile"})
    named(table.hbase_table(here.namespace))
    rows = random_rows(table, 2000)
    keys = row_keys(rows, table)
    write.create(target(table, here), here, admin, split_keys(keys, 4))
    reported: list[int] = []
    batches = [rows.slice(at, 300) for at in range(0, 2000, 300)]
    assert bulk_load.load(target(table, here), batches, keys, here, admin, progress=reported.append) == 2000
    assert sum(reported) == 2000
    assert len(reported) > 5
    return table, rows, here


def test_every_row_of_every_table_comes_back(
    loaded: tuple[Table, pa.RecordBatch, Settings], addresses: Addresses, admin: HBaseAdmin
) -> None:
    """Broken: the bulk load loses, doubles or changes rows, mixes regions, or leaves files behind."""
    table, rows, here = loaded
    assert found(scan.measure(table, here, addresses)) == expected(table, rows)
    assert stamps(addresses, table.hbase_table(here.namespace)) == {STAMP}
    files = store_files(here, admin, table.hbase_table(here.namespace))
    assert len({region for region, _ in files}) == 4
    assert all(len(names) == 1 for names in files.values())
    assert not bulk_load.folder(table.hbase_table(here.namespace), here).exists()
    for row in rows.slice(500, 20).to_pylist():
        key = [str(row[column]) for column in table.hbase.row_key]
        texts = {column: None if value is None else str(value) for column, value in row.items()}
        assert get.get(table, key, here, addresses) == texts


def test_another_load_changes_nothing(
    loaded: tuple[Table, pa.RecordBatch, Settings], addresses: Addresses, admin: HBaseAdmin
) -> None:
    """Broken: a load that is repeated, by files or by Thrift, doubles or replaces rows."""
    table, rows, here = loaded
    if table not in (PRODUCT, CLICK_STREAM):
        pytest.skip("two tables suffice")
    bulk_load.load(target(table, here), [rows], row_keys(rows, table), here, admin)
    write.load(target(table, here), [rows.slice(0, 100)], addresses)
    assert found(scan.measure(table, here, addresses)) == expected(table, rows)


def test_sessions_are_read_by_prefix(
    settings: Settings, addresses: Addresses, admin: HBaseAdmin, named: Callable[[str], str]
) -> None:
    """Broken: a prefix scan over our files misses events, or finds those of another session."""
    here = settings.model_copy(update={"namespace": "test_hfile_prefix"})
    named(CLICK_STREAM.hbase_table(here.namespace))
    events = [
        dict(zip(CLICK_STREAM.names, (f"s{n % 150}", "CLICK", f"2022-01-01T{n:06}", f"e{n}", "WEB", None), strict=True))
        for n in range(3000)
    ]
    rows = pa.RecordBatch.from_pylist(events, CLICK_STREAM.arrow)
    keys = row_keys(rows, CLICK_STREAM)
    write.create(target(CLICK_STREAM, here), here, admin, split_keys(keys, 3))
    bulk_load.load(target(CLICK_STREAM, here), [rows], keys, here, admin)
    for session in ("s1", "s14", "s149"):
        wanted = [e for e in events if e["session_id"] == session]
        assert get.prefix(CLICK_STREAM, [session], here, addresses) == wanted


class Breaking:
    """An Admin that breaks off in the middle of a load."""

    def __init__(self, admin: HBaseAdmin, regions: int) -> None:
        self._real = admin
        self._left = regions
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def bulk_load(self, name: str, folder: Path) -> None:
        """Load as many regions as requested; the next is loaded but its response is lost, and then every call fails."""
        self.calls += 1
        if self._left < 0:
            time.sleep(1)  # time to hear of the failure
        else:
            self._real.bulk_load(name, folder)
        self._left -= 1
        if self._left < 0:
            raise HBaseError("broke off", "try again")


def repeated_after_a_break(here: Settings, addresses: Addresses, admin: HBaseAdmin, named: Callable[[str], str]) -> int:
    """See that a load that broke off is repeated; returns how many regions HBase was asked to take over before."""
    named(TRANSACTIONS.hbase_table(here.namespace))
    rows = random_rows(TRANSACTIONS, 1500)
    keys = row_keys(rows, TRANSACTIONS)
    write.create(target(TRANSACTIONS, here), here, admin, split_keys(keys, 4))
    breaking: Any = Breaking(admin, 1)
    with pytest.raises(HBaseError, match="broke off"):
        bulk_load.load(target(TRANSACTIONS, here), [rows], keys, here, breaking)
    partly = scan.measure(TRANSACTIONS, here, addresses).measure.rows
    assert 0 < partly < 1500
    left = bulk_load.folder(TRANSACTIONS.hbase_table(here.namespace), here) / "region-00000" / "payment_info"
    left.mkdir(parents=True)
    (left / "other").write_bytes(b"left by a kill")
    assert bulk_load.load(target(TRANSACTIONS, here), [rows], keys, here, admin) == 1500
    assert found(scan.measure(TRANSACTIONS, here, addresses)) == expected(TRANSACTIONS, rows)
    assert not bulk_load.folder(TRANSACTIONS.hbase_table(here.namespace), here).exists()
    return breaking.calls


def test_interrupted_load_is_repeated(
    settings: Settings, addresses: Addresses, admin: HBaseAdmin, named: Callable[[str], str]
) -> None:
    """Broken: what a broken load has left in HBase or in the staging folder spoils the next one."""
    here = settings.model_copy(update={"namespace": "test_hfile_again"})
    # The third began before anybody heard of the second, the fourth did not.
    assert repeated_after_a_break(here, addresses, admin, named) == 3


def test_region_that_changed_is_not_loaded(
    settings: Settings, addresses: Addresses, admin: HBaseAdmin, named: Callable[[str], str]
) -> None:
    """Broken: a file crosses the border of regions that were split while it was written."""
    here = settings.model_copy(update={"namespace": "test_hfile_split"})
    named(name := PRODUCT.hbase_table(here.namespace))
    rows = random_rows(PRODUCT, 100)
    keys = row_keys(rows, PRODUCT)
    write.create(target(PRODUCT, here), here, admin, [b"5"])

    def batches() -> Iterator[pa.RecordBatch]:
        yield rows
        write.create(target(PRODUCT, here), here, admin, [b"5", b"7"])

    with pytest.raises(HBaseError, match=f"HBase table {name}: expected the region from key b'5' to b''"):
        bulk_load.load(target(PRODUCT, here), batches(), keys, here, admin)


def test_duplicate_row_keys_are_refused(settings: Settings, admin: HBaseAdmin, named: Callable[[str], str]) -> None:
    """Broken: two rows of one key become a row that neither of them was."""
    here = settings.model_copy(update={"namespace": "test_hfile_twice"})
    named(PRODUCT.hbase_table(here.namespace))
    rows = random_rows(PRODUCT, 100)
    write.create(target(PRODUCT, here), here, admin, [])
    with pytest.raises(HBaseError, match="comes twice"):
        bulk_load.load(target(PRODUCT, here), [rows, rows.slice(50, 1)], row_keys(rows, PRODUCT), here, admin)


def test_folder_that_hbase_does_not_see(admin: HBaseAdmin, named: Callable[[str], str], tmp_path: Path) -> None:
    """Broken: with HBase elsewhere nobody learns which folder to share."""
    admin.create_table(named("test_hfile_unseen"), ["f"])
    with pytest.raises(HBaseError, match="ECOM_HBASE_STAGING"):
        admin.bulk_load("test_hfile_unseen", tmp_path / "elsewhere")


@pytest.mark.parametrize("salt", [0, 7])
@pytest.mark.parametrize(
    "forms",
    [
        ("reversed_time", "int64", "text"),
        ("text", "int64", "text"),
        ("int64", "text", "fixed"),
        ("text", "text", "text"),
    ],
)
def test_spark_places_rows_by_their_row_keys(spark: SparkSession, salt: int, forms: tuple[KeyForm, ...]) -> None:
    """Broken: Spark's tasks sort rows into other regions than their keys belong to."""
    texts, numbers = ["", "\0", "a\1", "\1\0|ü", "日本", "a"], [0, -1, 2**63 - 1, -(2**63), 7, 258]
    times = [
        "1970-01-01T00:00:00Z",
        "0001-01-01T00:00:00.5Z",
        *(f"{year}-12-31T23:59:59.000001Z" for year in (1600, 1969, 2022, 9999)),
    ]
    values = {"int64": numbers, "reversed_time": times}
    columns = {f"c{n}": values.get(form, texts) for n, form in enumerate(forms)}
    fields = [{"name": name, "type": "long" if column is numbers else "string"} for name, column in columns.items()]
    table = replace(
        CLICK_STREAM,
        avsc={"type": "record", "name": "T", "fields": fields},
        hbase=HBaseLayout("t", {"d": tuple(columns)}, tuple(columns), forms, salt=salt),
    )
    rows = pa.RecordBatch.from_pydict(columns, schema=table.arrow)
    keys = row_keys(rows, table).to_pylist()
    order = sorted(range(len(keys)), key=keys.__getitem__)
    splits = [keys[order[2]], keys[order[4]]]
    placed = spark_load.placed(spark.createDataFrame(pa.Table.from_batches([rows])), table, splits).collect()
    expected = [rows.slice(n, 1).to_pylist()[0] | {"_region": place // 2} for place, n in enumerate(order)]
    assert [row.asDict() for row in placed] == expected
