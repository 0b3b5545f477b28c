"""What every block of rows needs to know of the whole: sizes, random streams, customers, buyers, products.

What belongs here: small arrays with one entry per customer or product, drawn once. What does not: the rows themselves,
which ``customers``, ``products``, ``bookings`` and ``clicks`` draw block by block.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ecom_assets.source.rows import SECOND, Ints
from ecom_assets.source.synthetic import facts
from ecom_assets.source.synthetic.drawing import DAY, FIRST, LAST, LAT, LONG, deal, near

Made = dict[str, tuple[int, bytes]]
"""Table -> its rows in a block, and their text."""


@dataclass(frozen=True)
class Shop:
    """What every block needs: sizes, and small arrays with one entry per customer or product.

    Attributes:
        rows: Rows per table.
        orphans: Click sessions without a booking.
        seed: The user's seed.
    """

    rows: dict[str, int]
    orphans: int
    seed: int

    def __post_init__(self) -> None:
        # Made here, since two threads would otherwise make them twice.
        _ = self.people, self.product_ids, self.buyers, self.silent

    def rng(self, topic: str, block: int = 0) -> np.random.Generator:
        """The random stream of one block of one topic."""
        return np.random.Generator(np.random.PCG64([self.seed, int.from_bytes(topic.encode()), block]))

    @cached_property
    def people(self) -> People:
        """One entry per customer."""
        return _draw_people(self.rng("people"), self.rows["customer"])

    @cached_property
    def buyers(self) -> Buyers:
        """One entry per customer who buys."""
        return _draw_buyers(self.rng("buyers"), self.people, self.rows["transactions"])

    @cached_property
    def product_ids(self) -> Ints:
        """Product ids, without order."""
        count, low = self.rows["product"], facts.PRODUCT_ID_LOW
        high = max(facts.PRODUCT_ID_HIGH, low + round(count * 1.32))
        return self.rng("product ids").permutation(high - low + 1)[:count] + low

    @cached_property
    def silent(self) -> Ints:
        """Positions of the bookings whose session has no clicks; none in a tiny shop."""
        bookings = self.rows["transactions"]
        return np.arange(1, facts.SILENT_BOOKINGS + 1) * bookings // 3 if bookings > 10 else np.arange(0)

    def orphans_before(self, booking: int) -> int:
        """Sessions without a booking in the blocks before a booking."""
        return self.orphans * booking // self.rows["transactions"]

    def sessions_before(self, booking: int) -> int:
        """Click sessions in the blocks before a booking."""
        return booking - int((self.silent < booking).sum()) + self.orphans_before(booking)

    def events_before(self, booking: int) -> int:
        """Click events in the blocks before a booking."""
        bookings, events = self.rows["transactions"], self.rows["click_stream"]
        return events * self.sessions_before(booking) // self.sessions_before(bookings)


@dataclass(frozen=True)
class People:
    """Customers: id, day of joining (since 1970), home, and the fraction of a second all their bookings share."""

    ids: Ints
    joined: Ints
    province: Ints
    lat: Ints
    long: Ints
    fraction: Ints


@dataclass(frozen=True)
class Buyers:
    """Who buys: position in `People`, number of bookings, where their run of bookings ends, first booking (s)."""

    who: Ints
    bookings: Ints
    ends: Ints
    first: Ints


def _draw_people(rng: np.random.Generator, count: int) -> People:
    months = np.arange(np.datetime64(facts.FIRST_DAY, "M"), np.datetime64(facts.LAST_DAY, "M") + 1)
    # Sign-ups grow slowly and nearly double every July but the first and the last.
    weights = np.where(months.astype(int) % 12 == 6, 1.85, 1.0) * (700 + 18.0 * np.arange(len(months)))
    weights[0], weights[1], weights[-1] = 6, 825, 2_202
    starts = months.astype("datetime64[D]").astype(np.int64)
    starts[0] = FIRST // DAY
    spans = np.diff(np.append(starts, LAST // DAY + 1))
    month = deal(rng, weights, count, 0, count)
    province = deal(rng, [p[1] for p in facts.PROVINCES], count, 0, count)
    lat, long = (
        np.array([round(p[axis] * 10) for p in facts.PROVINCES])[province] * 10 ** (decimals - 1)
        for axis, decimals in ((2, LAT), (3, LONG))
    )
    return People(
        ids=rng.permutation(max(count, facts.ROWS["customer"]))[:count] + 1,
        joined=starts[month] + rng.integers(0, spans[month]),
        province=province,
        lat=near(rng, lat, 1.05, LAT),
        long=near(rng, long, 1.05, LONG),
        fraction=rng.integers(0, SECOND, count),
    )


def _draw_buyers(rng: np.random.Generator, people: People, bookings: int) -> Buyers:
    count = len(people.ids)
    buyers = min(bookings, max(1, round(count * facts.BUYERS)))
    who = rng.permutation(count)[:buyers]
    joined = people.joined[who] * DAY
    # Each buyer keeps an own pace from the first booking on: that alone gives the
    # published growth, since customers gather. Few buyers make most bookings.
    # A seventh of them never comes back.
    pace = np.exp(1.2 * rng.standard_normal(buyers).clip(-3, 2.7)) * np.where(rng.random(buyers) > 0.14, 1, 1e-9)
    share = np.cumsum((LAST - joined) * pace)
    counts = 1 + np.diff(np.floor(share / share[-1] * (bookings - buyers) + 0.5).astype(np.int64), prepend=0)
    lag = np.minimum(rng.exponential(1.6 * DAY, buyers), rng.random(buyers) * (LAST - joined - 1))
    return Buyers(who, counts, np.cumsum(counts), joined + lag.astype(np.int64))
