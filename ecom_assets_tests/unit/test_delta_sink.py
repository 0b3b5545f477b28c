"""The stream's sink without Spark: what a task writes, and what a commit makes of it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from ecom_assets.lake import delta, query, record_files, streamed
from ecom_assets.lake.sink import Writer
from ecom_assets_tests.tables import PRODUCT
from ecom_assets_tests.topics import encode, product

TABLE = replace(PRODUCT, write="append", history=False)
"""Where a tombstone is no row."""

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
RECORDS = pa.schema(
    [
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp", pa.timestamp("us", "UTC")),
    ]
)


def records(*values: bytes | None, first: int = 0) -> pa.RecordBatch:
    """Records of partition 3 as Spark's Kafka source hands them over."""
    rows = [
        {"key": b"k", "value": value, "partition": 3, "offset": first + n, "timestamp": WHEN}
        for n, value in enumerate(values)
    ]
    return pa.RecordBatch.from_pylist(rows, RECORDS)


def good(*keys: int) -> list[bytes]:
    return [encode(TABLE, product(key)) for key in keys]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    query.create(TABLE, tmp_path / "table")
    return tmp_path / "table"


@pytest.fixture
def writer(target: Path) -> Writer:
    checkpoint = target.with_name("checkpoint")
    checkpoint.mkdir()
    (checkpoint / "metadata").write_text(json.dumps({"id": "the query"}))
    return Writer(TABLE, "shop.product", str(target), str(checkpoint))


def rows(target: Path) -> list[dict[str, Any]]:
    return sorted(DeltaTable(str(target)).to_pyarrow_table().to_pylist(), key=lambda row: row["_offset"])


def test_each_record_is_a_row_or_undecoded() -> None:
    """A bad record would move the rows behind it to other offsets, or the reasons to other records."""
    chance = random.Random(4)
    for share in (0.0, 0.1, 0.9, 1.0):
        values, expected = [], []
        for n in range(200):
            bad = chance.choice([None, b"", b"x", good(n)[0] + b"!"])
            is_bad = chance.random() < share
            values.append(bad if is_bad else good(n)[0])
            expected.append({"key": b"k", "value": bad} if is_bad else product(n))
        made = record_files.decoded(records(*values, first=7), TABLE, "shop.product").to_pylist()
        for n, (row, want) in enumerate(zip(made, expected, strict=True)):
            place = {
                "_delivery": None,
                "_row": None,
                "_topic": "shop.product",
                "_partition": 3,
                "_offset": 7 + n,
                "_timestamp": WHEN,
            }
            if "id" in want:
                assert row == {**want, **place, "_tombstone": False, "_undecoded": None}
            else:
                reason = row["_undecoded"].pop("reason")
                assert row == {**dict.fromkeys(TABLE.names), **place, "_tombstone": None, "_undecoded": want}
                assert reason.startswith("expected one Avro record of product, got ")


def test_what_is_committed_is_read(writer: Writer, target: Path) -> None:
    """Rows would not be found by those who read the table, or its log would report other numbers than it holds."""
    written = [
        writer.write(iter([records(*good(1, 2)), records(), records(b"bad", *good(3), first=2)])),
        writer.write(iter([records()])),
        writer.write(iter([])),
    ]
    writer.commit(list(written), 0)
    assert [row["id"] for row in rows(target)] == [1, 2, None, 3]
    (file,) = DeltaTable(str(target)).get_add_actions(flatten=True).to_struct_array().to_pylist()
    assert file["num_records"] == delta.records(target) == 4
    assert (file["min._offset"], file["max._offset"], file["min._partition"]) == (0, 3, 3)
    assert file["null_count._undecoded.reason"] == 3
    (last, *_) = DeltaTable(str(target)).history()
    assert last["operationMetrics"] == {"numFiles": "1", "numOutputRows": "4"}
    assert file["size_bytes"] == (target / file["path"]).stat().st_size


@pytest.mark.parametrize("compacted", ["nothing", "all", "some"])
def test_undecoded_records_are_known_after_maintenance(writer: Writer, target: Path, compacted: str) -> None:
    """If this fails, maintenance turns a sound table red, or hides bad records: it writes no statistics of them."""
    batches = [[*good(1), b"bad"], [*good(2), b"worse", None], good(3, 4)]
    for number, values in enumerate(batches):
        writer.commit([writer.write(iter([records(*values, first=10 * number)]))], number)
        if (compacted, number) in {("some", 1), ("all", 2)}:
            assert DeltaTable(str(target)).optimize.compact()["numFilesRemoved"] == number + 1
    found = DeltaTable(str(target))
    assert streamed.undecoded(found) == 3
    bad = sorted(streamed._bad(found), key=lambda row: row["_offset"])
    assert [(row["_offset"], row["_undecoded"]["value"]) for row in bad] == [(1, b"bad"), (11, b"worse"), (12, None)]


