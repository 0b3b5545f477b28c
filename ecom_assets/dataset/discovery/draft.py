"""A data set that was discovered, as files that a person goes on with: ``dataset.yaml`` and an ``.avsc`` per table.

What belongs here: their text, and that a second run adds to them and changes nothing. What does not: what is in a
folder (``discover``).
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ecom_assets.dataset import loader
from ecom_assets.dataset.discovery import dialect, infer
from ecom_assets.dataset.discovery.discover import Found
from ecom_assets.dataset.discovery.references import Reference
from ecom_assets.dataset.document import DatasetError
from ecom_assets.dataset.model import Table

MEMORY = "init.json"
"""File with the tables that were ever written, so that one that was deleted on purpose is not added again."""

_WIDTH = 120


class DraftError(ValueError):
    """A data set that cannot be written."""


@dataclass(frozen=True)
class Existing:
    """What a folder declares already.

    Attributes:
        folder: The folder.
        tables: Its tables.
        text: Its ``dataset.yaml``; empty if there is none.
        remembered: Tables that were ever written into it.
    """

    folder: Path
    tables: Mapping[str, Table] = field(default_factory=dict)
    text: str = ""
    remembered: frozenset[str] = frozenset()

    @classmethod
    def read(cls, folder: Path) -> Existing:
        """Read what is there.

        Raises:
            DatasetError: It is no data set that can be loaded.
            DraftError: The folder is a file, or its memory cannot be read.
        """
        if folder.exists() and not folder.is_dir():
            raise DraftError(f"{folder}: expected a folder, found a file; choose another")
        file = folder / loader.FILE
        if not file.exists():
            return cls(folder)
        loader.load.cache_clear()
        tables = loader.load(folder).tables
        return cls(folder, tables, file.read_bytes().decode(), _remembered(folder / MEMORY))

    def wanted(self, found: Mapping[str, Path]) -> list[str]:
        """The tables among some files that are neither declared nor deleted on purpose."""
        return [name for name in found if name not in self.tables and name not in self.remembered]

    def differences(self, found: Mapping[str, Path]) -> list[str]:
        """Where files are not as they are declared, a sentence each."""
        sentences = [line for name, table in self.tables.items() for line in _differences(table, found.get(name))]
        deleted = [name for name in found if name in self.remembered and name not in self.tables]
        if deleted:
            sentences.append(
                f"{', '.join(deleted)}: taken out of {loader.FILE} since it was written, so not added again; to have"
                f" {'it' if len(deleted) == 1 else 'them'} back, delete {self.folder / MEMORY}"
            )
        return sentences


def write(existing: Existing, name: str, tables: Sequence[Found]) -> list[Path]:
    """Add tables to a data set; nothing that is there is changed.

    Args:
        existing: What is there.
        name: The name of the data set, if it is a new one.
        tables: The tables to add.

    Returns:
        The files that were written.

    Raises:
        DraftError: The result would not load; nothing was written.
    """
    if not tables:
        return []
    folder = existing.folder
    texts = {f"{table.name}.avsc": infer.render(_schema(table)) + "\n" for table in tables}
    texts = {file: text for file, text in texts.items() if not (folder / file).exists()}
    blocks = "\n".join("".join(f"{line}\n" for line in _table(table)) for table in tables)
    texts[loader.FILE] = _inserted(existing, blocks) if existing.text else _head(name) + _indented(blocks, 2)
    ever = existing.remembered | set(existing.tables) | {table.name for table in tables}
    texts[MEMORY] = json.dumps({"tables": sorted(ever)}, indent=1) + "\n"
    _try(folder, texts)
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        part = folder / f".{file}.part"
        part.write_bytes(text.encode())
        part.replace(folder / file)
    return [folder / file for file in texts]


def fitting_name(folder: Path) -> str:
    """A name for a data set, from its folder."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", folder.resolve().name).strip("_") or "dataset"


def _remembered(file: Path) -> frozenset[str]:
    try:
        return frozenset(json.loads(file.read_text(encoding="utf-8"))["tables"])
    except FileNotFoundError:
        return frozenset()
    except (ValueError, KeyError, TypeError) as error:
        raise DraftError(
            f"{file}: expected JSON with a list of tables, found something else ({error}); delete it, and tables that"
            " were taken out are proposed again"
        ) from error


def _differences(table: Table, file: Path | None) -> Iterator[str]:
    if file is None:
        yield f"{table.name}: expected {table.csv}, found no such file"
        return
    try:
        header = dialect.header(file)
    except ValueError as error:
        yield str(error)
        return
    if new := [name for name in header if name not in table.headers]:
        yield f"{file}: new columns {', '.join(new)}; add them to {table.schema_file} where the file has them"
    if gone := [name for name in table.headers if name not in header]:
        yield f"{file}: no columns {', '.join(gone)}; take them out of {table.schema_file}, or bring them back"
    if sorted(header) == sorted(table.headers) and header != table.headers:
        yield f"{file}: columns in another order than in {table.schema_file}; reorder its fields"


