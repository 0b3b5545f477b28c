"""Readers that look something up all the time, on a thread of their own, while a test changes it.

What belongs here: how such a reader begins and ends. What does not: what it looks up, and what would be wrong.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Self


class Reader(ABC):
    """Looks something up as long as its ``with`` block lasts.

    Attributes:
        looks: How often it found something.
        wrong: What it found that it should not have, a text each.
        stop: Set when it is to end.
    """

    def __init__(self) -> None:
        self.looks, self.wrong = 0, list[str]()
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self.look)

    @abstractmethod
    def look(self) -> None:
        """Look until ``stop`` is set."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join()
