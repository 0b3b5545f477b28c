"""Dagster as people run it: webserver, daemon and code server of a home, driven through GraphQL as the UI does."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ecom_assets.core.settings import ROOT
from ecom_assets.defs import deliveries
from ecom_assets_tests.ports import free_port

LOCATION, REPOSITORY = "ecom_assets", "__repository__"
UNDER_WAY = {"QUEUED", "NOT_STARTED", "MANAGED", "STARTING", "STARTED", "CANCELING"}
START_SECONDS = 240

LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on InvalidSubsetError { message }
  }
}
"""
RUNS = """
{ runsOrError(limit: 500) { ... on Runs { results { runId jobName status tags { key value } } } } }
"""
BACKFILL = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
BACKFILL_STATUS = """
query ($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }
"""
PARTITIONS = """
query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  partitionKeysByDimension { partitionKeys }
  assetPartitionStatuses { ... on DefaultPartitionStatuses { materializedPartitions } } } } }
"""
SHOWN = """
query ($key: AssetKeyInput!, $partition: String!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  latestMaterializationByPartition(partitions: [$partition]) {
    metadataEntries { label ... on IntMetadataEntry { intValue } } } } } }
"""
RELOAD = """
mutation ($name: String!) {
  reloadRepositoryLocation(repositoryLocationName: $name) {
    __typename
    ... on WorkspaceLocationEntry { locationOrLoadError { __typename ... on PythonError { message } } }
    ... on PythonError { message }
  }
}
"""
LOCATIONS = """
{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus locationOrLoadError {
  __typename ... on PythonError { message } } } } } }
"""


@dataclass(frozen=True)
class Run:
    """A run, as the UI lists it."""

    id: str
    job: str
    status: str
    tags: Mapping[str, str]

    @property
    def by_sensor(self) -> str:
        """The sensor that requested it; empty for a person."""
        return self.tags.get("dagster/sensor_name", "")


