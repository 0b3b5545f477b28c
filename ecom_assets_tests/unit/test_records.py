"""CSV records: every good row read as it stands, every bad one set aside with its line."""

import csv
import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_assets.core.quarantine import Quarantined
from ecom_assets.csv import contract, records
from ecom_assets.csv.blocks import BLOCK_BYTES, Block
from ecom_assets.csv.contract import DamagedError, HeaderError, header_line
from ecom_assets.dataset.model import Table
from ecom_assets_tests.tables import CLICK_STREAM, CUSTOMER, PRODUCT, TABLES

CLICK_HEADER = b"session_id,event_name,event_time,event_id,traffic_source,event_metadata\n"
PRODUCT_HEADER = b"id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,productDisplayName\n"


def read(
    tmp_path: Path, data: bytes, table: Table = CLICK_STREAM, block_bytes: int = BLOCK_BYTES
) -> tuple[list[dict], list[Quarantined]]:
    path = tmp_path / table.csv
    path.write_bytes(data)
    rows, bad = [], []
    for parsed in records.parse(path, table, block_bytes):
        rows += parsed.batch.to_pylist()
        bad += parsed.bad
        # What is written downstream must read back as the same rows.
        again = records.read_clean(header_line(table) + parsed.text, table)
        assert again.equals(parsed.batch)
        # So must each row by itself.
        lines = [parsed.text[a:b] for a, b in pairwise([0, *parsed.ends])]
        assert [list(csv.reader(io.StringIO(line.decode(), newline=""))) for line in lines] == [
            [["" if value is None else str(value) for value in row.values()]] for row in parsed.batch.to_pylist()
        ]
    return rows, bad


def event(n: int, metadata: str = "") -> bytes:
    return f"s{n},CLICK,2020-01-01T00:00:00.000000Z,e{n},WEB,{metadata}\n".encode()


def ids(rows: list[dict]) -> list[str]:
    return [row["event_id"] for row in rows]


def test_null_and_empty_differ(tmp_path: Path) -> None:
    """If this fails, an empty text turns into a null or the reverse on its way."""
    rows, bad = read(tmp_path, CLICK_HEADER + event(1) + event(2, '""'))
    assert [r["event_metadata"] for r in rows] == [None, ""]
    assert not bad


def test_quoted_commas_newlines_and_quotes(tmp_path: Path) -> None:
    """If this fails, a quoted field is cut at a comma, a line end or a doubled quote."""
    text = '"{\'a\': 1, \'b\': ""x""}\nsecond line\r\nthird"'
    rows, bad = read(tmp_path, CLICK_HEADER + event(1, text) + event(2))
    assert rows[0]["event_metadata"] == "{'a': 1, 'b': \"x\"}\nsecond line\r\nthird"
    assert ids(rows) == ["e1", "e2"]
    assert not bad


@pytest.mark.parametrize("block_bytes", [1, 7, 64, 300, 4096])
def test_block_borders_lose_nothing(tmp_path: Path, block_bytes: int) -> None:
    """If this fails, a row at a block's border is lost, doubled or cut (the original's fault at chunk borders)."""
    data = CLICK_HEADER + b"".join(event(n, f'"x, ""{n}""\n"' if n % 3 else "") for n in range(40))
    rows, bad = read(tmp_path, data, block_bytes=block_bytes)
    assert ids(rows) == [f"e{n}" for n in range(40)]
    assert rows[1]["event_metadata"] == 'x, "1"\n'
    assert not bad


def test_crlf_and_bom(tmp_path: Path) -> None:
    """If this fails, a file saved on Windows cannot be read, or keeps a carriage return in its last column."""
    data = b"\xef\xbb\xbf" + (CLICK_HEADER + event(1) + event(2, "x")).replace(b"\n", b"\r\n")
    rows, bad = read(tmp_path, data)
    assert [r["event_metadata"] for r in rows] == [None, "x"]
    assert not bad


