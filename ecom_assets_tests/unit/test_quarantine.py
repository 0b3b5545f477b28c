"""The quarantine's checksum: any line that is edited, lost or added changes it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecom_assets.core import quarantine
from ecom_assets.core.quarantine import Quarantined
from ecom_assets.core.row_hash import row_hash

RECORDS = [Quarantined("t", "t.csv", n, f"raw, \\xff {n}", "expected 3 fields, got 2") for n in range(2, 10)]


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(lines))
    return path


@given(st.lists(st.tuples(st.integers(0, 1 << 40), st.text()), max_size=5))
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, given: list[tuple[int, str]]) -> None:
    """If this fails, a sound quarantine does not match its raw file."""
    records = [Quarantined("t", "t.csv", line, raw, "reason") for line, raw in given]
    path = write(tmp_path_factory.getbasetemp() / "q.jsonl", *(record.to_line() for record in records))
    found = quarantine.read_file(path)
    assert found.measure == quarantine.measure(records)
    assert not found.problems


def test_a_hash_is_that_of_line_and_text() -> None:
    """If this fails, the quarantine's checksum is another than the documented one."""
    assert RECORDS[0].hash == row_hash(enumerate([b"2", b"raw, \\xff 2"]))


def test_every_edit_changes_the_checksum(tmp_path: Path) -> None:
    """If this fails, an edited quarantine passes its check."""
    lines = [record.to_line() for record in RECORDS]
    due = quarantine.read_file(write(tmp_path / "q", *lines)).measure
    edits = [
        lines[1:],
        [*lines, lines[0]],
        [lines[0].replace(b'"line": 2', b'"line": 3'), *lines[1:]],
        [lines[0].replace(b"raw, ", b"raw ,"), *lines[1:]],
        # Texts swapped between two lines: each one's number counts.
        [lines[0].replace(b'"line": 2', b'"line": 3'), lines[1].replace(b'"line": 3', b'"line": 2'), *lines[2:]],
    ]
    for edited in edits:
        assert not quarantine.read_file(write(tmp_path / "q", *edited)).measure.same_rows(due)


@pytest.mark.parametrize(
    "line",
    [b"garbage", b"", b"[1]", b"{}", b'"x"', b"\xff\xfe", b"[" * 100_000, RECORDS[0].to_line()[:-5],
     RECORDS[0].to_line().replace(b": 2", b": true"), RECORDS[0].to_line().replace(b": 2", b': "2"'),
     RECORDS[0].to_line().replace(b'"line"', b'"extra": "", "line"')],
)  # fmt: skip
def test_a_damaged_line_is_a_problem(tmp_path: Path, line: bytes) -> None:
    """If this fails, a damaged quarantine ends the report, or counts as sound."""
    path = write(tmp_path / "q.jsonl", RECORDS[1].to_line(), line.rstrip(b"\n") + b"\n", RECORDS[2].to_line())
    found = quarantine.read_file(path)
    assert found.measure == quarantine.measure(RECORDS[1:3])
    assert [problem.startswith(f"{path}, line 2: expected a quarantined record") for problem in found.problems] == [
        True
    ]


def test_many_problems_are_counted(tmp_path: Path) -> None:
    """If this fails, a file of garbage fills the report."""
    problems = quarantine.read_file(write(tmp_path / "q", b"x\n" * 1000)).problems
    assert len(problems) == 6
    assert "995 more" in problems[-1]


def test_a_lone_surrogate_is_no_crash(tmp_path: Path) -> None:
    """If this fails, an edited line ends the report."""
    line = RECORDS[0].to_line().replace(b"raw", b"\\ud83d")
    assert not quarantine.read_file(write(tmp_path / "q", line)).measure.same_rows(quarantine.measure(RECORDS[:1]))


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    """If this fails, a lost quarantine passes for an empty one."""
    assert "expected a quarantine file, got none" in quarantine.read_file(tmp_path / "q").problems[0]
