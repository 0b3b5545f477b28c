"""Who owns a namespace: the first home that uses it in a system writes its id there, and any other is refused.

What belongs here: what an owner is, and the refusal. What does not: how a system keeps it; each room has a place of its
own for that and calls ``Owner.check`` before it writes.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass
from typing import Self

from ecom_assets.core.errors import OwnedError
from ecom_assets.core.files import write_text
from ecom_assets.core.settings import Settings


@dataclass(frozen=True)
class Owner:
    """A home, as systems remember it.

    Attributes:
        id: Its own id, made at first need.
        home: Its folder, for people.
    """

    id: str
    home: str

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The owner that a home is."""
        file = settings.home / "home.id"
        if not file.exists():
            write_text(file, f"{uuid.uuid4()}\n")
        return cls(file.read_text(encoding="utf-8").strip(), str(settings.home))

    def to_text(self) -> str:
        """A text that ``from_text`` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read what ``to_text`` wrote."""
        return cls(**json.loads(text))

    def check(self, found: Owner | None, what: str) -> None:
        """Refuse to write what another home owns.

        Args:
            found: The owner that the system remembers; ``None`` for nobody yet.
            what: What is owned, such as ``Kafka topics ecom.*``.

        Raises:
            OwnedError: It is another home.
        """
        if found is not None and found.id != self.id:
            raise OwnedError(
                f"{what}: expected to belong to this home, {self.home}, got the home {found.home}",
                f"choose another namespace (ECOM_NAMESPACE) for this home, or work in that one (--home {found.home})",
            )
