"""A made-up shop with the shape of the published one, at any size.

What belongs here: how customers, products, bookings and clicks are drawn and how
they refer to one another. The shares come from `facts.py`, the text from
`rows.py`. Bookings and the sessions that led to them are drawn together, block by
block; each block has its own random stream, so blocks are made in parallel and
memory stays flat, and the bytes depend on scale and seed alone (for one release
of NumPy, which may change how it draws between releases).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ecom_assets.dataset.shop import TABLES
from ecom_assets.source import facts
from ecom_assets.source.rows import (
    SECOND,
    Ints,
    Text,
    beside,
    day,
    degrees,
    moment,
    number,
    scatter,
    squeeze,
    uuids,
    vocabulary,
)

Progress = Callable[[str, int, int], None]
"""Called with table, rows written and rows in all."""

SMALLEST = 1e-6
"""Below this scale a session could not hold its booking."""

_BLOCK = 4_096  # bookings; about 12 MB of clicks while it is made
_SLICE = 20_000  # customers written at once
_WORKERS = 2

_FIRST = int(np.datetime64(facts.FIRST_DAY, "s").astype(np.int64))
_LAST = int(np.datetime64(facts.LAST_DAY, "s").astype(np.int64)) + 86_400 - 15
_DAY = 86_400
_LAT, _LONG = 15, 14  # decimals: with these a coordinate has the 17 digits of a double

_EVENT = {name: code for code, name in enumerate(facts.EVENTS)}
_PROMOS = {"": 526_048} | facts.WEEKEND_PROMOS | facts.ANYDAY_PROMOS


def sizes(scale: float) -> dict[str, int]:
    """Rows per table at a scale.

    Raises:
        ValueError: The scale is below ``SMALLEST``.
    """
    if not scale >= SMALLEST:
        raise ValueError(
            f"scale: expected a number from {SMALLEST} up (1.0 is the full size), got {scale}; "
            "choose a larger one with --scale or ECOM_SCALE"
        )
    return {table: max(1, round(rows * scale)) for table, rows in facts.ROWS.items()}


def generate(folder: Path, scale: float, seed: int, progress: Progress | None = None) -> dict[str, int]:
    """Write the four CSV files into ``folder``; each gets its name once it is complete.

    Args:
        folder: Where to; made if it isn't there. Files of the same name are replaced.
        scale: Size; 1.0 is the published 13.8 million rows (2 GB).
        seed: Same scale and seed, same bytes.
        progress: Told about every block.

    Returns:
        Rows per table.

    Raises:
        ValueError: The scale is too small, or the seed negative.
        OSError: The folder can't be written.
    """
    if seed < 0:
        raise ValueError(
            f"seed: expected a whole number from 0 up, got {seed}; choose another with --seed or ECOM_SEED"
        )
    shop = _Shop(sizes(scale), round(facts.ORPHAN_SESSIONS * scale), seed)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files, ThreadPoolExecutor(_WORKERS) as workers:
        out = {table: files.enter_context(_complete_or_absent(folder / TABLES[table].csv)) for table in shop.rows}
        for table, file in out.items():
            file.write((",".join(TABLES[table].names) + "\n").encode())
        jobs: list[tuple[Callable[[_Shop, int], _Made], int]] = [
            *((_customers, block) for block in range(-(-shop.rows["customer"] // _SLICE))),
            (_products, 0),
            *((_bookings_and_clicks, block) for block in range(-(-shop.rows["transactions"] // _BLOCK))),
        ]
        done = dict.fromkeys(shop.rows, 0)
        for made in _in_order(workers, shop, jobs):
            for table, (rows, text) in made.items():
                out[table].write(text)
                done[table] += rows
                if progress:
                    progress(table, done[table], shop.rows[table])
    return done


_Made = dict[str, tuple[int, bytes]]
"""Table -> its rows in a block, and their text."""


@contextmanager
def _complete_or_absent(path: Path) -> Generator[BinaryIO]:
    """A file under a temporary name that gets its own name when the block ends well."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _in_order(
    workers: ThreadPoolExecutor, shop: _Shop, jobs: list[tuple[Callable[[_Shop, int], _Made], int]]
) -> Iterator[_Made]:
    """Results in the order of the jobs, with few of them in memory."""
    waiting: deque[Future[_Made]] = deque()
    try:
        for make, block in jobs:
            waiting.append(workers.submit(make, shop, block))
            if len(waiting) > _WORKERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@dataclass(frozen=True)
