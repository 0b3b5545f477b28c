"""The command line itself, without servers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ecom_assets import cli
from ecom_assets.cli import app, job, servers
from ecom_assets.cli.deliveries import waiting
from ecom_assets.cli.options import LayerName
from ecom_assets.core import locks
from ecom_assets.core.errors import TopicError
from ecom_assets.core.settings import load
from ecom_assets.dataset.loader import bundled
from ecom_assets.paths import LAYERS, TOPIC
from ecom_assets.source import acquire
from ecom_assets_tests.tables import SHOP

LOST = """
import os, signal, time
from ecom_assets.cli import interrupts

class Swallows:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)  # here Python hears the signal, and cannot raise

interrupts.REPEAT = 0.2
try:
    with interrupts.repeated_interrupts():
        Swallows()
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        except KeyboardInterrupt:
            print("swallowed")
        time.sleep(20)
except KeyboardInterrupt:
    print("heard")
time.sleep(1)  # nothing comes after the block
"""


def test_an_interrupt_that_is_swallowed_comes_again() -> None:
    """If this fails, a Ctrl-C now and then does nothing, and the run goes on."""
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "swallowed\nheard\n"
    assert done.stderr == "", "nothing of it is printed"


def test_an_error_is_printed_as_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, what Kafka and Spark say in brackets vanishes, or ends in a traceback of the console's."""
    message = "[thrd:main]: expected a broker, got [/none]"

    def fail() -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(app, "app", fail)
    with pytest.raises(SystemExit):
        cli.main()
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("later", "alive"), [(0, True), (1.4, True), (-1.4, True), (60, False)])
def test_a_run_whose_process_still_runs_is_not_reported_as_failed(later: float, alive: bool) -> None:
    """If this fails, a live run is marked as failed by the next command, or one whose id was recycled never is."""
    me = psutil.Process()
    assert job.is_alive(f"{me.pid}-{me.create_time() + later:.0f}") is alive


