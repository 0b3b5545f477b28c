"""Texts become the same values everywhere, and values one text."""

from __future__ import annotations

import io
import random
from dataclasses import replace
from pathlib import Path

import fastavro
import pyarrow as pa
import pytest

from ecom_assets.core import avro, quarantine, row_hash, values
from ecom_assets.core.measure import Measure
from ecom_assets.csv import audit, records
from ecom_assets.csv.audit_values import canonical
from ecom_assets.csv.contract import header_line
from ecom_assets.dataset.kind import Kind, of_avro
from ecom_assets.dataset.model import Table
from ecom_assets_tests.kinds import THINGS, TYPES, any_text, batch, rows

KINDS = {kind.name: kind for declared in TYPES.values() if (kind := of_avro(declared))}

CASES = [
    ("long", "9223372036854775807", "9223372036854775807"),
    ("long", "9223372036854775808", None),
    ("long", "007", None),
    ("int", "2147483648", None),
    ("boolean", "TRUE", None),
    ("double", "1.50", "1.5"),
    ("double", "-0", "0"),
    ("double", "1e20", "100000000000000000000"),
    ("double", "1e21", "1e+21"),
    ("double", "0.000001", "0.000001"),
    ("double", "0.0000001", "1e-7"),
    ("double", "333333333.33333329", "333333333.3333333"),  # https://www.rfc-editor.org/rfc/rfc8785#appendix-B
    ("double", "1.7976931348623157e308", "1.7976931348623157e+308"),
    ("double", "1.8e308", None),
    ("double", "NaN", None),
    ("float", "0.1", "0.1"),
    ("float", "16777217", "16777216"),
    ("float", "1e39", None),
    ("bytes", "QUI=", "AB"),
    ("bytes", "QR==", None),
    ("date", "2022-02-30", None),
    ("date", "0000-01-01", None),
    ("time-millis", "10:00", "10:00:00.000000"),
    ("time-millis", "10:00:00.1234", None),
    ("time-micros", "24:00", None),
    ("timestamp-micros", "2022-07-31", "2022-07-31T00:00:00.000000Z"),
    ("timestamp-micros", "2022-07-31 10:00+07", "2022-07-31T03:00:00.000000Z"),
    ("timestamp-micros", "9999-12-31T23:59:59-05:00", None),
    ("timestamp-millis", "0001-01-01T00:00:00.5Z", "0001-01-01T00:00:00.500000Z"),
    ("local-timestamp-micros", "1969-12-31T23:59:59.5", "1969-12-31T23:59:59.500000"),
    ("local-timestamp-micros", "2022-07-31T10:00:00Z", None),
    ("decimal(7,2)", "1.5", "1.50"),
    ("decimal(7,2)", "-0", "0.00"),
    ("decimal(7,2)", "1.555", None),
    ("decimal(7,2)", "100000", None),
    ("decimal(38,10)", "0.0000000001", "0.0000000001"),
    ("uuid", "ABCDEF00-0000-4000-8000-000000000000", "abcdef00-0000-4000-8000-000000000000"),
    ("uuid", "ABCDEF00000040008000000000000000", None),
    ("enum", "XL", "XL"),
    ("enum", "X", None),
]


def one_column(name: str) -> Table:
    return replace(
        THINGS,
        avsc={"type": "record", "name": "T", "fields": [{"name": name, "type": TYPES[name]}]},
        primary_key=(name,),
    )


@pytest.mark.parametrize(("name", "text", "expected"), CASES)
def test_texts_of_values(name: str, text: str, expected: str | None) -> None:
    """If this fails, HBase and every checksum hold another text than the documented one."""
    expected_bytes = None if expected is None else expected.encode()
    assert values.texts(values.parse(pa.array([text]), KINDS[name])).to_pylist() == [expected_bytes]
    assert canonical(text.encode(), KINDS[name]) == expected_bytes


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if not kind.is_plain], ids=lambda kind: kind.name)
def test_two_readers_of_values_agree(kind: Kind) -> None:
    """If this fails, one of the two readers of CSV files takes a wrong value for right, or another value."""
    chance = random.Random(kind.name)
    texts = [any_text(kind, chance) for _ in range(5_000)]
    found = values.texts(values.parse(pa.array(texts, pa.string()), kind)).to_pylist()
    expected = [canonical(text.encode(), kind) for text in texts]
    assert found == expected
    assert 0 < sum(each is None for each in found) < len(found), "both right and wrong ones were tried"


