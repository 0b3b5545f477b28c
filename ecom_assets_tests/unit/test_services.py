"""The services without a server: records, ports, the lock of jars, external addresses."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from ecom_assets.core.addresses import split
from ecom_assets.core.errors import ServiceError
from ecom_assets.core.settings import load
from ecom_assets.java import jars
from ecom_assets.servers import files, kinds, memory, process
from ecom_assets.servers import stack as stack_module
from ecom_assets.servers.process import Record
from ecom_assets.servers.stack import Stack


@pytest.fixture
def record() -> Record:
    """A record of this very process."""
    me = psutil.Process()
    return Record("kafka", "127.0.0.1", {"broker": 9092}, me.pid, me.create_time(), me.cmdline(), "now")


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    """The stack of an empty home; nothing of it is started."""
    return Stack(load(home=tmp_path))


def test_a_server_heeds_sigterm_though_its_starter_does_not(record: Record, tmp_path: Path) -> None:
    """Servers started in the background of a shell would be killed at `ecom down`, after a minute's wait."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        started = process.spawn(record, ["sleep", "60"], tmp_path, tmp_path / "out.log", {})
    finally:
        signal.signal(signal.SIGTERM, before)
    child = psutil.Process(started.pid)
    while child.name() != "sleep":
        time.sleep(0.01)
    assert process.stop(child, 5)
    assert started.command == ["sleep", "60"]


def test_record_survives_the_disk(record: Record, tmp_path: Path) -> None:
    """Without it no command would find what another one started."""
    record.write(tmp_path / "a" / "service.json")
    assert Record.read(tmp_path / "a" / "service.json") == record
    assert Record.read(tmp_path / "absent.json") is None


def test_broken_record_says_what_to_do(tmp_path: Path) -> None:
    """A half-written file must not end in a stack trace."""
    path = tmp_path / "service.json"
    path.write_text('{"pid": ')
    with pytest.raises(ServiceError, match=r"(?s)service\.json.*Remedy: remove"):
        Record.read(path)


def test_reused_pid_is_not_our_server(record: Record) -> None:
    """Else `down` would kill a stranger that got the pid of a server long gone."""
    assert record.process()
    assert replace(record, created=record.created - 3600).process() is None
    assert replace(record, command=["java", "kafka.Kafka"]).process() is None, "born in the same second"
    assert replace(record, command=["setpriv", "--", *record.command]).process(), "what it was started as became this"
    assert record.stopped().process() is None


