"""An e-commerce lakehouse as a Dagster project: CSV to Kafka, Spark, Delta and HBase, with every layer verified.

What belongs here: the component's name, ``ecom_assets.Lakehouse``, under which Dagster's tools find it. It is imported
when it is asked for, since most of the package works without Dagster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecom_assets.component import Lakehouse

__all__ = ["Lakehouse"]


def __dir__() -> list[str]:
    return [*globals(), *__all__]


def __getattr__(name: str) -> object:
    if name in __all__:
        from ecom_assets import component

        return getattr(component, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
