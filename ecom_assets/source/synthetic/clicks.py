"""Click sessions, block by block: those that led to the bookings of a block, and those that led to none.

What belongs here: the lines of ``click_stream``. A session agrees with its booking, which ``bookings`` has drawn.
"""

from __future__ import annotations

import math

import numpy as np

from ecom_assets.source.rows import SECOND, Ints, concat, moment, number, scatter, squeeze, uuids, vocabulary
from ecom_assets.source.synthetic import facts
from ecom_assets.source.synthetic.bookings import PROMOS, Bookings, draw_items, draw_product_ids, item_text
from ecom_assets.source.synthetic.drawing import DAY, FIRST, LAST, deal, within
from ecom_assets.source.synthetic.shop import Shop

_EVENT = {name: code for code, name in enumerate(facts.EVENTS)}


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


def draw_clicks(shop: Shop, block: int, bookings: Bookings, start: int, end: int) -> tuple[int, bytes]:
    """Draw the events of the sessions of a block of bookings: how many, and their lines."""
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
    carts[~books] = 1 - deal(
        rng, [facts.ORPHANS_WITH_CART, facts.ORPHAN_SESSIONS - facts.ORPHANS_WITH_CART],
        shop.orphans, orphans_from, orphans_to,
    )  # fmt: skip
    least = 2 + books + promo
    # The shortest sessions are mostly those that were broken off.
    wish = np.where(books | (rng.random(sessions) > 0.33), least + carts + rng.exponential(10, sessions), 0)
    dealt = facts.SHORTEST + deal(rng, facts.LENGTHS, all_sessions, first, last)
    lengths = _lengths(rng, dealt, least, wish, events)
    # Whether carts list what is booked is not published; here they do, as far as the session has room.
    carts = np.minimum(carts, lengths - 1 - books - promo)

    # Events, in the order of the file: what a session must hold comes first, then the rest.
    session = np.repeat(np.arange(sessions), lengths)
    opens = np.cumsum(lengths) - lengths
    cart_at, promo_at = np.repeat(opens + 1, carts) + within(carts), (opens + 1 + carts)[promo]
    booking_at = (opens + 1 + carts + promo)[books]
    kind = np.full(events, -1)
    kind[opens], kind[cart_at] = _EVENT["HOMEPAGE"], _EVENT["ADD_TO_CART"]
    kind[promo_at], kind[booking_at] = _EVENT["ADD_PROMO"], _EVENT["BOOKING"]
    kind[kind < 0] = _fillers(rng, kind, shop.events_before(start), shop.events_before(end))
    _move_carts(kind, (carts > 0)[session])

    # Times: whole seconds apart within a session, HOMEPAGE first and BOOKING last.
    close = np.where(books, bookings.created[booking] // SECOND, 0)
    growth = np.sqrt(rng.random(sessions - len(booked)))
    close[~books] = FIRST + (growth * (LAST + 3_000 - FIRST)).astype(np.int64)
    spent = (rng.exponential(100, sessions) * (lengths - 1)).astype(np.int64).clip(lengths, DAY)
    part = rng.random(events)
    part[promo_at] = 0.9 + part[promo_at] / 10
    part[opens] = 0
    seconds = (close - spent)[session] + (part * spent[session]).astype(np.int64)
    micros = seconds * SECOND + rng.integers(0, SECOND, sessions)[session]
    # Whether a BOOKING happens at the very moment of its transaction is not published; here it does.
    micros[booking_at] = bookings.created[booking[books]]

    # Metadata: a dict for four kinds of event, quoted where it holds a comma.
    listed = np.repeat(booking, carts) >= 0
    line = np.repeat(bookings.offsets[booking], carts) + within(carts)
    other = np.setdiff1d(np.flatnonzero(kind == _EVENT["ADD_TO_CART"]), cart_at[listed])
    search = np.flatnonzero(kind == _EVENT["SEARCH"])
    codes = vocabulary(PROMOS)[bookings.promo[booking[promo]]]
    metadata = scatter(
        events,
        [
            (cart_at[listed], concat('"', bookings.item[line[listed]], '"')),
            (other, concat('"', item_text(*draw_items(rng, draw_product_ids(rng, shop, len(other)))), '"')),
            (booking_at, vocabulary(f"{{'payment_status': '{s}'}}" for s in facts.STATUSES)[
                bookings.status[booking[books]]
            ]),
            (search, vocabulary(f"{{'search_keywords': '{k}'}}" for k in facts.KEYWORDS)[
                rng.integers(0, len(facts.KEYWORDS), len(search))
            ]),
            (promo_at, concat("\"{'promo_code': '", codes, "', 'promo_amount': ",
                              number(bookings.discount[booking[promo]]), '}"')),
        ],
    )  # fmt: skip
    ids = uuids(rng, sessions)
    ids[books] = bookings.session[booking[books]]
    traffic = deal(rng, facts.TRAFFIC.values(), all_sessions, first, last)
    text = concat(
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
