"""Topics as a whole: whether they exist, how far they go, who leads them, and the settings that they must have.

What belongs here: questions to Kafka's admin client, creating and deleting topics. What does not: what their records
mean (``reader``, ``ledger``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,
    ListOffsetsResultInfo,
    NewTopic,
    OffsetSpec,
    TopicDescription,
)

from ecom_assets.core.errors import TopicError
from ecom_assets.core.layer import Offsets
from ecom_assets.kafka import clients

FOREVER = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
"""Settings of a topic that keeps every record."""

_NO_LEADER = {
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}
"""Errors of a broker that has not yet learned, or of a client that has not, who leads a partition: they pass."""
_COMMITTED, _ALL = IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED


def describe(admin: AdminClient, topics: Iterable[str]) -> dict[str, TopicDescription]:
    """What Kafka reports of the topics that exist."""
    names = sorted(topics)
    if not names:
        return {}
    found = {}
    asked = admin.describe_topics(TopicCollection(names), request_timeout=clients.ADMIN_SECONDS)
    for name, future in asked.items():
        try:
            found[name] = future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
    return found


def topic_id(admin: AdminClient, topic: str) -> str:
    """Kafka's id of a topic, new each time one is created; empty if there is none."""
    found = describe(admin, [topic])
    return str(found[topic].topic_id) if found else ""


def partitions(found: Mapping[str, TopicDescription]) -> list[TopicPartition]:
    """All partitions of some topics."""
    return [TopicPartition(topic, p.id) for topic, described in found.items() for p in described.partitions]


def first_offsets(admin: AdminClient, parts: Iterable[TopicPartition]) -> dict[str, dict[int, int]]:
    """Topic -> partition -> the first offset that Kafka still holds."""
    return _offsets(admin, parts, OffsetSpec.earliest(), _ALL)


def end_offsets(
    admin: AdminClient, parts: Iterable[TopicPartition], *, committed: bool = False
) -> dict[str, dict[int, int]]:
    """Topic -> partition -> the offset behind its last record.

    Args:
        admin: The client.
        parts: The partitions.
        committed: Stop before the first open transaction (the last stable offset, in place of the high watermark).
    """
    return _offsets(admin, parts, OffsetSpec.latest(), _COMMITTED if committed else _ALL)


def ends(admin: AdminClient, topic: str) -> dict[int, int]:
    """Partition -> the offset behind its last record, committed or not; empty if there is no such topic."""
    return end_offsets(admin, partitions(describe(admin, [topic]))).get(topic, {})


def offsets(admin: AdminClient, topics: Iterable[str]) -> dict[str, Offsets]:
    """How far some topics go, in one round for all of them; those that do not exist are left out."""
    found = describe(admin, topics)
    parts = partitions(found)
    first, last = first_offsets(admin, parts), end_offsets(admin, parts, committed=True)
    times: dict[str, list[int]] = {name: [] for name in found}
    for part, info in _asked(admin, parts, OffsetSpec.max_timestamp(), _COMMITTED).items():
        if info.timestamp > 0:
            times[part.topic].append(info.timestamp)
    return {
        name: Offsets(
            str(described.topic_id),
            first.get(name, {}),
            last.get(name, {}),
            max(times[name]) / 1000 if times[name] else None,
        )
        for name, described in found.items()
    }


def leaders(admin: AdminClient, topic: str) -> dict[int, tuple[str, int]]:
    """Partition -> host and port of its leader, where there is one."""
    return {
        p.id: (p.leader.host, p.leader.port)
        for described in describe(admin, [topic]).values()
        for p in described.partitions
        if p.leader
    }


