"""The second reader of raw files: it finds what the first one finds, in any file, whatever the size of a block."""

import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ecom_assets.core import quarantine, row_hash
from ecom_assets.core.measure import Measure
from ecom_assets.csv import audit, audit_parts, blocks, contract, records
from ecom_assets.csv.contract import HeaderError, header_line
from ecom_assets.csv.plan import Plan
from ecom_assets.dataset.kind import of_avro
from ecom_assets.dataset.model import Column, HBaseLayout, Table
from ecom_assets.source import synthetic
from ecom_assets_tests.tables import CLICK_STREAM, CUSTOMER, PRODUCT

CLICK_HEADER = header_line(CLICK_STREAM)
SIZES = [1, 2, 5, 17, 64, 300]
EXAMPLES = int(os.environ.get("EXAMPLES", "100"))
"""Of each table; more of them search longer."""


LONG, STRING = (kind for kind in map(of_avro, ("long", "string")) if kind)


class Small(Table):
    """A table with all that a contract can say, in few columns."""

    columns = (
        Column("id", LONG, nullable=False, doc="", id=1),
        Column("key", STRING, nullable=False, doc="", id=2),
        Column("year", LONG, nullable=True, doc="", id=3),
        Column("note", STRING, nullable=True, doc="", id=4),
    )
    null_values = ["", "NA"]  # noqa: RUF012  as the property that it replaces
    overflow = False


class Overflowing(Small):
    """The same, but surplus fields belong to the last column."""

    overflow = True


class Single(Small):
    """A table of one column, in which an empty line could be taken for a null."""

    columns = (Column("key", STRING, nullable=True, doc="", id=1),)


def small(kind: type[Table]) -> Table:
    return kind(
        "small", {}, "", ("id",), ("id",), {"id": "a", "key": "b"}, (), HBaseLayout("small", {}, ("id",), ("text",))
    )


TABLES = [small(Small), small(Overflowing), small(Single)]


def first(path: Path, table: Table, block_bytes: int, plan: Plan | None = None) -> audit.Audit:
    """What the first reader finds."""
    good = bad = taken = Measure()
    for parsed in records.parse(path, table, block_bytes):
        hashes = row_hash.batch_hashes(parsed.batch, table.ids)
        good += Measure(len(hashes), row_hash.total(hashes))
        if plan and plan.sample:
            name, sample = plan.sample
            hashes = hashes[sample(parsed.batch.column(name))]
        taken += Measure(len(hashes), row_hash.total(hashes))
        bad += quarantine.measure(parsed.bad)
    return audit.Audit(good, bad, taken)


