"""Products, with the published kinds of dirt.

What belongs here: the lines of ``product``. What is sold to whom is drawn in ``bookings``.
"""

from __future__ import annotations

import numpy as np

from ecom_assets.source.rows import Ints, Text, concat, number, scatter, squeeze, vocabulary
from ecom_assets.source.synthetic import facts
from ecom_assets.source.synthetic.drawing import deal
from ecom_assets.source.synthetic.shop import Made, Shop


def draw_products(shop: Shop, block: int) -> Made:
    """Draw all products; they are one block."""
    rng, count = shop.rng("product", block), shop.rows["product"]
    scale = count / facts.ROWS["product"]
    ware = deal(rng, [w[2] for w in facts.CATALOGUE], count, 0, count)
    masters = np.array([w[0] for w in facts.CATALOGUE])[ware]
    womens = np.array([w[3] == "W" for w in facts.CATALOGUE])[ware]
    audience = np.where(
        womens, list(facts.AUDIENCES).index("Women"), deal(rng, facts.AUDIENCES.values(), count, 0, count)
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
        return scatter(count, [(filled, vocabulary(words)[deal(rng, words.values(), len(filled), 0, len(filled))])])

    colour = column("baseColour", facts.COLOURS)
    surplus = max(round(sum(facts.OVERFLOWING.values()) * scale), int(count >= sample))
    ends = [f" {words}" for words, _ in facts.SURPLUS] + [f" {words}{comma}New" for words, comma in facts.SURPLUS]
    broken = _overflowing(rng, masters, spare, surplus)
    ending = rng.integers(0, len(facts.SURPLUS), len(broken))
    ending[: len(broken) // 11] += len(facts.SURPLUS)  # 2 of 22 have two commas
    # Few brands make most products, and few styles have a word, so that names repeat.
    brand = (len(facts.BRANDS) * rng.random(count) ** 4).astype(np.int64)
    style = (len(facts.STYLES) * rng.random(count) ** 2).astype(np.int64)
    name = concat(
        vocabulary(facts.BRANDS)[brand], " ",
        vocabulary(facts.AUDIENCES)[audience], " ",
        vocabulary(facts.STYLES)[style],
        scatter(count, [(np.flatnonzero(colour.any(1)), concat(colour[colour.any(1)], " "))]),
        article,
        scatter(count, [(broken, vocabulary(ends)[ending])]),
    )  # fmt: skip
    name[empty["productDisplayName"]] = 0
    text = concat(
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
    codes = deal(rng, facts.OVERFLOWING.values(), count, 0, count)
    chosen = [spare[masters[spare] == master][: (codes == code).sum()] for code, master in enumerate(facts.OVERFLOWING)]
    rows = np.concatenate(chosen)
    others = np.setdiff1d(spare, rows)
    return rng.permutation(np.concatenate([rows, others[: count - len(rows)]]))
