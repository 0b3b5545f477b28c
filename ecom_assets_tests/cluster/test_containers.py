"""The cluster in containers: it comes up by `make`, reconciles, and does so though containers are killed."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecom_assets.core.settings import ROOT


def engine_answers() -> bool:
    """Whether there is a Docker engine that can be used."""
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


pytestmark = pytest.mark.skipif(not engine_answers(), reason="needs a Docker engine: `docker info` fails")

SCALE = os.environ.get("SCALE", "0.01")
TOOLS = [
    "docker",
    "compose",
    "--env-file",
    "docker/.env",
    "-f",
    "docker/compose.yaml",
    "-f",
    "docker/compose.stores.yaml",
]


def make(*arguments: str, seconds: float = 1800) -> None:
    done = subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


def by_hand(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in the cluster's own image."""
    command = [*TOOLS, "run", "--rm", "--no-TTY", "ecom", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """The cluster, as people start it; what it held before stays."""
    make("cluster-up", f"BASE={os.environ['BASE']}" if "BASE" in os.environ else "--no-print-directory", "WAIT=1200")
    try:
        yield
    finally:
        make("cluster-down")


def reconciled() -> float:
    """Run the job through Dagster's launcher, and read every layer back; returns the seconds of the run."""
    began = time.monotonic()
    make("cluster-run", f"OPTS=--scale {SCALE}")
    took = time.monotonic() - began
    done = by_hand("ecom", "reconcile", "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout.strip().splitlines()[-1])["ok"] is True
    return took


def rows_by_hbase(table: str) -> int:
    """What HBase's own RowCounter counts."""
    code = f"""
from ecom_assets.java import jars
from ecom_assets.java.program import run_java
from pathlib import Path
print(run_java(jars.classpath("hbase"), "org.apache.hadoop.hbase.mapreduce.RowCounter",
    "-Dhbase.zookeeper.quorum=zookeeper", "-Dmapreduce.framework.name=local", "{table}",
    log=Path("/tmp/rows.log"), heap="256m", expected="expected RowCounter to count", remedy="see its log"))
"""
    done = by_hand("python", "-c", code)
    assert done.returncode == 0, done.stderr[-2000:]
    # Each task reports its own, and the job at the end all of them.
    return int([line for line in done.stdout.splitlines() if "ROWS=" in line][-1].rpartition("=")[2])


@pytest.mark.usefixtures("cluster")
def test_the_report_balances_and_hbase_counts_the_same() -> None:
    """If this fails, `make cluster-up` and `make cluster-run` do not load the verified tables."""
    print(f"run at {SCALE}: {reconciled():.0f} s")
    done = by_hand("ecom", "reconcile", "--json", "--table", "customer")
    rows = json.loads(done.stdout.strip().splitlines()[-1])["tables"]["customer"]
    assert rows_by_hbase("ecom_customers") == rows["hbase"]["rows"]


def await_layer(before: str, run: subprocess.Popen[str]) -> None:
    """Wait until a layer's turn has come, which is when the one before it is verified."""
    code = f"""
from ecom_assets.core.books import Books
from ecom_assets.core.settings import load
with Books.open(load()) as books:
    raise SystemExit(books.verification("{before}", "click_stream") is None)
"""
    deadline = time.monotonic() + 900
    while subprocess.run([*TOOLS, "exec", "-T", "dashboard", "python", "-c", code], cwd=ROOT, check=False).returncode:
        assert run.poll() is None, run.communicate()[0][-4000:]
        assert time.monotonic() < deadline, f"expected {before} to be verified within 900 s"
        time.sleep(1)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("name", "before"),
    [("kafka-2", "chunked"), ("spark-worker-1", "topic"), ("datanode-1", "merged"), ("regionserver-1", "merged")],
    ids=["broker", "worker", "datanode", "region server"],
)
def test_a_run_outlives_a_container(name: str, before: str) -> None:
    """If this fails, one lost machine stops the pipeline, or costs or doubles rows."""
    done = by_hand("ecom", "reset", "expanded", "--yes")
    assert done.returncode == 0, done.stderr[-2000:]
    run = subprocess.Popen(
        ["make", "cluster-run"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        await_layer(before, run)
        began = time.monotonic()
        subprocess.run([*TOOLS, "kill", name], cwd=ROOT, check=True, capture_output=True)
        out, _ = run.communicate(timeout=1800)
        assert run.returncode == 0, out[-4000:]
        print(f"{name} killed after {before} was verified: the run ended {time.monotonic() - began:.0f} s later")
        done = by_hand("ecom", "reconcile", "--json")
        assert done.returncode == 0, done.stderr[-4000:]
    finally:
        subprocess.run([*TOOLS, "up", "--detach", "--wait", name], cwd=ROOT, check=True, capture_output=True)


def health(name: str) -> tuple[str, int]:
    """A container's health, and how often it has been started again."""
    shown = "{{.State.Health.Status}} {{.RestartCount}}"
    done = subprocess.run(
        ["docker", "inspect", "--format", shown, f"ecom-{name}-1"], capture_output=True, text=True, check=True
    )
    state, restarts = done.stdout.split()
    return state, int(restarts)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("name", ["kafka-3", "spark-worker-2", "datanode-2", "regionserver-2"])
def test_a_crashed_server_comes_back_by_itself(name: str) -> None:
    """If this fails, somebody has to be woken for each crash."""
    _, before = health(name)
    began = time.monotonic()
    # All processes of the container but its init, which then ends too.
    subprocess.run([*TOOLS, "exec", "-T", name, "sh", "-c", "kill -9 -1"], cwd=ROOT, check=False, capture_output=True)
    while health(name) != ("healthy", before + 1):
        assert time.monotonic() - began < 300, f"{name}: {health(name)}"
        time.sleep(0.5)
    print(f"{name}: healthy again after {time.monotonic() - began:.0f} s")


def test_a_start_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    """If this fails, one bad server leaves a half-started cluster behind, and nobody learns which it was."""
    server = {
        "image": os.environ.get("ECOM_IMAGE", "ecom-assets"),
        "init": True,
        "restart": "unless-stopped",
        "environment": {"ECOM_HOST": "0.0.0.0", "ECOM_HOME": "/srv/ecom"},
    }
    test = ["CMD", "python", "-m", "ecom_assets.servers.probes", "zookeeper", "localhost:2181"]
    services = {
        "well": server | {"command": ["ecom", "serve", "zookeeper"], "healthcheck": {"test": test, "interval": "2s"}},
        "unwell": server
        | {"command": ["ecom", "serve", "zookeeper"], "healthcheck": {"test": test, "interval": "2s"}}
        | {"environment": server["environment"] | {"ECOM_MEMORY": "2g"}, "mem_limit": "256m"},
    }
    file = tmp_path / "compose.yaml"
    file.write_text(json.dumps({"name": "ecom-unwell", "services": services}))
    compose = ["docker", "compose", "--file", str(file)]
    done = subprocess.run(
        ["python3", "docker/cluster.py", "up", "--wait", "60", "--", *compose],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "expected all servers to be healthy within 60 s, but these were not: unwell (" in done.stderr
    assert "unwell: ✗ zookeeper: expected 2,560 MiB of memory for 2g of its own, got 256 MiB" in done.stderr
    left = subprocess.run([*compose, "ps", "--all", "--quiet"], capture_output=True, text=True, check=True)
    assert left.stdout == ""
