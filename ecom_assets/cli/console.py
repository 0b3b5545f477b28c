"""What commands print: the console for people, and sentences that all commands share.

What belongs here: output. Standard error is for people, standard output for results, so that a pipe gets those alone.
"""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Column

NARROW = 120
"""Columns where there is no terminal: lines must not depend on who reads them."""

console = Console(stderr=True, width=None if sys.stderr.isatty() else NARROW)
"""For people."""

results = Console(width=None if sys.stdout.isatty() else NARROW)
"""For tables that are a command's result, such as ``ecom status``."""


def right(name: str) -> Column:
    """A column of numbers; a checksum is never wrapped."""
    return Column(name, justify="right", no_wrap=name == "checksum")


def failed(error: object) -> None:
    """Print what went wrong; not folded, so that a log can be searched for the sentence."""
    text = str(error)
    if isinstance(error, OSError) and error.filename:  # as Python has it: [Errno 13] Permission denied: '/x'
        text = f"{error.filename}: {error.strerror}; fix its permissions, or choose another folder with --home"
    console.print(f"[red]✗[/red] {escape(text)}", highlight=False, soft_wrap=True)


def succeeded(text: str) -> None:
    """Print that all went well."""
    console.print(f"[green]✓[/green] {escape(text)}", highlight=False, soft_wrap=True)


def inform(text: str) -> None:
    """Print a note for people."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)
