"""A simulation's rows: new keys, times that end now, and everything else as it was."""

from __future__ import annotations

import time
from dataclasses import replace
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ecom_assets.core.errors import TopicError
from ecom_assets.dataset.model import HBaseLayout, Reference, Table
from ecom_assets.kafka.fresh import Renewer
from ecom_assets_tests.tables import CLICK_STREAM

MOMENT = {"type": "long", "logicalType": "timestamp-millis"}
FIELDS = [
    {"name": "no", "type": "long"},
    {"name": "name", "type": "string"},
    {"name": "device", "type": {"type": "string", "logicalType": "uuid"}},
    {"name": "owner", "type": "long"},
    {"name": "at", "type": "string", "parsed_as": {"name": "at_ts", "type": "timestamp"}},
    {"name": "until", "type": ["null", MOMENT]},
    {"name": "born", "type": ["null", {"type": "int", "logicalType": "date"}]},
]
KEY = ("no", "name", "device", "owner")
ROWS = 100


def table(*key: str, references: tuple[Reference, ...] = (), widths: dict[str, int] | None = None) -> Table:
    names = tuple(str(field["name"]) for field in FIELDS)
    layout = HBaseLayout("t", {"d": names}, key, ("text",) * len(key), widths or {})
    return replace(
        CLICK_STREAM,
        avsc={"type": "record", "name": "T", "fields": FIELDS},
        primary_key=key,
        topic_key=key,
        domains={},
        references=references,
        hbase=layout,
        indexes={},
    )


def rows(like: Table) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {
            "no": range(ROWS),
            "name": [f"name {n}" for n in range(ROWS)],
            "device": [str(UUID(int=n)) for n in range(ROWS)],
            "owner": [n % 7 for n in range(ROWS)],
            "at": ["soon" if n == 3 else f"2016-06-30T23:18:{n % 60:02}.5Z" for n in range(ROWS)],
            "until": pa.array([None if n == 4 else 1_467_328_800_000 + n for n in range(ROWS)]).cast(
                pa.timestamp("us", "UTC"), safe=False
            ),
            "born": pa.array([7] * ROWS, pa.date32()),
        },
        schema=like.arrow,
    )


def test_keys_are_new_each_time_and_fit_their_columns() -> None:
    """If this fails, rows of a simulation collapse as duplicates, or are conflicts."""
    own = table(*KEY, references=(Reference(("owner",), "owners", ("no",)),))
    renewer, first = Renewer(own), rows(own)
    seen: dict[str, set[object]] = {name: set(first.column(name).to_pylist()) for name in KEY[:3]}
    for _ in range(3):
        made = renewer.renewed(first)
        assert made.schema == first.schema
        assert made.column("owner").equals(first.column("owner")), "it refers to another table"
        assert made.column("born").equals(first.column("born")), "a birthday stays"
        for name, taken in seen.items():
            new = made.column(name).to_pylist()
            assert len({*new} - taken) == ROWS
            taken |= {*new}
        assert all(str(UUID(text)) == text for text in made.column("device").to_pylist())
        made.validate(full=True)


def test_times_end_now_and_keep_their_distances() -> None:
    """If this fails, a live page shows a simulation as years old, or orders as paid before they were made."""
    own = table("no")
    before = rows(own)
    made = Renewer(own).renewed(before)
    now = time.time()
    at = [text for n, text in enumerate(made.column("at").to_pylist()) if n != 3]
    latest = pa.array([max(at)]).cast(pa.timestamp("us", "UTC")).cast(pa.int64())[0].as_py() / 1e6
    assert now - 5 < latest <= now
    assert made.column("at")[3].as_py() == "soon", "what is no time stays as it is"
    assert made.column("until")[4].as_py() is None
    shift = pc.subtract(made.column("until").cast(pa.int64()), before.column("until").cast(pa.int64()))
    assert len(shift.drop_null().unique()) == 1
    newest = pa.array(["2016-06-30T23:18:59.5Z"]).cast(pa.timestamp("us", "UTC")).cast(pa.int64())[0].as_py()
    assert abs(shift[0].as_py() - (latest * 1e6 - newest)) < 2000


@pytest.mark.parametrize(
    "own",
    [
        table("owner", references=(Reference(("owner",), "owners", ("no",)),)),
        table("name", widths={"name": 8}),
        table("born"),
    ],
    ids=["refers", "fixed width", "a day"],
)
def test_a_table_without_a_key_that_can_be_new_is_refused(own: Table) -> None:
    """If this fails, a simulation makes rows that refer to nothing, or that the table cannot hold."""
    with pytest.raises(TopicError, match=r"(?s)that can have new values, got none.*--again"):
        Renewer(own)
