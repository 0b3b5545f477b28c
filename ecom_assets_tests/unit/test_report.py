"""The reconciliation report: it fails whenever layers differ, and names the right one."""

from dataclasses import replace

import pytest

from ecom_assets.core.boundary import changes
from ecom_assets.core.layer import Measurement
from ecom_assets.core.measure import Measure
from ecom_assets.paths import LAYERS
from ecom_assets.reconcile import report


def balanced() -> list[Measurement]:
    """Ten records: one unreadable; one duplicate and one conflict among the nine good ones."""
    good, bad = Measure(9, 900), {"quarantined": Measure(1)}
    merged = {"duplicates": Measure(1, 100), "conflicts": Measure(1, 150)}
    return [
        Measurement("t", "raw", good, bad, last_copy=good),
        Measurement("t", "expanded", good, bad, copies=(good,)),
        *(Measurement("t", layer, good) for layer in ("chunked", "topic", "streamed")),
        Measurement("t", "merged", Measure(7, 650), merged),
        Measurement("t", "hbase", Measure(7, 650)),
    ]


def test_a_balanced_report_passes() -> None:
    """If this fails, good runs are called bad."""
    verdict = report.judge(LAYERS, balanced())
    assert verdict.ok, verdict.mismatches
    entry = report.to_json({"t": verdict})["t"]
    assert entry["raw"]["rows"] == 10
    assert entry["hbase"]["rows"] == 7
    assert entry["quarantined"] == 2
    assert "✗" not in report.to_markdown({"t": verdict})


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("change", [Measure(-1, -5), Measure(1, 5), Measure(0, 1)], ids=["lost", "extra", "changed"])
def test_one_wrong_layer_is_named(layer: str, change: Measure) -> None:
    """If this fails, a row is lost, doubled or changed and the report passes or blames another layer."""
    found = balanced()
    at = LAYERS.index(layer)
    wrong = found[at].measure + change
    copies = (wrong,) if layer == "expanded" else ()
    last = wrong if layer == "raw" else None
    found[at] = replace(found[at], measure=wrong, copies=copies, last_copy=last)
    verdict = report.judge(LAYERS, found, changed=changes(balanced()[0], found[0]))
    assert list(verdict.mismatches) == [layer]
    assert "t: " in verdict.mismatches[layer][0]
    assert "✗" in report.to_markdown({"t": verdict})


@pytest.mark.parametrize("at", range(1, len(LAYERS)))
def test_rows_lost_between_layers_are_charged_to_the_later_one(at: int) -> None:
    """If this fails, a loss that all later layers inherit is not seen, or not where it happened."""
    found = balanced()
    for i in range(at, len(found)):
        fewer = found[i].measure + Measure(-1, -3)
        found[i] = replace(found[i], measure=fewer, copies=(fewer,) if i == 1 else ())
    assert list(report.judge(LAYERS, found).mismatches) == [LAYERS[at]]


def test_quarantine_is_counted_on_both_sides() -> None:
    """If this fails, a bad row can vanish from quarantine without anybody seeing it."""
    found = balanced()
    found[1] = replace(found[1], excluded={"quarantined": Measure(0)})
    assert not report.judge(LAYERS, found).ok


def test_measurements_survive_json() -> None:
    """If this fails, a recorded measurement is not the one that was taken."""
    for found in balanced():
        assert Measurement.from_json(found.to_json()) == found


def test_measure_wraps() -> None:
    """If this fails, sums of checksums leave 64 bits."""
    assert (Measure(1, (1 << 64) - 1) + Measure(1, 2)).checksum == 1


def test_rows_sent_once_more_are_accounted_for() -> None:
    """If this fails, a simulation fails the report for ever, or hides rows that came from nowhere."""
    found = balanced()
    again = Measure(3, 300)
    found[3] = replace(found[3], measure=Measure(12, 1200), excluded={"replayed": again})
    found[4] = replace(found[4], measure=Measure(12, 1200))
    taken = dict(found[5].excluded) | {"duplicates": Measure(4, 400)}
    found[5] = replace(found[5], excluded=taken)
    assert report.judge(LAYERS, found).ok
    for wrong in (Measure(2, 300), Measure(3, 301)):
        found[3] = replace(found[3], excluded={"replayed": wrong})
        assert list(report.judge(LAYERS, found).mismatches) == ["topic"]


def test_rows_not_streamed_yet_are_pending() -> None:
    """If this fails, the report fails while a producer is at work, or hides rows that the stream has lost."""
    found = balanced()
    found[3] = replace(
        found[3], measure=Measure(12, 1200), excluded={"replayed": Measure(3, 300), "pending": Measure(3, 300)}
    )
    assert report.judge(LAYERS, found).ok
    found[3] = replace(found[3], excluded={"replayed": Measure(3, 300), "pending": Measure(2, 200)})
    assert list(report.judge(LAYERS, found).mismatches) == ["streamed"]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_without_a_measurement_fails(layer: str) -> None:
    """If this fails, the report on an empty or half-built home passes."""
    found = [m for m in balanced() if m.layer != layer]
    verdict = report.judge(LAYERS, found, {layer: ["it is gone"]})
    assert not verdict.ok
    assert verdict.mismatches == {layer: ["it is gone"]}
    assert list(report.judge(LAYERS, found).mismatches) == [layer]
    assert "not measured" in report.to_markdown({"t": verdict})
    assert not report.judge(LAYERS, []).ok


def test_the_content_of_quarantine_counts() -> None:
    """If this fails, lines of a quarantine file can be replaced by garbage of as many lines."""
    found = balanced()
    found[0] = replace(found[0], excluded={"quarantined": Measure(1, 77)})
    found[1] = replace(found[1], excluded={"quarantined": Measure(1, 78)})
    assert "not by content" in report.judge(LAYERS, found).mismatches["expanded"][0]


def test_a_layer_that_cannot_be_read_is_reported_once() -> None:
    """If this fails, a damaged file ends the report, or every later layer is blamed for it."""
    found = balanced()
    found[5] = replace(found[5], measure=Measure(), problems=("merged/t cannot be read: no footer",))
    verdict = report.judge(LAYERS, found)
    assert verdict.mismatches["merged"][0] == "merged/t cannot be read: no footer"
    assert "not comparable" in " ".join(s for message in verdict.mismatches.values() for s in message)
