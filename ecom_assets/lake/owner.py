"""The lake's owner: a file in its root folder names the home that writes to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecom_assets.core.ownership import Owner

if TYPE_CHECKING:
    from ecom_assets.core.context import Context


def register(at: Context) -> None:
    """Write this home into the lake as its owner, or check that it is there already.

    Raises:
        OwnedError: Another home owns the lake.
    """
    lake = at.settings.lake
    file = lake / "owner.json"
    if file.exists():
        at.owner.check(Owner.from_text(file.read_text(encoding="utf-8")), f"lake {lake}")
        return
    lake.mkdir(parents=True, exist_ok=True)
    file.write_bytes(at.owner.to_text().encode())
