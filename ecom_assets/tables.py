"""The tables: the one place that says what they are.

Columns and types come from ``schemas/<table>.avsc``; what Avro cannot say (keys,
references, HBase layout) is said here. Topics, Arrow, Spark and Delta schemas,
column metadata and checks derive from the two. A fifth table is one ``.avsc``
and one entry in ``TABLES``.

Two custom properties may stand in an ``.avsc``: on a field, ``parsed_as`` names
a typed companion column of the merged table; on the record, ``null_values``
lists unquoted texts that mean null (beside the empty field) and
``"overflow": "last"`` says that surplus commas belong to the last column.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from ecom_assets.settings import ROOT

LAYERS = ("raw", "expanded", "chunked", "topic", "streamed", "merged", "hbase")
"""The layers a row passes, in order."""

_ARROW = {"long": pa.int64(), "string": pa.string()}


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: Its name in the CSV header and everywhere after.
        avro: ``long`` or ``string``; every other type is text, so that the
            source's own bytes reach HBase.
        nullable: Whether a null is allowed.
        doc: One line for people.
        parsed_as: ``(name, Spark type)`` of the typed companion column in the
            merged table, if there is one.
    """

    name: str
    avro: str
    nullable: bool
    doc: str
    parsed_as: tuple[str, str] | None = None

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type."""
        return _ARROW[self.avro]


@dataclass(frozen=True)
class HBaseLayout:
    """How a table lies in HBase.

    Attributes:
        table: Its name there (the namespace is put before it).
        families: Column family -> columns, in the order of the cells.
        row_key: Columns joined with ``|``; unique because the primary key is among them.
    """

    table: str
    families: dict[str, tuple[str, ...]]
    row_key: tuple[str, ...]


@dataclass(frozen=True)
class Reference:
    """What must exist elsewhere.

    Attributes:
        path: A column; or a typed companion and a member of its struct, or of each struct of
            its array, joined by a point.
        table: The table referred to.
        column: Its column.
        tolerated: Share of values that may lead nowhere before that is an error.
    """

    path: str
    table: str
    column: str
    tolerated: float = 0.0

    @property
    def told(self) -> str:
        """The reference as people read it."""
        return f"{self.path} -> {self.table}.{self.column}"


@dataclass(frozen=True)
class Table:
    """One table of the shop.

    Attributes:
        name: Name of the CSV file, the topic and the assets.
        primary_key: The column that identifies a row.
        entity_key: The column that keys the topic: rows of one entity stay in order.
        keys: Column -> key domain. Expansion renews every key of a domain alike,
            so that columns of one domain still match in each copy.
        references: What its values must find in other tables.
        hbase: Its layout in HBase.
    """

    name: str
    primary_key: str
    entity_key: str
    keys: dict[str, str]
    references: tuple[Reference, ...]
    hbase: HBaseLayout

    @cached_property
    def avsc(self) -> dict[str, Any]:
        """The Avro schema as written in ``schemas/``, custom properties included."""
        return json.loads((ROOT / "schemas" / f"{self.name}.avsc").read_text(encoding="utf-8"))

    @cached_property
    def avro(self) -> str:
        """The Avro schema as plain JSON, without the project's own properties."""
        fields = [{k: v for k, v in f.items() if k != "parsed_as"} for f in self.avsc["fields"]]
        plain = {k: v for k, v in self.avsc.items() if k not in ("null_values", "overflow")}
        return json.dumps(plain | {"fields": fields})

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The columns in the order of the CSV header."""

        def column(field: dict[str, Any]) -> Column:
            kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
            (kind,) = [k for k in kinds if k != "null"]
            if kind not in _ARROW:
                raise ValueError(
                    f"schemas/{self.name}.avsc, field {field['name']}: expected long or string, got {kind!r};"
                    " write other types as string with parsed_as, so that no byte of the source is lost"
                )
            parsed = field.get("parsed_as")
            return Column(
                field["name"], kind, "null" in kinds, field.get("doc", ""),
                (parsed["name"], parsed["type"]) if parsed else None,
            )  # fmt: skip

        return tuple(column(f) for f in self.avsc["fields"])

    @property
    def names(self) -> list[str]:
        """The column names in the order of the CSV header."""
        return [c.name for c in self.columns]

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema of a clean row."""
        return pa.schema([pa.field(c.name, c.arrow, c.nullable) for c in self.columns])

    @property
    def null_values(self) -> list[str]:
        """Unquoted texts that mean null."""
        return ["", *self.avsc.get("null_values", [])]

    @property
    def overflow(self) -> bool:
        """Whether surplus fields of a row belong to its last column."""
        return self.avsc.get("overflow") == "last"

    @property
    def csv(self) -> str:
        """Name of its CSV file."""
        return f"{self.name}.csv"

    def topic(self, namespace: str) -> str:
        """Name of its Kafka topic."""
        return f"{namespace}.{self.name}"

    def hbase_table(self, namespace: str) -> str:
        """Name of its HBase table."""
        return f"{namespace}_{self.hbase.table}"


