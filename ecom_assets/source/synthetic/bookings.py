"""Bookings, block by block, and the items that clicks must agree with.

What belongs here: the lines of ``transactions``, and what is drawn for items of any kind. The sessions that led to
bookings are drawn in ``clicks``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecom_assets.source.rows import (
    SECOND,
    Ints,
    Text,
    concat,
    degrees,
    moment,
    number,
    scatter,
    squeeze,
    uuids,
    vocabulary,
)
from ecom_assets.source.synthetic import facts
from ecom_assets.source.synthetic.drawing import DAY, FIRST, LAST, LAT, LONG, deal, lognormal, near, pick, within
from ecom_assets.source.synthetic.shop import Shop

PROMOS = {"": 526_048} | facts.WEEKEND_PROMOS | facts.ANYDAY_PROMOS
"""Promotion codes and their counts; most bookings have none."""


@dataclass(frozen=True)
class Bookings:
    """A block of bookings: what the clicks must agree with. Item arrays are indexed with ``offsets``."""

    created: Ints
    session: Text
    status: Ints
    promo: Ints
    discount: Ints
    items: Ints
    offsets: Ints
    item: Text


def item_text(product: Ints, quantity: Ints, price: Ints) -> Text:
    """Text of one item per line, a Python literal as the published data have it."""
    return concat(
        "{'product_id': ", number(product), ", 'quantity': ", number(quantity), ", 'item_price': ", number(price), "}"
    )  # fmt: skip


def draw_items(rng: np.random.Generator, product: Ints) -> tuple[Ints, Ints, Ints]:
    """Products with quantities and prices; a price belongs to the line, not to the product."""
    price = lognormal(rng, facts.PRICE_MEDIAN, facts.PRICE_SPREAD, len(product))
    return (
        product,
        1 + pick(rng, facts.QUANTITIES, len(product)),
        price.clip(facts.PRICE_LOW, facts.PRICE_HIGH),
    )


def draw_product_ids(rng: np.random.Generator, shop: Shop, count: int) -> Ints:
    """Draw ids of products, each as likely as any other."""
    return shop.product_ids[rng.integers(0, len(shop.product_ids), count)]


def _promo_codes(rng: np.random.Generator, total: int, start: int, end: int, created: Ints) -> Ints:
    """A code per booking; weekend codes stand at weekends alone, and promotions get rarer with the years."""
    dealt = deal(rng, PROMOS.values(), total, start, end)
    last_weekend_code = len(facts.WEEKEND_PROMOS)
    weekend_codes = dealt[(dealt > 0) & (dealt <= last_weekend_code)]
    anyday_codes = dealt[dealt > last_weekend_code]
    age = (created / SECOND - FIRST) / (LAST - FIRST)
    keen = np.argsort(rng.standard_exponential(len(created)) / (2.95 - 1.95 * age), kind="stable")
    weekend = (created // (SECOND * DAY) + 3) % 7 >= 5  # day 0 was a Thursday
    weekenders = keen[weekend[keen]][: len(weekend_codes)]
    if (missing := len(weekend_codes) - len(weekenders)) > 0:  # few bookings, fewer on weekends
        anyday_codes = np.append(anyday_codes, np.full(missing, list(PROMOS).index("AZ2022")))
    codes = np.zeros(len(created), np.int64)
    codes[weekenders] = weekend_codes[: len(weekenders)]
    rest = keen[codes[keen] == 0][: len(anyday_codes)]
    codes[rest] = anyday_codes
    return codes


def draw_bookings(shop: Shop, block: int, start: int, end: int) -> tuple[Bookings, bytes]:
    """Draw the bookings at positions ``start`` to ``end``, and their lines."""
    rng, people, buyers = shop.rng("transactions", block), shop.people, shop.buyers
    total, count = shop.rows["transactions"], end - start
    at = np.arange(start, end)

    # The bookings of a customer stand together, in no order of time.
    buyer = np.searchsorted(buyers.ends, at, side="right")
    customer, first = buyers.who[buyer], buyers.first[buyer]
    later = at > buyers.ends[buyer] - buyers.bookings[buyer]
    seconds = first + np.where(later, (rng.random(count) * (LAST - first)).astype(np.int64), 0)
    created = seconds * SECOND + people.fraction[customer]
    promo = _promo_codes(rng, total, start, end, created)
    status = deal(rng, facts.STATUSES.values(), total, start, end)
    method = deal(rng, facts.METHODS.values(), total, start, end)

    items = 1 + deal(rng, facts.ITEMS, total, start, end)
    offsets = np.cumsum(items) - items
    product = draw_product_ids(rng, shop, int(items.sum()))
    product[offsets] = shop.product_ids[at % len(shop.product_ids)]  # so every product is sold
    product, quantity, price = draw_items(rng, product)
    worth = np.add.reduceat(quantity * price, offsets)
    discount = lognormal(rng, facts.PROMO_MEDIAN, facts.PROMO_SPREAD, count).clip(1, facts.PROMO_HIGH)
    discount = np.where(promo > 0, np.minimum(discount, worth // 2), 0)
    fees = np.array(list(facts.SHIPMENT_FEES))
    fee = fees[pick(rng, facts.SHIPMENT_FEES.values(), count)]
    limit = created + rng.integers(DAY * SECOND, (6 * DAY + 3_600) * SECOND, count)
    # Where the usual point lies is not published; here it is the customer's home.
    usual = rng.random(count) < facts.REPEATED_SHIPMENT
    lat = np.where(usual, people.lat[customer], near(rng, people.lat[customer], 0.4, LAT))
    long = np.where(usual, people.long[customer], near(rng, people.long[customer], 0.4, LONG))

    session, item = uuids(rng, count), item_text(product, quantity, price)
    head = concat(
        moment(created), ",", number(people.ids[customer]), ",", uuids(rng, count), ",", session, ',"['
    )  # fmt: skip
    comma = np.where(within(items)[:, None] > 0, np.frombuffer(b", ", np.uint8), np.uint8(0))
    tail = concat(
        ']",', vocabulary(facts.METHODS)[method], ",", vocabulary(facts.STATUSES)[status], ",",
        number(discount), ",", vocabulary(PROMOS)[promo], ",", number(fee), ",", moment(limit), ",",
        degrees(lat, LAT), ",", degrees(long, LONG), ",", number(worth - discount + fee), "\n",
    )  # fmt: skip
    # A line is its head, its items and its tail, one under the other; squeezing joins them.
    heads = np.arange(count) * 2 + offsets
    text = scatter(
        2 * count + len(item),
        [(heads, head), (np.repeat(heads + 1, items) + within(items), concat(comma, item)), (heads + items + 1, tail)],
    )
    bookings = Bookings(created, session, status, promo, discount, items, offsets, item)
    return bookings, squeeze(text)
