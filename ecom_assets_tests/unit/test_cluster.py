"""The cluster without a server: how each is configured, what is refused, and the compose files."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from ecom_assets.core.errors import ServiceError
from ecom_assets.core.settings import ROOT, Settings, load
from ecom_assets.servers import probes, serve
from ecom_assets.servers.kinds import ROLES
from ecom_assets.servers.memory import heap_bytes
from ecom_assets.servers.nodes.dagster import INSTANCE
from ecom_assets.servers.nodes.hbase import RegionServer
from ecom_assets.servers.nodes.hdfs import DataNode
from ecom_assets.servers.nodes.kafka import Broker
from ecom_assets.servers.nodes.node import ANYWHERE, Node
from ecom_assets.servers.nodes.zookeeper import ZooKeeper
from ecom_assets.servers.process import Record
from ecom_assets.servers.redis import Redis
from ecom_assets.servers.stack import Stack

DOCKER = ROOT / "docker"
FILES = ("compose.yaml", "compose.stores.yaml")


def filled(file: str) -> dict[str, Any]:
    """A compose file with the defaults of its variables, and some word where there is none."""
    text = re.sub(
        r"\$\{\w+(?::([-?])([^}]*))?\}", lambda m: m[2] if m[1] == "-" else "word", (DOCKER / file).read_text()
    )
    return yaml.safe_load(text)


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    """The services of the cluster as it starts by default, with the defaults of its variables."""
    found = {}
    for file in FILES:
        found |= filled(file)["services"]
    return found


def role(service: dict[str, Any]) -> str:
    return service["command"][2] if service["command"][1] == "serve" else ""


def mebibytes(limit: str) -> int:
    return int(limit[:-1]) * {"m": 1, "g": 1024}[limit[-1]]


def settings_of(service: dict[str, Any]) -> Settings:
    """What the settings are in a service's container."""
    given = {k[5:].lower(): v for k, v in service["environment"].items() if k.startswith("ECOM_")}
    return Settings(**{k: v for k, v in given.items() if k in Settings.model_fields and v != ""})


def test_every_service_is_a_role_with_its_peers(services: dict[str, dict[str, Any]]) -> None:
    """If this fails, a container refuses to start for want of a variable."""
    played = set()
    for name, service in services.items():
        if not (part := role(service)):
            continue
        played.add(part)
        server = ROLES[part](settings_of(service))
        assert server.settings.host == ANYWHERE, name
        assert name == service["hostname"]
        if isinstance(server, Node):
            assert all(getattr(server.peers, need) for need in server.needs), name
        if isinstance(server, Broker):
            assert name == server.name
    assert played == set(ROLES)


def test_peers_are_services_of_the_cluster(services: dict[str, dict[str, Any]]) -> None:
    """If this fails, a server looks for a neighbour that is not there, or at a port that nobody has."""
    ports = {name: set(ROLES[role(s)].usual.values()) for name, s in services.items() if role(s)}
    for name, service in services.items():
        for key, value in service["environment"].items():
            for host, port in re.findall(r"([a-z][a-z0-9-]*):(\d{4,5})", str(value)):
                assert int(port) in ports[host], f"{name}: {key}"


def test_every_service_is_watched_limited_and_kept(services: dict[str, dict[str, Any]]) -> None:
    """If this fails, a container may hang unseen, take a laptop's memory, or lose its data."""
    named = {volume for file in FILES for volume in filled(file)["volumes"]}
    for name, service in services.items():
        if not role(service):
            continue
        test = service["healthcheck"]["test"]
        if name != "dagster-daemon":
            assert test[:4] == ["CMD", "python", "-m", probes.__name__], name
            assert test[4] in probes.PROBES, name
            host, port = test[5].split(":")
            assert host == name
            assert int(port) in ROLES[role(service)].usual.values(), name
        assert service["mem_limit"], name
        assert all(v.split(":")[0] in named for v in service["volumes"] if not v.startswith("/")), name
    total = sum(mebibytes(s["mem_limit"]) for s in services.values() if s.get("profiles") != ["yarn"])
    assert total <= 14.5 * 1024, f"limits of {total:,} MiB do not fit a laptop of 16 GiB"


