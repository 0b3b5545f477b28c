"""How one sees that a server does its work: a few bytes of its own protocol, and the answer to them.

Python's own modules alone, and no import of the project's: a container's health check runs this file every few
seconds (``python -m ecom_assets.servers.probes kafka host:port``), and must cost next to nothing. An open port proves
little, since the system accepts connections for a process that hangs; so each probe asks something.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

TIMEOUT = 3.0
"""Seconds within which an answer must come."""


def exchange(host: str, port: int, question: bytes) -> bytes:
    """The first bytes that a server answers to a question, or nothing."""
    try:
        with socket.create_connection((host, port), TIMEOUT) as s:
            s.settimeout(TIMEOUT)
            s.sendall(question)
            return s.recv(64)
    except OSError:
        return b""


def fetch(host: str, port: int, path: str) -> bytes:
    """What a page of a server holds, or nothing if it is not served."""
    try:
        # Not by the environment's proxy: the servers are neighbours.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{host}:{port}{path}", timeout=TIMEOUT) as page:
            return page.read()
    except (OSError, urllib.error.URLError):
        return b""


def _json(host: str, port: int, path: str) -> Any:
    try:
        return json.loads(fetch(host, port, path) or b"{}")
    except ValueError:
        return {}


def _bean(host: str, port: int, query: str) -> dict[str, Any]:
    """The first bean that a Hadoop server's ``/jmx`` returns for a query."""
    found = _json(host, port, f"/jmx?qry={query}")
    beans = found.get("beans") if isinstance(found, dict) else None
    return beans[0] if beans else {}


def kafka(host: str, port: int) -> bool:
    """A broker returns which versions of requests it knows (ApiVersions 0, correlation id 7, no client id)."""
    answer = exchange(host, port, struct.pack(">ihhih", 10, 18, 0, 7, -1))
    return answer[4:10] == struct.pack(">ih", 7, 0)


def zookeeper(host: str, port: int) -> bool:
    """ZooKeeper's ``srvr``; one that has no leader responds that it does not serve."""
    return exchange(host, port, b"srvr").startswith(b"Zookeeper")


def namenode(host: str, port: int) -> bool:
    """HDFS takes writes: it is out of safe mode and has a datanode."""
    state = _bean(host, port, "Hadoop:service=NameNode,name=NameNodeInfo")
    return state.get("Safemode") == "" and state.get("LiveNodes", "{}") != "{}"


def datanode(host: str, port: int) -> bool:
    """A datanode has been let in by the namenode: it knows its block pool."""
    state = _bean(host, port, "Hadoop:service=DataNode,name=DataNodeInfo")
    return state.get("NamenodeAddresses", "{}") != "{}" and bool(state.get("ClusterId"))


def resourcemanager(host: str, port: int) -> bool:
    """YARN takes jobs: it has a node."""
    state = _bean(host, port, "Hadoop:service=ResourceManager,name=ClusterMetrics")
    return state.get("NumActiveNMs", 0) > 0


def nodemanager(host: str, port: int) -> bool:
    """A node manager is well, and has been let in by the resource manager."""
    state = _json(host, port, "/ws/v1/node/info").get("nodeInfo", {})
    return bool(state.get("nodeHealthy")) and state.get("nmStartupTime", 0) > 0


def hbase_master(host: str, port: int) -> bool:
    """The master is the active one, has ended its start, and a region server has reported."""
    state = _bean(host, port, "Hadoop:service=HBase,name=Master,sub=Server")
    return state.get("tag.isActiveMaster") == "true" and state.get("numRegionServers", 0) > 0


def regionserver(host: str, port: int) -> bool:
    """A region server knows its cluster, which it learns from the master when it registers."""
    state = _bean(host, port, "Hadoop:service=HBase,name=RegionServer,sub=Server")
    return bool(state.get("tag.clusterId"))


def thrift(host: str, port: int) -> bool:
    """HBase's Thrift server names the tables, for which it asks HBase itself."""
    name = b"getTableNames"
    call = struct.pack(">Ii", 0x80010001, len(name)) + name + struct.pack(">ib", 1, 0)
    return exchange(host, port, call).startswith(struct.pack(">I", 0x80010002))


def spark_master(host: str, port: int) -> bool:
    """The master is alive, and a worker has come."""
    state = _json(host, port, "/json/")
    return state.get("status") == "ALIVE" and state.get("aliveworkers", 0) > 0


def spark_worker(host: str, port: int) -> bool:
    """A worker that has registered is listed on the master's page."""
    return bool(_json(host, port, "/json/").get("masterwebuiurl"))


def grpc(host: str, port: int) -> bool:
    """The opening of HTTP/2, which carries gRPC: a server replies with its settings, frame type 4."""
    opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    return exchange(host, port, opening)[3:4] == b"\x04"


def postgres(host: str, port: int) -> bool:
    """PostgreSQL greets a role that knows no password with the question for it, and refuses while it starts."""
    body = struct.pack(">i", 196608) + b"user\0ecom\0database\0postgres\0\0"
    return exchange(host, port, struct.pack(">i", len(body) + 4) + body)[:1] == b"R"


def redis(host: str, port: int) -> bool:
    """Redis answers a PING, or asks for the password."""
    return exchange(host, port, b"PING\r\n").startswith((b"+PONG", b"-NOAUTH"))


def dagster(host: str, port: int) -> bool:
    """Dagster's webserver returns its version."""
    return bool(_json(host, port, "/server_info").get("dagster_version"))


def dashboard(host: str, port: int) -> bool:
    """Streamlit's own health page."""
    return fetch(host, port, "/_stcore/health") == b"ok"


PROBES: dict[str, Callable[[str, int], bool]] = {
    probe.__name__.replace("_", "-"): probe
    for probe in (
        kafka, zookeeper, namenode, datanode, resourcemanager, nodemanager, hbase_master, regionserver, thrift,
        spark_master, spark_worker, grpc, postgres, redis, dagster, dashboard,
    )
}  # fmt: skip
"""By name, as the command line has them."""


def main(arguments: list[str]) -> int:
    """Probe once: exit code 0 if the server does its work."""
    match arguments:
        case [name, address] if name in PROBES and address.rpartition(":")[2].isdigit():
            host, _, port = address.rpartition(":")
            if PROBES[name](host, int(port)):
                return 0
            print(f"{name}: nothing that does {name}'s work answers at {address}", file=sys.stderr)
            return 1
    print(f"expected one of {', '.join(PROBES)} and host:port, got {' '.join(arguments)!r}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
