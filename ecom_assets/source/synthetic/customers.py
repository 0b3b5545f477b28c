"""Customers, block by block.

What belongs here: the lines of ``customer``. Who buys, and where customers live, is drawn once, in ``shop``.
"""

from __future__ import annotations

import numpy as np

from ecom_assets.source.rows import concat, day, degrees, number, squeeze, uuids, vocabulary
from ecom_assets.source.synthetic import facts
from ecom_assets.source.synthetic.drawing import LAT, LONG, deal
from ecom_assets.source.synthetic.shop import Made, Shop

SLICE = 20_000
"""Customers written at once."""


def draw_customers(shop: Shop, block: int) -> Made:
    """Draw a block of customers."""
    rng, people = shop.rng("customer", block), shop.people
    all_rows = len(people.ids)
    start, end = block * SLICE, min((block + 1) * SLICE, all_rows)
    rows, count = slice(start, end), end - start
    device = deal(rng, facts.DEVICES.values(), all_rows, start, end)
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
    text = concat(
        number(people.ids[rows]), ",",
        vocabulary(facts.GIVEN_NAMES)[rng.integers(0, len(facts.GIVEN_NAMES), count)], ",",
        vocabulary(facts.SURNAMES)[rng.integers(0, len(facts.SURNAMES), count)], ",",
        username, ",",
        np.where(username == ord("-"), np.uint8(ord("_")), username), "@",
        vocabulary(facts.EMAIL_DOMAINS)[rng.integers(0, len(facts.EMAIL_DOMAINS), count)], ",",
        vocabulary(facts.GENDERS)[deal(rng, facts.GENDERS.values(), all_rows, start, end)], ",",
        day(born), ",",
        vocabulary(facts.DEVICES)[device], ",",
        uuids(rng, count), ",",
        versions[version], ",",
        degrees(people.lat[rows], LAT), ",",
        degrees(people.long[rows], LONG), ",",
        vocabulary(p[0] for p in facts.PROVINCES)[people.province[rows]], ",Indonesia,",
        day(people.joined[rows]), "\n",
    )  # fmt: skip
    return {"customer": (count, squeeze(text))}