def test_heaps_fit_their_limits(services: dict[str, dict[str, Any]]) -> None:
    """If this fails, a server refuses to start, or the kernel ends it when it has filled its heap."""
    for name, service in services.items():
        if role(service):
            server = ROLES[role(service)](settings_of(service))
            heap = heap_bytes(server.memory)
            if role(service) == "spark-worker":
                heap += heap_bytes(server.settings.worker_memory)
            assert heap * serve.BESIDE_HEAP <= mebibytes(service["mem_limit"]) << 20, name


def test_only_pages_are_published_and_on_loopback(services: dict[str, dict[str, Any]]) -> None:
    """If this fails, the network sees servers that ask nobody who they are."""
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"dagster-webserver", "dashboard"}
    pages = filled("compose.pages.yaml")["services"]
    for ports in [*published.values(), *(s["ports"] for s in pages.values())]:
        assert all(port.startswith("127.0.0.1:") for port in ports)


def test_a_run_is_told_what_its_launcher_passes_on(services: dict[str, dict[str, Any]]) -> None:
    """If this fails, Dagster cannot launch a run for want of a variable, or the run goes to other servers."""
    launcher = yaml.safe_load(INSTANCE.read_text())["run_launcher"]["config"]
    passed = set(launcher["env_vars"]) - {"DAGSTER_HOME"}
    for name in ("dagster-daemon", "dagster-webserver"):
        given = services[name]["environment"]
        assert passed <= given.keys()
    assert {k for k in given if k.startswith("ECOM_")} - passed == {"ECOM_HOST", "ECOM_CODE_LOCATION"}
    volumes = filled("compose.yaml")["volumes"]
    assert launcher["container_kwargs"]["volumes"] == [f"{volumes['home']['name']}:/data"]
    assert launcher["container_kwargs"]["auto_remove"] is True


def test_no_password_is_written_down() -> None:
    """If this fails, every cluster has the same password, and the repository has it too."""
    for path in DOCKER.iterdir():
        if path.is_file() and path.name != ".env":
            for value in re.findall(r"^\s*\w*PASSWORD(?:=|: )(.*)$", path.read_text(), re.MULTILINE):
                assert not value or value.startswith("${"), f"{path}: {value}"


