"""Names of contents by what a file system knows of files, without a look into them.

What belongs here: what the layers of this room make of names, sizes and times.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ecom_assets.core.location import Location, listing
from ecom_assets.csv import records
from ecom_assets.dataset.model import Table

PREVIEW_BYTES = 32 << 10


def digest(*parts: Any) -> str:
    """A short name of some values that JSON can hold."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def file_state(path: Path) -> str:
    """Size and time of a file.

    Raises:
        FileNotFoundError: There is none.
    """
    return size_and_time(path.stat())


def size_and_time(state: os.stat_result) -> str:
    """What of a file's state names its content."""
    return f"{state.st_size}-{state.st_mtime_ns}"


def folder_state(folder: Location) -> list[list[Any]]:
    """Names, sizes and times of a folder's files."""
    return [[name, status.st_size, status.st_mtime_ns] for name, status in sorted(listing(folder).items())]


def first_rows(paths: Sequence[Location], table: Table, rows: int) -> list[dict[str, object]]:
    """The first rows of some files, from as few of them as it takes."""
    batches = (parsed.batch for path in paths for parsed in records.parse(path, table, PREVIEW_BYTES))
    return list(islice((row for batch in batches for row in batch.slice(0, rows).to_pylist()), rows))