def _try(folder: Path, texts: Mapping[str, str]) -> None:
    """See that what is there and what is added load together."""
    with tempfile.TemporaryDirectory(prefix="ecom-init-") as scratch:
        stage = Path(scratch) / "dataset"
        if folder.exists():
            shutil.copytree(folder, stage, ignore=_not_declaration)
        stage.mkdir(exist_ok=True)
        for file, text in texts.items():
            (stage / file).write_bytes(text.encode())
        try:
            loader.load(stage)
        except DatasetError as error:
            raise DraftError(
                f"expected what was found to load, found it does not, so nothing was written: "
                f"{str(error).replace(str(stage), str(folder))}"
            ) from error


def _not_declaration(folder: str, names: list[str]) -> list[str]:
    """What of a folder is no part of a declaration, such as the CSV files themselves, or a home."""
    kept = (".yaml", ".avsc", ".sql")
    return [
        each for each in names if each.startswith(".") or not (each.endswith(kept) or (Path(folder) / each).is_dir())
    ]


def _head(name: str) -> str:
    return (
        "# Written by `ecom init`; yours to correct. Keys and references were verified on all rows; that they mean\n"
        "# what their names say was guessed. Another `ecom init` adds tables for new files, and changes no line.\n"
        f"dataset: {_scalar(name)}\n\ntables:\n"
    )


def _schema(table: Found) -> dict[str, object]:
    return {**table.schema, "doc": f"A row of {table.file.name}."}


def _table(table: Found) -> Iterator[str]:
    """A table's declaration, line by line."""
    types = table.types
    yield f"{_scalar(table.name)}:"
    for doubt in table.key.doubts:
        yield f"  # A guess: {doubt}."
    if (file := f"{dialect.stem(table.file)}.csv") != f"{table.name}.csv":
        yield f"  file: {json.dumps(file, ensure_ascii=False)}"
    yield f"  primary_key: {_list(table.key.columns)}"
    if table.domains:
        yield from _mapping("  domains", table.domains)
    if table.references:
        yield "  references:"
    for reference in table.references:
        if reference.missing:
            yield f"    # A guess: {reference.missing:,} of {reference.rows:,} values lead nowhere."
        yield f"    - {_reference(reference)}"
    parts = [
        f"{{column: {_scalar(name)}, as: int64}}" if types[name] == "long" else _scalar(name)
        for name in table.key.columns
    ]
    # A row of HBase needs a cell, so that the one column of a table is one as well.
    cells = '"*"' if len(types) > 1 else _list(types)
    yield "  hbase:"
    yield f"    row_key: [{', '.join(parts)}]"
    yield f"    families: {{d: {cells}}}"


def _reference(reference: Reference) -> str:
    values = [
        f"columns: {_list(reference.columns)}",
        f"table: {_scalar(reference.table)}",
        f"to: {_list(reference.to)}",
        *([f"tolerated: {reference.tolerated}"] if reference.missing else []),
    ]
    return f"{{{', '.join(values)}}}"


def _mapping(name: str, values: Mapping[str, str]) -> Iterator[str]:
    pairs = [f"{_scalar(key)}: {_scalar(value)}" for key, value in values.items()]
    line = f"{name}: {{{', '.join(pairs)}}}"
    if len(line) + 2 <= _WIDTH:
        yield line
        return
    yield f"{name}:"
    indent = " " * (len(name) - len(name.lstrip()) + 2)
    yield from (f"{indent}{pair}" for pair in pairs)


def _list(values: Sequence[str] | Mapping[str, str]) -> str:
    return f"[{', '.join(map(_scalar, values))}]"


def _scalar(text: str) -> str:
    """A text as YAML: in quotes where it would be something else, as `no` or `2024`."""
    return text if yaml.safe_load(text) == text else json.dumps(text)


def _indented(text: str, columns: int) -> str:
    return "".join(f"{' ' * columns}{line}" if line.strip() else line for line in text.splitlines(keepends=True))


def _inserted(existing: Existing, blocks: str) -> str:
    """The text with tables added behind the last one; every line of it stays as it is."""
    file = existing.folder / loader.FILE
    root = yaml.compose(existing.text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)  # it was loaded
    tables = next(value for key, value in root.value if key.value == "tables")
    if tables.flow_style:
        raise DraftError(
            f"{file}:{tables.start_mark.line + 1}: expected a line per table, found all of them in braces, which"
            " nothing can be added behind; write them in lines"
        )
    lines = existing.text.splitlines(keepends=True)
    end = max(mark for mark in (node.end_mark.line + (node.end_mark.column > 0) for node in _leaves(tables)))
    # Comments that stand below the last table, indented as it is, are still its own.
    while end < len(lines) and (not lines[end].strip() or lines[end][0] in " \t"):
        end += 1
    while end and not lines[end - 1].strip():
        end -= 1
    before, after = "".join(lines[:end]), "".join(lines[end:])
    gap = "\n" if before.endswith("\n") else "\n\n"
    return f"{before}{gap}{_indented(blocks, tables.start_mark.column)}{after}"


def _leaves(node: yaml.Node) -> Iterator[yaml.Node]:
    """Values that hold no other, whose ends YAML knows exactly."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        for each in node.value:
            for inner in each if isinstance(each, tuple) else (each,):
                yield from _leaves(inner)
    else:
        yield node
