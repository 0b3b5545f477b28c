"""Programs that tests start and that the project does not install: uv, and the system's Chromium."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from ecom_assets.core.settings import ROOT


def uv(*command: str, **variables: str) -> None:
    """Run uv: from its cache, else from the registry; without either, the test cannot be done."""
    program = os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"} | variables
    for offline in (["--offline"], []):
        done = subprocess.run(
            [program, *command, *offline], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return
    if any(cause in done.stderr for cause in ("Failed to fetch", "error sending request", "dns error")):
        pytest.skip(f"needs the package registry once, to fill uv's cache, and it cannot be reached: {done.stderr}")
    pytest.fail(done.stderr)


def chromium() -> str:
    """The path of the browser."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not program:
        pytest.fail("expected Chromium on this machine, found none: `apt-get install chromium`, or put one on the PATH")
    return program
