"""The wheel in an environment of its own, away from the source: commands, pages, Dagster's UI, and the component."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect, sync_playwright

from ecom_assets.core.settings import ROOT
from ecom_assets.paths import LAYERS
from ecom_assets.servers import probes
from ecom_assets.servers.stack import Stack
from ecom_assets_tests.ports import free_port
from ecom_assets_tests.programs import chromium, uv
from ecom_assets_tests.runs import environment
from ecom_assets_tests.tables import TABLES

SCALE = "0.0003"
LIBRARY = """
dataset: library
tables:
  book:
    primary_key: [isbn]
    hbase: {row_key: [isbn], families: {d: "*"}}
"""
PROJECT = """
[project]
name = "mine"
version = "0.1.0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "mine"
"""
DEFINITIONS = """
from pathlib import Path

import dagster as dg


@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
LOANS = """
type: ecom_assets.Lakehouse
attributes: {dataset: library, source: library/files, home: homes/loans, prefix: library}
"""

FIRST = ["000000 first files"]
"""The first partition of a home."""


class Installed:
    """An environment with the wheel, and a folder to work in that is not the project's."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.work.mkdir()
        self.venv = folder / "venv"

    def env(self, **more: str) -> dict[str, str]:
        """The variables of a person who has activated it."""
        away = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "DAGSTER_HOME")
        kept = {name: value for name, value in os.environ.items() if name not in away and not name.startswith("ECOM_")}
        path = f"{self.venv / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return kept | {"PATH": path, "VIRTUAL_ENV": str(self.venv), "COLUMNS": "200"} | more

    def run(self, *command: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
        """Run a command of the environment; returns what it prints."""
        program = str(self.venv / "bin" / command[0])
        done = subprocess.run(
            [program, *command[1:]], cwd=cwd or self.work, env=env or self.env(), capture_output=True, text=True,
            timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by way of the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--out-dir", str(folder))
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel with the locked versions of what it requires, and nothing else."""
    installed = Installed(tmp_path_factory.mktemp("installed"))
    venv, python = str(installed.venv), str(installed.venv / "bin" / "python")
    uv("sync", "--frozen", "--no-dev", "--no-install-project", UV_PROJECT_ENVIRONMENT=venv)
    uv("pip", "install", "--no-deps", "--python", python, str(wheel))
    uv("pip", "check", "--python", python)
    return installed


@pytest.fixture(scope="module")
def filled(installed: Installed, stack: Stack) -> Iterator[dict[str, str]]:
    """The variables of a home that the wheel has filled: with a Kafka of its own, else on the session's servers."""
    given = environment(installed.work / "home", stack.addresses(), "wheel")
    variables = {name: value for name, value in given.items() if name.startswith("ECOM_") and name != "ECOM_KAFKA"}
    env = installed.env(**variables, ECOM_CLASS_ARCHIVES="false")
    try:
        found = json.loads(installed.run("ecom", "run", "--scale", SCALE, "--json", env=env).splitlines()[-1])
        assert found["ok"] is True
        assert found["tables"].keys() == TABLES.keys()
        assert all(set(LAYERS) <= layers.keys() for layers in found["tables"].values())
        yield env
    finally:
        installed.run("ecom", "down", env=env)


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    """If this fails, what is read at run time is missing where the package is installed, or tests are installed too."""
    folders = {"ecom_assets": ROOT / "ecom_assets", "ecom_assets/schemas": ROOT / "schemas"}
    expected = {
        f"{inside}/{file.relative_to(folder).as_posix()}"
        for inside, folder in folders.items()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == expected


def test_commands_need_nothing_of_the_source(installed: Installed) -> None:
    """If this fails, a dependency is not declared, or the bundled data set is not found."""
    code = "import ecom_assets; print(ecom_assets.__file__)"
    assert installed.run("python", "-c", code).startswith(str(installed.venv))
    assert "Usage: ecom" in installed.run("ecom", "--help")
    installed.run("ecom", "dataset", "check")
    installed.run("dagster", "definitions", "validate", "-m", "ecom_assets.definitions")


def test_the_dashboard_shows_its_pages(installed: Installed, filled: dict[str, str]) -> None:
    """If this fails, the wheel lacks a page, its style or the shop's queries."""
    address = installed.run("ecom", "dashboard", env=filled).split()[-1]
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"]) as browser,
    ):
        page = browser.new_page()
        page.goto(f"{address}/reconciliation")
        expect(page.get_by_text("All layers reconcile").first).to_be_visible(timeout=60_000)
        page.goto(address)
        expect(page.get_by_text("Published").first).to_be_visible(timeout=60_000)
        assert page.locator("[data-testid=stException]").count() == 0


def test_dagsters_ui_lists_the_assets(installed: Installed, filled: dict[str, str]) -> None:
    """If this fails, `ecom dev` does not find its workspace, or the code location does not load."""
    port = free_port()
    process = subprocess.Popen(
        [str(installed.venv / "bin" / "ecom"), "dev", "--port", str(port)],
        cwd=installed.work, env=filled, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        keys: set[str] = set()
        deadline = time.monotonic() + 120
        while not keys:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.5)
            if probes.dagster("127.0.0.1", port):
                keys = {"/".join(node["assetKey"]["path"]) for node in _ask(port)["assetNodes"]}
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=90)
    assert {f"raw/{name}" for name in TABLES} <= keys


def _ask(port: int) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": "{ assetNodes { assetKey { path } } }"}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["data"]


def test_the_component_in_a_project(installed: Installed) -> None:
    """If this fails, another project cannot add the lakehouse with `dg`, or its paths lead out of the project."""
    uv("sync", "--frozen", "--only-group", "dg", "--inexact", UV_PROJECT_ENVIRONMENT=str(installed.venv))
    project = installed.work / "project"
    files = {
        "pyproject.toml": PROJECT,
        "src/mine/__init__.py": "",
        "src/mine/definitions.py": DEFINITIONS,
        "src/mine/defs/__init__.py": "",
        "src/mine/defs/loans/defs.yaml": LOANS,
        "library/dataset.yaml": LIBRARY,
        "library/book.avsc": '{"type": "record", "name": "Book", "fields": [{"name": "isbn", "type": "string"}]}',
        "library/files/book.csv": "isbn\n1\n",
    }
    for name, text in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text, encoding="utf-8")
    env = installed.env(PYTHONPATH=str(project / "src"))

    def dg(*command: str) -> str:
        return installed.run("dg", *command, env=env, cwd=project)

    listed = json.loads(dg("list", "components", "--json"))["items"]
    assert "ecom_assets.Lakehouse" in {component["key"] for component in listed}
    dg("scaffold", "defs", "ecom_assets.Lakehouse", "lake")
    dg("check", "yaml")
    keys = {asset["asset_key"] for asset in json.loads(dg("list", "defs", "--json"))["assets"]}
    assert {"raw/product", "hbase/clickstream", "library/raw/book", "library/hbase/book"} <= keys
    # What the project's Dagster does by the sensor `library_new_files`.
    add = f"add_dynamic_partitions('library_deliveries', {FIRST!r})"
    env["DAGSTER_HOME"] = str(project / "dagster")
    (project / "dagster").mkdir()
    installed.run("python", "-c", f"import dagster; dagster.DagsterInstance.get().{add}", env=env, cwd=project)
    dg("launch", "--assets", "key:library/raw/book", "--partition", *FIRST)
    assert (project / "homes/loans/raw/book.csv").read_text() == files["library/files/book.csv"]