def test_a_text_of_a_value_is_a_text_of_the_same_value() -> None:
    """If this fails, rows that are written as CSV again, as copies and chunks are, come back as others."""
    made = batch(300)
    fields = values.as_fields(made)
    for column, field, own in zip(THINGS.columns, fields.columns, made.columns, strict=True):
        assert values.parse(field.cast(pa.string()), column.kind).equals(own), column.name


@pytest.mark.parametrize("cut", [slice(0, 300), slice(37, 120), slice(0, 0)])
def test_records_hold_the_same_values(cut: slice) -> None:
    """If this fails, a topic holds other values than the file, or another Avro library cannot read it."""
    made = batch(300).slice(cut.start, cut.stop - cut.start)
    found = avro.encode(made, THINGS)
    assert avro.decode(pa.array(found, pa.binary()), THINGS).select(THINGS.names).equals(made)
    assert [avro._read(record, THINGS, placed=False) for record in found] == made.to_pylist()


@pytest.mark.parametrize(
    ("name", "wire", "value", "reason"),
    [
        ("wide", "double", float("nan"), "nan in wide, which is no double"),
        ("narrow", "float", float("inf"), "inf in narrow, which is no float"),
        ("day", "int", 3_000_000, "3000000 in day, which is no date"),
        ("clock_ms", "int", 86_400_000, "86400000 in clock_ms, which is no time-millis"),
        ("clock_us", "long", -1, "-1 in clock_us, which is no time-micros"),
        ("at_ms", "long", 2**62, f"{2**62} in at_ms, which is no timestamp-millis"),
        ("at_us", "long", 2**62, f"{2**62} in at_us, which is no timestamp-micros"),
        ("price", "bytes", b"", "bytes in price, which is no decimal(7,2)"),
        ("price", "bytes", (10**7).to_bytes(4, "big"), "bytes in price, which is no decimal(7,2)"),
        ("amount", "bytes", (10**38).to_bytes(17, "big"), "bytes in amount, which is no decimal(38,10)"),
        ("size", "int", 3, "3 in size, which is no enum"),
        ("device", "string", "none", "none in device, which is no uuid"),
    ],
)
def test_records_of_others_with_values_that_are_none(name: str, wire: str, value: object, reason: str) -> None:
    """If this fails, a record that another producer got wrong stops the stream, or becomes a wrong value."""
    table = one_column(name)
    schema = fastavro.parse_schema({"type": "record", "name": "T", "fields": [{"name": name, "type": wire}]})
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, {name: value})
    good, bad = avro.decode_good(pa.array([buffer.getvalue()], pa.binary()), table)
    assert good.num_rows == 0
    assert bad[0][1].endswith(reason)


def test_longer_bytes_of_the_same_decimal_are_that_decimal() -> None:
    """If this fails, records of producers whose library writes a byte more are in quarantine."""
    table = one_column("price")
    padded = b"\x06" + (-32768).to_bytes(3, "big", signed=True)  # as fastavro writes it
    assert str(avro.decode(pa.array([padded], pa.binary()), table)["price"][0]) == "-327.68"


def test_files_of_values(tmp_path: Path) -> None:
    """If this fails, a reader takes a wrong value into a row, or keeps a good row out; the two readers must agree."""
    path, wrong = tmp_path / "things.csv", random.Random(5)
    lines = []
    for row in rows(400, seed=3):
        texts = ["" if text is None else '"' + text.replace('"', '""') + '"' for text in row.values()]
        if wrong.random() < 0.2:
            at = wrong.randrange(len(texts))
            texts[at] = any_text(THINGS.columns[at].kind, wrong).replace(",", "")
        lines.append(",".join(texts))
    path.write_bytes(header_line(THINGS) + "\n".join(lines).encode() + b"\n")
    good, bad = Measure(), Measure()
    for parsed in records.parse(path, THINGS, 20_000):
        good += Measure(parsed.batch.num_rows, row_hash.total(row_hash.batch_hashes(parsed.batch, THINGS.ids)))
        bad += quarantine.measure(parsed.bad)
        assert [record.line for record in parsed.bad] == sorted(record.line for record in parsed.bad)
        assert records.read_clean(header_line(THINGS) + bytes(parsed.text), THINGS).equals(parsed.batch)
    found = audit.audit(path, THINGS)
    assert found.rows.same_rows(good)
    assert found.quarantined.same_rows(bad)
    assert good.rows > 100, "some rows are good"
    assert bad.rows > 10, "some are not"
