"""The reconciliation report: every layer of every table at one cut, and which one is wrong if they differ.

What belongs here: measuring all layers of a path, the judgment over them, and the report as JSON and Markdown. What
does not: the comparison of two layers; see ``core.boundary``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ecom_assets.core import boundary
from ecom_assets.core.books import Books
from ecom_assets.core.boundary import ADDED, HOLDS_BAD_ROWS, LEFT_OUT, PENDING
from ecom_assets.core.engine import Engine
from ecom_assets.core.errors import EcomError, NotBuiltError, is_transient
from ecom_assets.core.layer import Cut, Measurement
from ecom_assets.core.measure import Measure
from ecom_assets.dataset.model import Table

COUNTED = ("quarantined", *LEFT_OUT, *ADDED, *PENDING)
"""Reasons that the report names, in this order."""


@dataclass(frozen=True)
class Verdict:
    """The judgment on one table.

    Attributes:
        path: Names of the layers that a complete report holds, in order.
        measurements: The layers that were measured, in order.
        mismatches: Layer at fault -> what differs, or why it was not measured.
        missing: Layers that are not built, or not verified since.
    """

    path: tuple[str, ...]
    measurements: tuple[Measurement, ...]
    mismatches: Mapping[str, Sequence[str]] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()

    @property
    def ok(self) -> bool:
        """Whether every layer was measured and every boundary balances."""
        return not self.mismatches and bool(self.measurements)


def reconcile(engine: Engine, tables: Iterable[Table], *, fresh: bool = True) -> Iterator[tuple[str, Verdict]]:
    """Measure every layer at one cut, table by table, judge, and record what was found.

    The cut is that of the last layer. A layer whose rows were changed since is verified once more as it is now.

    Args:
        engine: The path.
        tables: Which tables.
        fresh: Read every row again. Otherwise a layer that was measured at this very cut is looked up.

    Yields:
        ``(table, verdict)``.

    Raises:
        EcomError: A server is away.
    """
    for table in tables:
        yield table.name, _reconciled(engine, table, fresh=fresh)


def _reconciled(engine: Engine, table: Table, *, fresh: bool) -> Verdict:
    names = tuple(layer.name for layer in engine.layers)
    missing: dict[str, list[str]] = {}
    cut = Cut()
    for layer in reversed(engine.layers):
        try:
            cut = layer.extend(engine.at, table, cut)
        except EcomError as error:
            if is_transient(error):
                raise
            missing[layer.name] = [_reason(error)]
    measurements = []
    for layer in engine.layers:
        if layer.name not in missing and not engine.at.books.build(layer.name, table.name):
            missing[layer.name] = [_reason(NotBuiltError(layer.name, table.name))]
        if layer.name not in missing:
            found = (engine.measure if fresh else engine.look_up)(layer.name, table, cut)
            measurements.append(found)
    changed = engine.changes(measurements[0], table) if measurements and measurements[0].layer == names[0] else []
    verdict = judge(names, measurements, missing, changed)
    measured = [found.layer for found in measurements]
    ahead = {name: engine.ahead(name, table, cut) for name in measured if name not in verdict.mismatches}
    if now := {name: sentences for name, sentences in ahead.items() if sentences}:
        wrong = {name: (*verdict.mismatches.get(name, ()), *now.get(name, ())) for name in names}
        verdict = replace(verdict, mismatches={name: sentences for name, sentences in wrong.items() if sentences})
    for found in measurements:
        engine.record(found, verdict.mismatches.get(found.layer, ()))
    return verdict


def _reason(error: EcomError) -> str:
    return str(error).replace("\nRemedy: ", "; ")


def judge(
    path: Sequence[str],
    measurements: Sequence[Measurement],
    missing: Mapping[str, Sequence[str]] | None = None,
    changed: Sequence[str] = (),
) -> Verdict:
    """Compare all layers of one table and name the ones at fault.

    A layer that disagrees with both its neighbors is at fault. Where a single boundary does not balance, the later
    layer is; but the first one, if it no longer holds what it held. A layer without a measurement is at fault.

    Args:
        path: Names of all layers, in order.
        measurements: Those that were measured, in order.
        missing: Layer -> why it was not measured.
        changed: What differs in the first layer from what it was first measured to hold.
    """
    measured = {m.layer for m in measurements}
    found: dict[str, list[str]] = {
        name: list((missing or {}).get(name) or [f"{name} was not measured"]) for name in path if name not in measured
    }
    order = {name: at for at, name in enumerate(path)}
    neighbors = [(a, b) for a, b in itertools.pairwise(measurements) if order[b.layer] == order[a.layer] + 1]
    differences = [boundary.mismatches(a, b) for a, b in neighbors]
    explained: set[int] = set()
    for i in range(1, len(neighbors)):
        connected = neighbors[i - 1][1] is neighbors[i][0]
        if connected and differences[i - 1] and differences[i] and i - 1 not in explained:
            found[neighbors[i][0].layer] = differences[i - 1] + differences[i]
            explained |= {i - 1, i}
    for i, sentences in enumerate(differences):
        if sentences and i not in explained:
            at_fault = neighbors[i][0] if i == 0 and changed else neighbors[i][1]
            found.setdefault(at_fault.layer, []).extend(sentences)
    if changed:
        found.setdefault(path[0], []).extend(s for s in changed if s not in found.get(path[0], ()))
    ordered = dict(sorted(found.items(), key=lambda item: order[item[0]]))
    return Verdict(tuple(path), tuple(measurements), ordered, frozenset(path) - measured)


def quarantined(measurements: Sequence[Measurement]) -> int:
    """Rows in quarantine: unreadable ones, and those that contradict another row of the same key."""
    return sum(
        m.rows
        for each in measurements
        for reason, m in each.excluded.items()
        if reason in ("quarantined", "conflicts") and each.layer not in HOLDS_BAD_ROWS
    )


def rows(found: Measurement) -> int:
    """Rows of a layer for people: of the raw file all its records, bad ones included; elsewhere the good rows held."""
    return found.measure.rows + (found.excluded_rows if found.layer == "raw" else 0)


def excluded(found: Measurement) -> dict[str, int]:
    """Rows that are left out, by reason; those of the raw file are among its rows."""
    if found.layer == "raw":
        return {}
    return {r: found.excluded[r].rows for r in COUNTED if found.excluded.get(r, Measure()).rows}


def to_json(verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
    """The report as JSON: ``tables.<table>.<layer>.{rows,checksum,seconds}`` and ``tables.<table>.quarantined``.

    ``seconds`` is the time to build the layer, ``verification_seconds`` to read it back.
    """
    tables: dict[str, Any] = {}
    for name, verdict in verdicts.items():
        entry: dict[str, Any] = {}
        for found in verdict.measurements:
            entry[found.layer] = {
                "rows": rows(found),
                "checksum": found.measure.hex,
                "seconds": round(found.build_seconds, 3),
                "verification_seconds": round(found.measure.seconds, 3),
                "bytes": found.measure.bytes,
            } | excluded(found)
        entry["quarantined"] = quarantined(verdict.measurements)
        entry["ok"] = verdict.ok
        if verdict.mismatches:
            entry["mismatches"] = {layer: list(sentences) for layer, sentences in verdict.mismatches.items()}
        tables[name] = entry
    return tables


def to_markdown(verdicts: Mapping[str, Verdict]) -> str:
    """The report as Markdown: a row per table and layer, then what is wrong."""
    lines = ["| table | layer | rows | excluded | checksum | |", "|---|---|--:|--:|---|---|"]
    for name, verdict in verdicts.items():
        for found in verdict.measurements:
            left = ", ".join(f"{count:,} {reason}" for reason, count in excluded(found).items())
            mark = "✗" if found.layer in verdict.mismatches else "✓"
            lines.append(f"| {name} | {found.layer} | {rows(found):,} | {left} | `{found.measure.hex}` | {mark} |")
        measured = {found.layer for found in verdict.measurements}
        lines += [f"| {name} | {layer} | | | not measured | ✗ |" for layer in verdict.path if layer not in measured]
    wrong = [f"- {layer}: {s}" for v in verdicts.values() for layer, found in v.mismatches.items() for s in found]
    return "\n".join([*lines, "", *wrong] if wrong else lines)


def recorded(books: Books, path: Sequence[str], tables: Iterable[str]) -> dict[str, Verdict]:
    """The last verdict on every table, from the books; a layer without a verification is at fault.

    Args:
        books: The home's books.
        path: Names of the layers that a complete report holds, in order.
        tables: Names of the tables.
    """
    return {table: _recorded(books, path, table) for table in tables}


def _recorded(books: Books, path: Sequence[str], table: str) -> Verdict:
    measurements, wrong, missing = [], {}, set()
    for layer in path:
        build, verification = books.build(layer, table), books.verification(layer, table)
        if build is None:
            wrong[layer] = [_reason(NotBuiltError(layer, table))]
            missing.add(layer)
        elif verification is None:
            wrong[layer] = [f"{layer}/{table} has not been verified since it was built"]
            missing.add(layer)
        else:
            if found := books.measurement(layer, table, verification.position):
                measurements.append(replace(found, build_seconds=build.seconds))
            if verification.mismatches:
                wrong[layer] = list(verification.mismatches)
            elif not found:
                wrong[layer] = [f"{layer}/{table}: its last measurement is not in the books any more; reconcile again"]
    return Verdict(tuple(path), tuple(measurements), wrong, frozenset(missing))
