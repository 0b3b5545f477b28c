"""A made-up shop with the shape of the published one, at any size.

What belongs here: the order in which blocks are drawn and written. Bookings and the sessions that led to them are drawn
together, block by block; each block has its own random stream, so blocks are drawn in parallel and memory stays flat.
The bytes depend on scale and seed alone (for one release of NumPy, which may draw differently in another). What does
not: the rows of a table, which have a module each; shares are defined in ``facts``, text is built by ``rows``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from ecom_assets.dataset.loader import bundled, load
from ecom_assets.source.synthetic import facts
from ecom_assets.source.synthetic.bookings import draw_bookings
from ecom_assets.source.synthetic.clicks import draw_clicks
from ecom_assets.source.synthetic.customers import SLICE, draw_customers
from ecom_assets.source.synthetic.products import draw_products
from ecom_assets.source.synthetic.shop import Made, Shop

TABLES = load(bundled() / "shop").tables

Progress = Callable[[str, int, int], None]
"""Called with table, rows written and rows in all."""

SMALLEST = 1e-6
"""Below this scale a session could not hold its booking."""

_BLOCK = 4_096  # bookings; about 12 MB of clicks while it is made
_WORKERS = 2


def sizes(scale: float) -> dict[str, int]:
    """Rows per table at a scale."""
    return {table: max(1, round(rows * scale)) for table, rows in facts.ROWS.items()}


def validate(scale: float, seed: int) -> None:
    """Refuse what nothing can be generated from.

    Raises:
        ValueError: The scale is below ``SMALLEST``, or the seed negative.
    """
    if not scale >= SMALLEST:
        raise ValueError(
            f"scale: expected a number from {SMALLEST} up (1.0 is the full size), got {scale}; "
            "choose a larger one with --scale or ECOM_SCALE"
        )
    if seed < 0:
        raise ValueError(
            f"seed: expected a whole number from 0 up, got {seed}; choose another with --seed or ECOM_SEED"
        )


def generate(folder: Path, scale: float, seed: int, progress: Progress | None = None) -> dict[str, int]:
    """Write the four CSV files into ``folder``; each gets its name once it is complete.

    Args:
        folder: Where to; made if it isn't there. Files of the same name are replaced.
        scale: Size; 1.0 is the published 13.8 million rows (2 GB).
        seed: Same scale and seed, same bytes.
        progress: Called after every block.

    Returns:
        Rows per table.

    Raises:
        ValueError: The scale is too small, or the seed negative.
        OSError: The folder can't be written.
    """
    validate(scale, seed)
    shop = Shop(sizes(scale), round(facts.ORPHAN_SESSIONS * scale), seed)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files, ThreadPoolExecutor(_WORKERS) as workers:
        out = {table: files.enter_context(_complete_or_absent(folder / TABLES[table].csv)) for table in shop.rows}
        for table, file in out.items():
            file.write((",".join(TABLES[table].names) + "\n").encode())
        jobs: list[tuple[Callable[[Shop, int], Made], int]] = [
            *((draw_customers, block) for block in range(-(-shop.rows["customer"] // SLICE))),
            (draw_products, 0),
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


def _bookings_and_clicks(shop: Shop, block: int) -> Made:
    start, end = block * _BLOCK, min((block + 1) * _BLOCK, shop.rows["transactions"])
    bookings, text = draw_bookings(shop, block, start, end)
    made: Made = {"transactions": (end - start, text)}
    return made | {"click_stream": draw_clicks(shop, block, bookings, start, end)}


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
    workers: ThreadPoolExecutor, shop: Shop, jobs: list[tuple[Callable[[Shop, int], Made], int]]
) -> Iterator[Made]:
    """Results in the order of the jobs, with few of them in memory."""
    waiting: deque[Future[Made]] = deque()
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