class _Shop:
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
    def people(self) -> _People:
        """One entry per customer."""
        return _people(self.rng("people"), self.rows["customer"])

    @cached_property
    def buyers(self) -> _Buyers:
        """One entry per customer who buys."""
        return _buyers(self.rng("buyers"), self.people, self.rows["transactions"])

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
        """Sessions without a booking that stand in the blocks before a booking."""
        return self.orphans * booking // self.rows["transactions"]

    def sessions_before(self, booking: int) -> int:
        """Click sessions in the blocks before a booking."""
        return booking - int((self.silent < booking).sum()) + self.orphans_before(booking)

    def events_before(self, booking: int) -> int:
        """Click events in the blocks before a booking."""
        bookings, events = self.rows["transactions"], self.rows["click_stream"]
        return events * self.sessions_before(booking) // self.sessions_before(bookings)


@dataclass(frozen=True)
class _People:
    """Customers: id, day of joining (since 1970), home, and the fraction of a second all their bookings share."""

    ids: Ints
    joined: Ints
    province: Ints
    lat: Ints
    long: Ints
    fraction: Ints


@dataclass(frozen=True)
class _Buyers:
    """Who buys: position in `_People`, number of bookings, where their run of bookings ends, first booking (s)."""

    who: Ints
    bookings: Ints
    ends: Ints
    first: Ints


# ------------------------------------------------------------------ drawing


def _dealt(rng: np.random.Generator, weights: Collection[float] | np.ndarray, total: int, start: int, end: int) -> Ints:
    """Codes for the places ``start`` to ``end`` of ``total``, in random order.

    Over all places each code comes as often as its weight says, to the unit: place
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


def _picked(rng: np.random.Generator, weights: Collection[float] | np.ndarray, count: int) -> Ints:
    """Codes drawn by weight."""
    edges = np.cumsum(np.fromiter(weights, float))
    return np.searchsorted(edges / edges[-1], rng.random(count), side="right")


def _lognormal(rng: np.random.Generator, median: float, spread: float, count: int) -> Ints:
    return (median * np.exp(spread * rng.standard_normal(count))).astype(np.int64)


def _near(rng: np.random.Generator, middle: Ints, reach: float, decimals: int) -> Ints:
    """Coordinates around others; in integers, so that every machine draws the same digits, none of them ending in 0."""
    third = int(reach / 3 * 10**decimals)
    return middle + rng.integers(-third, third, (3, len(middle))).sum(0) | 1


def _within(counts: Ints) -> Ints:
    """0, 1, … within each group of the given sizes."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


# ---------------------------------------------------------------- customers


