"""Data sets from their folders: ``dataset.yaml`` and the Avro schemas next to it, checked and made into tables.

What belongs here: finding the files, and turning what they say into the model. What does not: what they may say
(``declaration``, ``rules``).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ecom_assets.dataset import declaration, query, rules
from ecom_assets.dataset.declaration import DatasetForm, HBaseForm, TableForm
from ecom_assets.dataset.document import DatasetError, Document
from ecom_assets.dataset.model import Dataset, HBaseLayout, Index, Published, Reference, Table

FILE = "dataset.yaml"


def bundled() -> Path:
    """The folder of the data sets that come with the project: next to the package, in a wheel within it."""
    package = Path(__file__).resolve().parents[1]
    return next((folder for folder in (package / "schemas", package.parent / "schemas") if folder.is_dir()), package)


def named(name: str) -> Dataset:
    """Load a data set by the name of one that comes with the project, or by its folder.

    Raises:
        DatasetError: There is none, or its declaration cannot be used.
    """
    folder = bundled() / name
    if "/" in name or not folder.is_dir():
        folder = Path(name).expanduser().resolve()
    return load(folder)


@cache
def load(folder: Path) -> Dataset:
    """Load the data set of a folder.

    Raises:
        DatasetError: Its declaration cannot be used; lists every fault, with file and line.
    """
    document = Document.yaml(folder / FILE)
    form, faults = declaration.parse(document)
    if form is None:
        raise DatasetError(folder, faults)
    avro = {name: Document.json(folder / (table.avro or f"{name}.avsc")) for name, table in form.tables.items()}
    queries, unusable = query.read(folder, form.tables)
    if faults := [*rules.check(document, form, avro), *unusable]:
        raise DatasetError(folder, faults)
    tables = {name: _table(name, table, avro[name], form) for name, table in form.tables.items()}
    indexes = {
        name: Index.by(name, tables[of], tuple(index.row_key), index.family)
        for of, table in form.tables.items()
        for name, index in table.indexes.items()
    }
    return Dataset(form.dataset, tables, indexes, queries, form.kaggle or "", form.generator or "")


def _table(name: str, table: TableForm, avro: Document, form: DatasetForm) -> Table:
    columns = [field["name"] for field in avro.values["fields"]]
    return Table(
        name=name,
        avsc=avro.values,
        schema_file="/".join(avro.file.parts[-3:]),
        primary_key=table.primary_key[0],
        entity_key=(table.topic_key or table.primary_key)[0],
        keys=dict(table.domains),
        references=tuple(
            Reference(each.columns[0], each.table, (each.to or form.tables[each.table].primary_key)[0], each.tolerated)
            for each in table.references
        ),
        hbase=_layout(name, table.hbase, columns),
        conflicts_tolerated=table.conflicts_tolerated,
        published=Published(table.published.bytes, table.published.sha256) if table.published else None,
    )


def _layout(name: str, layout: HBaseForm, columns: list[str]) -> HBaseLayout:
    named = {c for each in layout.families.values() if each != "*" for c in each}
    rest = tuple(c for c in columns if c not in named and c not in layout.row_key)
    return HBaseLayout(
        table=layout.table or name,
        families={family: rest if each == "*" else tuple(each) for family, each in layout.families.items()},
        row_key=tuple(layout.row_key),
    )
