"""Keys of a copy: fresh, one to one, and the same wherever they are made."""

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_assets.csv import expand, keys, records
from ecom_assets.csv.contract import header_line
from ecom_assets.csv.plan import Plan, sampled
from ecom_assets.dataset.model import Table
from ecom_assets_tests.tables import CLICK_STREAM, TRANSACTIONS

UUID = st.uuids().map(str)
HEXADECIMAL = st.text("0123456789abcdefgF-", min_size=1, max_size=12)
"""Some begin with eight digits, some nearly do."""
QUOTE = '"'
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9)
STEPS = st.integers(1, 1 << 40)


@pytest.mark.parametrize("key", ["00000000-0000-4000-8000-000000000000", "short", "ABCDEF01-x", "", "ünï|code"])
def test_text_keys_come_back(key: str) -> None:
    """If this fails, a key that is no UUID cannot be distinguished from its copies, or not folded back."""
    column = pa.array([key, "a" * 36, key])
    copies = [keys.renewed(column, k) for k in (1, 2, 115)]
    assert len({c[0].as_py() for c in copies} | {key}) == 4
    assert [keys.renewed(c, -k).equals(column) for c, k in zip(copies, (1, 2, 115), strict=True)] == [True] * 3


@given(st.one_of(st.lists(UUID), st.lists(HEXADECIMAL | UUID), st.lists(TEXT | UUID)), STEPS, st.integers(0, 3))
def test_a_key_does_not_depend_on_its_neighbours(texts: list[str], step: int, skipped: int) -> None:
    """If this fails, a reference leads nowhere, since it stood among other keys than what it refers to."""
    column = pa.array(texts, pa.string())[skipped:]
    fresh = keys.renewed(column, step)
    assert fresh.to_pylist() == [keys.renewed(pa.array([text]), step)[0].as_py() for text in texts[skipped:]]
    assert keys.renewed(fresh, -step).equals(column)
    assert keys.renewed(column, 0).equals(column)
    mask = step * 0x9E3779B1 % (1 << 32)
    for old, new in zip(texts[skipped:], fresh.to_pylist(), strict=True):
        digits = re.match("[0-9a-f]{8}", old)
        assert new == (f"{int(digits[0], 16) ^ mask:08x}{old[8:]}" if digits else f"{old}~{step}")


def lines(table: Table, keyed: dict[str, list], other: list[str | None], *, quoted: bool) -> bytes:
    """Rows as CSV: the columns before the first key hold a text or, where allowed, nothing; so do those behind."""
    rows = []
    for row, text in enumerate(other):
        fields = []
        for column in table.columns:
            value = keyed[column.name][row] if column.name in keyed else 7 if column.kind.is_integer else text
            if (value is None and not column.nullable) or (value == "" and column.name in table.key_columns):
                value = "x"
            odd = isinstance(value, str) and (quoted or not value or re.search('[",\r\n]', value))
            fields.append('"{}"'.format(value.replace('"', '""')) if odd else "" if value is None else str(value))
        rows.append(",".join(fields) + "\n")
    return "".join(rows).encode()


@pytest.mark.parametrize("key", [UUID, HEXADECIMAL, UUID | TEXT], ids=["uuid", "hexadecimal", "text"])
@pytest.mark.parametrize("table", [CLICK_STREAM, TRANSACTIONS], ids=lambda t: t.name)
@given(data=st.data(), share=st.sampled_from([0.5, 1.0]), quoted=st.booleans())
@settings(max_examples=40, deadline=None)
def test_copies_differ_in_nothing_but_keys(
    table: Table, key: st.SearchStrategy[str], data: st.DataObject, share: float, quoted: bool
) -> None:
    """If this fails, a copy's text holds other keys than its rows shall have, or another field is changed."""
    other = data.draw(st.lists(st.none() | st.text('a",\n\r0é', max_size=5), max_size=4))
    keyed = {
        name: data.draw(st.lists(st.integers(0, 10**9) if name == "customer_id" else key, min_size=4, max_size=4))
        for name in table.domains
    }
    header = header_line(table)
    parsed = records.read_rows(header + lines(table, keyed, other, quoted=quoted), table, "x")
    assert parsed.batch.num_rows == len(other)
    growth = Plan(4, share, {"customer": 10**10}, {"customer": 3}, "session_id")
    for number, text in enumerate(expand.copy_texts(parsed, table, growth), 1):
        rows = parsed.batch
        if number == 3 and share < 1:
            rows = rows.filter(pa.array(sampled(rows.column("session_id"), share)))
        assert records.read_clean(header + text, table).equals(expand.renew(rows, table, number, growth))


def test_uuids_are_renewed_where_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, expanding the largest table takes twice the time, and unusual quotes are lost in its copies."""
    monkeypatch.setattr(records, "to_csv", None)
    row = '{0},CLICK,t,{0},"WEB",'
    text = "".join(row.format(f"{n:08x}-0000-4000-8000-000000000000") + "\n" for n in range(3))
    parsed = records.read_rows(header_line(CLICK_STREAM) + text.encode(), CLICK_STREAM, "x")
    (copy,) = expand.copy_texts(parsed, CLICK_STREAM, Plan(2))
    digits = [f"{n ^ 0x9E3779B1:08x}" for n in range(3)]
    assert copy.decode() == "".join(row.format(f"{d}-0000-4000-8000-000000000000") + "\n" for d in digits)


def test_quotes_before_a_key_do_not_shift_it() -> None:
    """If this fails, a field before a key is changed in its place."""
    uuid = "00000001-0000-4000-8000-000000000000"
    # Where the key would stand if nothing were quoted, there stands what looks like one.
    text = f'{uuid},"{6 * 2 * QUOTE}","deadbeef",{uuid},WEB,\n'
    parsed = records.read_rows(header_line(CLICK_STREAM) + text.encode(), CLICK_STREAM, "x")
    (copy,) = expand.copy_texts(parsed, CLICK_STREAM, Plan(2))
    written = text.replace("00000001", "9e3779b0").replace('"deadbeef"', "deadbeef")  # quotes only where they must be
    assert copy.decode() == written


@pytest.mark.parametrize(("null", "found"), [("", True), ("NA", False)])
def test_a_text_for_null_before_a_key_does_not_shift_it(null: str, found: bool) -> None:
    """If this fails, digits of something else are renewed in place of the key's."""
    key = "00000000-0000-4000-8000-000000000000"
    batch = pa.RecordBatch.from_pydict({"a": pa.array([None, "x"], pa.string()), "key": pa.array([key, key])})
    text = f"{null},{key}\nx,{key}\n".encode()
    ends = np.array([len(null) + 38, len(text)])
    places = records.Parsed(batch, [], text, ends).places(["key"])
    assert [text[b:e].decode() for b, e in zip(*places["key"], strict=True)] == [key, key] if found else not places