def _people(rng: np.random.Generator, count: int) -> _People:
    months = np.arange(np.datetime64(facts.FIRST_DAY, "M"), np.datetime64(facts.LAST_DAY, "M") + 1)
    # Sign-ups grow slowly and nearly double every July but the first and the last.
    weights = np.where(months.astype(int) % 12 == 6, 1.85, 1.0) * (700 + 18.0 * np.arange(len(months)))
    weights[0], weights[1], weights[-1] = 6, 825, 2_202
    starts = months.astype("datetime64[D]").astype(np.int64)
    starts[0] = _FIRST // _DAY
    spans = np.diff(np.append(starts, _LAST // _DAY + 1))
    month = _dealt(rng, weights, count, 0, count)
    province = _dealt(rng, [p[1] for p in facts.PROVINCES], count, 0, count)
    lat, long = (
        np.array([round(p[axis] * 10) for p in facts.PROVINCES])[province] * 10 ** (decimals - 1)
        for axis, decimals in ((2, _LAT), (3, _LONG))
    )
    return _People(
        ids=rng.permutation(max(count, facts.ROWS["customer"]))[:count] + 1,
        joined=starts[month] + rng.integers(0, spans[month]),
        province=province,
        lat=_near(rng, lat, 1.05, _LAT),
        long=_near(rng, long, 1.05, _LONG),
        fraction=rng.integers(0, SECOND, count),
    )


def _buyers(rng: np.random.Generator, people: _People, bookings: int) -> _Buyers:
    count = len(people.ids)
    buyers = min(bookings, max(1, round(count * facts.BUYERS)))
    who = rng.permutation(count)[:buyers]
    joined = people.joined[who] * _DAY
    # Each buyer keeps an own pace from the first booking on: that alone gives the
    # published growth, since customers gather. Few buyers make most bookings.
    # A seventh of them never comes back.
    pace = np.exp(1.2 * rng.standard_normal(buyers).clip(-3, 2.7)) * np.where(rng.random(buyers) > 0.14, 1, 1e-9)
    share = np.cumsum((_LAST - joined) * pace)
    counts = 1 + np.diff(np.floor(share / share[-1] * (bookings - buyers) + 0.5).astype(np.int64), prepend=0)
    lag = np.minimum(rng.exponential(1.6 * _DAY, buyers), rng.random(buyers) * (_LAST - joined - 1))
    return _Buyers(who, counts, np.cumsum(counts), joined + lag.astype(np.int64))


def _customers(shop: _Shop, block: int) -> _Made:
    rng, people = shop.rng("customer", block), shop.people
    all_rows = len(people.ids)
    start, end = block * _SLICE, min((block + 1) * _SLICE, all_rows)
    rows, count = slice(start, end), end - start
    device = _dealt(rng, facts.DEVICES.values(), all_rows, start, end)
    versions = vocabulary((*facts.ANDROID, *facts.IOS))
    version = np.where(
        device == 0,
        rng.integers(0, len(facts.ANDROID), count),
        len(facts.ANDROID) + rng.integers(0, len(facts.IOS), count),
    )
    # Ages from 0 up: the published dates of birth include children.
    age = np.abs(25 * 365 + 9 * 365 * rng.standard_normal(count)).astype(np.int64)
    oldest, youngest = (int(np.datetime64(d, "D").astype(np.int64)) for d in ("1954-06-30", "2016-07-27"))
    born = np.clip(people.joined[rows] - age, oldest, np.minimum(youngest, people.joined[rows]))
    username = uuids(rng, count)
    text = beside(
        number(people.ids[rows]), ",",
        vocabulary(facts.GIVEN_NAMES)[rng.integers(0, len(facts.GIVEN_NAMES), count)], ",",
        vocabulary(facts.SURNAMES)[rng.integers(0, len(facts.SURNAMES), count)], ",",
        username, ",",
        np.where(username == ord("-"), np.uint8(ord("_")), username), "@",
        vocabulary(facts.EMAIL_DOMAINS)[rng.integers(0, len(facts.EMAIL_DOMAINS), count)], ",",
        vocabulary(facts.GENDERS)[_dealt(rng, facts.GENDERS.values(), all_rows, start, end)], ",",
        day(born), ",",
        vocabulary(facts.DEVICES)[device], ",",
        uuids(rng, count), ",",
        versions[version], ",",
        degrees(people.lat[rows], _LAT), ",",
        degrees(people.long[rows], _LONG), ",",
        vocabulary(p[0] for p in facts.PROVINCES)[people.province[rows]], ",Indonesia,",
        day(people.joined[rows]), "\n",
    )  # fmt: skip
    return {"customer": (count, squeeze(text))}


# ----------------------------------------------------------------- products


def _products(shop: _Shop, block: int) -> _Made:
    rng, count = shop.rng("product", block), shop.rows["product"]
    scale = count / facts.ROWS["product"]
    ware = _dealt(rng, [w[2] for w in facts.CATALOGUE], count, 0, count)
    masters = np.array([w[0] for w in facts.CATALOGUE])[ware]
    womens = np.array([w[3] == "W" for w in facts.CATALOGUE])[ware]
    audience = np.where(
        womens, list(facts.AUDIENCES).index("Women"), _dealt(rng, facts.AUDIENCES.values(), count, 0, count)
    )
    kinds = [w[4] for w in facts.CATALOGUE]
    first_kind = np.cumsum([0, *map(len, kinds)])[:-1]
    kind = first_kind[ware] + rng.integers(0, np.array([len(k) for k in kinds])[ware])
    article = vocabulary(k for group in kinds for k in group)[kind]

    # Every kind of dirt shows at any size worth looking at; no line has two kinds of it.
    sample = 20
    wanted = {name: max(round(n * scale), int(count >= sample)) for name, n in facts.PRODUCT_NULLS.items()}
    spare = rng.permutation(count)
    empty: dict[str, Ints] = {}
    for name, nulls in wanted.items():
        empty[name], spare = spare[:nulls], spare[nulls:]

    def column(name: str, words: dict[str, int]) -> Text:
        filled = np.setdiff1d(np.arange(count), empty[name])
        return scatter(count, [(filled, vocabulary(words)[_dealt(rng, words.values(), len(filled), 0, len(filled))])])

    colour = column("baseColour", facts.COLOURS)
    surplus = max(round(sum(facts.OVERFLOWING.values()) * scale), int(count >= sample))
    ends = [f" {words}" for words, _ in facts.SURPLUS] + [f" {words}{comma}New" for words, comma in facts.SURPLUS]
    broken = _overflowing(rng, masters, spare, surplus)
    ending = rng.integers(0, len(facts.SURPLUS), len(broken))
    ending[: len(broken) // 11] += len(facts.SURPLUS)  # 2 of 22 have two commas
    # Few brands make most products, and few styles have a word, so that names repeat.
    brand = (len(facts.BRANDS) * rng.random(count) ** 4).astype(np.int64)
    style = (len(facts.STYLES) * rng.random(count) ** 2).astype(np.int64)
    name = beside(
        vocabulary(facts.BRANDS)[brand], " ",
        vocabulary(facts.AUDIENCES)[audience], " ",
        vocabulary(facts.STYLES)[style],
        scatter(count, [(np.flatnonzero(colour.any(1)), beside(colour[colour.any(1)], " "))]),
        article,
        scatter(count, [(broken, vocabulary(ends)[ending])]),
    )  # fmt: skip
    name[empty["productDisplayName"]] = 0
    text = beside(
        number(shop.product_ids), ",",
        vocabulary(facts.AUDIENCES)[audience], ",",
        vocabulary(w[0] for w in facts.CATALOGUE)[ware], ",",
        vocabulary(w[1] for w in facts.CATALOGUE)[ware], ",",
        article, ",",
        colour, ",",
        column("season", facts.SEASONS), ",",
        column("year", facts.YEARS), ",",
        column("usage", facts.USAGES), ",",
        name, "\n",
    )  # fmt: skip
    return {"product": (count, squeeze(text))}


def _overflowing(rng: np.random.Generator, masters: np.ndarray, spare: Ints, count: int) -> Ints:
    """Rows whose names get commas, by category where the shop has enough of it, in random order."""
    codes = _dealt(rng, facts.OVERFLOWING.values(), count, 0, count)
    chosen = [spare[masters[spare] == master][: (codes == code).sum()] for code, master in enumerate(facts.OVERFLOWING)]
    rows = np.concatenate(chosen)
    others = np.setdiff1d(spare, rows)
    return rng.permutation(np.concatenate([rows, others[: count - len(rows)]]))


# ------------------------------------------------------- bookings and clicks


@dataclass(frozen=True)
class _Bookings:
    """A block of bookings: what the clicks must agree with. Item arrays are indexed with ``offsets``."""

    created: Ints
    session: Text
    status: Ints
    promo: Ints
    discount: Ints
    items: Ints
    offsets: Ints
    item: Text


def _item(product: Ints, quantity: Ints, price: Ints) -> Text:
    return beside(
        "{'product_id': ", number(product), ", 'quantity': ", number(quantity), ", 'item_price': ", number(price), "}"
    )  # fmt: skip


def _drawn_items(rng: np.random.Generator, product: Ints) -> tuple[Ints, Ints, Ints]:
    """Products with quantities and prices; a price belongs to the line, not to the product."""
    price = _lognormal(rng, facts.PRICE_MEDIAN, facts.PRICE_SPREAD, len(product))
    return (
        product,
        1 + _picked(rng, facts.QUANTITIES, len(product)),
        price.clip(facts.PRICE_LOW, facts.PRICE_HIGH),
    )


def _some_products(rng: np.random.Generator, shop: _Shop, count: int) -> Ints:
    return shop.product_ids[rng.integers(0, len(shop.product_ids), count)]


def _promo_codes(rng: np.random.Generator, total: int, start: int, end: int, created: Ints) -> Ints:
    """A code per booking; weekend codes stand at weekends alone, and promotions get rarer with the years."""
    dealt = _dealt(rng, _PROMOS.values(), total, start, end)
    last_weekend_code = len(facts.WEEKEND_PROMOS)
    weekend_codes = dealt[(dealt > 0) & (dealt <= last_weekend_code)]
    anyday_codes = dealt[dealt > last_weekend_code]
    age = (created / SECOND - _FIRST) / (_LAST - _FIRST)
    keen = np.argsort(rng.standard_exponential(len(created)) / (2.95 - 1.95 * age), kind="stable")
    weekend = (created // (SECOND * _DAY) + 3) % 7 >= 5  # day 0 was a Thursday
    weekenders = keen[weekend[keen]][: len(weekend_codes)]
    if (missing := len(weekend_codes) - len(weekenders)) > 0:  # few bookings, fewer on weekends
        anyday_codes = np.append(anyday_codes, np.full(missing, list(_PROMOS).index("AZ2022")))
    codes = np.zeros(len(created), np.int64)
    codes[weekenders] = weekend_codes[: len(weekenders)]
    rest = keen[codes[keen] == 0][: len(anyday_codes)]
    codes[rest] = anyday_codes
    return codes


def _bookings_and_clicks(shop: _Shop, block: int) -> _Made:
    start, end = block * _BLOCK, min((block + 1) * _BLOCK, shop.rows["transactions"])
    bookings, text = _bookings(shop, block, start, end)
    made: _Made = {"transactions": (end - start, text)}
    return made | {"click_stream": _clicks(shop, block, bookings, start, end)}


def _bookings(shop: _Shop, block: int, start: int, end: int) -> tuple[_Bookings, bytes]:
    rng, people, buyers = shop.rng("transactions", block), shop.people, shop.buyers
    total, count = shop.rows["transactions"], end - start
    at = np.arange(start, end)

    # The bookings of a customer stand together, in no order of time.
    buyer = np.searchsorted(buyers.ends, at, side="right")
    customer, first = buyers.who[buyer], buyers.first[buyer]
    later = at > buyers.ends[buyer] - buyers.bookings[buyer]
    seconds = first + np.where(later, (rng.random(count) * (_LAST - first)).astype(np.int64), 0)
    created = seconds * SECOND + people.fraction[customer]
    promo = _promo_codes(rng, total, start, end, created)
    status = _dealt(rng, facts.STATUSES.values(), total, start, end)
    method = _dealt(rng, facts.METHODS.values(), total, start, end)

    items = 1 + _dealt(rng, facts.ITEMS, total, start, end)
    offsets = np.cumsum(items) - items
    product = _some_products(rng, shop, int(items.sum()))
    product[offsets] = shop.product_ids[at % len(shop.product_ids)]  # so every product is sold
    product, quantity, price = _drawn_items(rng, product)
    worth = np.add.reduceat(quantity * price, offsets)
    discount = _lognormal(rng, facts.PROMO_MEDIAN, facts.PROMO_SPREAD, count).clip(1, facts.PROMO_HIGH)
    discount = np.where(promo > 0, np.minimum(discount, worth // 2), 0)
    fees = np.array(list(facts.SHIPMENT_FEES))
    fee = fees[_picked(rng, facts.SHIPMENT_FEES.values(), count)]
    limit = created + rng.integers(_DAY * SECOND, (6 * _DAY + 3_600) * SECOND, count)
    # Where the usual point lies is not published; here it is the customer's home.
    usual = rng.random(count) < facts.REPEATED_SHIPMENT
    lat = np.where(usual, people.lat[customer], _near(rng, people.lat[customer], 0.4, _LAT))
    long = np.where(usual, people.long[customer], _near(rng, people.long[customer], 0.4, _LONG))

    session, item = uuids(rng, count), _item(product, quantity, price)
    head = beside(
        moment(created), ",", number(people.ids[customer]), ",", uuids(rng, count), ",", session, ',"['
    )  # fmt: skip
    comma = np.where(_within(items)[:, None] > 0, np.frombuffer(b", ", np.uint8), np.uint8(0))
    tail = beside(
        ']",', vocabulary(facts.METHODS)[method], ",", vocabulary(facts.STATUSES)[status], ",",
        number(discount), ",", vocabulary(_PROMOS)[promo], ",", number(fee), ",", moment(limit), ",",
        degrees(lat, _LAT), ",", degrees(long, _LONG), ",", number(worth - discount + fee), "\n",
    )  # fmt: skip
    # A line is its head, its items and its tail, one under the other; squeezing joins them.
    heads = np.arange(count) * 2 + offsets
    text = scatter(
        2 * count + len(item),
        [(heads, head), (np.repeat(heads + 1, items) + _within(items), beside(comma, item)), (heads + items + 1, tail)],
    )
    bookings = _Bookings(created, session, status, promo, discount, items, offsets, item)
    return bookings, squeeze(text)


def _lengths(rng: np.random.Generator, dealt: Ints, least: Ints, wish: np.ndarray, total: int) -> Ints:
    """Events per session: the dealt lengths, the longer ones where more is wished, ``total`` in all."""
    lengths = np.empty_like(dealt)
    lengths[np.argsort(wish, kind="stable")] = np.sort(dealt)
    lengths = np.maximum(lengths, least)
    while gap := total - int(lengths.sum()):
        step = 1 if gap > 0 else -1
        able = (lengths + step >= least) & (lengths + step <= facts.LONGEST)
        long = able & (lengths > 40)  # one event more or less doesn't show in a long session
        lengths[rng.permutation(np.flatnonzero(long if long.any() else able))[: abs(gap)]] += step
    return lengths


def _clicks(shop: _Shop, block: int, bookings: _Bookings, start: int, end: int) -> tuple[int, bytes]:
    rng = shop.rng("click_stream", block)
    orphans_from, orphans_to = shop.orphans_before(start), shop.orphans_before(end)
    first, last, all_sessions = (shop.sessions_before(at) for at in (start, end, shop.rows["transactions"]))
    events = shop.events_before(end) - shop.events_before(start)
    sessions = last - first
    if not sessions:
        return 0, b""

    # Sessions, in the order of the file: the position of the booking, or -1, and what they must hold.
    booked = np.setdiff1d(np.arange(start, end), shop.silent) - start
    booking = rng.permutation(np.append(booked, np.full(orphans_to - orphans_from, -1)))
    books = booking >= 0
    promo = books & (bookings.promo[booking] > 0)
    carts = np.where(books, bookings.items[booking], 0)
    carts[~books] = 1 - _dealt(
        rng, [facts.ORPHANS_WITH_CART, facts.ORPHAN_SESSIONS - facts.ORPHANS_WITH_CART],
        shop.orphans, orphans_from, orphans_to,
    )  # fmt: skip
    least = 2 + books + promo
    # The shortest sessions are mostly those that were broken off.
    wish = np.where(books | (rng.random(sessions) > 0.33), least + carts + rng.exponential(10, sessions), 0)
    dealt = facts.SHORTEST + _dealt(rng, facts.LENGTHS, all_sessions, first, last)
    lengths = _lengths(rng, dealt, least, wish, events)
    # Whether carts list what is booked is not published; here they do, as far as the session has room.
    carts = np.minimum(carts, lengths - 1 - books - promo)

    # Events, in the order of the file: what a session must hold comes first, then the rest.
    session = np.repeat(np.arange(sessions), lengths)
    opens = np.cumsum(lengths) - lengths
    cart_at, promo_at = np.repeat(opens + 1, carts) + _within(carts), (opens + 1 + carts)[promo]
    booking_at = (opens + 1 + carts + promo)[books]
    kind = np.full(events, -1)
    kind[opens], kind[cart_at] = _EVENT["HOMEPAGE"], _EVENT["ADD_TO_CART"]
    kind[promo_at], kind[booking_at] = _EVENT["ADD_PROMO"], _EVENT["BOOKING"]
    kind[kind < 0] = _fillers(rng, kind, shop.events_before(start), shop.events_before(end))
    _move_carts(kind, (carts > 0)[session])

    # Times: whole seconds apart within a session, HOMEPAGE first and BOOKING last.
    close = np.where(books, bookings.created[booking] // SECOND, 0)
    growth = np.sqrt(rng.random(sessions - len(booked)))
    close[~books] = _FIRST + (growth * (_LAST + 3_000 - _FIRST)).astype(np.int64)
    spent = (rng.exponential(100, sessions) * (lengths - 1)).astype(np.int64).clip(lengths, _DAY)
    part = rng.random(events)
    part[promo_at] = 0.9 + part[promo_at] / 10
    part[opens] = 0
    seconds = (close - spent)[session] + (part * spent[session]).astype(np.int64)
    micros = seconds * SECOND + rng.integers(0, SECOND, sessions)[session]
    # Whether a BOOKING happens at the very moment of its transaction is not published; here it does.
    micros[booking_at] = bookings.created[booking[books]]

    # Metadata: a dict for four kinds of event, quoted where it holds a comma.
    listed = np.repeat(booking, carts) >= 0
    line = np.repeat(bookings.offsets[booking], carts) + _within(carts)
    other = np.setdiff1d(np.flatnonzero(kind == _EVENT["ADD_TO_CART"]), cart_at[listed])
    search = np.flatnonzero(kind == _EVENT["SEARCH"])
    codes = vocabulary(_PROMOS)[bookings.promo[booking[promo]]]
    metadata = scatter(
        events,
        [
            (cart_at[listed], beside('"', bookings.item[line[listed]], '"')),
            (other, beside('"', _item(*_drawn_items(rng, _some_products(rng, shop, len(other)))), '"')),
            (booking_at, vocabulary(f"{{'payment_status': '{s}'}}" for s in facts.STATUSES)[
                bookings.status[booking[books]]
            ]),
            (search, vocabulary(f"{{'search_keywords': '{k}'}}" for k in facts.KEYWORDS)[
                rng.integers(0, len(facts.KEYWORDS), len(search))
            ]),
            (promo_at, beside("\"{'promo_code': '", codes, "', 'promo_amount': ",
                              number(bookings.discount[booking[promo]]), '}"')),
        ],
    )  # fmt: skip
    ids = uuids(rng, sessions)
    ids[books] = bookings.session[booking[books]]
    traffic = _dealt(rng, facts.TRAFFIC.values(), all_sessions, first, last)
    text = beside(
        ids[session], ",", vocabulary(facts.EVENTS)[kind], ",", moment(micros), ",", uuids(rng, events), ",",
        vocabulary(facts.TRAFFIC)[traffic[session]], ",", metadata, "\n",
    )  # fmt: skip
    return events, squeeze(text)


def _fillers(rng: np.random.Generator, kind: Ints, start: int, end: int) -> Ints:
    """Kinds for the events still open (-1), so that all events up to ``end`` have the published shares."""
    pool = []
    for name, count in facts.EVENTS.items():
        share = count / facts.ROWS["click_stream"]
        target = math.floor(share * end + 0.5) - math.floor(share * start + 0.5)
        if name not in ("ADD_PROMO", "BOOKING"):  # never more than once in a session
            pool.append(np.full(max(0, target - int((kind == _EVENT[name]).sum())), _EVENT[name]))
    free = int((kind < 0).sum())
    # CLICK is the last and largest; it takes up what the others leave or lack.
    drawn = np.concatenate(pool)[:free]
    return rng.permutation(np.append(drawn, np.full(free - len(drawn), _EVENT["CLICK"])))


def _move_carts(kind: Ints, allowed: np.ndarray) -> None:
    """Swap ADD_TO_CART out of the sessions without a cart, for CLICKs of others."""
    wrong = np.flatnonzero((kind == _EVENT["ADD_TO_CART"]) & ~allowed)
    clicks = np.flatnonzero((kind == _EVENT["CLICK"]) & allowed)
    kind[wrong] = _EVENT["CLICK"]
    if len(clicks):
        spread = np.linspace(0, len(clicks) - 1, min(len(wrong), len(clicks))).astype(np.int64)
        kind[clicks[spread]] = _EVENT["ADD_TO_CART"]
