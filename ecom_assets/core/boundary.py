"""The boundary between two layers: do both sides hold the same rows, those left out included?

Pure comparison of measurements that were taken at one cut. What belongs here: the equation. What does not: measuring
(each layer's own) and the judgment over a whole path (``reconcile.report``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ecom_assets.core.layer import Measurement
from ecom_assets.core.measure import Measure

LEFT_OUT = ("duplicates", "conflicts", "stale", "superseded", "deleted", "deletions")
"""Reasons for which a row of the layer before is not in the one after; ``deletions`` are rows that ask for one."""

_ALWAYS_SHOWN = LEFT_OUT[:2]
"""Those that a measurement has also where there are none."""

ADDED = ("replayed", "live")
"""Reasons for which a layer has rows that the one before has not: a simulation sent them again, or no delivery brought
them."""

PENDING = ("pending",)
"""Reasons for which a row of a layer is not in the one after yet."""

HOLDS_BAD_ROWS = ("raw", "topic")
"""Layers in which rows that cannot be read are stored among the others; the layer after moves them to quarantine."""


def shown(left: Mapping[str, Measure]) -> dict[str, Measure]:
    """Of the rows that were left out, by reason, those that a measurement has."""
    return {reason: each for reason, each in left.items() if each.rows or reason in _ALWAYS_SHOWN}


def mismatches(before: Measurement, after: Measurement) -> list[str]:
    """Compare two neighboring layers.

    Returns:
        What differs, a sentence each; empty if ``before - pending + replayed + live = after +`` the sum of
        ``LEFT_OUT``, in rows and in checksum, and both sides agree on what is in quarantine.
    """
    where = f"{before.table}: {before.layer} -> {after.layer}"
    if after.problems:
        return list(after.problems)
    if before.problems:
        return [f"{where}: not comparable, since {before.layer} is damaged ({before.problems[0]})"]
    if after.copies or after.layer == "expanded":
        return _compare_copies(before, after, where) + _compare_quarantine(before, after, where)
    expected = before.measure + _sum(after, ADDED) - _sum(before, PENDING)
    got = after.measure + _sum(after, LEFT_OUT)
    found = []
    if got.rows != expected.rows:
        found.append(
            f"{where}: expected {before.measure.rows:,} rows{_listed(after, ADDED)}{_listed(before, PENDING, '-')},"
            f" got {after.measure.rows:,}{_listed(after, LEFT_OUT)} ({got.rows - expected.rows:+,})"
        )
    elif got.checksum != expected.checksum:
        found.append(
            f"{where}: the same {got.rows:,} rows by count, but not by content:"
            f" expected checksum {expected.hex}, got {got.hex}"
        )
    return found + _compare_quarantine(before, after, where)


def changes(first: Measurement, now: Measurement) -> list[str]:
    """Compare a first layer with what it was first measured to hold.

    Returns:
        What differs, a sentence each.
    """
    same = first.measure.same_rows(now.measure) and _sum(first, ("quarantined",)).same_rows(_sum(now, ("quarantined",)))
    if same:
        return list(now.problems)
    changed = (
        f"{now.table}: {now.layer} holds {now.measure.rows:,} good rows with checksum {now.measure.hex}, but"
        f" it held {first.measure.rows:,} with {first.measure.hex} when it was first measured; restore the old files,"
        " or load the new ones into another home"
    )
    return [*now.problems, changed]


def _sum(of: Measurement, reasons: Sequence[str]) -> Measure:
    return sum((of.excluded[r] for r in reasons if r in of.excluded), Measure())


def _listed(of: Measurement, reasons: Sequence[str], sign: str = "+") -> str:
    return "".join(f" {sign} {m.rows:,} {r}" for r, m in of.excluded.items() if m.rows and r in reasons)


def _compare_copies(raw: Measurement, expanded: Measurement, where: str) -> list[str]:
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
    return found


def _compare_quarantine(before: Measurement, after: Measurement, where: str) -> list[str]:
    if before.layer not in HOLDS_BAD_ROWS:
        return []
    expected, got = (_sum(m, ("quarantined",)) for m in (before, after))
    if expected.rows != got.rows:
        return [f"{where}: expected {expected.rows:,} rows in quarantine, got {got.rows:,}"]
    if expected.checksum != got.checksum:
        found = (
            f"{where}: the same {got.rows:,} rows in quarantine by count, but not by content:"
            f" expected checksum {expected.hex}, got {got.hex}"
        )
        return [found]
    return []
