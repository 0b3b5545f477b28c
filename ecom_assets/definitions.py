"""The entry point of the code location: everything in ``defs/``, assembled for a data set and its home."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from ecom_assets.core import memory
from ecom_assets.core import settings as settings_module
from ecom_assets.core.settings import DATASET, Settings, SettingsError
from ecom_assets.dataset.loader import named
from ecom_assets.dataset.model import Dataset
from ecom_assets.defs.assets.analysis import analysis_assets, cached_analyses, postgres_assets
from ecom_assets.defs.assets.layers import layer_assets, source_asset
from ecom_assets.defs.assets.reconciliation import report_asset, report_check
from ecom_assets.defs.assets.serving import index_checks, serving_assets
from ecom_assets.defs.checks import layer_checks
from ecom_assets.defs.jobs import jobs_and_schedules
from ecom_assets.defs.names import Names
from ecom_assets.defs.resources.hbase import HBaseResource
from ecom_assets.defs.resources.home import home_resource
from ecom_assets.defs.resources.kafka import KafkaResource
from ecom_assets.defs.resources.spark import SparkConnectResource
from ecom_assets.defs.sensors import sensors


def build_defs(
    *,
    dataset: Dataset | Path | str | None = None,
    source: Path | str | None = None,
    home: Path | str | None = None,
    prefix: str = "",
    settings: Mapping[str, Any] | None = None,
    resources: Mapping[str, Any] | None = None,
    executor: dg.ExecutorDefinition = dg.in_process_executor,
) -> dg.Definitions:
    """All assets, checks, jobs, sensors and resources of a data set, for a code location of their own or any other.

    Several data sets in one code location are merged, each with a prefix and a home of its own::

        defs = dg.Definitions.merge(
            build_defs(dataset="/data/museum", source="/data/museum/files", home="/data/works"),
            build_defs(dataset="/data/library", source="/data/library/files", home="/data/loans", prefix="library"),
        )

    The declaration is read here. A home and addresses are read only when a run or a sensor first needs them. What is
    not given here is taken from the environment (``ECOM_*``), then from what the home remembers.

    Args:
        dataset: The name of a data set that comes along, or the folder of a declaration.
        source: Where its files come from: ``synthetic``, ``kaggle``, a folder, or a bucket
            (``s3://bucket/folder``).
        home: The folder of its data, logs and state.
        prefix: First part of the assets' keys and beginning of the names of jobs, sensors, groups, pools and
            resources; also the namespace of topics and HBase tables, if ``settings`` has none.
        settings: Further settings by name, such as ``scale``, ``namespace`` or the address ``kafka``.
        resources: Resources in place of the defaults: ``kafka``, ``spark``, ``hbase``, without the prefix.
        executor: Of the jobs. One process per run by default: steps share their warm libraries, and the heavy work is
            done by servers and threads anyway.

    Raises:
        DatasetError: The declaration cannot be used; lists every fault, with file and line.
        SettingsError: A setting is not known, or the prefix cannot be one.
    """
    names = Names(prefix)
    given = {
        "source": str(source) if source else None,
        "home": home,
        "namespace": prefix or None,
        **(settings or {}),
    }
    if unknown := given.keys() - Settings.model_fields.keys():
        raise SettingsError(
            f"settings: expected names of settings, got {', '.join(sorted(unknown))}; the known ones are"
            f" {', '.join(Settings.model_fields)}"
        )
    if dataset is None:
        dataset = named(os.environ.get("ECOM_DATASET") or DATASET)
    elif not isinstance(dataset, Dataset):
        given["dataset"] = str(dataset)
        dataset = named(str(dataset))
    systems = {"kafka": KafkaResource(), "spark": SparkConnectResource(), "hbase": HBaseResource(), **(resources or {})}
    here = home_resource(lambda: settings_module.load(**given), dataset)(**systems)
    checks = [*layer_checks(dataset, names), report_check(dataset, names), *index_checks(dataset, names)]
    return dg.Definitions.merge(
        dg.Definitions(
            assets=[
                source_asset(dataset, names),
                *layer_assets(dataset, names),
                report_asset(dataset, names),
                *serving_assets(dataset, names),
                postgres_assets(dataset, names),
                analysis_assets(dataset, names),
                cached_analyses(dataset, names),
            ],
            asset_checks=checks,
            sensors=sensors(names),
            resources={names.of(name): resource for name, resource in {**systems, "home": here}.items()},
        ),
        jobs_and_schedules(names, checks, executor),
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions of the environment's data set (``ECOM_DATASET``) and home."""
    memory.economize()  # this code location has its processes for itself
    return dg.Definitions.merge(build_defs(), dg.Definitions(executor=dg.in_process_executor))
