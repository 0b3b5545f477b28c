"""The one tree of errors that people can act on; each room has its own branch.

An error names what was expected, what came and where; ``remedy`` names what to do, with the command and its ``--home``
where there is one. ``transient`` errors pass by themselves: a step that failed with one is worth another attempt.
"""

from __future__ import annotations


class EcomError(RuntimeError):
    """Something is not as it must be, and a person can act on it.

    Args:
        message: What was expected, what came, and where.
        remedy: What to do, as a clause without a full stop; empty where the message includes it.
        transient: Whether it passes by itself, such as a server that restarts.

    Attributes:
        remedy: As given.
        transient: As given.
    """

    def __init__(self, message: str, remedy: str = "", *, transient: bool = False) -> None:
        super().__init__(f"{message}\nRemedy: {remedy}" if remedy else message)
        self.remedy = remedy
        self.transient = transient


class ServiceError(EcomError):
    """A server, its address or its jars."""


class TopicError(EcomError):
    """A Kafka topic, its ledger or its broker."""


class LakeError(EcomError):
    """A Delta table, its checkpoint or the lake's file system."""


class HBaseError(EcomError):
    """An HBase table, its files or its servers."""


class SourceError(EcomError):
    """The place where raw files come from: a folder, a bucket, Kaggle, or what a home took from them before."""


class CsvError(EcomError):
    """A CSV file, a chunk or a manifest."""


class HomeError(EcomError):
    """A home folder: its settings, its locks, its owner, or its books."""


class NotBuiltError(HomeError):
    """A layer that something is to be built from, or compared with, has not been built yet."""

    def __init__(self, layer: str, table: str, remedy: str = "") -> None:
        super().__init__(
            f"{layer}/{table}: expected it to be built, got nothing", remedy or f"materialize {layer}/{table} first"
        )


class OwnedError(HomeError):
    """Another home owns what this one was about to write."""


def is_transient(error: BaseException | None) -> bool:
    """Whether an error passes by itself: it, what caused it, or every member of a group."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_transient(each) for each in error.exceptions)
    while error is not None:
        if isinstance(error, EcomError):
            if error.transient:
                return True
        elif isinstance(error, ConnectionError | TimeoutError):
            return True
        error = error.__cause__
    return False
