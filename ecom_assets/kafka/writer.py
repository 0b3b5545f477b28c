"""A transactional producer of one table: transactions whole or not at all, again where an error passes.

What belongs here: ``Writer``. What does not: what is in a transaction (``producer``), how a client is configured
(``clients``).
"""

# ruff: noqa: SLF001 (librdkafka's own error codes begin with an underscore)
from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from ecom_assets.core.errors import TopicError
from ecom_assets.core.settings import Settings
from ecom_assets.dataset.model import Table
from ecom_assets.kafka import clients
from ecom_assets.kafka.clients import Clients, passes
from ecom_assets.kafka.cut import TransactionLock

ATTEMPTS = 5
BACKOFF = 0.2
"""Seconds before the second attempt; doubles with each."""

_FENCED = {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}

_log = logging.getLogger(__name__)


class Writer:
    """A transactional producer of a table; a new one fences the last one of its number.

    Raises:
        TopicError: Another producer fenced this one.
        KafkaException: An error that does not pass.
    """

    def __init__(self, access: Clients, table: Table, settings: Settings, number: int = 0) -> None:
        self._topic = table.topic(settings.namespace)
        self._lock = TransactionLock(settings, table)
        transactional_id = f"{self._topic}.{number}" if number else self._topic
        self.run = f"{transactional_id}/{uuid.uuid4().hex[:8]}"
        self._failures: list[KafkaError] = []
        self._producer = access.producer(transactional_id, self._failed)
        self._producer.list_topics(timeout=clients.ADMIN_SECONDS)  # the sooner answer, if there is no broker at all
        deadline = time.monotonic() + clients.STALL_SECONDS
        while True:
            try:
                self._producer.init_transactions(clients.ADMIN_SECONDS)
                break
            except KafkaException as error:  # a broker that has just started is not ready yet
                if not passes(error.args[0]) or time.monotonic() > deadline:
                    raise
            time.sleep(BACKOFF)

    def transact(self, send: Callable[[Producer, int], None]) -> None:
        """Send a transaction, whole or not at all; again if an error is one that passes, for ``STALL_SECONDS``.

        Args:
            send: Produces the messages; is given the producer and the attempt, from 1.
        """
        deadline = time.monotonic() + clients.STALL_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            with self._lock.transaction():
                failed = self._attempt(send, attempt)
            if failed is None:
                break
            if attempt == ATTEMPTS or not passes(failed) or time.monotonic() > deadline:
                raise KafkaException(failed)
            _log.warning("topic %s: attempt %d failed and is repeated: %s", self._topic, attempt, failed.str())
            time.sleep(BACKOFF * 2 ** (attempt - 1))

    def _attempt(self, send: Callable[[Producer, int], None], attempt: int) -> KafkaError | None:
        """Send a transaction once; returns why it failed and was aborted."""
        self._failures.clear()
        try:
            self._producer.begin_transaction()
            send(self._producer, attempt)
            self._commit()
        except KafkaException as error:
            cause = self._cause(error)
            if cause.code() in _FENCED:
                raise TopicError(
                    f"topic {self._topic}: expected to be its only producer, got another producer that fenced this one",
                    "run one at a time; what this one committed is in and stays in",
                ) from error
            if not cause.fatal():
                self._abort()
            return cause
        except BaseException:
            try:
                self._abort()
            except KafkaException as error:
                _log.warning("topic %s: not aborted (%s); the broker will do it", self._topic, error.args[0].str())
            raise
        return None

    def _commit(self) -> None:
        """Commit; in short steps, since a signal is only heard between them."""
        deadline = time.monotonic() + clients.STALL_SECONDS
        while True:
            try:
                self._producer.commit_transaction(1)
                break
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise

    def _abort(self) -> None:
        self._producer.abort_transaction(clients.ADMIN_SECONDS)

    def _cause(self, error: KafkaException) -> KafkaError:
        """Why a message was not delivered, if that is why the transaction failed."""
        if not error.args[0].fatal():  # poll would raise that again
            self._producer.poll(0)
        return self._failures[0] if self._failures else error.args[0]

    def _failed(self, error: KafkaError | None, _: Message) -> None:
        # An abort purges what is not yet sent, which is no failure.
        if error and error.code() not in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
            self._failures.append(error)