def test_last_line_without_an_end(tmp_path: Path) -> None:
    """If this fails, the last row of a file without a final line end is lost."""
    rows, bad = read(tmp_path, (CLICK_HEADER + event(1) + event(2, "x"))[:-1])
    assert ids(rows) == ["e1", "e2"]
    assert not bad


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param(b"s9,CLICK,2020\n", "expected 6 fields, got 3", id="short row"),
        pytest.param(b"s9,CLICK,t,e9,WEB,x,y\n", "expected 6 fields, got 7", id="long row"),
        pytest.param(
            b"s9,CLICK,t,e9,W\xff\xfeB,\n", "expected UTF-8 in traffic_source, got byte 0xff at 1", id="not UTF-8"
        ),
        pytest.param(b"s9,CLICK,t,,WEB,\n", "expected a value in event_id, got null", id="null key"),
        pytest.param(b's9,CLICK,t,"",WEB,\n', "expected 1 to 6537 bytes in the key event_id, got 0", id="empty key"),
        pytest.param(
            b's9,CLICK,t,e9,WEB,"open\n', "expected a comma or line end behind the quoted field 6", id="open quote"
        ),
        pytest.param(
            b's9,CLICK,t,e9,WEB,"a"b\n', "expected a comma or line end behind the quoted field 6", id="behind quote"
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("block_bytes", [50, 4096])
def test_bad_row_is_set_aside_alone(tmp_path: Path, line: bytes, reason: str, block_bytes: int) -> None:
    """If this fails, a bad row vanishes, stops the run, or takes good rows with it."""
    data = CLICK_HEADER + event(1) + event(2) + line + event(3) + event(4, '"a, b"')
    rows, bad = read(tmp_path, data, block_bytes=block_bytes)
    assert ids(rows) == ["e1", "e2", "e3", "e4"]
    assert [(b.line, b.source, b.reason) for b in bad] == [(4, "click_stream.csv", reason)]
    assert bad[0].raw == line.rstrip(b"\n").decode("utf-8", "backslashreplace")


def test_quarantine_lines_count_quoted_newlines(tmp_path: Path) -> None:
    """If this fails, the line reported for a bad row is wrong once a field above it holds a newline."""
    data = CLICK_HEADER + event(1, '"a\nb\nc"') + b"short\n" + event(2)
    rows, bad = read(tmp_path, data)
    assert ids(rows) == ["e1", "e2"]
    assert [b.line for b in bad] == [5]


def test_truncated_last_line(tmp_path: Path) -> None:
    """If this fails, half a row at the end of a cut-off file passes as a row or stops the run."""
    rows, bad = read(tmp_path, CLICK_HEADER + event(1) + b"s2,CLICK,t,e2,WEB,\"{'a")
    assert ids(rows) == ["e1"]
    assert [(b.line, b.reason) for b in bad] == [(3, "expected the opening quote of a field to be closed")]


def test_header_only(tmp_path: Path) -> None:
    """If this fails, an empty table is an error instead of zero rows."""
    assert read(tmp_path, CLICK_HEADER) == ([], [])


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"session_id,event_name,event_time,event_id,traffic_source\n", "missing: event_metadata"),
        (CLICK_HEADER.replace(b"\n", b",extra\n"), "not expected: extra"),
        (b"event_name,session_id,event_time,event_id,traffic_source,event_metadata\n", "the order differs"),
        (b"", "missing: session_id"),
    ],
)
def test_wrong_header_is_a_clear_error(tmp_path: Path, header: bytes, message: str) -> None:
    """If this fails, a file with other columns is read into the wrong ones."""
    with pytest.raises(HeaderError, match=message) as error:
        read(tmp_path, header + event(1))
    assert "click_stream.csv, line 1" in str(error.value)


def test_overflow_belongs_to_the_last_column(tmp_path: Path) -> None:
    """If this fails, the 22 products with commas in their names are lost or cut."""
    data = PRODUCT_HEADER + (
        b"1,Men,A,B,C,Blue,Fall,2011,Casual,Plain\n"
        b"2,Men,A,B,C,Blue,Fall,2011,Casual,One, comma\n"
        b"3,Men,A,B,C,,,,NA,Two,commas, here\n"
        b"4,Men,A,B,C,,,x,,Bad year\n"
        b"5,Men,A,B,C,,,2011\n"
    )
    rows, bad = read(tmp_path, data, PRODUCT)
    assert [r["productDisplayName"] for r in rows] == ["Plain", "One, comma", "Two,commas, here"]
    assert rows[2]["usage"] is None, "NA means null in this table"
    assert rows[2]["year"] is None
    assert [(b.line, b.reason) for b in bad] == [
        (5, "expected an integer in year, got 'x'"),
        (6, "expected 10 fields, got 8"),
    ]