def test_the_run_of_a_process_that_is_gone_is_reported_as_failed() -> None:
    """If this fails, the UI shows a killed run as running for ever."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    tag = job.process_tag(gone.pid)
    gone.wait()
    assert not job.is_alive(tag)


def ecom(folder: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, without settings of whoever runs the tests."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("ECOM_")} | env
    command = [sys.executable, "-m", "ecom_assets.cli", *args]
    return subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "command",
    ["deliveries", "plan", "reconcile", "check", "status", "down", "stream", "simulate", "reset expanded --yes"],
    ids=str.split,
)
def test_a_home_that_is_not_there_is_said_in_one_sentence(command: str, tmp_path: Path) -> None:
    """If this fails, a mistyped --home creates a home, or is reported as a missing file of some layer."""
    done = ecom(tmp_path, *command.split(), "--home", "typo")
    assert done.returncode == 1
    assert done.stderr == f"✗ no home at {tmp_path}/typo; `ecom run --home {tmp_path}/typo` creates one\n"
    assert not done.stdout
    assert not list(tmp_path.iterdir())


def test_deliveries_and_files_that_are_not_loaded_are_listed(tmp_path: Path) -> None:
    """If this fails, the file of a new day, or one with a misspelled name, is passed over without a word."""
    source = tmp_path / "files"
    source.mkdir()
    for name in ("customer.csv", "product.csv", "transactions.csv", "click_stream.csv"):
        (source / name).write_text(f"{name}\n")
    settings = load(home=tmp_path / ".ecom", source=str(source))
    acquire(settings, SHOP)
    day = source / "customer-2026-11-28.csv"
    day.write_text("customer.csv\n1\n")
    os.utime(day, (1, 1))
    acquire(settings, SHOP)
    assert waiting(settings) == ""
    for name in ("customer-2026-11-29.csv", "clicks.csv"):
        (source / name).write_text("1234\n")
        os.utime(source / name, (time.time() + 3600, time.time() + 3600))  # fresh, however long a command takes
    done = ecom(tmp_path, "deliveries", "--json", ECOM_SOURCE=str(source))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [(each["sequence"], each["name"], each["tables"]) for each in found["deliveries"]] == [
        (1, "2026-11-28", {"customer": None})
    ]
    states = {Path(e["file"]).name: (e["table"], e["delivery"], e["name"], e["state"]) for e in found["files"]}
    assert states["customer.csv"] == ("customer", 0, "", "loaded")
    assert states["customer-2026-11-28.csv"] == ("customer", 1, "2026-11-28", "loaded")
    assert states["customer-2026-11-29.csv"] == ("customer", None, "2026-11-29", "not loaded yet")
    assert states["clicks.csv"] == ("", None, "", "of no table")
    assert not any(e["settled"] for e in found["files"] if e["name"] == "2026-11-29"), "it has just been written"
    assert waiting(settings) == (
        f"2 files of the source not loaded: `ecom deliveries --home {tmp_path / '.ecom'}` lists them"
    )


def test_a_reset_does_not_pull_layers_away(tmp_path: Path) -> None:
    """If this fails, `ecom reset` deletes tables under a working run or stream."""
    (tmp_path / ".ecom" / "raw").mkdir(parents=True)
    with locks.shared(load(home=tmp_path / ".ecom"), "ecom stream"):
        done = ecom(tmp_path, "reset", "expanded", "--yes")
    assert done.returncode == 1
    assert f"but it is held by ecom stream (pid {os.getpid()}, since " in done.stderr
    assert "ecom reset waits for ecom stream" in done.stderr


def test_every_layer_but_the_first_can_be_reset() -> None:
    """If this fails, a layer cannot be rebuilt, or one is offered that is not there."""
    assert [layer.value for layer in LayerName] == list(LAYERS[1:])


def test_help_needs_none_of_the_systems() -> None:
    """If this fails, `ecom --help` takes seconds."""
    code = "import sys, ecom_assets.cli.app; print(sorted({'dagster', 'polars', 'pyarrow'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_the_usual_home_is_not_named_in_hints(tmp_path: Path) -> None:
    """If this fails, commands to paste are longer than they need to be."""
    assert "; `ecom run` creates one" in ecom(tmp_path, "status").stderr


@pytest.mark.parametrize(
    ("args", "env", "message"),
    [
        (("--scale", "-1"), {}, "Invalid value for '--scale'"),
        ((), {"ECOM_SCALE": "-1"}, "✗ ECOM_SCALE: expected greater than 0, got '-1'\n"),
        ((), {"ECOM_NAMESPACE": "A b"}, "✗ ECOM_NAMESPACE: expected string should match pattern"),
        (("--home", "/dev/null"), {}, "/dev/null: expected a folder that this user can read and write"),
        (("--home", "/proc/x"), {}, "/proc/x: expected a folder that this user can read and write"),
    ],
    ids=["scale", "scale as a variable", "namespace", "a device as home", "a home in /proc"],
)
def test_a_value_that_cannot_be_is_said_in_one_sentence(
    args: tuple[str, ...], env: dict[str, str], message: str, tmp_path: Path
) -> None:
    """If this fails, people read pydantic's own words, an URL, or a bare error number."""
    done = ecom(tmp_path, "run", *args, **env)
    assert done.returncode in {1, 2}
    assert message in done.stderr
    assert "pydantic" not in done.stderr
    assert "Errno" not in done.stderr


