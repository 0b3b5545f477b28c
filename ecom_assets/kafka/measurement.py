"""What a topic holds at a cut: positions, the ranges between two of them, and the measurement that their sums make.

What belongs here: arithmetic on offsets and sums. What does not: reading (``reader``), the books (``layer``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Self

from confluent_kafka.admin import AdminClient

from ecom_assets.core.layer import Cut, Measurement
from ecom_assets.core.measure import Measure
from ecom_assets.dataset.model import Table
from ecom_assets.kafka import topics
from ecom_assets.kafka.ledger import Totals, negative
from ecom_assets.kafka.reader import NONE, Found, Span


@dataclass(frozen=True)
class Position:
    """Names the content of a topic at a cut.

    Attributes:
        topic_id: Kafka's id of the topic; empty where there is none.
        first: Partition -> first offset that Kafka still holds.
        ends: Partition -> offset up to which the topic counts; a partition that is missing holds nothing.
        read: Partition -> offset up to which the layer behind it has read, where that is known; a partition that is
            missing was not read.
        ledger: Offset up to which the ledger counts.
    """

    topic_id: str
    first: Mapping[int, int] = field(default_factory=dict)
    ends: Mapping[int, int] = field(default_factory=dict)
    read: Mapping[int, int] | None = None
    ledger: int = 0

    @classmethod
    def at(cls, admin: AdminClient, topic: str, cut: Cut) -> Self:
        """The position of a topic at a cut.

        Raises:
            ValueError: The ends of the cut are not fixed.
            KafkaException: Kafka did not respond.
        """
        if cut.ends is None or cut.ledger is None:
            raise ValueError(f"topic {topic}: expected a cut with ends and ledger, got {cut}; extend it first")
        found = topics.describe(admin, [topic])
        first = topics.first_offsets(admin, topics.partitions(found)).get(topic, {})
        return cls(str(found[topic].topic_id) if found else "", first, cut.ends, cut.read, cut.ledger)

    def to_text(self) -> str:
        """A text that ``from_text`` reads; equal for equal positions."""
        values = {
            "topic": self.topic_id,
            "first": {partition: first for partition, first in self.first.items() if partition in self.ends},
            "ends": self.ends,
            "read": self.read,
            "ledger": self.ledger,
        }
        return json.dumps({name: _sorted(value) for name, value in values.items()})

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """Read what ``to_text`` wrote; ``None`` if it is something else."""
        try:
            d = json.loads(text)
            read = None if d["read"] is None else _offsets(d["read"])
            return cls(d["topic"], _offsets(d["first"]), _offsets(d["ends"]), read, d["ledger"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def leads_to(self, wanted: Position) -> bool:
        """Whether another position of the same topic differs by records only that Kafka still holds."""
        same = all(wanted.first.get(partition) == first for partition, first in self.first.items())
        return self.topic_id == wanted.topic_id and same

    def bounds(self, partition: int, first: int) -> tuple[int, int]:
        """Offsets up to which a partition counts, and up to which it was read; never before its first offset."""
        end = max(first, self.ends.get(partition, 0))
        return end, end if self.read is None else min(end, max(first, self.read.get(partition, 0)))


@dataclass(frozen=True)
class Step:
    """A range of offsets on the way from a position to another one.

    Attributes:
        span: The range.
        ends: 1 if its records count at the second position only, -1 if they count at the first only, else 0.
        read: The same of records that were read.
    """

    span: Span
    ends: int
    read: int


def steps(before: Position, wanted: Position) -> list[Step]:
    """The ranges by which two positions of a topic differ."""
    found = []
    for partition, first in sorted(wanted.first.items()):
        (end, read), (new_end, new_read) = before.bounds(partition, first), wanted.bounds(partition, first)
        for start, stop in pairwise(sorted({end, read, new_end, new_read})):
            step = Step(Span(partition, start, stop), _sign(end, new_end, start), _sign(read, new_read, start))
            if step.ends or step.read:
                found.append(step)
    return found


@dataclass(frozen=True)
class Sums:
    """What is known of a topic at a position.

    Attributes:
        rows: Rows before its ends.
        live: Those of them that no delivery brought.
        read: Rows that were read.
        bad: Records that were read and are not rows.
        named: The first bad records that were found, a sentence each.
    """

    rows: Measure = NONE
    live: Measure = NONE
    read: Measure = NONE
    bad: Measure = NONE
    named: tuple[str, ...] = ()

    @classmethod
    def of(cls, known: Measurement) -> Self:
        """The sums that a measurement was made of."""
        rows = known.measure.before
        pending = known.excluded.get("pending", NONE)
        left = known.excluded
        return cls(rows, left.get("live", NONE), rows + negative(pending), left.get("quarantined", NONE))

    def along(self, path: Sequence[Step], found: Mapping[Span, Found]) -> Sums:
        """The sums at the end of some steps, by what their ranges hold."""
        rows, live, read, bad, named = self.rows, self.live, self.read, self.bad, self.named
        for step in path:
            here = found[step.span]
            rows += _times(here.good, step.ends)
            live += _times(here.live, step.ends)
            read += _times(here.good, step.read)
            bad += _times(here.bad, step.read)
            named += here.named
        return Sums(rows, live, read, bad, named)

    def fits(self, totals: Totals) -> bool:
        """Whether the rows of deliveries are those of the ledger, and all that a simulation made are there."""
        return (self.rows - self.live).same_rows(totals.delivered) and self.live.rows >= totals.simulated.rows

    def measurement(
        self, table: Table, topic: str, at: Position, *, totals: Totals, problems: Sequence[str], seconds: float
    ) -> Measurement:
        """The measurement of a topic.

        Args:
            table: Its table.
            topic: Its name.
            at: The position.
            totals: What its ledger comes to there.
            problems: What else was found damaged.
            seconds: Time it took.
        """
        excluded = {"quarantined": self.bad}
        if at.read is not None:
            excluded["pending"] = self.rows + negative(self.read)
        for name, more in (("replayed", totals.replayed), ("live", self.live)):
            if more.rows:
                excluded[name] = replace(more, bytes=0, seconds=0.0)
        found = [*problems, *_read_too_far(topic, at)]
        if not self.fits(totals):
            found += self.named
        if self.live.rows < totals.simulated.rows:
            found.append(
                f"topic {topic}: expected at least the {totals.simulated.rows:,} rows that simulations made next to"
                f" those of deliveries, got {self.live.rows:,}"
            )
        rows = replace(self.rows, seconds=seconds)
        return Measurement(table.name, "topic", rows, excluded, at.to_text(), problems=tuple(found))


def _read_too_far(topic: str, at: Position) -> list[str]:
    return [
        f"topic {topic}[{partition}]: expected it to be read up to offset {at.ends.get(partition, 0)} at most, got"
        f" {offset}: another topic of this name was read"
        for partition, offset in sorted((at.read or {}).items())
        if offset > at.ends.get(partition, 0)
    ]


def _sign(old: int, new: int, start: int) -> int:
    """Whether the records from an offset on count at the new point only (1), at the old one only (-1), or alike (0)."""
    return int(start < new) - int(start < old)


def _times(measure: Measure, sign: int) -> Measure:
    return measure if sign > 0 else negative(measure) if sign < 0 else NONE


def _offsets(data: Mapping[str, int]) -> dict[int, int]:
    return {int(partition): offset for partition, offset in data.items()}


def _sorted(value: object) -> object:
    return {str(k): v for k, v in sorted(value.items())} if isinstance(value, Mapping) else value