class Dagster:
    """The three processes of a Dagster instance, on a home of their own.

    Args:
        env: The environment of the home: ``ECOM_…`` of its servers.
        log: Folder for the processes' output.
    """

    def __init__(self, env: Mapping[str, str], log: Path) -> None:
        self.home = Path(env["ECOM_HOME"])
        self.log = log
        self.code_port, self.port = free_port(), free_port()
        folder = self.home / "dagster"
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "dagster.yaml").exists():
            (folder / "dagster.yaml").write_text((ROOT / "ecom_assets" / "dagster.yaml").read_text())
        self.workspace = folder / "workspace.yaml"
        server = {"host": "127.0.0.1", "port": self.code_port, "location_name": LOCATION}
        self.workspace.write_text(json.dumps({"load_from": [{"grpc_server": server}]}))
        self.env = {**env, "DAGSTER_HOME": str(folder), "PYTHONPATH": str(ROOT)}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            self.start("code")
            self._wait(lambda: _listens(self.code_port), START_SECONDS, "the code server to listen")
            self.start("webserver")
            self._wait(self._loaded, START_SECONDS, "the code location to load")
            self.start("daemon")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in ("daemon", "webserver", "code"):
            self.stop(name)

    def start(self, name: str) -> None:
        """Start one of the processes: code, webserver or daemon."""
        python, port = sys.executable, str(self.port)
        workspace = ["-w", str(self.workspace)]
        command = {
            "code": ["-m", "dagster", "code-server", "start", "-h", "127.0.0.1", "-p", str(self.code_port), "-m",
                "ecom_assets.definitions", "--location-name", LOCATION],
            "webserver": ["-m", "dagster_webserver", "-h", "127.0.0.1", "-p", port, *workspace],
            "daemon": ["-m", "dagster._daemon", "run", *workspace],
        }[name]  # fmt: skip
        with (self.log / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [python, *command], env=self.env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )

    def stop(self, name: str) -> None:
        """Stop one of them."""
        process = self.processes.pop(name, None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """Send a query to the webserver."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=180) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def materialize(self, keys: Iterable[str], first: str = "", last: str = "") -> str:
        """Materialize assets, with their checks, as the UI's button does: of a partition, or of a range in one run."""
        selection = [{"path": key.split("/")} for key in keys]
        tags: Mapping[str, str] = {deliveries.PARTITION: first} if first else deliveries.DEFAULT
        if last:
            tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        return self._launch({"pipelineName": "__ASSET_JOB", "assetSelection": selection}, tags)

    def launch(self, job: str) -> str:
        """Launch a job."""
        return self._launch({"pipelineName": job})

    def backfill(self, keys: Iterable[str], partitions: list[str]) -> str:
        """Materialize partitions of assets by a run for each, as the UI does; returns the backfill's id."""
        selection = [{"path": key.split("/")} for key in keys]
        params = {"assetSelection": selection, "partitionNames": partitions, "fromFailure": False, "tags": []}
        result = self.ask(BACKFILL, params=params)["launchPartitionBackfill"]
        assert result["__typename"] == "LaunchBackfillSuccess", result
        return result["backfillId"]

    def wait_for_backfill(self, backfill: str, seconds: float = 300) -> str:
        """Wait for the end of a backfill; returns its status."""

        def ended() -> str | None:
            status = self.ask(BACKFILL_STATUS, id=backfill)["partitionBackfillOrError"]["status"]
            return status if status not in ("REQUESTED", "CANCELING", "FAILING") else None

        return self._wait(ended, seconds, f"backfill {backfill} to end")

    def partitions(self, key: str) -> tuple[list[str], set[str]]:
        """The partitions of an asset, and those that are materialized."""
        found = self.ask(PARTITIONS, key={"path": key.split("/")})["assetNodeOrError"]
        names = found["partitionKeysByDimension"][0]["partitionKeys"]
        return names, set(found["assetPartitionStatuses"]["materializedPartitions"])

    def shown(self, key: str, partition: str) -> dict[str, int]:
        """The numbers that the last materialization of an asset's partition shows."""
        found = self.ask(SHOWN, key={"path": key.split("/")}, partition=partition)["assetNodeOrError"]
        (last,) = found["latestMaterializationByPartition"]
        return {
            e["label"]: e["intValue"] for e in (last or {"metadataEntries": []})["metadataEntries"] if "intValue" in e
        }

    def _launch(self, selector: Mapping[str, Any], tags: Mapping[str, str] = deliveries.DEFAULT) -> str:
        where = {"repositoryName": REPOSITORY, "repositoryLocationName": LOCATION}
        params = {"selector": {**where, **selector}, "mode": "default", "runConfigData": {}}
        if "assetSelection" in selector:  # of assets with partitions, the button asks for one
            params["executionMetadata"] = {"tags": [{"key": key, "value": value} for key, value in tags.items()]}
        result = self.ask(LAUNCH, params=params)["launchRun"]
        assert result["__typename"] == "LaunchRunSuccess", result
        return result["run"]["runId"]

    def reload(self) -> None:
        """Reload the code location, as the UI's button does."""
        result = self.ask(RELOAD, name=LOCATION)["reloadRepositoryLocation"]
        assert result["__typename"] == "WorkspaceLocationEntry", result
        assert result["locationOrLoadError"]["__typename"] == "RepositoryLocation", result

    def runs(self) -> list[Run]:
        """All runs, the latest first."""
        return [
            Run(r["runId"], r["jobName"], r["status"], {t["key"]: t["value"] for t in r["tags"]})
            for r in self.ask(RUNS)["runsOrError"]["results"]
        ]

    def wait_for(self, run_id: str, seconds: float = 300) -> str:
        """Wait for the end of a run; returns its status."""

        def ended() -> str | None:
            (run,) = [r for r in self.runs() if r.id == run_id]
            return run.status if run.status not in UNDER_WAY else None

        return self._wait(ended, seconds, f"run {run_id} to end")

    def settle(self, done: Callable[[], object], seconds: float = 420) -> None:
        """Wait until something is so and no run is under way, the live stream's aside."""

        def settled() -> bool:
            under_way = [r for r in self.runs() if r.status in UNDER_WAY and r.job != "follow"]
            return not under_way and bool(done())

        self._wait(settled, seconds, "what is due to be done")

    def _loaded(self) -> bool:
        try:
            entries = self.ask(LOCATIONS)["workspaceOrError"]["locationEntries"]
        except OSError:
            return False
        for entry in entries:
            error = entry["locationOrLoadError"] or {}
            assert "message" not in error or "UNAVAILABLE" in error["message"], error["message"]
        loaded = [e for e in entries if (e["locationOrLoadError"] or {}).get("__typename") == "RepositoryLocation"]
        return bool(loaded)

    def _wait(self, done: Callable[[], Any], seconds: float, what: str) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := done()):
            for name, process in self.processes.items():
                assert process.poll() is None, f"{name} has ended: {self._tail(name)}"
            assert time.monotonic() < deadline, f"expected {what} within {seconds:g} s; {self._summary()}"
            time.sleep(1)
        return found

    def _tail(self, name: str) -> str:
        return (self.log / f"{name}.log").read_text(errors="replace")[-3000:]

    def _summary(self) -> str:
        try:
            runs = "\n".join(f"{r.id[:8]} {r.job} {r.status} {r.by_sensor}" for r in self.runs())
        except (OSError, AssertionError) as error:
            runs = str(error)
        return f"runs:\n{runs}\ndaemon: {self._tail('daemon')}"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def working(env: Mapping[str, str], *command: str) -> Generator[subprocess.Popen[bytes]]:
    """`ecom …` at work for as long as the block lasts; then stopped as by Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ecom_assets.cli", *command],
        env=dict(env) | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.send_signal(2)
        try:
            _, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert process.returncode == 0, err.decode(errors="replace")[-3000:]
