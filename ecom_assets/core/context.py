"""The context: what a home's layers share, and the only thing that is passed down to them.

What belongs here: settings, data set, books and connections, each opened at first use and closed once. What does not:
what is done with a connection.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from ecom_assets.core.addresses import Addresses
from ecom_assets.core.books import Books
from ecom_assets.core.ownership import Owner
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Dataset

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

T = TypeVar("T")


class Context:
    """Settings, data set, books and connections of a home; leave its ``with`` block to close what it opened.

    Args:
        settings: The home.
        dataset: The tables.
        locate: Finds the servers; called at first need, so a context opens without any server.
        session: Gives a Spark session that somebody else releases; without it one is opened at first need.
    """

    def __init__(
        self,
        settings: Settings,
        dataset: Dataset,
        locate: Callable[[], Addresses],
        session: Callable[[], SparkSession] | None = None,
    ) -> None:
        self.settings = settings
        self.dataset = dataset
        self._locate = locate
        self._session = session
        self._closing = ExitStack()
        self._open: dict[object, Any] = {}
        self._lock = RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def addresses(self) -> Addresses:
        """Where the servers are; one that does not run is an error when its address is used."""
        return self._locate()

    @cached_property
    def owner(self) -> Owner:
        """This home, as the systems that it writes to remember it."""
        return Owner.of(self.settings)

    @property
    def books(self) -> Books:
        """What was built and measured.

        Raises:
            HomeError: The home was written by the first edition.
        """
        return self.opened(Books, lambda: Books.open(self.settings))

    @property
    def spark(self) -> SparkSession:
        """A session with Spark Connect.

        Raises:
            SparkConnectionError: No server answers.
        """
        if self._session:
            return self._session()
        from ecom_assets.core.spark import spark_session  # a second, which most commands can do without

        return self.opened("spark", lambda: spark_session(self.addresses.spark))

    def opened(self, key: object, make: Callable[[], AbstractContextManager[T]]) -> T:
        """A connection that one room needs, opened at first use and closed with this context.

        Args:
            key: What it is kept under.
            make: Makes it; its ``with`` block is entered here.
        """
        with self._lock:
            if key not in self._open:
                self._open[key] = self._closing.enter_context(make())
            return cast("T", self._open[key])

    def close(self) -> None:
        """Close what was opened; the context can be used again after it."""
        with self._lock:
            self._open.clear()
            self.__dict__.pop("addresses", None)
            self._closing.close()
