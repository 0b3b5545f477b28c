"""Kafka clients: how each is configured, and what becomes of the errors that they raise.

What belongs here: ``Clients``, the codes of errors that pass by themselves, and the translation into ``TopicError``.
What does not: any call of a client (``topics``, ``reader``, ``producer``).
"""

# ruff: noqa: SLF001 (librdkafka's own error codes begin with an underscore)
from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from ecom_assets.core.errors import TopicError
from ecom_assets.core.settings import Settings

MAX_MESSAGE = 2 << 20
"""In bytes: a row may have 1 MiB (``csv.records.MAX_RECORD``), which is above Kafka's defaults."""
TRANSACTION_SECONDS = 60
"""After which the broker aborts the transaction of a producer that is gone."""
STALL_SECONDS = TRANSACTION_SECONDS + 30
"""Seconds without any progress after which waiting ends; a broker looks for dead transactions every 10 s."""
ADMIN_SECONDS = 30
REFUSAL_SECONDS = 3
"""In which a broker that refuses a client has reported it."""

_TRANSIENT = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError.CONCURRENT_TRANSACTIONS,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REQUEST_TIMED_OUT,
}
_UNHEARD = {KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._TRANSPORT}
"""No broker responded; the cause is unknown."""
_AWAY = _TRANSIENT | {KafkaError._RESOLVE}
"""A broker that is away reports one of these; names of containers that are down do not resolve."""

_log = logging.getLogger(__name__)
# What librdkafka tries again by itself, as with a coordinator that has just been chosen, is nobody's concern.
_log.addFilter(lambda record: not record.getMessage().endswith(": retrying"))


@dataclass(frozen=True)
class Clients:
    """The one place where Kafka clients are built.

    Attributes:
        bootstrap: Bootstrap servers, ``host:port[,host:port]``.
        config: Further librdkafka settings of every client (SASL, TLS, tuning); what the
            exactly-once guarantee rests on cannot be set here. May hold secrets.
    """

    bootstrap: str
    config: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, settings: Settings, kafka: str) -> Self:
        """The clients of a home.

        Args:
            settings: Further client settings.
            kafka: Bootstrap servers.
        """
        return cls(kafka, settings.kafka_config)

    @property
    def plain(self) -> bool:
        """Whether brokers are asked without encryption or password."""
        return self.config.get("security.protocol", "plaintext").lower() == "plaintext"

    def admin(self) -> AdminClient:
        """A client for topics and offsets."""
        return AdminClient(self._merged({}, {}))

    def consumer(self) -> Consumer:
        """A client that reads what is committed, joins no group and commits nothing."""
        return Consumer(
            self._merged(
                {
                    "fetch.wait.max.ms": 20,  # how long the broker holds back a fetch at the end of a partition
                    "fetch.queue.backoff.ms": 10,  # with the default, a queue once full is not filled for a second
                    "queued.max.messages.kbytes": 32_768,
                },
                {
                    "group.id": "ecom_assets",
                    "auto.offset.reset": "earliest",  # where offset 0 is gone
                    "isolation.level": "read_committed",
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,
                },
            )
        )

    def producer(self, transactional_id: str, on_delivery: Callable[[KafkaError | None, Message], None]) -> Producer:
        """A transactional client; ``on_delivery`` is called for failed messages only."""
        return Producer(
            self._merged(
                {
                    "compression.type": "lz4",
                    "linger.ms": 50,
                    "batch.size": 1 << 20,
                    "queue.buffering.max.messages": 200_000,
                    "queue.buffering.max.kbytes": 131_072,
                },
                {
                    "transactional.id": transactional_id,
                    "transaction.timeout.ms": TRANSACTION_SECONDS * 1000,
                    "acks": "all",
                    "partitioner": "murmur2_random",  # as the Java clients
                    "message.max.bytes": MAX_MESSAGE,
                    "delivery.report.only.error": True,
                    "on_delivery": on_delivery,
                },
            )
        )

    def plain_producer(self, on_delivery: Callable[[KafkaError | None, Message], None]) -> Producer:
        """A client without transactions; ``on_delivery`` is called for failed messages only."""
        needed = {"acks": "all", "delivery.report.only.error": True, "on_delivery": on_delivery}
        return Producer(self._merged({}, needed))

    def refusal(self) -> str:
        """Why clients are refused, as ``first_error`` reports it; empty if it reports nothing."""
        error = self.first_error()
        return error.str() if error else ""

    def first_error(self) -> KafkaError | None:
        """The first error of a new connection; ``None`` if there is none.

        A call that fails reports only that no broker responded, be it a broker that is down or a wrong password.
        """
        heard: list[KafkaError] = []
        admin = AdminClient(self._merged({}, {"error_cb": heard.append}))
        with suppress(KafkaException):
            admin.list_topics(timeout=REFUSAL_SECONDS)
        admin.poll(0)
        return next((e for e in heard if e.code() != KafkaError._ALL_BROKERS_DOWN), None)

    def _merged(self, tuning: Mapping[str, object], needed: Mapping[str, object]) -> dict[str, Any]:
        return {**tuning, **self.config, **needed, "bootstrap.servers": self.bootstrap, "logger": _log}


def passes(error: KafkaError) -> bool:
    """Whether an error passes by itself, so that the same call is worth another attempt."""
    return not error.fatal() and (error.retriable() or error.code() in _TRANSIENT)


@contextmanager
def translated(clients: Clients, what: str, home: Path) -> Generator[None]:
    """Turn what Kafka raises into an error that a person can act on.

    Args:
        clients: Whose calls are made inside.
        what: What is attempted, as in ``expected to <what>``.
        home: The home, for the commands of the remedy.

    Raises:
        TopicError: In place of any ``KafkaException``; transient if no broker responded, or one that is restarting.
    """
    try:
        yield
    except KafkaException as error:
        got = error.args[0]
        why = clients.first_error() if got.code() in _UNHEARD else None
        raise TopicError(
            f"Kafka at {clients.bootstrap}: expected to {what}, got {got.str() or got.name()}"
            f"{f' ({why.str()})' if why else ''}",
            f"check that the broker runs (`ecom status --home {home}`) and that its address (ECOM_KAFKA) and settings"
            " (ECOM_KAFKA_CONFIG) are right, then run again",
            transient=passes(got) and (why is None or why.code() in _AWAY),
        ) from error
