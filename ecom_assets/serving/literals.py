"""Python literals as JSON, for PostgreSQL: those that Spark reads as well, and no others.

What belongs here: texts that hold structs and lists. What does not: values of any other type (``dataset.kind``).
"""

from __future__ import annotations

import ast
import json
import re

import polars as pl

_PAIR = r"'\w+': (0|[1-9][0-9]*|'[^'\\\"\x00-\x1f]*')"
_ITEM = rf"\{{({_PAIR}(, {_PAIR})*)?\}}"
_SIMPLE_LITERAL = rf"^(\[({_ITEM}(, {_ITEM})*)?\]|{_ITEM})$"
"""Python literals that are JSON once their quotes are doubled: nearly all there are."""


_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")
_AROUND = re.compile(r"""(?>""|[\[\]{}:,\s]|-?[0-9]+(?:[.][0-9]+)?(?:[eE][+-]?[0-9]+)?|None|True|False)*+""")
_TRAILING = re.compile(r",\s*[\]}]")
"""The texts in a literal, what else it may have, and what it may not."""

_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
"""The escape of the character U+0000 in JSON."""


def as_json(texts: pl.Series) -> pl.Series:
    """Python literals as JSON; null where a text is none."""
    simple = texts.str.contains(_SIMPLE_LITERAL)
    made = texts.str.replace_all("'", '"', literal=True)
    if not simple.all():
        # Few, if any: a text with a quote or a backslash in it, a None, or no literal at all.
        rows = (~simple).fill_null(value=False).arg_true()
        made = made.scatter(rows, [_one_as_json(t) for t in texts.gather(rows).to_list()])
    return made


def _one_as_json(text: str) -> str | None:
    for read in (json.loads, _literal):
        try:
            # jsonb cannot hold that character, not even escaped; behind a backslash of its own it is none.
            made = _NUL.sub(r"\1\\ufffd", json.dumps(read(text), ensure_ascii=False, allow_nan=False))
            return made.encode().decode()  # half of a character outside the first 65,536 is none
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return None


def _literal(text: str) -> object:
    """A Python literal; of those, what Spark reads as well.

    Raises:
        ValueError, SyntaxError: It is none.
    """
    around = _QUOTED.sub('""', text)
    if not _AROUND.fullmatch(around) or _TRAILING.search(around):
        raise ValueError(text)
    return ast.literal_eval(text)
