"""Files that several servers are configured by: ``.properties``, ``hbase-site.xml``, a small jar, a password.

What belongs here: how such a file is written. What does not: its content.
"""

from __future__ import annotations

import os
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

from ecom_assets.java import jars
from ecom_assets.java.program import digest, property_value


def hbase_site(properties: dict[str, object]) -> str:
    """The text of an ``hbase-site.xml``."""
    lines = (f"<property><name>{k}</name><value>{escape(str(v))}</value></property>\n" for k, v in properties.items())
    return f"<configuration>\n{''.join(lines)}</configuration>\n"


def properties(lines: Mapping[str, object], separator: str = "=") -> str:
    r"""The text of a ``.properties`` file, which Java reads as Latin-1; all beyond ASCII is written as ``\uXXXX``.

    Args:
        lines: Key -> value.
        separator: What stands between the two; Spark's own files have a blank.
    """
    return "".join(f"{key}{separator}{property_value(value)}\n" for key, value in lines.items())


def small_jar(name: str, files: Mapping[str, str]) -> Path:
    """A jar with a few files in it, made if it is not there; a class path with an archive can have no folder.

    Args:
        name: What it is for.
        files: Path in the jar -> text; a path that ends with a slash is a folder.
    """
    path = jars.cache_folder() / f"{name}-{digest(repr(sorted(files.items())))}.jar"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        with zipfile.ZipFile(new, "w") as jar:
            for file, text in files.items():
                jar.writestr(file, text)
        new.replace(path)
    return path


def write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone may read, from its first byte on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
