"""The owner of a namespace's topics: the first record of ``<namespace>.owner`` names the home that may write them.

What belongs here: how Kafka keeps the owner. What an owner is, and the refusal, is defined in ``core.ownership``.
"""

from __future__ import annotations

from contextlib import closing

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from ecom_assets.core.errors import TopicError
from ecom_assets.core.ownership import Owner
from ecom_assets.core.settings import Settings
from ecom_assets.kafka import clients, reader, topics
from ecom_assets.kafka.clients import Clients


def topic_of(namespace: str) -> str:
    """Name of the topic that holds the owner."""
    return f"{namespace}.owner"


def check(access: Clients, admin: AdminClient, settings: Settings) -> Owner | None:
    """Refuse a namespace that another home owns.

    Returns:
        The owner; ``None`` for nobody yet.

    Raises:
        OwnedError: It is another home.
        TopicError: The owner cannot be read.
    """
    topic = topic_of(settings.namespace)
    admin.list_topics(timeout=clients.ADMIN_SECONDS)  # fails sooner than others, if there is no broker at all
    found = _first(access, topic, topics.ends(admin, topic).get(0, 0))
    Owner.of(settings).check(found, f"Kafka topics {settings.namespace}.*")
    return found


def register(access: Clients, admin: AdminClient, settings: Settings) -> None:
    """Make a home the owner of its namespace, if it has none.

    Of two homes that write at once, the one whose record comes first is the owner: each has a key of its own, so
    compaction keeps both, in order.

    Raises:
        OwnedError: It is another home.
        TopicError: The owner cannot be read.
    """
    if check(access, admin, settings):
        return
    topic, mine = topic_of(settings.namespace), Owner.of(settings)
    forever = {"cleanup.policy": "compact", "retention.ms": "-1"}
    topics.ensure(admin, topic, 1, settings.replication, forever)
    failures = []
    producer = access.plain_producer(lambda error, _: failures.append(error))
    producer.produce(topic, mine.to_text(), mine.id, 0)
    left = producer.flush(clients.ADMIN_SECONDS)
    if failures:
        raise KafkaException(failures[0])
    if left:
        raise TopicError(f"topic {topic}: expected to write its owner, got no answer", transient=True)
    check(access, admin, settings)


def _first(access: Clients, topic: str, end: int) -> Owner | None:
    leader = reader.leaders(access, topic).get(0)
    with closing(reader.records(access, topic, reader.Span(0, 0, end), leader)) as parts:
        first = next((part for part in parts if len(part)), None)
    if first is not None:
        value = first.values[0].as_py() or b""
        try:
            return Owner.from_text(value.decode())
        except (ValueError, TypeError) as error:
            raise TopicError(
                f"topic {topic}, offset {first.offsets[0]}: expected the owner of the namespace, got {value!r};"
                " something else writes to this topic",
                "choose another namespace (ECOM_NAMESPACE)",
            ) from error
    return None
