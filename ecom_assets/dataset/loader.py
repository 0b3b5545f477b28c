"""Data sets from their folders: ``dataset.yaml`` and the Avro schemas next to it, checked and made into tables.

What belongs here: finding the files, and turning what they say into the model. What does not: what they may say
(``declaration``, ``rules``).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ecom_assets.dataset import declaration, query, rules
from ecom_assets.dataset.declaration import DatasetForm, HBaseForm, IndexForm, TableForm
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
    return load(folder_of(name))


def folder_of(name: str) -> Path:
    """The folder of a data set that comes with the project, by its name; of any other, the name is the folder."""
    return bundled() / name if is_bundled(name) else Path(name).expanduser().resolve()


def is_bundled(name: str) -> bool:
    """Whether a name is that of a data set that comes with the project, not a folder."""
    return "/" not in name and (bundled() / name).is_dir()


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
        name: Index.by(name, table, layout) for table in tables.values() for name, layout in table.indexes.items()
    }
    return Dataset(
        name=form.dataset,
        tables=tables,
        indexes=indexes,
        queries=queries,
        title=form.title or "",
        doc=form.doc,
        note=form.note,
        kaggle=form.kaggle or "",
        generator=form.generator or "",
        marker=form.marker or "",
    )


def _table(name: str, table: TableForm, avro: Document, form: DatasetForm) -> Table:
    columns = [field["name"] for field in avro.values["fields"]]
    return Table(
        name=name,
        avsc=avro.values,
        schema_file="/".join(avro.file.parts[-3:]),
        primary_key=tuple(table.primary_key),
        topic_key=tuple(table.topic_key or table.primary_key),
        domains=dict(table.domains),
        references=tuple(
            Reference(
                tuple(each.columns),
                each.table,
                tuple(each.to or form.tables[each.table].primary_key),
                each.tolerated,
            )
            for each in table.references
        ),
        hbase=_layout(name, table.hbase, columns),
        indexes={index: _index(index, each) for index, each in table.indexes.items()},
        file=table.file or "",
        title=table.title or "",
        icon=table.icon,
        conflicts_tolerated=table.conflicts_tolerated,
        owners=tuple(table.owners),
        tags=dict(table.tags),
        freshness_hours=table.freshness_hours or 0,
        on_change=table.on_change or ("replace" if table.write == "replace" else "append"),
        write=table.write,
        version=table.version or "",
        deleted_if=(table.deleted_if.column, tuple(table.deleted_if.values)) if table.deleted_if else None,
        history=table.history,
        files=tuple(table.files),
        published=Published(table.published.bytes, table.published.sha256) if table.published else None,
    )


def _layout(name: str, layout: HBaseForm, columns: list[str]) -> HBaseLayout:
    rest = tuple(c for c in columns if c not in layout.named and c != layout.derived)
    families = {family: rest if each == "*" else tuple(each) for family, each in layout.families.items()}
    return _stored(layout.table or name, families, layout)


def _index(name: str, index: IndexForm) -> HBaseLayout:
    return _stored(name, {index.family: tuple(index.key_columns[1:])}, index)


def _stored(table: str, families: dict[str, tuple[str, ...]], form: HBaseForm | IndexForm) -> HBaseLayout:
    return HBaseLayout(
        table=table,
        families=families,
        row_key=tuple(form.key_columns),
        forms=tuple(part.form for part in form.parts),
        widths={part.column: part.width for part in form.parts if part.width},
        salt=form.salt,
    )