@pytest.mark.parametrize("text", ["007", "+1", "1.0", "-0", " 1", "1_0", "9223372036854775808", "１"])
def test_integers_that_would_not_come_back(tmp_path: Path, text: str) -> None:
    """If this fails, an id is changed on its way (007 to 7) and its bytes no longer match the source."""
    row = f"{text},a,b,c,d,F,2000-01-01,iOS,e,f,1,2,g,h,2020-01-01\n"
    good = "9223372036854775807,a,b,c,d,F,2000-01-01,iOS,e,f,1,2,g,h,2020-01-01\n"
    header = ",".join(CUSTOMER.names) + "\n"
    rows, bad = read(tmp_path, (header + row + good).encode(), CUSTOMER)
    assert [r["customer_id"] for r in rows] == [9223372036854775807]
    assert bad[0].reason == f"expected an integer in customer_id, got {text!r}"


def test_stray_quote_far_from_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, one quote that is never closed swallows the rest of the file."""
    monkeypatch.setattr(contract, "MAX_RECORD", 2000)
    data = CLICK_HEADER + event(0) + event(1, '"open') + b"".join(event(n) for n in range(2, 500))
    rows, bad = read(tmp_path, data, block_bytes=1000)
    assert len(rows) == 499
    assert [b.line for b in bad] == [3]


def test_record_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a record that Kafka would refuse stops the whole run later."""
    monkeypatch.setattr(contract, "MAX_RECORD", 2000)
    data = CLICK_HEADER + event(1) + event(2, "x" * 3000) + event(3)
    rows, bad = read(tmp_path, data)
    assert ids(rows) == ["e1", "e3"]
    assert bad[0].reason.startswith("expected a record of at most 2000 bytes")


BLOCKS = [1, 40, 97, 300, BLOCK_BYTES]


@pytest.mark.parametrize("block_bytes", BLOCKS)
def test_a_bad_record_costs_all_its_lines_and_no_more(tmp_path: Path, block_bytes: int) -> None:
    """If this fails, what stands inside the quotes of a bad record becomes a row."""
    bad = b's9,CLICK,t,e9,WEB,"x\n' + event(66) + b'y",extra\n'
    rows, aside = read(tmp_path, CLICK_HEADER + event(1) + bad + event(2), block_bytes=block_bytes)
    assert ids(rows) == ["e1", "e2"]
    assert [(b.line, b.raw, b.reason) for b in aside] == [(3, bad[:-1].decode(), "expected 6 fields, got 7")]


@pytest.mark.parametrize("block_bytes", BLOCKS)
@pytest.mark.parametrize(
    ("odd", "values"),
    [
        pytest.param(b"s9,CLICK,t,e9,WEB,x\ry\n\n", ["x\ry"], id="a lone CR and an empty line"),
        pytest.param(b"s9,CLICK,t,e9,WEB,x\r\r\n", ["x\r"], id="two CRs"),
        pytest.param(b's9,CLICK,t,e9,WEB,"x\ry"\n\r\n', ["x\ry"], id="a quoted CR"),
        pytest.param(b"\xef\xbb\xbfs9,CLICK,t,e9,WEB,x\n", ["x"], id="a byte order mark"),
        pytest.param(b"\r\n\n\r\n", [], id="empty lines"),
    ],
)
def test_neighbors_do_not_decide(tmp_path: Path, odd: bytes, values: list[str], block_bytes: int) -> None:
    """If this fails, whether a record is good, or what it holds, depends on the block that it falls into."""
    good = b"".join(event(n) for n in range(20))
    rows, aside = read(tmp_path, CLICK_HEADER + good + odd + good + odd, block_bytes=block_bytes)
    assert [row["event_metadata"] for row in rows if row["event_id"] == "e9" and row["event_metadata"]] == values * 2
    assert len(rows) == 40 + 2 * len(values)
    assert not aside
    if odd.startswith(b"\xef"):
        assert [row["session_id"] for row in rows if row["event_metadata"]] == ["\ufeffs9"] * 2


