"""The form of a declaration: what ``dataset.yaml`` may say, value by value.

What belongs here: names, types, defaults and meanings of its values; the JSON Schema for editors is made of them. What
does not: rules between values, or between them and the Avro schemas (``rules``).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from ecom_assets.dataset.document import Document, Fault
from ecom_assets.dataset.form import Form, fault
from ecom_assets.dataset.model import KeyForm, OnChange, WriteMode

Columns = Annotated[list[str], Field(min_length=1)]
OWNER = r"^(team:[A-Za-z0-9_.-]+|[^@\s]+@[^@\s]+\.[^@\s]+)$"
TAG = r"^[A-Za-z0-9_.-]{1,63}$"
"""What Dagster takes as an owner, and as the name or value of a tag."""

FILES = r"^[^{}\\]*([{]delivery[}][^{}\\]*)?[.]csv$"
"""A path within a source, with one placeholder at most."""

Share = Annotated[float, Field(ge=0, le=1)]


class ReferenceForm(Form):
    """What must exist in another table."""

    columns: Columns
    """Columns whose values must exist there; or a member of a typed companion: `items.book_id`."""
    table: str
    """The table referred to."""
    to: Columns | None = None
    """Its columns; its primary key if not given."""
    tolerated: Share = 0.0
    """Share of values that may lead nowhere before that is an error."""


class PartForm(Form):
    """A part of a row key."""

    column: str
    """Its column."""
    form: Annotated[KeyForm, Field(alias="as")] = "text"
    """`text`: of any length. `int64`: an integer as eight bytes, which sort as numbers do. `fixed`: `width` bytes.
    `reversed_time`: a time in UTC, `2022-07-31T10:00:00.5Z`, as eight bytes, the latest first; rows with another text
    go to quarantine."""
    width: Annotated[int, Field(ge=1)] | None = None
    """Bytes of each value of the form `fixed`; rows with another go to quarantine."""


class _Keyed(Form):
    row_key: Annotated[list[str | PartForm], Field(min_length=1)]
    """Columns that make the row key, the primary key among them; each by its name, or with the form that it has. Of an
    index, first what rows are found by."""
    salt: Annotated[int, Field(ge=0, le=256)] = 0
    """Buckets to spread rows over by the hash of the first column, so that ever-growing keys do not all go to one
    region; 0 for none."""

    @property
    def key_columns(self) -> list[str]:
        """The columns of the row key."""
        return [part.column for part in self.parts]

    @property
    def parts(self) -> list[PartForm]:
        """The parts of the row key, those too that are named by their column alone."""
        return [PartForm(column=part) if isinstance(part, str) else part for part in self.row_key]

    @property
    def times(self) -> list[str]:
        """The columns of the row key that are written as a time, from which their text does not come back."""
        return [part.column for part in self.parts if part.form == "reversed_time"]


class HBaseForm(_Keyed):
    """How a table is stored in HBase."""

    table: str | None = None
    """Its name there, before which the namespace is put; the table's own name if not given."""
    families: Annotated[dict[str, list[str] | Literal["*"]], Field(min_length=1)]
    """Column family -> its columns; `"*"`: all that are in no other family and not in the row key."""

    @property
    def named(self) -> set[str]:
        """The columns that a family names."""
        return {column for columns in self.families.values() if columns != "*" for column in columns}

    @property
    def derived(self) -> str | None:
        """The column that is read from the row key: the first that no family names. Of two, nobody knows the ends."""
        return next((name for name in self.key_columns if name not in self.named and name not in self.times), None)


class IndexForm(_Keyed):
    """A second way to a table's rows in HBase: some of its columns under another row key."""

    family: str = "i"
    """Column family of its cells."""


class DeletedForm(Form):
    """Which rows ask for the deletion of their primary key's row, instead of bringing one."""

    column: str
    """The column with the flag."""
    values: Annotated[list[str], Field(min_length=1)]
    """Its values in such rows, as they are in the file."""