def test_a_process_that_shows_no_command_line_yet_runs(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a server that was started a moment ago is taken for ended, and `ecom up` gives up."""
    monkeypatch.setattr(psutil.Process, "cmdline", lambda _: [])
    assert record.process()


def test_ended_process_is_not_running(record: Record) -> None:
    """A child that ended stays as a zombie until it is waited for; it does not serve."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    created = psutil.Process(child.pid).create_time()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert replace(record, pid=child.pid, created=created, command=[]).process() is None
    child.wait()


def test_ports_remembered_then_usual_then_any() -> None:
    """A home keeps its addresses, and two homes never share a port."""
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as spare:
        busy, free = taken.getsockname()[1], spare.getsockname()[1]
        spare.close()
        host = "127.0.0.1"
        assert process.choose_ports(host, {"a": busy}, {"a": free}, set()) == {"a": free}
        assert process.choose_ports(host, {"a": free}, {"a": busy}, set()) == {"a": free}
        promised = {free}
        lasting = process.choose_ports(host, {"a": free}, {}, set(), {"a"})["a"]
        assert lasting != free, "another home would choose the usual one too"
        assert process.choose_ports(host, {"a": free}, {"a": lasting}, set(), {"a"}) == {"a": lasting}
        with pytest.raises(ServiceError, match=f"expected port {busy} to be free, which this home's a keeps for good"):
            process.choose_ports(host, {"a": free}, {"a": busy}, set(), {"a"})
        other = process.choose_ports(host, {"a": busy, "b": free}, {}, promised)
        assert not {busy, free} & set(other.values())
        assert promised == {free, *other.values()}
        assert len(set(other.values())) == 2


def test_lock_is_complete() -> None:
    """Each server needs its main jar, and Spark must not get a second copy of its own."""
    names = {(j.set, j.artifact) for j in jars.load()}
    wanted = {("kafka", "kafka_2.13"), ("hbase", "hbase-server"), ("hbase", "hbase-thrift")}
    assert wanted | {("spark", "delta-spark_4.2_2.13")} <= names
    assert not any(("spark", a) in names for a in ("scala-library", "jackson-databind", "slf4j-api"))
    with pytest.raises(KeyError, match="kafka, hbase, spark"):
        jars.classpath("zookeeper")


def test_lock_line_that_is_malformed(tmp_path: Path) -> None:
    """A bad merge of the lock must name its line."""
    lock = tmp_path / "jars.lock"
    lock.write_text("# comment\n\nkafka\tg:a:1\t12\tnot-a-digest\n")
    with pytest.raises(ServiceError, match="line 3"):
        jars.load(lock)


def test_classifier_is_in_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two jars that differ in their classifier alone are two files."""
    monkeypatch.setenv("M2_REPO", str(tmp_path))
    jar = jars.Jar("kafka", "a.b", "c", "1", "linux", 1, "")
    assert jar.path == tmp_path / "a" / "b" / "c" / "1" / "c-1-linux.jar"
    assert jar.coordinate == "a.b:c:1:linux"


def test_jar_with_another_digest_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A jar that is not the locked one must never reach a class path."""
    monkeypatch.setenv("M2_REPO", str(tmp_path))
    jar = jars.Jar("kafka", "g", "a", "1", "", 4, hashlib.sha256(b"good").hexdigest())
    served = {"content": b"evil"}

    def download(wanted: jars.Jar) -> None:
        wanted.path.parent.mkdir(parents=True, exist_ok=True)
        wanted.path.write_bytes(served["content"])

    monkeypatch.setattr(jars, "_download", download)
    monkeypatch.setattr(jars, "load", lambda: (jar,))
    with pytest.raises(ServiceError) as error:
        jars.fetch()
    for part in (str(jar.path), jar.sha256, hashlib.sha256(b"evil").hexdigest(), "Remedy"):
        assert part in str(error.value)
    assert not jar.path.exists()

    served["content"] = b"good"
    jar.path.write_bytes(b"half")  # a download that broke off is fetched anew
    seen: list[tuple[int, int]] = []
    jars.fetch(lambda done, total: seen.append((done, total)))
    assert jar.path.read_bytes() == b"good"
    assert seen == [(4, 4)]
    seen.clear()
    jars.fetch(lambda done, total: seen.append((done, total)))
    assert not seen


def test_external_addresses_start_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a cluster at hand no Java must start and no jar be fetched."""

    def never(*_: object) -> None:
        pytest.fail("a server was to be started")

    monkeypatch.setattr(process, "spawn", never)
    monkeypatch.setattr(jars, "fetch", never)
    for server in (*kinds.EMBEDDED, *kinds.STORES):
        monkeypatch.setattr(server, "answers", lambda *_: True)
    settings = load(
        home=tmp_path,
        kafka="k1:9092,k2:9092",
        hbase_thrift="h:9090",
        hbase_zookeeper="z:2181",
        spark="sc://s:15002",
        postgres="postgresql://p:5432/d",
        redis="redis://r:6379/0",
    )
    addresses = Stack(settings).up()
    assert addresses.kafka == "k1:9092,k2:9092"
    assert addresses.hbase_thrift == ("h", 9090)
    assert addresses.hbase_zookeeper == "z:2181"
    assert addresses.spark == "sc://s:15002"
    assert addresses.postgres == "postgresql://p:5432/d"
    assert addresses.redis == "redis://r:6379/0"
    assert {s.state for s in Stack(settings).status()} == {"external"}


def test_external_server_that_does_not_answer(tmp_path: Path) -> None:
    """A wrong address must be reported before any server of ours is started."""
    stack = Stack(load(home=tmp_path, spark="sc://127.0.0.1:1"))
    with pytest.raises(ServiceError, match=r"spark: .*127\.0\.0\.1:1"):
        stack.up()
    assert not (tmp_path / "stack").exists()


def test_addresses_of_what_does_not_run(stack: Stack) -> None:
    """The error names the home and the command."""
    with pytest.raises(ServiceError, match=r"(?s)kafka does not run.*ecom up"):
        stack.addresses()


def test_status_of_an_empty_home(stack: Stack) -> None:
    """Asking must not create anything."""
    assert {(s.service, s.state) for s in stack.status()} == {
        (n, "stopped") for n in ("kafka", "hbase", "thrift", "spark", "postgres", "redis")
    }
    stack.down()
    assert not stack.settings.stack.exists()


def test_doctor_sees_what_a_crash_left(stack: Stack) -> None:
    """Each leftover is reported in one sentence, with a remedy."""
    kafka, hbase = stack.servers["kafka"], stack.servers["hbase"]
    Record("kafka", "127.0.0.1", {}, 2**22 + 1, 1.0).write(kafka.record)
    (hbase.data / "hbase").mkdir(parents=True)
    found = {f.what: f for f in stack.doctor() if f.level == "warn"}
    assert any("kafka" in what and "without being stopped" in what for what in found)
    assert any(str(hbase.data) in what for what in found)
    assert all(f.remedy for f in found.values())


@pytest.mark.parametrize(
    ("address", "expected"),
    [("h:1", ("h", 1)), ("sc://h:15002/;token=x", ("h", 15002)), ("[::1]:9", ("[::1]", 9))],
    ids=["plain", "connect", "ipv6"],
)
def test_split(address: str, expected: tuple[str, int]) -> None:
    """Addresses come in three forms."""
    assert split(address) == expected


def test_split_refuses() -> None:
    """An address without a port is a mistake to be reported."""
    with pytest.raises(ServiceError, match="host:port, got 'localhost'"):
        split("localhost")


def test_a_server_whose_starter_does_not_ask_has_ended(tmp_path: Path) -> None:
    """If this fails, `ecom down` waits for zombies of `ecom dev` and ends in a traceback."""
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout
        child = psutil.Process(int(starter.stdout.readline()))
        began = time.monotonic()
        assert process.stop(child, 20)
        assert time.monotonic() - began < 10
        assert child.status() == psutil.STATUS_ZOMBIE
        starter.kill()


def test_a_server_that_has_ended_is_let_go(record: Record, tmp_path: Path) -> None:
    """If this fails, each server that ends while `ecom dev` runs stays in the list of processes."""
    started = process.spawn(record, [sys.executable, "-c", ""], tmp_path, tmp_path / "out.log", {})
    end = time.monotonic() + 20
    while psutil.pid_exists(started.pid or 0) and time.monotonic() < end:
        process.reap()
        time.sleep(0.01)
    assert not psutil.pid_exists(started.pid or 0)


def test_paths_survive_the_way_into_java(tmp_path: Path) -> None:
    """If this fails, a home with an umlaut in its path has its data in a folder next to it."""
    path = tmp_path / "Käufe 1 \U0001f6d2"
    text = files.properties({"log.dirs": path, "other": r"C:\new"})
    assert text.isascii()
    back = text.encode("ascii").decode("unicode_escape").encode("utf-16", "surrogatepass").decode("utf-16")
    assert f"log.dirs={path}\n" in back
    assert r"other=C:\new" in back
    kafka = kinds.Kafka(load(home=path))
    kafka.make_folders()
    kafka._write_properties({"broker": 1, "controller": 2}, kafka.data)
    for name in ("server.properties", "log4j2.properties"):
        assert (kafka.conf / name).read_bytes().isascii()


@pytest.mark.parametrize(("locale", "kept"), [("C", False), ("", False), ("de_DE.UTF-8", True), ("C.utf8", True)])
def test_java_is_given_a_locale_that_can_write_all_names(
    locale: str, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, servers started by cron do not find a home with an umlaut in its path."""
    for name in ("LC_ALL", "LC_CTYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", locale)
    assert ("LC_ALL" not in process.inherited()) is kept


def test_the_start_lock_is_this_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, any user of the machine can keep all others from starting their servers."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert process.runtime_folder() == tmp_path / "ecom_assets"
    assert process.runtime_folder().stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    (tmp_path / "me").mkdir()
    assert process.runtime_folder() == tmp_path / "me" / ".cache" / "ecom_assets"
    monkeypatch.setenv("HOME", "/proc/nobody")
    monkeypatch.setattr(process.tempfile, "gettempdir", lambda: str(tmp_path))
    taken = tmp_path / f"ecom_assets-{os.getuid()}"
    taken.symlink_to(tmp_path / "me")
    with pytest.raises(ServiceError, match="expected a folder of this user's for locks"):
        process.runtime_folder()
    taken.unlink()
    assert process.runtime_folder() == taken


def test_only_what_a_path_needs_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, loading HBase from files starts Kafka, Spark and PostgreSQL, and needs their memory and disk."""
    started: list[str] = []
    monkeypatch.setattr(jars, "fetch", lambda *_: None)
    monkeypatch.setattr(stack_module.Start, "run", lambda start: started.extend(start.servers))
    monkeypatch.setattr(Stack, "addresses", lambda *_: None)
    stack = Stack(load(home=tmp_path))
    stack.up(needed=("hbase", "thrift"))
    assert started == ["hbase", "thrift"]
    started.clear()
    stack.up(needed=(), also=("dashboard",))
    assert started == ["dashboard"]
    started.clear()
    stack.up()
    assert started == ["kafka", "hbase", "thrift", "spark", "postgres", "redis"]


def test_addresses_of_what_is_not_needed_may_be_missing(tmp_path: Path, record: Record) -> None:
    """If this fails, a path without Kafka fails because no Kafka runs."""
    stack = Stack(load(home=tmp_path))
    for name, port in (("hbase", {"zookeeper": 2181}), ("thrift", {"thrift": 9090})):
        replace(record, service=name, ports=port).write(stack.servers[name].record)
    found = stack.addresses(needed=("hbase", "thrift"))
    assert (found.hbase_zookeeper, found.hbase_thrift, found.kafka) == ("127.0.0.1:2181", ("127.0.0.1", 9090), "")
    with pytest.raises(ServiceError, match="kafka does not run"):
        stack.addresses()


def test_a_failed_start_names_what_still_runs(tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, servers keep a machine's memory after a command that failed, and nobody knows."""

    def fail(_: object) -> None:
        raise ServiceError("hbase: ended 3 s after its start", "fix it")

    monkeypatch.setattr(jars, "fetch", lambda *_: None)
    monkeypatch.setattr(stack_module.Start, "run", fail)
    stack = Stack(load(home=tmp_path))
    with pytest.raises(ServiceError) as alone:
        stack.up()
    assert "still run" not in str(alone.value)
    for name in ("kafka", "redis"):
        record.write(stack.servers[name].record)
    with pytest.raises(ServiceError, match=rf"(?s)ended 3 s.*kafka, redis still run; `ecom down --home {tmp_path}`"):
        stack.up()


def test_remedies_name_the_home(stack: Stack, tmp_path: Path) -> None:
    """If this fails, a remedy that is followed starts another stack in the current folder."""
    with pytest.raises(ServiceError, match=f"run `ecom up --home {tmp_path}`"):
        stack.address("kafka")
    Record("kafka", "127.0.0.1", {}, 2**22 + 1, 1.0).write(stack.servers["kafka"].record)
    reported = [f.remedy for f in stack.doctor() if "`ecom " in f.remedy]
    assert reported
    assert all(f"--home {tmp_path}`" in remedy for remedy in reported)


@pytest.mark.parametrize(
    ("given", "machine", "spark", "hbase"),
    [
        ({}, 64, "1g", "1g"),
        ({"scale": 1.0}, 64, "4096m", "2048m"),
        ({"scale": 1.0}, 8, "2048m", "1024m"),
        ({"scale": 1.0}, 2, "1024m", "1024m"),
        ({"scale": 1.0, "spark_memory": "3g"}, 2, "3g", "1024m"),
    ],
    ids=["small data", "large machine", "laptop", "tiny machine", "as set"],
)
def test_heaps_fit_data_and_machine(
    given: dict[str, object], machine: int, spark: str, hbase: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, a hundred thousand rows take six gigabytes, or full size does not fit its heap."""
    monkeypatch.setattr(memory, "machine_memory", lambda: machine * 2**30)
    servers = Stack(load(home=tmp_path, **given)).servers
    assert (servers["spark"].memory, servers["hbase"].memory) == (spark, hbase)
