"""A data set from a folder of CSV files that nobody has declared: its tables, keys, references and key domains.

What belongs here: the order of the work, and what is made of its findings. What does not: each finding (``dialect``,
``infer``, ``candidates``, ``references``), and writing it down (``draft``).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ecom_assets.dataset.discovery import candidates, dialect, infer, references
from ecom_assets.dataset.discovery.candidates import Key
from ecom_assets.dataset.discovery.hashes import Hashes
from ecom_assets.dataset.discovery.infer import Column, Survey
from ecom_assets.dataset.discovery.references import Reference, Source
from ecom_assets.dataset.model import Table, kind_of

Progress = Callable[[int], object]
"""Called with the bytes read since the last call."""


@dataclass(frozen=True)
class Found:
    """A table that was found.

    Attributes:
        name: Its name.
        file: Its file.
        schema: Its Avro schema.
        key: Its primary key.
        rows: Its rows.
        short: Records that have too few fields, which a run quarantines.
        references: What its columns refer to.
        domains: Column -> key domain.
    """

    name: str
    file: Path
    schema: dict[str, Any]
    key: Key
    rows: int
    short: int = 0
    references: tuple[Reference, ...] = ()
    domains: dict[str, str] = field(default_factory=dict)

    @property
    def types(self) -> dict[str, str]:
        """Column -> Avro type."""
        return {each["name"]: kind.name for each in self.schema["fields"] if (kind := kind_of(each))}


@dataclass(frozen=True)
class Discovery:
    """What is in a folder.

    Attributes:
        tables: Tables that were found, by name.
        refused: Why a file is no table, a sentence each.
        hints: What declared tables may refer to in those that were found, a sentence each.
    """

    tables: tuple[Found, ...] = ()
    refused: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


def files(folder: Path, known: Mapping[str, Table]) -> dict[str, Path]:
    """The CSV files of a folder by their tables; where a file is there packed as well, the plain one.

    Args:
        folder: The folder.
        known: Tables that are declared already, which may have a file of another name.
    """
    declared = {table.csv.lower(): name for name, table in known.items()}
    found = [each for each in folder.iterdir() if each.is_file() and not each.name.startswith(".")]
    wanted = [each for each in found if each.name.lower().endswith((".csv", ".csv.gz"))]
    # A plain file comes after its packed copy, and so takes its place.
    ordered = sorted(wanted, key=lambda each: (not each.name.lower().endswith(".gz"), each.name))
    named: dict[str, Path] = {}
    for each in ordered:
        name = declared.get(each.name.lower().removesuffix(".gz"), dialect.table_name(each))
        plain, count = name, 1
        while name in named and dialect.stem(named[name]) != dialect.stem(each):  # two names that are alike in others
            count += 1
            name = f"{plain}_{count}"
        named[name] = each
    return dict(sorted(named.items()))


def discover(
    found: Mapping[str, Path], known: Mapping[str, Table], wanted: Collection[str], progress: Progress
) -> Discovery:
    """Look at all rows of some files.

    Args:
        found: Table -> file.
        known: Tables that are declared already: others may refer to them.
        wanted: Tables to describe.
        progress: Called while it goes on.
    """
    refused: list[str] = []
    sources: list[Source] = []
    surveys: dict[str, Survey] = {}
    with tempfile.TemporaryDirectory(prefix="ecom-init-") as store:
        for place, (name, file) in enumerate(found.items()):
            try:
                if name not in known:
                    _acceptable(name, file, found)
                folder = Path(store) / str(place)
                folder.mkdir()
                survey = infer.survey(file, store=folder, progress=progress)
                columns = _as_declared(file, survey, known[name]) if name in known else survey.columns
                key = _declared_key(columns, known[name]) if name in known else _found_key(file, survey)
            except ValueError as error:
                # Where a declared table's file differs is reported by who knows what is declared.
                refused += [str(error)] if name in wanted else []
                continue
            if key is not None:
                surveys[name] = survey
                sources.append(Source(name, columns, key, survey.rows))
        refers = references.find(sources)
    domains = _domains(sources, refers, known)
    tables = tuple(
        Found(
            name=source.name,
            file=found[source.name],
            schema=surveys[source.name].schema | {"name": dialect.legal(source.name)},
            key=source.key,
            rows=source.rows,
            short=surveys[source.name].short,
            references=tuple(refers[source.name]),
            domains=domains[source.name],
        )
        for source in sources
        if source.name in wanted
    )
    hints = [
        f"{name}: all values of {reference.label} are found; if that is what they mean, add it to its references"
        for name in known
        for reference in refers.get(name, ())
        if reference.table in wanted and not reference.missing
    ]
    return Discovery(tables, tuple(refused), tuple(hints))


def _acceptable(name: str, file: Path, found: Mapping[str, Path]) -> None:
    """See that a file can be a table, by its own name and the names in it."""
    faults = dialect.faults(file)
    if alike := [other.name for table, other in found.items() if table != name and table.lower() == name.lower()]:
        faults.append(
            f"{file}: expected a name that differs in more than upper and lower case, found {alike[0]} as well; rename"
            " one of the two"
        )
    if faults:
        raise ValueError("\n".join(faults))


def _as_declared(file: Path, survey: Survey, table: Table) -> tuple[Column, ...]:
    """The columns by their declared names; those of another type than declared are left out, as they match nothing."""
    declared = {column.header or column.name: column for column in table.columns}
    return tuple(
        replace(column, name=declared[header].name)
        for header, column in zip(dialect.header(file), survey.columns, strict=True)
        if header in declared and column.avro in (declared[header].kind.name, declared[header].kind.wire)
    )


def _declared_key(columns: Sequence[Column], table: Table) -> Key | None:
    """The key that a person has declared, if the file still has its columns."""
    hashes = {each.name: each.hashes for each in columns}
    parts = [part for name in table.primary_key if (part := hashes.get(name)) is not None]
    return Key(table.primary_key, Hashes.joined(parts)) if len(parts) == len(table.primary_key) else None


def _found_key(file: Path, survey: Survey) -> Key:
    if not survey.rows:
        raise ValueError(f"{file}: expected rows, found none; leave the file out until it has some")
    if key := candidates.find(survey.columns, survey.rows):
        return key
    nearest = candidates.nearest(survey.columns)
    detail = (
        f"the column that comes closest is {nearest[0]}, which {nearest[1]:,} of {survey.rows:,} rows repeat"
        if nearest
        else "every column has rows without a value, or is a measure"
    )
    raise ValueError(
        f"{file}: expected one to three columns that differ in every row and are never empty, found none ({detail});"
        " add a column with a number per row, or take out the rows that come twice"
    )


def _domains(
    sources: Sequence[Source], refers: Mapping[str, Sequence[Reference]], known: Mapping[str, Table]
) -> dict[str, dict[str, str]]:
    """Table -> column -> domain of keys, the same for columns that refer to one another."""
    keys = {source.name: source.key.columns for source in sources}

    def domain(table: str, column: str, seen: frozenset[tuple[str, str]] = frozenset()) -> str | None:
        if table in known:
            return known[table].domains.get(column)
        if (table, column) in seen:
            return None
        if keys[table] == (column,):
            return table
        for reference in refers[table]:  # those of single columns come first
            if column in reference.columns:
                there = reference.to[reference.columns.index(column)]
                if found := domain(reference.table, there, seen | {(table, column)}):
                    return found
        return f"{table}.{column}" if column in keys[table] else None

    return {
        source.name: {
            column.name: found for column in source.columns if (found := domain(source.name, column.name)) is not None
        }
        for source in sources
    }
