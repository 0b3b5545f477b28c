"""Whether a table's descriptor in HBase is the declared one: a family with a lifetime loses its rows without a word.

What belongs here: families, versions, lifetimes and whether deleted cells are kept, as HBase reports them. What does
not: rows (see ``scan``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ecom_assets.core.home import hint
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.hbase import thrift
from ecom_assets.hbase.admin import VERSIONS, HBaseAdmin

if TYPE_CHECKING:
    from ecom_assets.core.addresses import Addresses

FOREVER = 2**31 - 1
"""HBase's number of seconds for a family whose cells never expire."""


def problems(table: Table, settings: Settings, addresses: Addresses, admin: HBaseAdmin | None = None) -> list[str]:
    """Compare a table's descriptor with the declared one.

    Args:
        table: The table.
        settings: For the namespace.
        addresses: Where HBase is.
        admin: HBase's Admin, open: whether deleted cells are kept is compared too, which Thrift does not report.

    Returns:
        What differs, a sentence each with the remedy.

    Raises:
        HBaseError: HBase did not respond after several tries.
    """
    name = table.hbase_table(settings.namespace)

    def attempt() -> dict[str, dict[str, Any]] | None:
        with thrift.Connection(addresses.hbase_thrift) as connection:
            if name.encode() not in connection.happybase.tables():
                return None
            return {
                family.decode(): attributes
                for family, attributes in connection.happybase.table(name).families().items()
            }

    found = thrift.retry(attempt, f"HBase table {name}, its descriptor")
    if found is None:
        return [f"HBase table {name}: expected a table, got none; `{hint('run --repair', settings)}` loads it"]
    differ = _differences(table, found) + (_forgetful(table, admin.kept_deleted_cells(name)) if admin else [])
    return [
        f"HBase table {name}: expected {expected}, got {got}; run `alter '{name}', {change}` in HBase's shell, then"
        f" `{hint('run --repair', settings)}`"
        for expected, got, change in differ
    ]


def _forgetful(table: Table, kept: dict[str, str]) -> list[tuple[str, str, str]]:
    """As ``_differences``, of families that do not keep deleted cells for readers of the past."""
    return [
        (
            f"deleted cells of the family {family} to be kept",
            f"KEEP_DELETED_CELLS {setting}",
            f"{{NAME => '{family}', KEEP_DELETED_CELLS => 'TRUE'}}",
        )
        for family, setting in sorted(kept.items())
        if family in table.hbase.families and setting != "TRUE"
    ]


def _differences(table: Table, found: dict[str, dict[str, Any]]) -> list[tuple[str, str, str]]:
    """What was expected, what came, and the change that HBase's ``alter`` takes."""
    declared = table.hbase.families
    differ = [(f"no family {f}", "one", f"'delete' => '{f}'") for f in sorted(found.keys() - declared.keys())]
    differ += [(f"the family {f}", "none", f"'{f}'") for f in sorted(declared.keys() - found.keys())]
    for family in sorted(declared.keys() & found.keys()):
        lifetime, versions = found[family]["time_to_live"], found[family]["max_versions"]
        if lifetime != FOREVER:
            change = f"{{NAME => '{family}', TTL => 'FOREVER'}}"
            differ.append((f"cells of the family {family} to stay for ever", f"a TTL of {lifetime} s", change))
        if versions != VERSIONS:
            change = f"{{NAME => '{family}', VERSIONS => {VERSIONS}}}"
            differ.append((f"{VERSIONS} versions of a cell in the family {family}", f"{versions}", change))
    return differ