def same(ours: audit.Audit, theirs: audit.Audit) -> bool:
    return (
        ours.rows.same_rows(theirs.rows)
        and ours.quarantined.same_rows(theirs.quarantined)
        and ours.sampled.same_rows(theirs.sampled)
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("raw")


PIECES = st.sampled_from(
    [b",", b",", b",", b"\n", b"\n", b"\r\n", b"\r", b'"', b'"', b'""', b'","', b'"\n', b'\n"', b'"\r\n', b"\r\r\n"]
)
PIECES |= st.sampled_from([b"\n\n", b"\r\n\r\n", b"NA", b'"NA"', b"7", b"-3", b"007", b"-0", b"a", b"x y", b"''", b" "])
PIECES |= st.sampled_from([b"\xc3\xa9", b"\xff", b"\xc3", b"\xef\xbb\xbf", b"\x00", b"9223372036854775808"])
FIELD = st.sampled_from(
    [b"", b"NA", b'"NA"', b'""', b"abc", b'"a,b"', b'"a\nb"', b'"a""b"', b'"\r"', b"\xc3\xa9", b"a\rb"]
)
NUMBER = st.sampled_from([b"1", b"-1", b"0", b"12345678901234567890", b'"5"', b"", b"x", b"1.0", b"+1", b"00"])
ROW = st.tuples(NUMBER, FIELD, NUMBER, FIELD, st.sampled_from([b"\n", b"\n", b"\r\n", b",x\n", b'"\n', b"\r"])).map(
    lambda row: b",".join(row[:4]) + row[4]
)
DIRT = st.lists(st.one_of(ROW, ROW, ROW, PIECES, st.lists(PIECES, max_size=12).map(b"".join)), max_size=25).map(
    b"".join
)


Values = list[bytes | None] | None

VERDICTS: list[tuple[bytes, Values]] = [
    (b"1,a,2,b", [b"1", b"a", b"2", b"b"]),
    (b"1,a,,", [b"1", b"a", None, None]),
    (b"1,a,NA,NA\r", [b"1", b"a", None, None]),
    (b'1,"NA",NA,"NA"', [b"1", b"NA", None, b"NA"]),
    (b'"1","a",2,""\r', [b"1", b"a", b"2", b""]),
    (b'1,"a,""b""\n\r\n",2,"\r"', [b"1", b'a,"b"\n\r\n', b"2", b"\r"]),
    (b'1,"""",2,""""""', [b"1", b'"', b"2", b'""']),
    (b'1,a"b,2, "c"', [b"1", b'a"b', b"2", b' "c"']),
    (b"1,a\rb,2,\rc\r\r", [b"1", b"a\rb", b"2", b"\rc\r"]),
    (b"1,\xef\xbb\xbf\xc3\xa9,-9223372036854775808,\x00", [b"1", "\ufeffé".encode(), b"-9223372036854775808", b"\0"]),
    (b"9223372036854775807,a,0,b", [b"9223372036854775807", b"a", b"0", b"b"]),
    *((text + b",a,2,b", None) for text in (b"9223372036854775808", b"-9223372036854775809", b"1" * 30, b"007", b"00")),
    *(
        (text + b",a,2,b", None)
        for text in (b"-0", b"-", b"+1", b" 1", b"1.0", b"1_0", b"x", b'""', b"NA", b"", b"--1")
    ),
    *((b"1,a," + text + b",b", None) for text in (b"-01", b"1-", b'"NA"', b"1\r", "１".encode())),
    *((b"1," + text + b",2,b", None) for text in (b"", b'""', b"NA", b"k" * 10_001, b"\xff", b"\xc3")),
    (b"1," + b"k" * 10_000 + b",2,b", [b"1", b"k" * 10_000, b"2", b"b"]),
    (b'1,"' + b'""' * 10_000 + b'",2,b', [b"1", b'"' * 10_000, b"2", b"b"]),
    (b'1,"' + b'""' * 10_001 + b'",2,b', None),
    (b"\xef\xbb\xbf1,a,2,b", None),
    (b"1,a,2", None),
    (b"1,a,2,b,c", None),
    (b'1,"a\n2,b,3,c\n",2,b,c', None),
    (b'1,a,2,"b"c', None),
    (b'1,a,2,"b"\rc', None),
    (b'1,a,2,"b', None),
    (b"\r\r", None),
]
"""Records without their line end, and the values of a row, or ``None`` for quarantine."""


@pytest.mark.parametrize("others", [b"", b"3,c,4,d\n", b'3,c,4,"d\n'], ids=["alone", "rows", "irregular quotes"])
@pytest.mark.parametrize(("record", "values"), VERDICTS, ids=[repr(record[:30]) for record, _ in VERDICTS])
def test_verdicts(place: Path, record: bytes, values: Values, others: bytes) -> None:
    """If this fails, both readers are wrong about a record, or neighbors decide on it."""
    table = TABLES[0]
    path = place / table.csv
    path.write_bytes(header_line(table) + others + record + b"\n" + others)
    found = audit.audit(path, table)
    assert same(found, first(path, table, blocks.BLOCK_BYTES))
    assert same(found, first(path, table, 50))
    own, aside = 2 * others.count(b"d\n") * (b'"' not in others), 2 * (b'"' in others)
    if values is None:
        line = 2 + bool(others)
        raw = record.removesuffix(b"\r").decode("utf-8", "backslashreplace")
        due = [quarantine.record_hash(line, raw)] + [
            quarantine.record_hash(at, '3,c,4,"d') for at in (2, line + record.count(b"\n") + 1) if aside
        ]
        assert (found.rows.rows, found.quarantined.rows) == (own, aside + 1)
        assert found.quarantined.checksum == sum(due) % row_hash.MODULUS
    else:
        rows = [values] + [[b"3", b"c", b"4", b"d"]] * own
        assert (found.rows.rows, found.quarantined.rows) == (own + 1, aside)
        assert found.rows.checksum == sum(row_hash.row_hash(enumerate(row, 1)) for row in rows) % row_hash.MODULUS


@pytest.mark.parametrize(
    ("record", "values"),
    [
        (b"1,a,2,b,c,, d", [b"1", b"a", b"2", b"b,c,, d"]),
        (b"1,a,2,NA,", [b"1", b"a", b"2", b"NA,"]),
        (b'1,"a",2,b,"c"', None),
        (b'1,a,2,"b",c', None),
        (b"1,a,x,b,c", None),
    ],
)
def test_surplus_fields(place: Path, record: bytes, values: Values) -> None:
    """If this fails, names with commas are cut, or a quoted piece of one loses its quotes."""
    table = TABLES[1]
    path = place / table.csv
    path.write_bytes(header_line(table) + record + b"\r\n3,c,4,d\n")
    found = audit.audit(path, table)
    assert same(found, first(path, table, blocks.BLOCK_BYTES))
    assert found.quarantined.rows == (values is None)
    rows = [[b"3", b"c", b"4", b"d"], *([values] if values else [])]
    assert found.rows.checksum == sum(row_hash.row_hash(enumerate(row, 1)) for row in rows) % row_hash.MODULUS


@pytest.mark.parametrize("table", [CLICK_STREAM, CUSTOMER, PRODUCT], ids=lambda t: t.name)
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_generated_files(place: Path, table: Table, share: float) -> None:
    """If this fails, the check of a partial copy compares other rows than the copy holds."""
    synthetic.generate(place, 0.001, 7)
    path, plan = place / table.csv, Plan(2, share, sample_key="session_id" if table is CLICK_STREAM else None)
    data = path.read_bytes()
    for dirt in (b"", b'a "stray" quote\n', b'"open\n', b"\r\n\xff\xfe,x\r\n"):
        lines = data.splitlines(keepends=True)
        path.write_bytes(b"".join([*lines[:9], dirt, *lines[9:50], dirt * 3, *lines[50:], dirt])[:-1])
        found = audit.audit(path, table, plan.sample, block_bytes=20_000)
        assert same(found, first(path, table, blocks.BLOCK_BYTES, plan))
        assert found.rows.rows > 40
        assert bool(dirt) == bool(found.quarantined.rows)
        assert (found.sampled.rows < found.rows.rows) == (plan.sample is not None)


@pytest.mark.parametrize("start", [b"", b'9,a,"'], ids=["a long line", "a long quoted field"])
def test_a_line_without_end_takes_no_memory(place: Path, start: bytes) -> None:
    """If this fails, a file without line ends, such as one that a crash has filled with zeros, ends the process."""
    table = TABLES[0]
    path = place / table.csv
    with path.open("wb") as file:
        file.write(header_line(table) + b"1,a,2,b\n" + start)
        for _ in range(60):
            file.write(b"x" * (1 << 20))
        file.write(b"\n3,c,4,d\n")
    for read in (audit.audit, lambda path, table: first(path, table, blocks.BLOCK_BYTES)):
        tracemalloc.start()
        found = read(path, table)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 40e6
        assert (found.rows.rows, found.quarantined.rows) == (2, 1)
        raw = (start + b"x" * contract.MAX_RECORD)[: contract.MAX_RECORD].decode()
        assert found.quarantined.checksum == quarantine.record_hash(3, raw)


def test_a_wrong_header_is_refused(place: Path) -> None:
    """If this fails, the columns of another table are counted as this one's."""
    path = place / "x.csv"
    path.write_bytes(b"key,id,year,note\n")
    with pytest.raises(HeaderError, match=r"x.csv, line 1: expected the header .*the order differs"):
        audit.audit(path, TABLES[0])
    path.write_bytes(b"\xef\xbb\xbf" + header_line(TABLES[0]).replace(b"\n", b"\r\n") + b"1,a,,\r\n")
    assert audit.audit(path, TABLES[0]).rows.rows == 1


@pytest.mark.parametrize("table", TABLES, ids=lambda t: type(t).__name__)
@given(
    data=DIRT,
    longest=st.sampled_from([20, 40, 100, 1 << 20]),
    walk=st.sampled_from([1, 30, 1 << 14]),
    sizes=st.lists(st.sampled_from(SIZES), min_size=2, max_size=2),
)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@example(data=b'1,a,,"x\n2,b,,\n3,c,,y",extra\n', longest=100, walk=1, sizes=SIZES)
@example(data=b"1,a,,x\ry\n\n2,b,,\n" * 3, longest=100, walk=1, sizes=SIZES)
@example(data=b"\xef\xbb\xbf1,a,,\n" * 2, longest=100, walk=1, sizes=SIZES)
@example(data=b"1,a,,x\r\r\n", longest=100, walk=1, sizes=SIZES)
@example(data=b'1,a,"' + b"x" * 99 + b'",\n2,b,,\n' + b"y" * 250 + b"\n3,c,,", longest=100, walk=1, sizes=SIZES)
def test_both_readers_agree(place: Path, table: Table, data: bytes, longest: int, walk: int, sizes: list[int]) -> None:
    """If this fails, one of the two readers loses, changes or quarantines a row, or a block's size decides on it."""
    path = place / table.csv
    path.write_bytes(header_line(table) + data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contract, "MAX_RECORD", longest)
        patch.setattr(audit_parts, "WALK_BYTES", walk)
        expected = first(path, table, blocks.BLOCK_BYTES)
        for size in [*sizes, blocks.BLOCK_BYTES]:
            assert same(audit.audit(path, table, block_bytes=size), expected), f"the second reader in blocks of {size}"
            assert same(first(path, table, size), expected), f"the first reader in blocks of {size}"