def ensure(admin: AdminClient, topic: str, count: int, copies: int, config: Mapping[str, str]) -> str:
    """Create a topic if there is none, and return its id.

    Args:
        admin: The client.
        topic: Name of the topic.
        count: Its partitions.
        copies: Copies of each; 0: as many as there are brokers, but at most three.
        config: Its own settings.

    Raises:
        TopicError: It has no leaders within ``ADMIN_SECONDS``.
    """
    found = describe(admin, [topic])
    if not found:
        replicas = copies or min(3, len(admin.list_topics(timeout=clients.ADMIN_SECONDS).brokers))
        own = {
            "compression.type": "producer",
            "max.message.bytes": str(clients.MAX_MESSAGE),
            "min.insync.replicas": str(max(1, replicas - 1)),
        }
        try:
            admin.create_topics([NewTopic(topic, count, replicas, config=own | dict(config))])[topic].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

        def ready() -> bool:
            # Each question may go to another broker, and one of several learns of a topic later: so it is kept here.
            found.update(describe(admin, [topic]))
            return topic in found and all(p.leader for p in found[topic].partitions)

        _wait(ready, f"expected topic {topic} to have a leader for each partition")
    return str(found[topic].topic_id)


def delete(admin: AdminClient, topic: str) -> None:
    """Delete a topic, if there is one, and wait until it is gone."""
    if describe(admin, [topic]):
        admin.delete_topics([topic], operation_timeout=clients.ADMIN_SECONDS)[topic].result()
        _wait(lambda: not describe(admin, [topic]), f"expected topic {topic} to be gone")


def check_settings(admin: AdminClient, topics: Iterable[str], bootstrap: str) -> list[str]:
    """Name the settings of topics by which records would be lost or refused, each with its remedy.

    Args:
        admin: The client.
        topics: Names of topics; those that do not exist are left out.
        bootstrap: Bootstrap servers, for the remedy.
    """
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in describe(admin, topics)]
    if not resources:
        return []
    problems = []
    for resource, future in admin.describe_configs(resources, request_timeout=clients.ADMIN_SECONDS).items():
        found = {name: entry.value or "" for name, entry in future.result().items()}
        wrong = {name: want for name, want in FOREVER.items() if found.get(name, want) != want}
        if int(found.get("max.message.bytes", clients.MAX_MESSAGE)) < clients.MAX_MESSAGE:
            wrong["max.message.bytes"] = str(clients.MAX_MESSAGE)
        problems += [
            f"topic {resource.name}: expected {name}={want}, got {found[name]}: {_HARM[name]}; `kafka-configs"
            f" --bootstrap-server {bootstrap} --alter --entity-type topics --entity-name {resource.name}"
            f" --add-config {name}={want}`"
            for name, want in wrong.items()
        ]
    return problems


_HARM = {
    "cleanup.policy": "compaction keeps only the last record of each key",
    "retention.ms": "the broker deletes records by age",
    "retention.bytes": "the broker deletes records by size",
    "max.message.bytes": "large rows are refused",
}


def _asked(
    admin: AdminClient, parts: Iterable[TopicPartition], spec: OffsetSpec, isolation: IsolationLevel
) -> dict[TopicPartition, ListOffsetsResultInfo]:
    """Ask for offsets; again as long as brokers do not know yet who leads a partition of a new topic."""
    asked = dict.fromkeys(parts, spec)
    deadline = time.monotonic() + clients.ADMIN_SECONDS
    while asked:
        futures = admin.list_offsets(asked, isolation_level=isolation, request_timeout=clients.ADMIN_SECONDS)
        try:
            return {part: future.result() for part, future in futures.items()}
        except KafkaException as error:
            if error.args[0].code() not in _NO_LEADER or time.monotonic() > deadline:
                raise
        time.sleep(0.05)
    return {}


def _offsets(
    admin: AdminClient, parts: Iterable[TopicPartition], spec: OffsetSpec, isolation: IsolationLevel
) -> dict[str, dict[int, int]]:
    found: dict[str, dict[int, int]] = {}
    for part, info in _asked(admin, parts, spec, isolation).items():
        found.setdefault(part.topic, {})[part.partition] = info.offset
    return found


def _wait(done: Callable[[], bool], expected: str) -> None:
    deadline = time.monotonic() + clients.ADMIN_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise TopicError(
                f"{expected}, got nothing of the kind in {clients.ADMIN_SECONDS} s; see the broker's log",
                transient=True,
            )
        time.sleep(0.05)
