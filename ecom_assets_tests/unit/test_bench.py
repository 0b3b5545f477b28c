"""The benchmark's harness and report, without servers: what is measured is made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

import benchmarks
from benchmarks import report
from benchmarks.harness import OURS, Goal, Ratio, Result, Sample, Spread, Step, Way, measure, timed, versus

MACHINE = {"cores": 2, "memory_gib": 24.0, "load_before": 0.1, "load_after": 2.0}


def way(calls: list[str], name: str, *seconds: float, amount: float = 60) -> Way:
    """A way that takes these seconds, one after the other."""
    left = list(seconds)

    def work() -> Sample:
        calls.append(name)
        return Sample(amount, left.pop(0))

    return work


def step(name: str, ratio: Ratio, *seconds: tuple[float, float], warm_ups: int = 0) -> Result:
    """What a step came to in which ours and the other took these seconds."""
    ours, other = zip(*seconds, strict=True)
    ways = {OURS: way([], OURS, *ours), "other": way([], "other", *other)}
    return measure(Step(name, "rows", ways, (ratio,), warm_ups), len(seconds) - warm_ups)


def test_ways_take_turns_and_every_other_round_goes_backwards() -> None:
    """If this fails, what drifts during a run always meets the same way, and a ratio is wrong by that."""
    calls: list[str] = []
    ways = {name: way(calls, name, *[1.0] * 4) for name in (OURS, "b", "c")}
    measure(Step("s", "rows", ways, (), warm_ups=1), 3)
    forth = [OURS, "b", "c"]
    assert calls == [*forth[::-1], *forth, *forth[::-1], *forth]


def test_a_warm_up_does_not_count() -> None:
    """If this fails, compiling servers' first slow round is reported as the project's speed."""
    found = step("s", versus("r", "other"), (1000, 1), (2, 4), (2, 4), warm_ups=1)
    assert found.rates[OURS] == Spread(30, 30, 30)
    assert found.ratios["r"] == Spread(2, 2, 2)


def test_medians_and_ranges() -> None:
    """If this fails, one disturbed round spoils the figure."""
    assert Spread.of([9, 1, 4]) == Spread(4, 1, 9)
    assert Spread.of([1, 2, 4, 9]) == Spread(3, 1, 9)


def test_a_ratio_is_taken_within_a_round() -> None:
    """If this fails, a machine that slows down between rounds changes a ratio that it does not concern."""
    found = step("s", versus("r", "other"), (1, 2), (10, 20), (3, 3))
    assert found.ratios["r"] == Spread(2, 1, 2)


def test_a_step_may_have_its_own_number_of_rounds() -> None:
    """If this fails, a thousand deliveries come three times over, the second time after the first thousand."""
    ways = {OURS: way([], OURS, 2.0), "other": way([], "other", 1.0)}
    found = measure(Step("s", "MB", ways, (versus("r", "other"),), warm_ups=0, repeats=1), 3)
    assert found.ratios["r"].median == 0.5


def test_long_steps_are_measured_where_they_are_named() -> None:
    """If this fails, `ecom bench` takes hours, or the step that takes them cannot be measured at all."""
    assert set(benchmarks.STEPS) - set(benchmarks.chosen([])) == benchmarks.LONG
    assert benchmarks.chosen(["many_deliveries", "hbase"]) == ["hbase", "many_deliveries"]


def test_above_one_ours_is_faster() -> None:
    """If this fails, the report praises the slower one; amounts may differ, since rates are compared."""
    ways = {OURS: way([], OURS, 2.0, amount=100), "other": way([], "other", 1.0, amount=10)}
    assert measure(Step("s", "MB", ways, (versus("r", "other"),), warm_ups=0), 1).ratios["r"].median == 5


def test_goals_have_a_direction() -> None:
    """If this fails, growth and the share of verification are called good when they are too large."""
    assert Goal(0.7).met(0.7)
    assert not Goal(0.7).met(0.69)
    assert Goal(10.5, at_most=True).met(10.5)
    assert not Goal(10.5, at_most=True).met(10.6)
    assert (str(Goal(1.0)), str(Goal(10.5, at_most=True))) == ("≥ 1", "≤ 10.5")


def test_time_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a rate is made of another time than the work's."""
    clock = iter([10.0, 12.5])
    monkeypatch.setattr("benchmarks.harness.time.perf_counter", lambda: next(clock))
    assert timed(lambda: 5).rate == 2


def test_verification_share_is_verification_time_by_pipeline_time() -> None:
    """If this fails, the cost of verification is hidden in, or taken of, the wrong whole."""
    from benchmarks.whole import verification_share

    assert verification_share(Sample(1, 100, {"topic": 30, "hbase": 10, "proof": 10})) == 0.25


def test_json_has_all_ratios_and_no_others() -> None:
    """If this fails, scripts that read the last line break; what was not measured is null, not absent or zero."""
    found = step("stream", versus("stream_vs_noop", "other", Goal(0.7)), (4, 3), (4, 3), (4, 2))
    reported = json.loads(json.dumps(report.to_json([found], 1000, 3, MACHINE)))
    assert list(reported) == ["ratios", "figures", "machine"]
    assert reported["ratios"] == dict.fromkeys(report.RATIOS) | {"stream_vs_noop": 0.75}
    assert reported["figures"]["stream"] == {
        "unit": "rows/s",
        "rates": {OURS: {"median": 15, "low": 15, "high": 15}, "other": {"median": 20, "low": 20, "high": 30}},
        "ratios": {"stream_vs_noop": {"median": 0.75, "low": 0.5, "high": 0.75}},
    }
    assert reported["machine"] == MACHINE | {"rows": 1000, "repeats": 3}


def test_every_ratio_of_the_report_is_measured_by_a_step() -> None:
    """If this fails, a renamed ratio is null for ever."""
    source = "".join(path.read_text() for path in Path(report.__file__).parent.glob("*.py") if path.stem != "report")
    assert not [name for name in report.RATIOS if f'"{name}"' not in source]


def test_history_compares_with_the_last_of_the_same_size(tmp_path: Path) -> None:
    """If this fails, a small run is held against a large one."""
    path = tmp_path / "history.jsonl"
    assert report.last_like(1000, path) is None
    for rows, seconds in ((1000, 2), (1000, 4), (5000, 8)):
        found = step("stream", versus("stream_vs_noop", "other"), (1, seconds))
        report.remember(report.to_json([found], rows, 1, MACHINE), path)
    last = report.last_like(1000, path)
    assert last
    assert last["ratios"]["stream_vs_noop"] == 4
    assert {"date", "commit"} <= last.keys()

    console = Console(width=120, record=True, file=(tmp_path / "shown").open("w"))
    report.show(console, [step("stream", versus("stream_vs_noop", "other", Goal(0.7)), (4, 2))], last)
    row = next(line for line in console.export_text().splitlines() if "stream_vs_noop" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")][1:] == ["0.50", "0.50 to 0.50", "≥ 0.7", "✗", "4.00"]

    path.write_text("{}\nnot json\n")
    with pytest.raises(ValueError, match="line 2"):
        list(report.history(path))


def test_chart_is_a_picture_of_the_figures(tmp_path: Path) -> None:
    """If this fails, the README shows no chart, or one of other figures."""
    path = tmp_path / "images" / "chart.svg"
    machine = MACHINE | {"rows": 1000, "repeats": 3}
    report.draw([step("stream", versus("stream_vs_noop", "other", Goal(0.7)), (4, 3))], machine, path)
    text = path.read_text()
    assert text.startswith("<svg")
    assert "stream / other" in text
    assert "0.75 ×" in text
