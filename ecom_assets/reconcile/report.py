"""The proof sheet: do the layers hold the same rows, and if not, which one is wrong?

Pure comparison of proofs; measuring is each layer's own (see ``flow.measure``).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ecom_assets.core.measure import Measure

TAKEN_OUT = ("duplicates", "conflicts")
"""Reasons for which a good row is not in the next layer."""

ADDED = ("replayed",)
"""Reasons for which a row is in a layer once more than in the one before: a simulation put it in again."""

HOLDS_BAD_ROWS = ("raw", "topic")
"""Layers in which rows that cannot be read lie among the others; the layer after sets them aside."""


@dataclass(frozen=True)
class Proof:
    """What one layer of one table was found to hold.

    Attributes:
        table: The table.
        layer: The layer.
        measure: Its good rows.
        aside: Further rows by reason. ``duplicates`` and ``conflicts`` were taken out on the
            way from the layer before; ``replayed`` rows were put into the topic once more.
            ``quarantined`` could not be read, so have no checksum: in raw and topic they lie
            among the others, in expanded and streamed they were set aside.
        copies: Expanded only: each copy with its keys folded back.
        last_copy: Raw only: the rows that the last copy takes.
        problems: What was found wrong, a few samples.
        build_seconds: Time it took to make the layer, if known.
    """

    table: str
    layer: str
    measure: Measure
    aside: dict[str, Measure] = field(default_factory=dict)
    copies: tuple[Measure, ...] = ()
    last_copy: Measure | None = None
    problems: tuple[str, ...] = ()
    build_seconds: float = 0.0

    @property
    def aside_rows(self) -> int:
        """Rows taken out."""
        return sum(m.rows for m in self.aside.values())

    def to_json(self) -> dict[str, Any]:
        """A JSON object that ``from_json`` reads."""
        return {
            "table": self.table,
            "layer": self.layer,
            "measure": self.measure.to_json(),
            "aside": {reason: m.to_json() for reason, m in self.aside.items()},
            "copies": [m.to_json() for m in self.copies],
            "last_copy": self.last_copy.to_json() if self.last_copy else None,
            "problems": list(self.problems),
            "build_seconds": round(self.build_seconds, 3),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Proof:
        """Read what ``to_json`` wrote."""
        return cls(
            data["table"],
            data["layer"],
            Measure.from_json(data["measure"]),
            {reason: Measure.from_json(m) for reason, m in data["aside"].items()},
            tuple(Measure.from_json(m) for m in data["copies"]),
            Measure.from_json(data["last_copy"]) if data["last_copy"] else None,
            tuple(data["problems"]),
            data["build_seconds"],
        )


def hand_off(before: Proof, after: Proof) -> list[str]:
    """Compare two neighbouring layers.

    Returns:
        What differs, a sentence each; empty if ``before = after + aside``.
    """
    found = list(after.problems)
    where = f"{before.table}: {before.layer} -> {after.layer}"
    if after.copies or after.layer == "expanded":
        found += _compare_copies(before, after, where)
        return found
    whole, due = after.measure, before.measure
    for reason in TAKEN_OUT:
        whole += after.aside.get(reason, Measure())
    for reason in ADDED:
        due += after.aside.get(reason, Measure())
    if whole.rows != due.rows:
        found.append(
            f"{where}: expected {before.measure.rows:,} rows{_told(after, ADDED)},"
            f" got {after.measure.rows:,}{_told(after, TAKEN_OUT)} ({whole.rows - due.rows:+,})"
        )
    elif whole.checksum != due.checksum:
        found.append(
            f"{where}: the same {whole.rows:,} rows by count, but not by content:"
            f" expected checksum {due.hex}, got {whole.hex}"
        )
    return found + _compare_quarantine(before, after, where)


def unchanged(first: Proof, now: Proof) -> list[str]:
    """Compare a raw file with what it was first proven to hold.

    Returns:
        What differs, a sentence each.
    """
    same = first.measure.same_rows(now.measure) and first.aside_rows == now.aside_rows
    if same:
        return list(now.problems)
    return [
        *now.problems,
        (
            f"{now.table}: the raw file holds {now.measure.rows:,} good rows with checksum {now.measure.hex}, but held"
            f" {first.measure.rows:,} with {first.measure.hex} when it was first proven; bring the old file back,"
            " or take the new one into another home"
        ),
    ]


def _told(proof: Proof, reasons: Sequence[str]) -> str:
    return "".join(f" + {m.rows:,} {r}" for r, m in proof.aside.items() if m.rows and r in reasons)


def _compare_copies(raw: Proof, expanded: Proof, where: str) -> list[str]:
    found = []
    if not expanded.copies:
        found.append(f"{where}: expected at least one copy, got none")
    for k, copy in enumerate(expanded.copies):
        last = k and k == len(expanded.copies) - 1
        due = raw.last_copy if last and raw.last_copy else raw.measure
        if copy.rows != due.rows:
            found.append(f"{where}, copy {k}: expected {due.rows:,} rows, got {copy.rows:,}")
        elif copy.checksum != due.checksum:
            found.append(
                f"{where}, copy {k}: the same {copy.rows:,} rows by count, but not by content"
                f" (keys folded back): expected checksum {due.hex}, got {copy.hex}"
            )
    return found + _compare_quarantine(raw, expanded, where)


def _compare_quarantine(before: Proof, after: Proof, where: str) -> list[str]:
    if before.layer not in HOLDS_BAD_ROWS:
        return []
    bad, aside = before.aside.get("quarantined", Measure()).rows, after.aside.get("quarantined", Measure()).rows
    return [] if bad == aside else [f"{where}: expected {bad:,} rows in quarantine, got {aside:,}"]


@dataclass(frozen=True)
class Verdict:
    """The judgement on one table.

    Attributes:
        proofs: Its layers in order.
        faults: Layer at fault -> what differs.
    """

    proofs: tuple[Proof, ...]
    faults: dict[str, list[str]]

    @property
    def ok(self) -> bool:
        """Whether every hand-off balances."""
        return not self.faults


def judge(proofs: Sequence[Proof], raw_before: Measure | None = None) -> Verdict:
    """Compare all layers of one table and name the ones at fault.

    A layer that disagrees with both its neighbours is at fault. Where a single hand-off
    fails, the receiving layer is; but the raw one, if it no longer holds what it held.

    Args:
        proofs: The layers in order.
        raw_before: What the raw layer held at an earlier proof, if there was one.
    """
    said = [hand_off(a, b) for a, b in itertools.pairwise(proofs)]
    faults: dict[str, list[str]] = {}
    explained: set[int] = set()
    for i in range(1, len(proofs) - 1):
        if said[i - 1] and said[i] and i - 1 not in explained:
            faults[proofs[i].layer] = said[i - 1] + said[i]
            explained |= {i - 1, i}
    for i, differences in enumerate(said):
        if differences and i not in explained:
            raw_changed = i == 0 and raw_before is not None and not raw_before.same_rows(proofs[0].measure)
            faults.setdefault(proofs[0 if raw_changed else i + 1].layer, []).extend(differences)
    if proofs and proofs[0].problems:
        faults.setdefault(proofs[0].layer, []).extend(proofs[0].problems)
    order = [p.layer for p in proofs]
    return Verdict(tuple(proofs), dict(sorted(faults.items(), key=lambda item: order.index(item[0]))))


def quarantined(proofs: Sequence[Proof]) -> int:
    """Rows in quarantine: unreadable ones, and those that contradict another row of the same key."""
    return sum(
        m.rows
        for p in proofs
        for reason, m in p.aside.items()
        if reason in ("quarantined", "conflicts") and p.layer not in HOLDS_BAD_ROWS
    )


def to_json(verdicts: dict[str, Verdict]) -> dict[str, Any]:
    """The sheet as JSON: ``tables.<table>.<layer>.{rows,checksum,seconds}`` and ``tables.<table>.quarantined``.

    ``rows`` of the raw layer are all its records, bad ones included; elsewhere the good
    rows held. ``seconds`` is the time to make the layer, ``proof_seconds`` to read it back.
    """
    tables: dict[str, Any] = {}
    for name, verdict in verdicts.items():
        entry: dict[str, Any] = {}
        for p in verdict.proofs:
            entry[p.layer] = {
                "rows": p.measure.rows + (p.aside_rows if p.layer == "raw" else 0),
                "checksum": p.measure.hex,
                "seconds": round(p.build_seconds, 3),
                "proof_seconds": round(p.measure.seconds, 3),
                "bytes": p.measure.bytes,
            } | {reason: m.rows for reason, m in p.aside.items() if m.rows}
        entry["quarantined"] = quarantined(verdict.proofs)
        entry["ok"] = verdict.ok
        if verdict.faults:
            entry["faults"] = verdict.faults
        tables[name] = entry
    return tables


def to_markdown(verdicts: dict[str, Verdict]) -> str:
    """The sheet as Markdown: a row per table and layer, then what is wrong."""
    lines = ["| table | layer | rows | set aside | checksum | |", "|---|---|--:|--:|---|---|"]
    for name, verdict in verdicts.items():
        for p in verdict.proofs:
            rows = p.measure.rows + (p.aside_rows if p.layer == "raw" else 0)
            aside = "" if p.layer == "raw" else ", ".join(f"{m.rows:,} {r}" for r, m in p.aside.items() if m.rows)
            mark = "✗" if p.layer in verdict.faults else "✓"
            lines.append(f"| {name} | {p.layer} | {rows:,} | {aside} | `{p.measure.hex}` | {mark} |")
    wrong = [s for v in verdicts.values() for said in v.faults.values() for s in said]
    return "\n".join([*lines, "", *(f"- {s}" for s in wrong)] if wrong else lines)
