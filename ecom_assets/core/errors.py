"""The one error that the services raise."""


class ServiceError(RuntimeError):
    """Something about a server or its jars is wrong, and a person can act on it.

    Attributes:
        remedy: What to do, as a clause without a full stop.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message}\nRemedy: {remedy}")
        self.remedy = remedy
