"""The contract of a CSV file: its dialect, what a record is, the limits, and the errors of this room.

What belongs here: what any reader of CSV files must obey. What does not: any reading; there are two readers that share
nothing but this module, so that a mistake of one of them is noticed by the other (``records`` and ``audit``).

**Dialect.** RFC 4180 (https://www.rfc-editor.org/rfc/rfc4180): comma, double quote, quotes doubled inside quotes, LF or
CRLF. A field is quoted if its first byte is a quote; elsewhere in an unquoted field a quote is a byte like any other,
and so is a CR that no LF follows. An unquoted empty field is null, a quoted one is an empty text. An empty line holds
no data. The line end behind the last record may be missing.

**Records.** A record is *whole* if every quote that opens a field is closed, right before a comma or a line end, and
the record's line end lies within its first ``MAX_RECORD`` bytes. A whole record is judged as one: it is a row, or all
of it is quarantined. Of a record that is not whole, the first line alone is quarantined, so that a stray quote does not
swallow the good rows behind it; the next record begins with the next line. So a record's verdict depends on its own
bytes alone, and on no neighbor or block.
"""

from __future__ import annotations

from ecom_assets.core.errors import CsvError
from ecom_assets.dataset.model import Table

MAX_RECORD = 1 << 20
"""Longest record in bytes, line end included: Kafka's default limit, and how far an unclosed quote may reach. Of a line
that is longer, so many bytes go to quarantine."""


BOM = b"\xef\xbb\xbf"
"""What may precede the header."""


class HeaderError(CsvError):
    """A file whose first line is not the table's header."""


class DamagedError(CsvError):
    """A file of our own making that does not hold what it should."""


def header_line(table: Table) -> bytes:
    """The table's CSV header with its line end."""
    quoted = ('"{}"'.format(h.replace('"', '""')) if h.strip('"') != h or "," in h else h for h in table.headers)
    return (",".join(quoted) + "\n").encode()


def wrong_header(path: object, table: Table, text: str, found: list[str]) -> HeaderError:
    """Describe what differs in a header.

    Args:
        path: The file.
        table: What it should hold.
        text: Its first line.
        found: The column names in it.
    """
    missing = [n for n in table.headers if n not in found]
    surplus = [n for n in found if n not in table.headers]
    detail = "; ".join(
        [f"missing: {', '.join(missing)}"] * bool(missing)
        + [f"not expected: {', '.join(surplus[:20])}"] * bool(surplus)
        + ["the order differs"] * (not missing and not surplus)
    )
    return HeaderError(
        f"{path}, line 1: expected the header {','.join(table.headers)!r}, got {text[:500]!r} ({detail})",
        f"correct the file's header, or {table.schema_file} if the table has changed",
    )
