"""What assets, checks and sensors are called, and what all of them share.

What belongs here: names and keys, of one data set or of several in one code location, owners and retries. What does
not: any definition.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg

from ecom_assets.core.errors import is_transient
from ecom_assets.core.settings import SettingsError
from ecom_assets.dataset.model import Index, Table
from ecom_assets.paths import LAYERS

if TYPE_CHECKING:
    from ecom_assets.defs.resources.home import HomeResource

OWNERS = ["team:data-platform"]

PARITY = "parity"
"""Name of the check that compares a layer with the one before."""

GROUPS = ("source", *LAYERS, "reconciliation", "serving", "postgres", "analysis", "cache")
"""Groups of assets; each asset's key begins with its group, but for the dashboard's."""

WEEKLY = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=7), warn_window=timedelta(days=2))
"""What people read is to be built, or at least verified, every other day."""


def owners(table: Table) -> list[str]:
    """Who to ask about a table."""
    return list(table.owners) or OWNERS


def freshness(table: Table) -> dg.FreshnessPolicy:
    """How soon a table should be verified in HBase again."""
    if not table.freshness_hours:
        return WEEKLY
    return dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=table.freshness_hours))


RETRIES = 2
RETRY_SECONDS = 15
"""Retries of a step after a transient error: a broker, region server or Spark that is away for less than a minute."""

TOGETHER = 2
"""Tables that are worked on at a time where that is quicker."""

D = TypeVar("D")
R = TypeVar("R")


@dataclass(frozen=True)
class Names:
    """What the definitions of one data set are called, so that several can share a code location.

    Attributes:
        prefix: First part of every asset's key, and the beginning of every other name; empty for a data set that has
            the plain names.

    Raises:
        SettingsError: The prefix cannot be one.
    """

    prefix: str = ""

    def __post_init__(self) -> None:
        if self.prefix and (self.prefix in (*GROUPS, "dashboard") or not re.fullmatch("[a-z][a-z0-9_]*", self.prefix)):
            raise SettingsError(
                "prefix: expected lower-case letters, digits and underscores, a letter first, and no group of assets"
                f" ({', '.join(GROUPS)}), got {self.prefix!r}"
            )

    def of(self, name: str) -> str:
        """The name of a job, sensor, step, group, pool or resource."""
        return f"{self.prefix}_{name}" if self.prefix else name

    def key(self, *parts: str) -> dg.AssetKey:
        """The key of an asset."""
        return dg.AssetKey([self.prefix, *parts] if self.prefix else parts)

    def asset_key(self, layer: str, table: Table) -> dg.AssetKey:
        """The key of a table's asset in a layer; HBase's tables have their own names."""
        return self.key(layer, table.hbase.table if layer == LAYERS[-1] else table.name)

    def index_key(self, index: Index) -> dg.AssetKey:
        """The key of an index's asset."""
        return self.key("serving", index.name)

    @property
    def report(self) -> dg.AssetKey:
        """The key of the reconciliation report."""
        return self.key("reconciliation", "report")

    @property
    def publication(self) -> dg.AssetKey:
        """The key of the publication."""
        return self.key("serving", "publication")

    @property
    def precomputed(self) -> dg.AssetKey:
        """The key of the precomputed results."""
        return self.key("serving", "precomputed_results")

    def group_of(self, key: dg.AssetKey) -> str:
        """The group, such as a layer, that a key of this data set belongs to; empty for a key of anything else."""
        first, *rest = key.path
        if self.prefix:
            first = rest[0] if first == self.prefix and rest else ""
        return first if first in GROUPS else ""

    @property
    def home(self) -> str:
        """The name of the home's resource."""
        return self.of("home")

    def home_of(self, context: Any) -> HomeResource:
        """The home, in the context of a step or sensor that requires its resource."""
        return getattr(context.resources, self.home)


def for_each(due: Iterable[D], work: Callable[[D], R], *, together: bool = False) -> Iterator[tuple[D, R]]:
    """Do some work for each that is due; a failure does not skip the others.

    One after the other, since a layer's work mostly keeps all cores busy; or ``together``, some at a time. A transient
    error ends the loop, since the others would only wait for the same server too, and the step is retried.

    Raises:
        RetryRequested: A transient error.
        ExceptionGroup: What those that failed have raised, once all are done; a single one as it is.
    """
    failed: list[Exception] = []
    with ThreadPoolExecutor(TOGETHER) as pool:
        begun = [(each, pool.submit(work, each).result if together else partial(work, each)) for each in due]
        for each, result_of in begun:
            try:
                result = result_of()
            except Exception as error:  # noqa: BLE001  raised below
                failed.append(error)
                if is_transient(error):
                    pool.shutdown(cancel_futures=True)
                    break
            else:
                yield each, result
    if failed and all(is_transient(error) for error in failed):
        raise dg.RetryRequested(RETRIES, RETRY_SECONDS) from failed[0]
    if len(failed) > 1:
        raise ExceptionGroup("\n".join(dict.fromkeys(str(error) for error in failed)), failed)
    if failed:
        raise failed[0]
