"""Taking turns: the ways of a step are timed one after the other, several times over, and then compared.

What belongs here: rounds, medians, ranges, ratios and goals. What does not: what is timed, and how it is reported.

Figures drift by tens of per cent with whatever else a machine does. So ways take turns, in the opposite order every
other round, and a ratio is taken within each round: its median is what counts, and its range is how far to trust it.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ecom_assets.core.progress import note, track

OURS = "ours"
"""Name of the project's own way in every step."""


@dataclass(frozen=True)
class Sample:
    """One run of one way.

    Attributes:
        amount: What it moved, in the unit of its step.
        seconds: Time it took.
        parts: Seconds of its parts, by name, where these are distinguished.
    """

    amount: float
    seconds: float
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Units a second."""
        return self.amount / self.seconds


Round = Mapping[str, Sample]
"""Way -> its sample, all taken one right after the other."""

Way = Callable[[], Sample]
"""Does the work once. What it needs beforehand it makes outside of the time that it reports."""


@dataclass(frozen=True)
class Goal:
    """What a ratio should come to.

    Attributes:
        bound: The figure.
        at_most: Whether less is better.
    """

    bound: float
    at_most: bool = False

    def met(self, value: float) -> bool:
        """Whether a ratio is good enough."""
        return value <= self.bound if self.at_most else value >= self.bound

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.bound:g}"


@dataclass(frozen=True)
class Ratio:
    """A comparison within a round.

    Attributes:
        name: Its name in JSON.
        of: Makes it from a round.
        goal: What it should come to, if anything.
        anchor: The way that ours is compared with, if it is a comparison of two.
    """

    name: str
    of: Callable[[Round], float]
    goal: Goal | None = None
    anchor: str = ""


def versus(name: str, anchor: str, goal: Goal | None = None) -> Ratio:
    """How many times faster ours is than another way; above 1 ours is faster."""
    return Ratio(name, lambda samples: samples[OURS].rate / samples[anchor].rate, goal, anchor)


def within(name: str, limit: str) -> Ratio:
    """How much of a limit ours reaches: of a way that does only what ours cannot do without. Not for the chart."""
    return Ratio(name, lambda samples: samples[OURS].rate / samples[limit].rate)


@dataclass(frozen=True)
class Step:
    """What is measured together.

    Attributes:
        name: Its name.
        unit: What its ways move.
        ways: Name -> way, ours first.
        ratios: What is compared.
        warm_ups: Rounds that do not count: servers compile what they do often.
        repeats: Rounds that count, where it is not as many as are requested.
    """

    name: str
    unit: str
    ways: Mapping[str, Way]
    ratios: tuple[Ratio, ...]
    warm_ups: int = 1
    repeats: int | None = None


@dataclass(frozen=True)
class Spread:
    """Some figures of the same thing."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Their median and range."""
        found = sorted(values)
        return cls(statistics.median(found), found[0], found[-1])


@dataclass(frozen=True)
class Result:
    """What a step came to.

    Attributes:
        step: The step.
        rates: Way -> units a second.
        ratios: Name -> ratio.
        parts: Way -> part -> seconds, of ways whose parts are distinguished.
    """

    step: Step
    rates: Mapping[str, Spread]
    ratios: Mapping[str, Spread]
    parts: Mapping[str, Mapping[str, Spread]]

    @classmethod
    def of(cls, step: Step, rounds: list[Round]) -> Result:
        """Summarise the rounds that count."""
        return cls(
            step,
            {way: Spread.of(r[way].rate for r in rounds) for way in step.ways},
            {ratio.name: Spread.of(ratio.of(r) for r in rounds) for ratio in step.ratios},
            {
                way: {part: Spread.of(r[way].parts[part] for r in rounds) for part in rounds[0][way].parts}
                for way in step.ways
                if rounds[0][way].parts
            },
        )


def timed(work: Callable[[], float]) -> Sample:
    """Time some work that returns what it moved."""
    began = time.perf_counter()
    amount = work()
    return Sample(amount, time.perf_counter() - began)


def measure(step: Step, repeats: int) -> Result:
    """Let the ways of a step take turns.

    Args:
        step: The step.
        repeats: Rounds that count, unless the step has a number of its own.

    Returns:
        Medians and ranges.
    """
    rounds: list[Round] = []
    repeats = repeats if step.repeats is None else step.repeats
    for number in range(-step.warm_ups, repeats):
        turn = "warm-up" if number < 0 else f"{number + 1} of {repeats}"
        # Each second round goes backwards, so that what slowly grows or heats up does not always meet the same way.
        order = list(step.ways)[:: 1 if number % 2 == 0 else -1]
        samples: dict[str, Sample] = {}
        for way in order:
            gc.collect()  # nobody pays for what another has left
            with track(f"{step.name}: {way}, {turn}", None, step.unit):
                samples[way] = step.ways[way]()
            note(f"  {step.name}: {way}, {samples[way].rate:,.0f} {step.unit}/s ({turn})")
        if number >= 0:
            rounds.append(samples)
    return Result.of(step, rounds)