def test_a_data_set_that_cannot_be_used_is_said_before_anything_starts(tmp_path: Path) -> None:
    """If this fails, servers start before a fault of the declaration is reported, and a home is left behind."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "dataset.yaml").write_text("dataset: mine\ntables: {t: {primary_key: [a]}}\n")
    done = ecom(tmp_path, "run", "--dataset", "./mine", COLUMNS="300")
    assert done.returncode == 1
    assert "dataset.yaml:2: tables.t.hbase: expected a value, got none" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".ecom").exists()


def test_a_query_that_cannot_be_run_is_said_before_anything_starts(tmp_path: Path) -> None:
    """If this fails, a typing error in a query is found after all tables are loaded."""
    mine = Path(shutil.copytree(bundled() / "shop", tmp_path / "mine"))
    query = mine / "queries" / "customers.sql"
    query.write_text(
        query.read_text(encoding="utf-8").replace("FROM customer ", "FROM customer JOIN nothing USING (n) "), "utf-8"
    )
    done = ecom(tmp_path, "run", "--dataset", "./mine", COLUMNS="300")
    assert done.returncode == 1
    assert "customers.sql: expected SQL that DuckDB runs, got" in done.stderr
    assert "nothing" in done.stderr
    assert not (tmp_path / ".ecom").exists()


def test_help_shows_choices_and_defaults(tmp_path: Path) -> None:
    """If this fails, choices are found out by trying."""
    done = ecom(tmp_path, "run", "-h", COLUMNS="200")
    for part in ("<stream|bulk>", "<hfile|spark|importtsv|thrift>", "[default: (stream)]", "[default: (0.01)]"):
        assert part in done.stdout
    assert "chunked|topic" in ecom(tmp_path, "reset", "--help", COLUMNS="200").stdout
    assert ecom(tmp_path, "--version").stdout.startswith("ecom ")


@pytest.mark.parametrize("columns", ["40", "80"])
def test_status_is_whole_in_a_pipe(columns: str, tmp_path: Path) -> None:
    """If this fails, `ecom status | grep running` finds nothing where a terminal is narrow."""
    (tmp_path / ".ecom" / "stack").mkdir(parents=True)
    done = ecom(tmp_path, "status", COLUMNS=columns, ECOM_KAFKA="a-rather-long-name-of-a-host.example:1")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["State", "Server", "Address", "Pid", "Up", "Memory"]
    assert [line.split()[:2] for line in lines[2:6]] == [
        ["stopped", n] for n in ("hbase", "thrift", "spark", "postgres")
    ]
    assert "a-rather-long-name-of-a-host.example:1" in lines[1]


def test_an_error_of_psutil_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this fails, a server that ends at the wrong moment ends `ecom down` in a traceback."""

    def fail() -> None:
        raise psutil.TimeoutExpired(10, pid=7)

    monkeypatch.setattr(app, "app", fail)
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err.startswith("✗ timeout after 10 seconds")


def test_helpers_of_the_log_do_not_hear_ctrl_c() -> None:
    """If this fails, a Ctrl-C at a terminal prints a traceback for each step that runs."""
    code = """
import os, sys
from ecom_assets.cli.interrupts import detach_log_helpers
from dagster._core.execution import compute_logs

detach_log_helpers()
with compute_logs.execute_posix_tail(os.devnull, sys.stderr) as pids:
    assert all(os.getpgid(pid) != os.getpgid(0) for pid in pids), pids
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_doctor_names_settings_of_topics_that_lose_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, compaction keeps one event of each session, and `ecom doctor` finds nothing."""
    settings = load(home=tmp_path)
    wrong = "topic ecom.product: expected cleanup.policy=delete, got compact: records are lost; `kafka-configs …`"
    monkeypatch.setattr(TOPIC, "check_settings", lambda _, table: [wrong] if table.name == "product" else [])
    assert servers._topics(settings) == [], "there is no home"
    (tmp_path / "raw").mkdir()
    (found,) = servers._topics(settings)
    assert (found.level, found.remedy) == ("fail", "`kafka-configs …`")
    assert found.what.startswith("topic ecom.product: expected cleanup.policy=delete")

    def away(*_: object) -> list[str]:
        raise TopicError("no broker responded")

    monkeypatch.setattr(TOPIC, "check_settings", away)
    assert servers._topics(settings) == [], "the stack's own findings say that it does not run"


FIRST_IMPORT = """
import sys, time
from ecom_assets.cli import display, job, pipeline

done = []

def definitions():
    time.sleep(1)
    done.append("definitions")

class Servers:
    spark = "sc://127.0.0.1:1"

def execute(*_, **__):
    print(done, "pyspark" in sys.modules)
    raise SystemExit(0)

job.definitions, job.execute = definitions, execute
display.start = lambda *_, **__: Servers()

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "pyspark":
            print("pyspark after", done)

sys.meta_path.insert(0, Watch())
pipeline.run(home=None)
"""


def test_two_threads_never_import_pyspark_at_once(tmp_path: Path) -> None:
    """If this fails, the first run of a home ends now and then in an ImportError, most of all on a cold disk."""
    env = os.environ | {"ECOM_HOME": str(tmp_path / "home"), "ECOM_DASHBOARD": "false"}
    done = subprocess.run(
        [sys.executable, "-c", FIRST_IMPORT], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "pyspark after ['definitions']\n['definitions'] True\n", done.stderr
