"""The proof sheet: red whenever layers differ, and red at the right place."""

from dataclasses import replace

import pytest

from ecom_assets.core.measure import Measure
from ecom_assets.dataset.shop import LAYERS
from ecom_assets.reconcile import report
from ecom_assets.reconcile.report import Proof


def balanced() -> list[Proof]:
    """Ten records: one unreadable; one duplicate and one conflict among the nine good ones."""
    good, bad = Measure(9, 900), {"quarantined": Measure(1)}
    merged = {"duplicates": Measure(1, 100), "conflicts": Measure(1, 150)}
    return [
        Proof("t", "raw", good, bad, last_copy=good),
        Proof("t", "expanded", good, bad, copies=(good,)),
        *(Proof("t", layer, good) for layer in ("chunked", "topic", "streamed")),
        Proof("t", "merged", Measure(7, 650), merged),
        Proof("t", "hbase", Measure(7, 650)),
    ]


def test_a_balanced_sheet_is_green() -> None:
    """If this fails, good runs are called bad."""
    verdict = report.judge(balanced())
    assert verdict.ok, verdict.faults
    entry = report.to_json({"t": verdict})["t"]
    assert entry["raw"]["rows"] == 10
    assert entry["hbase"]["rows"] == 7
    assert entry["quarantined"] == 2
    assert "✗" not in report.to_markdown({"t": verdict})


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("change", [Measure(-1, -5), Measure(1, 5), Measure(0, 1)], ids=["lost", "extra", "changed"])
def test_one_wrong_layer_is_named(layer: str, change: Measure) -> None:
    """If this fails, a row is lost, doubled or changed and the sheet is green or blames another layer."""
    proofs = balanced()
    at = LAYERS.index(layer)
    wrong = proofs[at].measure + change
    copies = (wrong,) if layer == "expanded" else ()
    last = wrong if layer == "raw" else None
    proofs[at] = replace(proofs[at], measure=wrong, copies=copies, last_copy=last)
    verdict = report.judge(proofs, balanced()[0].measure)
    assert list(verdict.faults) == [layer]
    assert "t: " in verdict.faults[layer][0]
    assert "✗" in report.to_markdown({"t": verdict})


@pytest.mark.parametrize("at", range(1, len(LAYERS)))
def test_rows_lost_on_the_way_are_charged_to_the_receiver(at: int) -> None:
    """If this fails, a loss that all later layers inherit is not seen, or not where it happened."""
    proofs = balanced()
    for i in range(at, len(proofs)):
        fewer = proofs[i].measure + Measure(-1, -3)
        proofs[i] = replace(proofs[i], measure=fewer, copies=(fewer,) if i == 1 else ())
    assert list(report.judge(proofs, proofs[0].measure).faults) == [LAYERS[at]]


def test_quarantine_is_counted_on_both_sides() -> None:
    """If this fails, a bad row can vanish from quarantine without anybody seeing it."""
    proofs = balanced()
    proofs[1] = replace(proofs[1], aside={"quarantined": Measure(0)})
    assert not report.judge(proofs).ok


def test_proofs_survive_json() -> None:
    """If this fails, a remembered proof is not the one that was measured."""
    for proof in balanced():
        assert Proof.from_json(proof.to_json()) == proof


def test_measure_wraps() -> None:
    """If this fails, sums of checksums leave 64 bits."""
    assert (Measure(1, (1 << 64) - 1) + Measure(1, 2)).checksum == 1


def test_rows_put_in_once_more_are_accounted_for() -> None:
    """If this fails, a simulation turns the sheet red for ever, or hides rows that came from nowhere."""
    proofs = balanced()
    again = Measure(3, 300)
    proofs[3] = replace(proofs[3], measure=Measure(12, 1200), aside={"replayed": again})
    proofs[4] = replace(proofs[4], measure=Measure(12, 1200))
    taken = proofs[5].aside | {"duplicates": Measure(4, 400)}
    proofs[5] = replace(proofs[5], aside=taken)
    assert report.judge(proofs).ok
    for wrong in (Measure(2, 300), Measure(3, 301)):
        proofs[3] = replace(proofs[3], aside={"replayed": wrong})
        assert list(report.judge(proofs).faults) == ["topic"]
