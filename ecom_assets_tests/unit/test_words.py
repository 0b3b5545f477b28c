"""The package knows no data set: the words of the one that comes along are in its declaration and its generator."""

from __future__ import annotations

import re
from pathlib import Path

import ecom_assets
from ecom_assets.dataset.loader import bundled, load

PACKAGE = Path(ecom_assets.__file__).parent

WORDS = re.compile(
    r"""
    shops? | (?-i:IDR | Rp) | rupiah | indonesia\w* | bytadit
    | customers? | products? | bookings? | purchases? | orders | catalogue | promo(tion)?s? | discounts? | revenue
    | click_?stream | clicks | genders? | birthdates? | shipments? | payment
    | (customer | product | booking | promo | payment | shipment)_\w+ | session_id | event_(id|name|time|metadata)
    | \w+_by_customer
    | transactions(?=["'`/]|\.csv)
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Names of the shop's tables and columns, and what they are about; a word alone, or with underscores."""

WORD = re.compile(rf"(?<![A-Za-z0-9_-])(?:{WORDS.pattern})(?![A-Za-z0-9_])", re.VERBOSE | re.IGNORECASE)

OWN = {load(bundled() / "shop").generator}
"""The module that makes the shop's synthetic data, as its declaration names it."""

TEXTS = {".py", ".css", ".toml", ".yaml", ".json", ".sql"}

ALLOWED = {("core/settings.py", "shop")}
"""The name of the data set that is loaded where none is named."""


def test_the_pattern_finds_what_it_is_for() -> None:
    """If this fails, the other test here passes because it looks for nothing."""
    for text in ("the customer's", "product_id", "`orders_by_customer`", "IDR 5", "topic/transactions`", "a shop"):
        assert WORD.search(text), text
    for text in ("producer", "a production", "transactions of Kafka", "spark_session", "order_by", "ClickHouse", "idr"):
        assert not WORD.search(text), text


def test_no_word_of_the_shop() -> None:
    """If this fails, people with other tables read of a shop that they do not have, or something works for it alone."""
    files = [file for file in sorted(PACKAGE.rglob("*.*")) if file.suffix in TEXTS and not _is_own(file)]
    assert len(files) > 100, "the package is looked at"
    found = [
        f"{file.relative_to(PACKAGE)}:{number}: {match[0]!r} in {line.strip()[:80]!r}"
        for file in files
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        for match in WORD.finditer(line)
        if (str(file.relative_to(PACKAGE)), match[0]) not in ALLOWED
    ]
    assert not found, "\n".join(found)


def _is_own(file: Path) -> bool:
    """Whether a module is the shop's generator, or a part of it."""
    name = file.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".")
    return name.startswith(tuple(OWN))
