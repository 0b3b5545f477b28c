"""Processes of ours keep little memory; those of others keep what they like."""

from __future__ import annotations

import subprocess
import sys

import pytest


def said(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


POOL = "import pyarrow; print(pyarrow.default_memory_pool().backend_name)"


@pytest.mark.parametrize("first", ["import pyarrow; pyarrow.default_memory_pool()", "pass"], ids=["late", "early"])
def test_our_processes_use_one_allocator(first: str) -> None:
    """If this fails, a run takes 400 MB more, which three allocators keep for later."""
    begin = f"{first}\nfrom ecom_assets.core import memory\nmemory.economize()\n"
    assert said(begin + POOL) == "system"
    assert said(begin + "import os; print(os.environ['_RJEM_MALLOC_CONF'])").startswith("dirty_decay_ms:0")


def test_what_the_environment_says_stays() -> None:
    """If this fails, somebody who has measured another allocator to be better cannot choose it."""
    program = f"from ecom_assets.core import memory\nmemory.economize()\n{POOL}"
    assert said(program, ARROW_DEFAULT_MEMORY_POOL="mimalloc") == "mimalloc"


def test_a_process_of_others_is_left_alone() -> None:
    """If this fails, a code location that embeds ours has its allocators changed behind its back."""
    assert said(f"from ecom_assets.definitions import build_defs\nbuild_defs()\n{POOL}") != "system"
