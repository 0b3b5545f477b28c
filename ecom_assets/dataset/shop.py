"""The shop: the four tables of Kaggle's bytadit/transactional-ecommerce, and nothing else."""

from __future__ import annotations

from ecom_assets.dataset.model import Dataset, HBaseLayout, Reference, Table

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

SHOP = Dataset.of("shop", CUSTOMER, PRODUCT, TRANSACTIONS, CLICK_STREAM)
"""The data set."""

TABLES: dict[str, Table] = SHOP.tables
"""All tables by name."""
