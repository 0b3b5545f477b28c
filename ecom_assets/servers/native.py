"""What servers that are no Java have in common: a password, and a program from a wheel.

What belongs here: the base of PostgreSQL and Redis. Each listens on the home's interface alone and asks for a password
that the home keeps in a file of its owner's; no command line and no log shows it.
"""

from __future__ import annotations

import re
import secrets
from importlib.util import find_spec
from pathlib import Path

from typing_extensions import override

from ecom_assets.core.errors import ServiceError
from ecom_assets.core.settings import Settings
from ecom_assets.servers.files import write_private
from ecom_assets.servers.server import Server


class Native(Server):
    """A server that writes its log to its standard output, and whose address holds a password."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.log = self.out

    @property
    def configuration(self) -> Path:
        """Its configuration file."""
        return self.conf / f"{self.name}.conf"

    @property
    def password_file(self) -> Path:
        """Holds the password of this home's server."""
        return self.folder / "password"

    @override
    def make_folders(self) -> None:
        for folder in (self.conf, self.out.parent):
            folder.mkdir(parents=True, exist_ok=True)
        if self.settings.password or not self.password_file.exists():
            write_private(self.password_file, self.settings.password or secrets.token_urlsafe(24))

    @override
    def public(self, address: str) -> str:
        return re.sub(r"//[^/@]*@", "//", address)

    @property
    def password(self) -> str:
        """The password of this home's server.

        Raises:
            ServiceError: The file is gone.
        """
        try:
            return self.password_file.read_text(encoding="ascii")
        except FileNotFoundError:
            raise ServiceError(
                f"{self.name}: expected its password in {self.password_file}, found no such file",
                f"`{self.hint('down')}`, remove {self.folder}, and `{self.hint('up')}` creates it again",
            ) from None


def program(package: str, pattern: str) -> Path:
    """A program in a wheel; the package's own Python layer is not imported, it would manage servers itself."""
    spec = find_spec(package)
    found = sorted(Path(spec.origin).parent.glob(pattern)) if spec and spec.origin else []
    if not found:
        raise ServiceError(f"expected {pattern} in the package {package}, found none", "run `uv sync --reinstall`")
    return found[0]