CUSTOMER = Table(
    name="customer",
    primary_key="customer_id",
    entity_key="customer_id",
    keys={"customer_id": "customer"},
    references=(),
    hbase=HBaseLayout(
        table="customers",
        families={
            "personal_info": ("first_name", "last_name", "username", "email", "gender", "birthdate"),
            "device_info": ("device_type", "device_id", "device_version"),
            "location_info": ("home_location_lat", "home_location_long", "home_location", "home_country"),
            "join_info": ("first_join_date",),
        },
        row_key=("customer_id",),
    ),
)

PRODUCT = Table(
    name="product",
    primary_key="id",
    entity_key="id",
    keys={"id": "product"},
    references=(),
    hbase=HBaseLayout(
        table="product",
        families={
            "product_info": ("productDisplayName",),
            "product_details": ("gender", "masterCategory", "subCategory", "articleType", "baseColour"),
            "metadata": ("season", "year", "usage"),
        },
        row_key=("id",),
    ),
)

TRANSACTIONS = Table(
    name="transactions",
    primary_key="booking_id",
    entity_key="customer_id",
    keys={"customer_id": "customer", "booking_id": "booking", "session_id": "session"},
    references=(
        Reference("customer_id", "customer", "customer_id"),
        # Two of the published 852,584 bookings have a session without a single event.
        Reference("session_id", "click_stream", "session_id", tolerated=0.001),
        Reference("items.product_id", "product", "id"),
    ),
    hbase=HBaseLayout(
        table="transactions",
        families={
            "transaction_details": ("created_at", "customer_id", "session_id", "product_metadata"),
            "payment_info": ("payment_method", "payment_status", "promo_amount", "promo_code"),
            "shipment_info": (
                "shipment_fee",
                "shipment_date_limit",
                "shipment_location_lat",
                "shipment_location_long",
            ),
            "transaction_summary": ("total_amount",),
        },
        row_key=("booking_id",),
    ),
)

CLICK_STREAM = Table(
    name="click_stream",
    primary_key="event_id",
    entity_key="session_id",
    keys={"session_id": "session", "event_id": "event"},
    references=(Reference("metadata.product_id", "product", "id"),),
    hbase=HBaseLayout(
        table="clickstream",
        families={
            "event_details": ("event_name", "event_time", "event_id"),
            "traffic_source": ("traffic_source",),
            "metadata": ("event_metadata",),
        },
        # With session_id alone the events of a session would overwrite one another;
        # with the time next, one prefix scan reads a session in order.
        row_key=("session_id", "event_time", "event_id"),
    ),
)

TABLES: dict[str, Table] = {t.name: t for t in (CUSTOMER, PRODUCT, TRANSACTIONS, CLICK_STREAM)}
"""All tables by name."""
