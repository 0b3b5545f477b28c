"""What assets, checks and sensors are called, and what all of them share.

What belongs here: keys, owners, pools and retries. What does not: any definition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

import dagster as dg

from ecom_assets.core.errors import is_transient
from ecom_assets.dataset.model import Index, Table
from ecom_assets.paths import LAYERS

OWNERS = ["team:data-platform"]

PARITY = "parity"
"""Name of the check that compares a layer with the one before."""

REPORT = dg.AssetKey(["reconciliation", "report"])
PUBLICATION = dg.AssetKey(["serving", "publication"])
PRECOMPUTED = dg.AssetKey(["serving", "precomputed_results"])

WEEKLY = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=7), warn_window=timedelta(days=2))
"""What people read is to be built, or at least verified, every other day."""

RETRIES = 2
RETRY_SECONDS = 15
"""Retries of a step after a transient error: a broker, region server or Spark that is away for less than a minute."""

D = TypeVar("D")
R = TypeVar("R")


def asset_name(layer: str, table: Table) -> str:
    """The last part of an asset's key: HBase's tables have their own names."""
    return table.hbase.table if layer == LAYERS[-1] else table.name


def asset_key(layer: str, table: Table) -> dg.AssetKey:
    """The key of a table's asset in a layer."""
    return dg.AssetKey([layer, asset_name(layer, table)])


def index_key(index: Index) -> dg.AssetKey:
    """The key of an index's asset."""
    return dg.AssetKey(["serving", index.name])


def for_each(due: Iterable[D], work: Callable[[D], R]) -> Iterator[tuple[D, R]]:
    """Do some work for each that is due; a failure does not skip the others.

    One after the other: a layer's work keeps all cores busy anyway. A transient error ends the loop, since
    the others would only wait for the same server too, and the step is retried.

    Raises:
        RetryRequested: A transient error.
        ExceptionGroup: What those that failed have raised, once all are done; a single one as it is.
    """
    failed: list[Exception] = []
    for each in due:
        try:
            result = work(each)
        except Exception as error:  # noqa: BLE001  raised below
            failed.append(error)
            if is_transient(error):
                break
        else:
            yield each, result
    if failed and all(is_transient(error) for error in failed):
        raise dg.RetryRequested(RETRIES, RETRY_SECONDS) from failed[0]
    if len(failed) > 1:
        raise ExceptionGroup("\n".join(dict.fromkeys(str(error) for error in failed)), failed)
    if failed:
        raise failed[0]
