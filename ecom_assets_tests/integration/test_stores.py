"""PostgreSQL and Redis as servers of the home: private, healed after a kill, replaced by an address."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from ecom_assets.core.errors import ServiceError
from ecom_assets.core.settings import Settings, load
from ecom_assets.servers.process import choose_ports
from ecom_assets.servers.stack import Stack

STORES = ("postgres", "redis")


def test_passwords_are_in_no_command_line_log_or_status(stack: Stack) -> None:
    """Whoever may list processes or read a log would own both stores."""
    for status in stack.status():
        if status.service in STORES:
            address = stack.address(status.service)
            password = address.split(":")[2].split("@")[0]
            assert len(password) > 20
            assert password not in status.address
            assert password not in " ".join(psutil.Process(status.pid).cmdline())
            assert password not in stack.servers[status.service].log.read_text()
            assert password not in repr(stack.addresses())
            assert (stack.servers[status.service].folder / "password").stat().st_mode & 0o077 == 0


def test_strangers_are_refused(stack: Stack) -> None:
    """A server that trusts whoever connects is open to every user of the machine."""
    host = stack.address("postgres").split("@")[1]
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://ecom:wrong@{host}")
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url("redis://" + stack.address("redis").split("@")[1]).ping()


def test_a_killed_postgres_comes_back_with_its_data(stack: Stack) -> None:
    """Its children hold its memory for a moment, and a start in that moment fails."""
    with psycopg.connect(stack.address("postgres")) as connection:
        connection.execute("DROP TABLE IF EXISTS kept")
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    (pid,) = [s.pid for s in stack.status() if s.service == "postgres"]
    assert pid
    os.kill(pid, signal.SIGKILL)
    stack.up()
    with psycopg.connect(stack.address("postgres")) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1000,)
        connection.execute("DROP TABLE kept")


def test_redis_keeps_its_answers_over_a_stop(stack: Stack) -> None:
    """Without this, everybody waits for Spark when the machine comes back, though no row has changed."""
    with redis.Redis.from_url(stack.address("redis")) as client:
        client.set("kept", "answer", ex=60)
    (pid,) = [s.pid for s in stack.status() if s.service == "redis"]
    assert pid
    process = psutil.Process(pid)
    process.terminate()
    process.wait(10)
    stack.up()
    with redis.Redis.from_url(stack.address("redis")) as client:
        assert client.get("kept") == b"answer"
        assert 0 < client.ttl("kept") <= 60


def test_a_store_elsewhere_is_not_started_and_its_password_not_shown(settings: Settings) -> None:
    """An address of an unreachable store must be named, without the secret in it."""
    for name in STORES:
        scheme = "postgresql" if name == "postgres" else name
        elsewhere = Stack(settings.model_copy(update={name: f"{scheme}://user:s3cret@127.0.0.1:1/0"}))
        (status,) = [s for s in elsewhere.status() if s.service == name]
        assert (status.state, status.answers) == ("external", False)
        assert "s3cret" not in status.address
        with pytest.raises(ServiceError, match=f"{name}: nothing that does") as error:
            elsewhere.up()
        assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("where", ["variable", "file"])
def test_a_store_is_reached_by_the_password_that_is_given(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """If this fails, a store elsewhere that asks for a password cannot be used, or one lets in whoever asks."""
    for right in (True, False):
        for name in STORES:
            address = stack.address(name)
            password = address.split(":")[2].split("@")[0]
            given = address if right else address.replace(password, "wrong")
            file = tmp_path / name
            file.write_text(given)
            variable, value = ("_FILE", str(file)) if where == "file" else ("", given)
            monkeypatch.setenv(f"ECOM_{name.upper()}{variable}", value)
        elsewhere = Stack(load(home=tmp_path))
        found = {s.service: (s.state, s.answers) for s in elsewhere.status() if s.service in STORES}
        assert found == dict.fromkeys(STORES, ("external", right))


@pytest.mark.parametrize("name", STORES)
def test_a_store_of_a_cluster_takes_its_password_from_a_file(name: str, tmp_path: Path) -> None:
    """If this fails, a container's secret must be a variable, which whoever may ask the engine can read."""
    kind = Stack(load(home=tmp_path)).servers[name]
    ports = choose_ports("127.0.0.1", kind.usual, {}, set(kind.usual.values()))
    secret, (port,) = tmp_path / "secret", ports.values()
    secret.write_text("fromafile\n")
    tmp_path.chmod(0o755)
    env = os.environ | {
        "ECOM_HOME": str(tmp_path / "home"),
        "ECOM_PORTS": str(ports).replace("'", '"'),
        "ECOM_PASSWORD_FILE": str(secret),
    }
    command = [sys.executable, "-m", "ecom_assets.cli", "serve", name]
    server = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = {
        "postgres": f"postgresql://ecom:{{}}@127.0.0.1:{port}/postgres", "redis": f"redis://:{{}}@127.0.0.1:{port}/0",
    }[name]  # fmt: skip
    try:
        end = time.monotonic() + 60
        while not kind.answers(address.format("fromafile")):
            assert server.poll() is None
            assert time.monotonic() < end, f"{name} does not take the password"
            time.sleep(0.2)
        assert not kind.answers(address.format("another"))
    finally:
        server.terminate()
        server.wait(30)