class PublishedForm(Form):
    """The file as its publisher provides it: others are loaded too, but said to differ."""

    bytes: Annotated[int, Field(ge=0)]
    """Its size."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    """Its SHA-256, or the first digits of it."""


class TableForm(Form):
    """One table."""

    title: str | None = None
    """What people call its rows, in the plural; made of its name if not given."""
    icon: Annotated[str, Field(pattern=r"^[a-z0-9_]*$")] = ""
    """Icon on its counter, by its name in Material Symbols (https://fonts.google.com/icons)."""
    avro: Annotated[str | None, Field(alias="schema")] = None
    """File of its Avro schema, next to this one; `<table>.avsc` if not given."""
    file: Annotated[str | None, Field(pattern=r"^[^/\\\x00-\x1f]+[.]csv$")] = None
    """Name of its CSV file; `<table>.csv` if not given."""
    files: list[Annotated[str, Field(pattern=FILES)]] = Field(default_factory=list)
    """Which files of a source folder deliver it, by their paths there, such as `out/{delivery}/part-*.csv`:
    `{delivery}` stands for the delivery's name, `*` for anything else within a name. Each is taken as `.csv.gz` too.
    If none is given: `<table>.csv`, and `<table>-{delivery}.csv`, `<table>_{delivery}.csv`, `<table>/{delivery}.csv`,
    `{delivery}/<table>.csv`, where the name of the delivery has a digit."""
    primary_key: Columns
    """Columns that identify a row."""
    topic_key: Columns | None = None
    """Columns that key its topic, so that rows of one entity stay in order; the primary key if not given."""
    domains: dict[str, str] = Field(default_factory=dict)
    """Column -> domain of keys. Expansion renews every key of a domain alike, so that copies still match."""
    references: list[ReferenceForm] = Field(default_factory=list)
    """What its values must find in other tables."""
    write: WriteMode = "append"
    """What a further row of a primary key does. `append`: nothing, since rows never change; one that differs is a
    conflict. `merge`: it replaces the row that is there. `replace`: each delivery is the whole table; rows that it
    does not have are deleted."""
    version: str | None = None
    """With `merge`: a column, or its typed companion, whose greatest value is the newest version of a row, whatever the
    order of arrival; older ones that come late are counted as stale."""
    deleted_if: DeletedForm | None = None
    """With `merge`: rows that delete."""
    history: bool = False
    """Whether versions of rows that were replaced or deleted are kept, in `history/<table>`, with the time from which
    and up to which each was valid."""
    conflicts_tolerated: Share = 0.0
    """Share of rows that may differ from another row of their primary key before that is an error."""
    hbase: HBaseForm
    """Its layout in HBase."""
    indexes: dict[str, IndexForm] = Field(default_factory=dict)
    """Name -> index of it, a table in HBase of that name."""
    owners: list[Annotated[str, Field(pattern=OWNER)]] = Field(default_factory=list)
    """Who to ask about it: `team:name`, or an email address."""
    tags: dict[Annotated[str, Field(pattern=TAG)], Annotated[str, Field(pattern=TAG)]] = Field(default_factory=dict)
    """Name -> value of tags by which Dagster finds its assets."""
    freshness_hours: Annotated[int | None, Field(ge=1)] = None
    """Hours within which its rows should be verified in HBase again; a week if not given."""
    on_change: OnChange | None = None
    """What it means that a file which was loaded is another one now. `append`: it has grown, and what follows is new
    rows; any other change is refused. `replace`: it is delivered again, as a whole. `refuse`: nothing of it is loaded.
    If none is given: `replace` where deliveries are whole tables, else `append`."""
    published: PublishedForm | None = None
    """The file on Kaggle."""


class DatasetForm(Form):
    """A data set: its tables, keys, references and layouts."""

    dataset: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    """Its name."""
    title: str | None = None
    """Heading of the overview; made of its name if not given."""
    doc: str = ""
    """What it is about, a sentence below that heading."""
    note: str = ""
    """What is to be known of all charts, a sentence at the end of the overview."""
    kaggle: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_-]+/[A-Za-z0-9_-]+$")] = None
    """Where it is published on Kaggle: `owner/name`."""
    generator: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_.]+$")] = None
    """Python module that makes synthetic data of its form, with functions `validate` and `generate`."""
    marker: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_.-]+$")] = None
    """Name of a file that says that its folder of the source is complete, such as `_SUCCESS`: without it, no new file
    there is loaded."""
    tables: Annotated[dict[str, TableForm], Field(min_length=1)]
    """Its tables, in the order in which they are built and shown."""


def parse(document: Document) -> tuple[DatasetForm | None, list[Fault]]:
    """Take the values of a file for what they are; all faults of form in one list."""
    if document.faults:
        return None, list(document.faults)
    try:
        return DatasetForm.model_validate(document.values), []
    except ValidationError as error:
        return None, [
            fault(document, each, tuple(part for part in each["loc"] if part not in _BRANCHES))
            for each in error.errors()
            if not _other_branch(each)
        ]


def json_schema() -> dict[str, Any]:
    """The JSON Schema of ``dataset.yaml``, for editors."""
    return DatasetForm.model_json_schema() | {"$schema": "https://json-schema.org/draft/2020-12/schema"}


def _other_branch(error: Any) -> bool:
    """Whether an error is that of the branch of a union that was not meant."""
    branch = error["loc"][-1] if error["loc"] else None
    return branch in _BRANCHES and isinstance(error["input"], dict) != (branch == "PartForm")


_BRANCHES = {"list[str]", "literal['*']", "str", "PartForm"}
"""What pydantic adds to the place of an error within a union."""
