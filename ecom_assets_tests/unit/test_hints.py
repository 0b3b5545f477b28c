"""Commands in errors and on pages name the home: without it, they would be of another one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecom_assets.core.home import hint
from ecom_assets.core.settings import ROOT

BARE = re.compile(r"`ecom (up|down|run|status|dev|check|doctor|reset|reconcile)\b[^`]*`")
"""A command for one home that does not say for which."""

WITHOUT_A_HOME = ("cli", "defs")
"""Where texts are read before there is a home: help and the descriptions of assets."""


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The texts of a module that people may be shown: docstrings and descriptions of settings are not among them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden = {id(e.value) for e in ast.walk(tree) if isinstance(e, ast.Expr)}
    hidden |= {id(k.value) for k in ast.walk(tree) if isinstance(k, ast.keyword) and k.arg == "description"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in hidden:
            yield node.lineno, node.value


def test_no_command_leaves_out_its_home() -> None:
    """If this fails, whoever follows a remedy starts another stack in the current folder."""
    package = ROOT / "ecom_assets"
    found = [
        f"{path.relative_to(package)}:{line}: {text}"
        for path in sorted(package.rglob("*.py"))
        if path.relative_to(package).parts[0] not in WITHOUT_A_HOME
        for line, text in texts(path)
        if BARE.search(text) and "--home" not in text
    ]
    assert found == []


def test_the_home_of_the_process_is_named_where_settings_are_not_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, an error from deep inside names the current folder's home in place of the one that failed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ECOM_HOME", raising=False)
    assert hint("up") == "ecom up"
    monkeypatch.setenv("ECOM_HOME", str(tmp_path / ".ecom"))
    assert hint("up") == "ecom up"
    monkeypatch.setenv("ECOM_HOME", str(tmp_path / "my shop"))
    assert hint("up") == f"ecom up --home '{tmp_path / 'my shop'}'"
