"""How numbers are drawn: shares dealt to the unit, weights, spreads, and positions within groups.

What belongs here: draws that know no table, and the period and precision that all tables share. What does not: what
a drawn number means.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from ecom_assets.source.rows import Ints
from ecom_assets.source.synthetic import facts

FIRST = int(np.datetime64(facts.FIRST_DAY, "s").astype(np.int64))
LAST = int(np.datetime64(facts.LAST_DAY, "s").astype(np.int64)) + 86_400 - 15
DAY = 86_400
LAT, LONG = 15, 14  # decimals: with these a coordinate has the 17 digits of a double


def deal(rng: np.random.Generator, weights: Collection[float] | np.ndarray, total: int, start: int, end: int) -> Ints:
    """Codes for the places ``start`` to ``end`` of ``total``, in random order.

    Over all places each code comes exactly as often as its weight gives: place
    ``i`` gets the card at ``a * i mod total`` of a deck sorted by code, so no deck is
    held in memory, and each block has nearly the shares of the whole.
    """
    edges = np.cumsum(np.fromiter(weights, float))
    edges = np.floor(edges / edges[-1] * total + 0.5).astype(np.int64)
    step = max(1, round(total * 0.618_033_988_75))
    while math.gcd(step, total) > 1:
        step += 1
    cards = np.arange(start, end) * step % total
    return rng.permutation(np.searchsorted(edges, cards, side="right"))


def pick(rng: np.random.Generator, weights: Collection[float] | np.ndarray, count: int) -> Ints:
    """Codes drawn by weight."""
    edges = np.cumsum(np.fromiter(weights, float))
    return np.searchsorted(edges / edges[-1], rng.random(count), side="right")


def lognormal(rng: np.random.Generator, median: float, spread: float, count: int) -> Ints:
    """Draw whole numbers from a log-normal distribution with a median and a spread (sigma)."""
    return (median * np.exp(spread * rng.standard_normal(count))).astype(np.int64)


def near(rng: np.random.Generator, middle: Ints, reach: float, decimals: int) -> Ints:
    """Coordinates around others; in integers, so that every machine draws the same digits, none of them ending in 0."""
    third = int(reach / 3 * 10**decimals)
    return middle + rng.integers(-third, third, (3, len(middle))).sum(0) | 1


def within(counts: Ints) -> Ints:
    """0, 1, … within each group of the given sizes."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
