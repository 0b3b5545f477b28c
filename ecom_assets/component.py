"""The lakehouse as a Dagster component: a data set in another project's code location, declared in ``defs.yaml``.

What belongs here: the component's attributes and how paths in them are resolved. What they become is defined in
``definitions.build_defs``, which is imported late: Dagster's tools import every component of an environment to list
them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field
from typing_extensions import override

from ecom_assets.core.settings import BUCKET, DATASET


class LakehouseScaffolder(dg.Scaffolder):
    """Writes a ``defs.yaml`` that works as it is: the bundled data set, in a home in the project."""

    @override
    def scaffold(self, request: dg.ScaffoldRequest[Any]) -> None:
        dg.scaffold_component(request, {"dataset": DATASET, "source": "synthetic", "home": ".ecom"})


@dg.scaffold_with(LakehouseScaffolder)
class Lakehouse(dg.Component, dg.Resolvable, dg.Model):
    """A data set from CSV files through Kafka, Spark and Delta Lake into HBase, with every layer verified."""

    dataset: str = Field(
        DATASET,
        description="Name of a data set that comes along, or a folder with its dataset.yaml; a relative path starts in"
        " the project.",
    )
    source: str | None = Field(
        None,
        description="synthetic, kaggle, s3://bucket/folder, or a folder with the CSV files; a relative path starts in"
        " the project. Empty: ECOM_SOURCE, or what the home remembers.",
    )
    home: str = Field(
        ".ecom", description="Folder for all data, logs and state; a relative path starts in the project."
    )
    prefix: str = Field(
        "",
        description="First part of the assets' keys and beginning of all other names; each further data set of a"
        " project needs one.",
    )
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="Further settings by name, such as scale, namespace, or the address kafka.",
    )

    @override
    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        from ecom_assets.dataset.loader import is_bundled
        from ecom_assets.definitions import build_defs

        root = context.project_root
        return build_defs(
            dataset=self.dataset if is_bundled(self.dataset) else _in_project(root, self.dataset),
            source=_in_project(root, self.source) if self.source and _is_path(self.source) else self.source,
            home=_in_project(root, self.home),
            prefix=self.prefix,
            settings=self.settings,
        )


def _is_path(source: str) -> bool:
    return source not in ("synthetic", "kaggle") and not source.startswith(BUCKET)


def _in_project(root: Path, path: str) -> Path:
    return root / Path(path).expanduser()
