"""The one tree of errors that people can act on; each room has its own branch.

An error names what was expected, what came and where; ``remedy`` names what to do, with the command and its ``--home``
where there is one.
"""

from __future__ import annotations


class EcomError(RuntimeError):
    """Something is not as it must be, and a person can act on it.

    Args:
        message: What was expected, what came, and where.
        remedy: What to do, as a clause without a full stop; empty where the message says it.

    Attributes:
        remedy: As given.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message}\nRemedy: {remedy}" if remedy else message)
        self.remedy = remedy


class ServiceError(EcomError):
    """A server, its address or its jars."""


class TopicError(EcomError):
    """A Kafka topic, its ledger or its broker."""


class LakeError(EcomError):
    """A Delta table, its checkpoint or the lake's file system."""


class HBaseError(EcomError):
    """An HBase table, its files or its servers."""


class CsvError(EcomError):
    """A CSV file, a chunk or a manifest."""


class HomeError(EcomError):
    """A home folder: its settings, or what it remembers."""
