"""The entry point of the code location: everything in ``defs/``, assembled for a data set and its servers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from ecom_assets.core import settings as settings_module
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.loader import named
from ecom_assets.dataset.model import Dataset
from ecom_assets.defs.assets.analysis import analysis_assets, cached_analyses, postgres_assets
from ecom_assets.defs.assets.layers import SOURCE, layer_assets
from ecom_assets.defs.assets.reconciliation import report_asset, report_check
from ecom_assets.defs.assets.serving import index_checks, serving_assets
from ecom_assets.defs.checks import layer_checks
from ecom_assets.defs.jobs import JOBS, SCHEDULES
from ecom_assets.defs.resources.hbase import HBaseResource
from ecom_assets.defs.resources.home import home_resource
from ecom_assets.defs.resources.kafka import KafkaResource
from ecom_assets.defs.resources.spark import SparkConnectResource
from ecom_assets.defs.sensors import SENSORS


def build_defs(
    *,
    dataset: Dataset,
    settings: Callable[[], Settings] = settings_module.load,
    resources: Mapping[str, Any] | None = None,
    executor: dg.ExecutorDefinition = dg.in_process_executor,
) -> dg.Definitions:
    """All assets, checks, jobs, sensors and resources.

    No file of a home and no address is read here, only when a run or a sensor first needs it.

    Args:
        dataset: The tables.
        settings: Reads the settings of the home; called at first need.
        resources: Resources in place of the defaults, by name: ``kafka``, ``spark``, ``hbase``.
        executor: One process per run by default: steps share their warm libraries, and the heavy work is done by
            servers and threads anyway.
    """
    systems = {"kafka": KafkaResource(), "spark": SparkConnectResource(), "hbase": HBaseResource(), **(resources or {})}
    return dg.Definitions(
        assets=[
            SOURCE,
            *layer_assets(dataset),
            report_asset(dataset),
            *serving_assets(dataset),
            postgres_assets(dataset),
            analysis_assets(dataset),
            cached_analyses(dataset),
        ],
        asset_checks=[*layer_checks(dataset), report_check(dataset), *index_checks(dataset)],
        jobs=JOBS,
        schedules=SCHEDULES,
        sensors=SENSORS,
        resources={**systems, "home": home_resource(settings, dataset)(**systems)},
        executor=executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions of the environment's data set (``ECOM_DATASET``) and home."""
    return build_defs(dataset=named(os.environ.get("ECOM_DATASET") or Settings.model_fields["dataset"].default))