@pytest.fixture(scope="module")
def starter() -> ModuleType:
    """What `make cluster-up` runs; it stands outside of the package, since it must do without it."""
    spec = importlib.util.spec_from_file_location("starter", DOCKER / "cluster.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_start_that_cannot_go_well_is_refused_before_it(starter: ModuleType) -> None:
    """If this fails, a cluster is half-started, and Compose's own words leave people guessing."""
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        given = starter.read(DOCKER / ".env.example") | dict.fromkeys(starter.PASSWORDS, "abc123")
        given["ECOM_DAGSTER_PORT"] = port = str(taken.getsockname()[1])
        given["ECOM_DASHBOARD_PORT"] = str(free.getsockname()[1])
        free.close()
        (message,) = starter.wrong(given, 16 << 30, [])
        assert f"port {port} of 127.0.0.1 to be free for dagster-webserver" in message
        assert not list(starter.wrong(given, 16 << 30, ["dagster-webserver"])), "its own port"
        given |= {"ECOM_POSTGRES_PASSWORD": "", "ECOM_REDIS_PASSWORD": "a/b", "ECOM_DASHBOARD_PORT": "http"}
        message = list(starter.wrong(given, 4 << 30, ["dagster-webserver"]))
    for what, sentence in zip(
        ("ECOM_POSTGRES_PASSWORD in", "ECOM_REDIS_PASSWORD in", "8 GiB of memory, but the Docker engine has 4.0",
         "ECOM_DASHBOARD_PORT in"),
        message, strict=True,
    ):  # fmt: skip
        assert what in sentence


def test_a_server_that_is_not_well_is_named(starter: ModuleType) -> None:
    """If this fails, one has to find out by hand which of two dozen containers keeps the others waiting."""
    states = {
        "kafka-1": ("running", "healthy"), "namenode": ("running", "unhealthy"), "thrift": ("created", ""),
        "postgres": ("restarting", ""), "redis": ("exited", ""),
    }  # fmt: skip
    lines = "\n".join(json.dumps({"Service": n, "State": s, "Health": h}) for n, (s, h) in states.items())
    assert dict(starter.sick(lines)) == {"namenode": "unhealthy", "postgres": "restarting", "redis": "exited"}


def test_brokers_agree(tmp_path: Path) -> None:
    """If this fails, three brokers are three clusters, or a row is acknowledged that one disk alone has."""
    settings = load(home=tmp_path, controllers="1@a:1,2@b:2,3@c:3", host=ANYWHERE, advertise="a")
    brokers = [Broker(settings, n) for n in (1, 2, 3)]
    ports = {"broker": 9092, "controller": 9093}
    reported = [b.properties(ports, b.data) for b in brokers]
    assert [t["node.id"] for t in reported] == [1, 2, 3]
    assert len({b._cluster_id() for b in brokers}) == 1
    assert len(brokers[0]._cluster_id()) == 22
    for each in reported:
        assert each["transaction.state.log.replication.factor"] == each["offsets.topic.replication.factor"] == 3
        assert each["min.insync.replicas"] == each["transaction.state.log.min.isr"] == 2
        assert each["advertised.listeners"] == "PLAINTEXT://a:9092,CONTROLLER://a:9093"
        assert each["listeners"] == "PLAINTEXT://0.0.0.0:9092,CONTROLLER://0.0.0.0:9093"
    alone = Broker(load(home=tmp_path, controllers="1@a:1"), 1).properties(ports, tmp_path)
    assert (alone["min.insync.replicas"], alone["default.replication.factor"]) == (1, 1)


def test_servers_of_one_start_meet(tmp_path: Path) -> None:
    """If this fails, processes of one machine look for each other at the usual ports, which others may have."""
    stack = Stack(load(home=tmp_path, profile="cluster"))
    places = {
        name: Record(name, "127.0.0.1", {purpose: 20000 + at * 10 + i for i, purpose in enumerate(server.usual)})
        for at, (name, server) in enumerate(stack.servers.items())
    }
    for server in stack.servers.values():
        server.meet(places)
    broker, region = stack.servers["kafka-2"], stack.servers["regionserver-1"]
    assert isinstance(broker, Broker)
    assert isinstance(region, RegionServer)
    assert broker.peers.controllers == ",".join(
        f"{n}@127.0.0.1:{places[f'kafka-{n}'].ports['controller']}" for n in (1, 2, 3)
    )
    site = region.site(places["regionserver-1"].ports)
    assert site["hbase.rootdir"] == f"hdfs://127.0.0.1:{places['namenode'].ports['rpc']}/hbase"
    assert site["hbase.zookeeper.property.clientPort"] == str(places["zookeeper"].ports["zookeeper"]) or (
        site["hbase.zookeeper.property.clientPort"] == places["zookeeper"].ports["zookeeper"]
    )


def test_an_address_names_all_brokers_though_one_is_away(tmp_path: Path, record_of_me: Record) -> None:
    """If this fails, a dead broker changes the address, and a topic is taken for one that was never filled."""
    stack = Stack(load(home=tmp_path, profile="cluster"))
    for n in (1, 2, 3):
        ports = {"broker": 9000 + n, "controller": 9100 + n}
        record = replace(record_of_me, ports=ports, pid=record_of_me.pid if n == 2 else 2**22 + 1)
        record.write(stack.servers[f"kafka-{n}"].record)
    assert stack.address("kafka") == "127.0.0.1:9001,127.0.0.1:9002,127.0.0.1:9003"
    with pytest.raises(ServiceError, match="hbase does not run"):
        stack.address("hbase")


@pytest.fixture
def record_of_me() -> Record:
    """A record of this very process."""
    import psutil

    me = psutil.Process()
    return Record("kafka", "127.0.0.1", {}, me.pid, me.create_time())


def test_a_home_keeps_its_profile(tmp_path: Path) -> None:
    """If this fails, a cluster's home is opened by embedded servers, which know nothing of its data."""
    assert Stack(load(home=tmp_path)).profile == "embedded"
    (tmp_path / "stack").mkdir()
    (tmp_path / "stack" / "profile").write_text("cluster\n")
    assert Stack(load(home=tmp_path)).profile == "cluster"
    with pytest.raises(ServiceError, match="expected the profile cluster, with which it was started, got embedded"):
        Stack(load(home=tmp_path, profile="embedded"))


def checked(kind: type[Node], home: Path, **given: object) -> None:
    server = kind(load(home=home, **given))
    serve.check(server, kind.name, dict(server.usual | server.settings.ports))


def test_serve_refuses_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a container restarts for ever, and its log shows Java's stack traces in place of the reason."""
    with pytest.raises(ServiceError, match="expected ECOM_NAMENODE"):
        checked(DataNode, tmp_path)
    with pytest.raises(ServiceError, match="expected ECOM_NODE"):
        checked(Broker, tmp_path, controllers="1@a:1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError, match=rf"port {port} \(zookeeper\) of 127\.0\.0\.1 to be free"):
            checked(ZooKeeper, tmp_path, ports={"zookeeper": port})
    free = {"zookeeper": port}
    checked(ZooKeeper, tmp_path, ports=free)
    monkeypatch.setattr(serve, "memory_limit", lambda: 1100 * 2**20)
    with pytest.raises(ServiceError, match="expected 1,250 MiB of memory"):
        checked(ZooKeeper, tmp_path, ports=free, memory="1000m")
    checked(ZooKeeper, tmp_path, ports=free, memory="800m")


def test_a_volume_of_another_version_is_refused(tmp_path: Path) -> None:
    """If this fails, a new broker rewrites an old one's data, and there is no way back."""
    server = ZooKeeper(load(home=tmp_path))
    server.folder.mkdir(parents=True)
    serve.made_by(server, "zookeeper")  # an empty folder is anyone's
    serve.sign(server, "zookeeper")
    serve.made_by(server, "zookeeper")
    signed = server.folder / "made_by.json"
    signed.write_text(json.dumps(json.loads(signed.read_text()) | {"version": "3.4.6"}))
    with pytest.raises(ServiceError, match=r"they are of zookeeper 3\.4\.6"):
        serve.made_by(server, "zookeeper")
    serve.made_by(ZooKeeper(load(home=tmp_path, upgrade=True)), "zookeeper")
    signed.write_text(json.dumps({"server": "kafka-2", "version": "4.1.0"}))
    with pytest.raises(ServiceError, match=r"of kafka-2 4\.1\.0(.|\n)*a folder \(a volume\) of its own"):
        serve.made_by(ZooKeeper(load(home=tmp_path, upgrade=True)), "zookeeper")


@pytest.mark.parametrize("name", serve.MADE_BY)
def test_versions_are_known(name: str, tmp_path: Path) -> None:
    """If this fails, a server with data does not know whose they are."""
    kind = ROLES[name]
    assert re.match(r"\d+\.\d+", serve.signature(kind(load(home=tmp_path)), name)["version"])


def test_the_smaller_limit_counts(tmp_path: Path) -> None:
    """If this fails, a container's limit is not seen, and the kernel kills what was let start."""
    assert serve.memory_limit(tmp_path) > 2**28
    (tmp_path / "memory.max").write_text("max\n")
    assert serve.memory_limit(tmp_path) > 2**28
    (tmp_path / "memory.max").write_text(f"{2**28}\n")
    assert serve.memory_limit(tmp_path) == 2**28


def test_probes_see_through_an_open_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a server that hangs counts as healthy, since the system accepts connections in its place."""
    monkeypatch.setattr(probes, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        for name in ("kafka", "zookeeper", "namenode", "thrift", "grpc", "postgres", "redis"):
            assert probes.main([name, address]) == 1, name
    assert probes.main(["kafka", "nowhere"]) == 2


def test_a_password_given_is_the_servers(tmp_path: Path) -> None:
    """If this fails, a store makes a password up that nobody else in the cluster knows."""
    server = Redis(load(home=tmp_path, password="given"))
    server.make_folders()
    assert server.password == "given"
    assert server.password_file.stat().st_mode & 0o077 == 0
