"""The engine: builds, verifies and resets the layers of one path, always the same way.

What belongs here: when a layer is built, at which cut two layers are compared, and what the books record of it. What
does not: any layer's own work; the engine knows layers by their protocol alone. A path is a list of layers, so two
paths are two engines over the same context.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from ecom_assets.core import accounts, boundary, delivery, locks, memory
from ecom_assets.core.books import Build, Verification
from ecom_assets.core.context import Context
from ecom_assets.core.disk import room_for
from ecom_assets.core.errors import EcomError, HomeError, NotBuiltError, is_transient
from ecom_assets.core.layer import Built, Cut, Layer, Measurement
from ecom_assets.core.measure import Measure
from ecom_assets.core.progress import note
from ecom_assets.dataset.model import Table

STEADY = 3
"""Attempts to measure a layer that is rebuilt in the meantime."""


class RepairNeededError(HomeError):
    """A layer that only a person may have rebuilt: its declaration has changed, or others read it."""


@dataclass(frozen=True)
class Verified:
    """What a check of a layer came to.

    Attributes:
        measurement: What the layer holds.
        before: What the layer before it holds at the same cut; ``None`` for the first layer.
        mismatches: What differs, a sentence each; empty if nothing does.
    """

    measurement: Measurement
    before: Measurement | None
    mismatches: tuple[str, ...]


class Engine:
    """All layers of one path.

    Args:
        at: The home.
        path: Name of the path.
        layers: Its layers, in the order in which data pass them.
    """

    def __init__(self, at: Context, path: str, layers: Sequence[Layer]) -> None:
        self.at = at
        self.path = path
        self.layers = tuple(layers)
        self._by_name = {layer.name: layer for layer in layers}

    def layer(self, name: str) -> Layer:
        """A layer by its name.

        Raises:
            KeyError: The path does not pass it.
        """
        return self._by_name[name]

    # Building

    def due(self, name: str, table: Table) -> str:
        """Why a layer of a table is to be built; empty if it is not.

        Raises:
            NotBuiltError: The layer before it has not been built.
        """
        layer, last = self.layer(name), self.at.books.build(name, table.name)
        if last is None:
            return "it has not been built"
        if not layer.exists(self.at, table):
            return "it is gone"
        if last.path != self.path and last.fingerprint != layer.fingerprint(self.at, table):
            return f"it was built on the path {last.path}"
        if last.fingerprint != layer.fingerprint(self.at, table):
            return "what it is built from has changed"
        return ""

    def damage(self, name: str, table: Table) -> str:
        """Why a layer of a table is to be repaired; empty if nothing is known to be wrong with it."""
        layer, last = self.layer(name), self.at.books.build(name, table.name)
        if last is None:
            return ""
        declared = dict(layer.declaration(self.at, table))
        if changed := [key for key in declared if last.declaration.get(key) != declared[key]]:
            return f"the declaration has changed since it was built ({', '.join(changed)})"
        verification = self.at.books.verification(name, table.name)
        if verification and verification.mismatches:
            return f"its last check failed ({verification.mismatches[0]})"
        return ""

    def refusal(self, name: str, damage: str, *, repair: bool = False) -> str:
        """The damage because of which a build is refused; empty if it is not.

        Args:
            name: Name of the layer.
            damage: What ``damage`` has found.
            repair: Whether a repair is requested.
        """
        layer = self.layer(name)
        refused = not layer.replaceable if repair else damage.startswith("the declaration")
        return damage if refused and layer.upstream is not None else ""

    def build(self, name: str, table: Table, *, repair: bool = False) -> Built:
        """Build a layer of a table, if that is due; one process at a time, while nobody deletes.

        A failed check alone never makes a layer due: it deletes nothing.

        Args:
            name: Name of the layer.
            table: The table.
            repair: Rebuild the layer if it is known to be damaged, or its declaration has changed.

        Raises:
            RepairNeededError: The declaration has changed, and ``repair`` is not set; or the layer is damaged and
                cannot be replaced.
            HomeError: Another process holds the layer or the home.
            DiskFullError: A disk is full.
        """
        return self._alone(name, table, lambda: self._build(name, table, repair=repair))

    def replay(self, name: str, table: Table, deliveries: range) -> Built:
        """Bring the rows of some deliveries into a layer once more.

        Args:
            name: Name of the layer.
            table: The table.
            deliveries: Their sequences.

        Raises:
            EcomError: As ``build``.
        """
        return self._alone(name, table, lambda: self._build(name, table, repair=False, again=deliveries))

    def _alone(self, name: str, table: Table, build: Callable[[], Built]) -> Built:
        """Build a layer of a table while nobody else does."""
        settings, what = self.at.settings, f"{name}/{table.name}"
        # The servers' data may be on another disk than the home, and so may the lake.
        folders = [settings.home, settings.stack, settings.lake, settings.staging]
        with (
            locks.shared(settings, f"the build of {what}"),
            locks.layer(settings, name, table.name),
            room_for(what, *(p for p in folders if isinstance(p, Path))),
        ):
            try:
                return build()
            finally:
                memory.release()

    def _build(self, name: str, table: Table, *, repair: bool, again: range | None = None) -> Built:
        layer, began = self.layer(name), time.perf_counter()
        last, damage = self.at.books.build(name, table.name), self.damage(name, table)
        if refused := self.refusal(name, damage, repair=repair):
            raise RepairNeededError(f"{name}/{table.name}: {refused}", layer.remedy(self.at.settings, table))
        repair = repair and bool(damage) and layer.replaceable
        if last:
            layer.receive(self.at)
        reached = self._reaches(name, table)
        if last and not repair and again is None and not self.due(name, table):
            self._reach(name, table, reached)
            note(f"  {name}/{table.name}: unchanged")
            return Built(unchanged=True, notes=last.notes)
        fingerprint, declaration = layer.fingerprint(self.at, table), layer.declaration(self.at, table)
        again = again if last and not repair else None  # else all is brought in anyway
        built = layer.build(self.at, table, repair=repair) if again is None else layer.replay(self.at, table, again)
        if layer.upstream is None:  # it is built from outside, and only what came can be named
            fingerprint = layer.fingerprint(self.at, table)
            reached = self._reaches(name, table)
        built = replace(built, seconds=time.perf_counter() - began)
        kept = last if built.unchanged and last else None
        self.at.books.record_build(
            Build(
                name,
                table.name,
                fingerprint,
                declaration,
                self.path,
                kept.rows if kept else built.rows,
                kept.seconds if kept else round(built.seconds, 3),
                kept.notes if kept else built.notes,
            )
        )
        self._reach(name, table, reached)
        note(f"  {name}/{table.name}: {'unchanged' if built.unchanged else 'built'} in {built.seconds:.1f} s")
        return built

    def reached(self, name: str, table: Table) -> int:
        """The sequence of the last delivery that a layer of a table was built after; -1 if it was not built.

        0 if it is of the first files.
        """
        sequence = self.at.books.state(f"{name}/{table.name}/reached")
        return -1 if sequence is None else sequence

    def _reaches(self, name: str, table: Table) -> int:
        """The last delivery that the layer before has reached; of the first layer, the last one that was accepted."""
        if upstream := self.layer(name).upstream:
            return self.reached(upstream.name, table)
        return max((each.sequence for each in delivery.deliveries(self.at.settings)), default=0)

    def _reach(self, name: str, table: Table, sequence: int) -> None:
        if sequence != self.reached(name, table):
            self.at.books.set_state(f"{name}/{table.name}/reached", sequence)

    # Measuring

    def cut(self, table: Table, last: str | None = None) -> Cut:
        """Fix a cut, backward from a layer to the first.

        Args:
            table: The table.
            last: Name of the layer to begin with; the last of the path if not given.

        Raises:
            NotBuiltError: One of the layers has not been built.
        """
        cut = Cut()
        for layer in reversed(self._up_to(last)):
            cut = layer.extend(self.at, table, cut)
        return cut

    def _up_to(self, last: str | None) -> tuple[Layer, ...]:
        if last is None:
            return self.layers
        return self.layers[: 1 + self.layers.index(self.layer(last))]

    def measure(self, name: str, table: Table, cut: Cut) -> Measurement:
        """Read a layer back at a cut, every row of it, and record what it holds.

        A layer that cannot be read is measured too: its problem names the cause.

        Raises:
            EcomError: A server is away.
        """
        layer = self.layer(name)
        build = self.at.books.build(name, table.name)
        for _ in range(STEADY):
            position = layer.position(self.at, table, cut)
            try:
                found = layer.measure(self.at, table, cut)
            except Exception as error:
                if is_transient(error):
                    raise
                found = _unreadable(name, table, f"cannot be read: {str(error) or type(error).__name__}")
            if layer.position(self.at, table, cut) == position:
                break
        else:
            position, found = "", _unreadable(name, table, f"was rebuilt during each of {STEADY} attempts to read it")
        found = replace(found, position=position, build_seconds=build.seconds if build else 0.0)
        if not found.problems:
            self.at.books.record_measurement(found)
        memory.release()
        return found

    def look_up(self, name: str, table: Table, cut: Cut) -> Measurement:
        """What a layer holds at a cut: from the books if it was measured there, else read, as little as is needed."""
        layer = self.layer(name)
        position = layer.position(self.at, table, cut)
        if known := self.at.books.measurement(name, table.name, position):
            return known
        last = self.at.books.last_measurement(name, table.name)
        if last and (derived := layer.derive(self.at, table, last, cut)):
            derived = replace(derived, position=position, build_seconds=last.build_seconds)
            self.at.books.record_measurement(derived)
            return derived
        return self.measure(name, table, cut)

    def verify(self, name: str, table: Table, *, whole: bool = False) -> Verified:
        """Measure a layer, and compare it with the one before it at the same cut; both are recorded.

        Of a layer that passed its last check, only what was added since is read, where the layer can name it, and
        nothing where a delivery has come that does not touch the table. Without any news, it is read as a whole.

        Args:
            name: Name of the layer.
            table: The table.
            whole: Read the layer as a whole in any case.

        Raises:
            NotBuiltError: One of the two has not been built.
            EcomError: A server is away.
        """
        with locks.shared(self.at.settings, f"the check of {name}/{table.name}"):
            return self._verify(name, table, whole=whole)

    def _verify(self, name: str, table: Table, *, whole: bool) -> Verified:
        layer = self.layer(name)
        cut, unfit = Cut(), ""
        try:
            cut = layer.extend(self.at, table, cut)
            if layer.upstream is not None:
                cut = layer.upstream.extend(self.at, table, cut)
        except NotBuiltError:
            raise
        except EcomError as error:
            if is_transient(error):
                raise
            unfit = str(error)
        if unfit:  # the layer itself can't be read, or does not fit what is before it any more
            found = Measurement(table.name, name, Measure(), problems=(unfit,))
            return self._verified(found, None, list(found.problems))
        added = not whole and self._has_news(name, table)
        found = (self.look_up if added else self.measure)(name, table, cut)
        if layer.upstream is None:
            return self._verified(found, None, self.changes(found, table))
        before = self.look_up(layer.upstream.name, table, cut)
        wrong = boundary.mismatches(before, found)
        if wrong and added:
            found = self.measure(name, table, cut)
            wrong = boundary.mismatches(before, found)
        if wrong and not found.problems and not before.problems:
            wrong += layer.differences(self.at, table, cut)
        return self._verified(found, before, wrong)

    def _has_news(self, name: str, table: Table) -> bool:
        """Whether a layer was built since its last check, which it passed, or a delivery came that is not for it."""
        built, checked = self.at.books.build(name, table.name), self.at.books.verification(name, table.name)
        if not built or not checked or checked.mismatches:
            return False
        later = delivery.deliveries(self.at.settings)
        came = bool(later) and datetime.fromisoformat(later[-1].at) > checked.at
        return came or built.at > checked.at

    def ahead(self, name: str, table: Table, cut: Cut) -> tuple[str, ...]:
        """Verify a layer as it is now, if its rows may differ from those at a cut: readers see the newest.

        Returns:
            What differs; empty if the layer has not changed since the cut.
        """
        layer = self.layer(name)
        if layer.append_only or layer.upstream is None:
            return ()
        newest = layer.extend(self.at, table, Cut())
        # A layer of files fixes nothing, so it is as it is at any cut; to look costs a look at each file.
        if newest == Cut() or layer.position(self.at, table, newest) == layer.position(self.at, table, cut):
            return ()
        return self.verify(name, table).mismatches

    def changes(self, found: Measurement, table: Table) -> list[str]:
        """What differs between a first layer and what it was first measured to hold.

        That is recorded here, and what deliveries add to it.
        """
        key = f"{found.layer}/{found.table}/first"
        known = self.at.books.state(key)
        if known is None:
            if not found.problems:
                self.at.books.set_state(key, found.to_json())
            return list(found.problems)
        first = Measurement.from_json(known)
        wrong = boundary.changes(first, found)
        if wrong and not found.problems and (grown := self.layer(found.layer).derive(self.at, table, first, Cut())):
            self.at.books.set_state(key, grown.to_json())
            wrong = boundary.changes(grown, found)
        return wrong

    def _verified(self, found: Measurement, before: Measurement | None, wrong: list[str]) -> Verified:
        self.record(found, wrong)
        if not wrong:
            reached = self.reached(found.layer, self.at.dataset.tables[found.table])
            accounts.record(self.at.books, found, reached)
        sign = "✗" if wrong else "✓"
        note(
            f"{sign} {found.layer}/{found.table}: {found.measure.rows:,} rows verified in {found.measure.seconds:.1f} s"
        )
        for sentence in wrong:
            note(f"    {sentence}")
        return Verified(found, before, tuple(wrong))

    def record(self, found: Measurement, mismatches: Sequence[str]) -> None:
        """Record what a check of a layer came to."""
        verification = Verification(found.layer, found.table, self.path, found.position, tuple(mismatches))
        self.at.books.record_verification(verification)

    # Resetting

    def reset(self, name: str, table: Table) -> list[str]:
        """Delete a layer of a table and all that was built from it, while nobody works in the home.

        Returns:
            What was deleted.

        Raises:
            HomeError: Another process holds the home; names it.
        """
        gone = []
        with locks.exclusive(self.at.settings, f"the reset of {name}/{table.name}"):
            for layer in reversed(self.layers[self.layers.index(self.layer(name)) :]):
                layer.delete(self.at, table)
                self.at.books.forget(layer.name, table.name)
                gone.append(f"{layer.name}/{table.name}")
        return gone


def _unreadable(name: str, table: Table, why: str) -> Measurement:
    return Measurement(table.name, name, Measure(), problems=(f"{name}/{table.name} {why}",))