@pytest.mark.parametrize("block_bytes", [*BLOCKS, 3010])
def test_a_long_line_is_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    """If this fails, the rest of a line that is too long passes for a row, or the line ends the process's memory."""
    monkeypatch.setattr(contract, "MAX_RECORD", 2000)
    line = b"x" * 3000 + b"," + event(7)
    rows, aside = read(tmp_path, CLICK_HEADER + event(1) + line + event(3) + line[:-1], block_bytes=block_bytes)
    assert ids(rows) == ["e1", "e3"]
    assert [(b.line, b.raw, b.reason) for b in aside] == [
        (n, "x" * 2000, "expected a record of at most 2000 bytes, got a longer one") for n in (3, 5)
    ]


@pytest.mark.parametrize("block_bytes", [*BLOCKS, 150])
@pytest.mark.parametrize("close", [b'",' + b"z" * 60, b"z" * 60 + b'"'], ids=["in time", "too late"])
def test_a_record_beyond_the_limit_costs_its_first_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, close: bytes, block_bytes: int
) -> None:
    """If this fails, a stray quote that another one closes far behind takes the rows between along."""
    monkeypatch.setattr(contract, "MAX_RECORD", 200)
    data = b's9,CLICK,t,e9,WEB,"x\n' + event(1) + event(2) + event(3) + b"y" * 16 + close + b"\n" + event(4)
    rows, aside = read(tmp_path, CLICK_HEADER + data, block_bytes=block_bytes)
    assert ids(rows) == ["e1", "e2", "e3", "e4"]
    assert [b.line for b in aside] == [2, 6]


def test_damaged_chunk_is_named() -> None:
    """If this fails, a damaged file of our own making is read as if it were whole."""
    with pytest.raises(DamagedError, match=r"part-1.csv, line 3: expected 6 fields, got 1"):
        records.read_clean(CLICK_HEADER + event(1) + b"x\n", CLICK_STREAM, "part-1.csv")
    with pytest.raises(DamagedError, match="expected the header"):
        records.read_clean(b"y" + CLICK_HEADER[1:] + event(1), CLICK_STREAM)


TEXT = st.one_of(
    st.none(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(["", "NA", '"', ",", "\r", "\r\n", "a\nb"]),
)
KEY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@given(st.lists(st.tuples(KEY, KEY, TEXT), min_size=1, max_size=12), st.integers(1, 200))
@settings(deadline=None)
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, rows: list, block_bytes: int) -> None:
    """If this fails, some text does not survive writing and reading, or differs from what Python's csv reads."""
    batch = pa.RecordBatch.from_pylist(
        [dict(zip(CLICK_STREAM.names, [a, "CLICK", "t", b, "WEB", m], strict=True)) for a, b, m in rows],
        schema=CLICK_STREAM.arrow,
    )
    text = records.to_csv(batch, CLICK_STREAM)
    # Python's reader ends a row at a bare carriage return only outside quotes, as RFC 4180 has it.
    theirs = list(csv.reader(io.StringIO(text.decode(), newline=""), strict=True))
    assert [r[5] for r in theirs] == [m or "" for _, _, m in rows]
    path = tmp_path_factory.mktemp("csv") / CLICK_STREAM.csv
    got, bad = read(path.parent, CLICK_HEADER + text, block_bytes=block_bytes)
    assert got == batch.to_pylist()
    assert not bad


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_slow_and_fast_readers_agree(table: Table) -> None:
    """If this fails, whether a row is good depends on its neighbours."""
    fields = {"long": "12", "string": "text"}
    line = ",".join(fields[c.kind.name] if not c.nullable else "" for c in table.columns)
    data = f"{line}\n{line}\n".encode()
    fast = records.parse_block(Block(data, 2, np.array([len(line) + 1, len(data)])), table, "x")
    slow = records.parse_block(Block(data, 2, None), table, "x")
    assert fast.batch.equals(slow.batch)
    assert fast.batch.num_rows == 2