def test_a_batch_is_committed_once(writer: Writer, target: Path) -> None:
    """A batch that Spark repeats, since it did not hear of the commit, would be doubled."""
    for batch in (0, 1):
        for _ in range(2):
            writer.commit([writer.write(iter([records(*good(batch), first=batch)]))], batch)
    assert [row["id"] for row in rows(target)] == [0, 1]


def test_a_version_names_the_offsets_that_its_rows_come_from(writer: Writer, target: Path) -> None:
    """Rows and offsets would not belong together, and a check during a stream would compare two moments."""
    for batch in (0, 1):
        writer.commit([writer.write(iter([records(*good(batch, 9), first=10 * batch)]))], batch)
    assert query.committed(DeltaTable(str(target)), "shop.product") == {3: 12}
    assert query.committed(DeltaTable(str(target), version=1), "shop.product") == {3: 2}
    assert query.committed(DeltaTable(str(target), version=0), "shop.product") == {}


def test_two_commits_of_one_batch_at_once(writer: Writer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit of a server that was killed and lingers, and that of the next one, would double the batch."""
    files = [writer.write(iter([records(*good(1))])) for _ in range(2)]
    look = DeltaTable.transaction_version

    def other_is_quicker(table: DeltaTable, app: str) -> int | None:
        done = look(table, app)
        monkeypatch.undo()
        writer.commit([files[0]], 0)
        return done

    monkeypatch.setattr(DeltaTable, "transaction_version", other_is_quicker)
    with pytest.raises(CommitFailedError, match="Concurrent transaction"):
        writer.commit([files[1]], 0)
    assert [row["id"] for row in rows(target)] == [1]


def test_an_empty_batch_leaves_the_table_alone(writer: Writer, target: Path) -> None:
    """Each look at a quiet topic would make a version of the table, and the next layers be made anew."""
    writer.commit([writer.write(iter([]))], 0)
    assert DeltaTable(str(target)).version() == 0


def test_a_task_that_fails_leaves_nothing(writer: Writer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that no one names would heap up on a full disk."""
    monkeypatch.setattr(record_files, "GROUP_ROWS", 2)

    def broken() -> Iterator[pa.RecordBatch]:
        yield from (records(*good(1, 2)), records(*good(3, 4)))
        assert len(list(target.glob("*.parquet"))) == 1
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        writer.write(broken())
    assert not list(target.glob("*.parquet"))


@pytest.mark.parametrize("limit", ["rows", "bytes"])
def test_memory_does_not_grow_with_the_batch(
    writer: Writer, target: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """All records of a task would be held until its end."""
    name, most = ("GROUP_ROWS", 10) if limit == "rows" else ("GROUP_BYTES", 5000)
    monkeypatch.setattr(record_files, name, most)
    written = writer.write(records(*good(*range(n, n + 5)), first=n) for n in range(0, 100, 5))
    writer.commit([written], 0)
    assert [row["id"] for row in rows(target)] == list(range(100))
    assert written.file
    parquet = pq.ParquetFile(target / written.file.name)
    assert max(parquet.metadata.row_group(n).num_rows for n in range(parquet.num_row_groups)) <= 10


def test_reasons() -> None:
    """The quarantine would not state what was wrong with a record."""
    whole = encode(TABLE, product(1, productDisplayName="é"))
    flaws = {
        None: "no value (a tombstone)",
        b"": "0 bytes that are none",
        whole[:-1]: f"{len(whole) - 1} bytes that are none",
        whole + b"!": f"{len(whole) + 1} bytes that are not exactly one",
        whole.replace("é".encode(), b"\xff\xfe"): f"{len(whole)} bytes with text that is not UTF-8",
    }
    made = record_files.decoded(records(*flaws), TABLE, "t")["_undecoded"].to_pylist()
    assert [row["reason"] for row in made] == [f"expected one Avro record of product, got {f}" for f in flaws.values()]
    assert [row["value"] for row in made] == list(flaws)
