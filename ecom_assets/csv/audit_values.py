"""The canonical texts of values, one by one, by Python's own types.

What belongs here: what the audit knows of types, apart from their forms. It shares nothing with ``core.values``, which
does the same in columns, so that a mistake of one is noticed by the other.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal

import numpy as np

from ecom_assets.dataset.kind import Kind


def canonical(text: bytes, kind: Kind) -> bytes | None:
    """The canonical text of a field; ``None`` if it is no value of the type."""
    try:
        word = text.decode()
        if not re.fullmatch(kind.form, word):
            return None
        found = _OF.get(kind.name, _decimal)(word, kind)
    except (ValueError, OverflowError, binascii.Error):
        return None
    return found.encode() if isinstance(found, str) else found


def _integer(bits: int) -> Callable[[str, Kind], str | None]:
    return lambda word, _: str(int(word)) if -(1 << (bits - 1)) <= int(word) < 1 << (bits - 1) else None


def _number(word: str, kind: Kind) -> str | None:
    if kind.name == "float":
        with np.errstate(over="ignore"):
            single = np.float32(word)
        value, digits = float(single), np.format_float_scientific(single, unique=True, trim="0")
    else:
        value = float(word)
        digits = repr(value)
    if not math.isfinite(value):
        return None
    # As https://tc39.es/ecma262/#sec-numeric-types-number-tostring defines it: n is the place of the point.
    sign, found, exponent = Decimal(digits).normalize().as_tuple()
    figures = "".join(map(str, found))
    if figures == "0":
        return "0"
    k, n = len(figures), len(figures) + int(exponent)
    if k <= n <= 21:
        text = figures + "0" * (n - k)
    elif 0 < n <= 21:
        text = f"{figures[:n]}.{figures[n:]}"
    elif -6 < n <= 0:
        text = f"0.{'0' * -n}{figures}"
    else:
        text = f"{figures[0]}{'.' * (k > 1)}{figures[1:]}e{n - 1:+d}"
    return "-" * sign + text


def _decimal(word: str, kind: Kind) -> str:
    text = f"{Decimal(word):.{kind.arrow.scale}f}"
    return text.removeprefix("-") if not Decimal(word) else text


def _date(word: str, _: Kind) -> str:
    return date.fromisoformat(word).isoformat()


def _clock(word: str, _: Kind) -> str:
    return time.fromisoformat(_padded(word)).isoformat("microseconds")


def _moment(word: str, kind: Kind) -> str:
    found = datetime.fromisoformat(word[:11] + _padded(word[11:]) if len(word) > len("2022-07-31") else word)
    if kind.arrow.tz is None:
        return found.isoformat(timespec="microseconds")
    shifted = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    return shifted.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _padded(clock: str) -> str:
    """A time of day with six digits behind its point, if it has one: Python takes three or six."""
    found = re.fullmatch(r"([0-9:]+[.])([0-9]+)(.*)", clock)
    return f"{found[1]}{found[2].ljust(6, '0')}{found[3]}" if found else clock


_OF: dict[str, Callable[[str, Kind], str | bytes | None]] = {
    "long": _integer(64),
    "int": _integer(32),
    "double": _number,
    "float": _number,
    "boolean": lambda word, _: word,
    "bytes": lambda word, _: _decoded(word),
    "date": _date,
    "time-millis": _clock,
    "time-micros": _clock,
    "timestamp-millis": _moment,
    "timestamp-micros": _moment,
    "local-timestamp-millis": _moment,
    "local-timestamp-micros": _moment,
    "uuid": lambda word, _: word.lower(),
    "enum": lambda word, _: word,
}


def _decoded(word: str) -> bytes | None:
    data = base64.b64decode(word, validate=True)
    return data if base64.b64encode(data).decode() == word else None
