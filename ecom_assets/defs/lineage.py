"""Column lineage: which column each column of an asset is made of, as Dagster shows it.

What belongs here: what follows from the declaration. What does not: lineage between assets, which is their ``deps``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from ecom_assets.dataset.model import Table


def of(columns: Mapping[str, str], key: dg.AssetKey) -> dict[str, Any]:
    """The metadata that says so.

    Args:
        columns: Column -> column of the other asset that it is made of.
        key: The other asset.
    """
    deps = {name: [dg.TableColumnDep(asset_key=key, column_name=made_of)] for name, made_of in columns.items()}
    return {"dagster/column_lineage": dg.TableColumnLineage(deps_by_column=deps)}


def own(table: Table) -> dict[str, str]:
    """Each column of a table is made of that of the same name."""
    return {name: name for name in table.names}


def typed(table: Table) -> dict[str, str]:
    """Typed companion -> the column whose text it is the value of."""
    return {column.parsed_as[0]: column.name for column in table.columns if column.parsed_as}
