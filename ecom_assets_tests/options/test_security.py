"""A Kafka that lets in by name and password over TLS alone: rows go through it, and strangers do not."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from typing_extensions import override

from ecom_assets.core.addresses import Addresses
from ecom_assets.core.context import Context
from ecom_assets.core.errors import LakeError, TopicError
from ecom_assets.core.layer import Cut, Offsets
from ecom_assets.core.settings import Settings, load
from ecom_assets.dataset.model import Table
from ecom_assets.java import jars
from ecom_assets.java.program import JAVA, run_java
from ecom_assets.kafka import clients, producer
from ecom_assets.kafka.layer import TopicLayer
from ecom_assets.lake.streamed import StreamedLayer
from ecom_assets.paths import CHUNKED, STREAMED, TOPIC
from ecom_assets.servers.kafka import Kafka
from ecom_assets.servers.stack import Stack
from ecom_assets_tests.chunks import click_chunks, total
from ecom_assets_tests.tables import CLICK_STREAM, SHOP

NAME = "shop"


@dataclass(frozen=True)
class Secrets:
    """What the broker and its clients share.

    Attributes:
        keys: The broker's key and certificate.
        certificate: The certificate alone, for clients.
        password: Of ``NAME``, and of the keys.
    """

    keys: Path
    certificate: Path
    password: str

    def config(self, **changed: str) -> dict[str, str]:
        """Settings of a client that is let in, as librdkafka spells them."""
        return {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": NAME,
            "sasl.password": self.password,
            "ssl.ca.location": str(self.certificate),
        } | {name.replace("_", "."): value for name, value in changed.items()}


def make_secrets(folder: Path) -> Secrets:
    """Make a password, and a certificate for 127.0.0.1, by Java's own tool."""
    made = Secrets(folder / "broker.p12", folder / "ca.pem", secrets.token_hex(16))
    store = ["-alias", "broker", "-keystore", str(made.keys), "-storepass", made.password]
    tool = str(Path(JAVA).with_name("keytool"))
    for command in (
        ["-genkeypair", "-keyalg", "RSA", "-keysize", "2048", "-dname", "CN=localhost", "-validity", "2",
         "-ext", "san=dns:localhost,ip:127.0.0.1", *store],
        ["-exportcert", "-rfc", "-file", str(made.certificate), *store],
    ):  # fmt: skip
        subprocess.run([tool, *command], check=True, capture_output=True)
    return made


class GuardedKafka(Kafka):
    """A broker whose one door for clients is SASL over TLS."""

    secrets: Secrets

    @override
    def prepare(self, ports: dict[str, int]) -> None:
        if not self.data.exists():
            # Whom it lets in is written when its folder is formatted.
            self._write_properties(ports, self._formatting)
            run_java(
                jars.classpath("kafka"), "kafka.tools.StorageTool", "format", "-t", self._cluster_id(),
                "-c", self._properties, "--add-scram", f"SCRAM-SHA-512=[name={NAME},password={self.secrets.password}]",
                log=self.folder / "log" / "format.log", heap="256m", expected="expected a folder", remedy="see its log",
            )  # fmt: skip
            self._formatting.rename(self.data)
        super().prepare(ports)

    @override
    def properties(self, ports: dict[str, int], data: Path) -> dict[str, object]:
        host, password = self.settings.host, self.secrets.password
        module = "org.apache.kafka.common.security.scram.ScramLoginModule"
        return super().properties(ports, data) | {
            "listeners": f"SASL_SSL://{host}:{ports['broker']},CONTROLLER://{host}:{ports['controller']}",
            "advertised.listeners": f"SASL_SSL://{host}:{ports['broker']}",
            "listener.security.protocol.map": "SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "SASL_SSL",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config":
                f'{module} required username="{NAME}" password="{password}";',
            "ssl.keystore.location": self.secrets.keys,
            "ssl.keystore.type": "PKCS12",
            "ssl.keystore.password": password,
            "ssl.truststore.location": self.secrets.certificate,
            "ssl.truststore.type": "PEM",
        }  # fmt: skip


@pytest.fixture(scope="module")
def guarded(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Addresses, Secrets]]:
    """The servers with such a broker, and what gets one in."""
    at, home = stack.addresses(), tmp_path_factory.mktemp("guarded")
    GuardedKafka.secrets = made = make_secrets(home)
    settings = load(
        home=home,
        class_archives=False,
        kafka_memory="256m",
        kafka_config=made.config(),
        hbase_thrift="{}:{}".format(*at.hbase_thrift),
        hbase_zookeeper=at.hbase_zookeeper,
        spark=at.spark,
        postgres=at.postgres,
        redis=at.redis,
    )
    others = Stack(settings)
    others.servers["kafka"] = GuardedKafka(settings)
    try:
        yield others.up(), made
    finally:
        others.down(grace=5)


def own(settings: Settings, home: Path, config: dict[str, str]) -> Settings:
    """Settings of a home and namespace of the test's own."""
    update = {"namespace": f"guarded_{secrets.token_hex(4)}", "home": home, "kafka_config": config}
    return settings.model_copy(update=update)


def test_rows_pass_a_guarded_broker(
    guarded: tuple[Addresses, Secrets], spark: SparkSession, settings: Settings, tmp_path: Path
) -> None:
    """If this fails, whoever guards their Kafka cannot use the project with it."""
    addresses, made = guarded
    mine = own(settings, tmp_path, made.config())
    chunks = click_chunks(mine)
    rows, checksum = total(chunks)
    assert producer.produce(CHUNKED, CLICK_STREAM, mine, addresses.kafka).rows == rows
    with Context(mine, SHOP, lambda: addresses, lambda: spark) as at:
        found = TOPIC.measure(at, CLICK_STREAM, TOPIC.extend(at, CLICK_STREAM, Cut())).measure
        assert (found.rows, found.checksum) == (rows, checksum)
        assert STREAMED.build(at, CLICK_STREAM).rows == rows


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"sasl_password": "wrong"}, "Authentication failed"),
        ({"sasl_username": "stranger"}, "Authentication failed"),
        ({"ssl_ca_location": ""}, "certificate"),
        ({"security_protocol": "SASL_PLAINTEXT"}, "disconnected|transport|EOF"),
    ],
    ids=["password", "name", "certificate", "plain text"],
)
def test_strangers_are_refused_and_told_why(
    guarded: tuple[Addresses, Secrets],
    settings: Settings,
    tmp_path: Path,
    changed: dict[str, str],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If this fails, the guard lets everyone in; or people look for a broker that is down, and it is their password."""
    addresses, made = guarded
    monkeypatch.setattr(clients, "ADMIN_SECONDS", 3)
    config = {name: value for name, value in made.config(**changed).items() if value}
    mine = own(settings, tmp_path, config)
    click_chunks(mine)
    with pytest.raises(TopicError, match=reason):
        producer.produce(CHUNKED, CLICK_STREAM, mine, addresses.kafka)


class KnownOffsets(TopicLayer):
    """Topics whose offsets were read before the password changed: what meets the guard first is Spark."""

    def __init__(self, known: dict[str, Offsets]) -> None:
        super().__init__(CHUNKED)
        self.known = known

    @override
    def offsets(self, at: Context, tables: Iterable[Table]) -> dict[str, Offsets]:
        return self.known


def test_a_stream_is_refused_and_told_why(
    guarded: tuple[Addresses, Secrets],
    spark: SparkSession,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If this fails, the stream waits for ever for a broker that does not let it in."""
    addresses, made = guarded
    inside = own(settings, tmp_path, made.config())
    click_chunks(inside)
    producer.produce(CHUNKED, CLICK_STREAM, inside, addresses.kafka)
    with Context(inside, SHOP, lambda: addresses) as at:
        known = TOPIC.offsets(at, [CLICK_STREAM])
    outside = inside.model_copy(update={"kafka_config": made.config(sasl_password="wrong")})
    monkeypatch.setattr(clients, "ADMIN_SECONDS", 3)
    with Context(outside, SHOP, lambda: addresses, lambda: spark) as at:
        with pytest.raises(TopicError, match="Authentication failed"):
            STREAMED.build(at, CLICK_STREAM)
        with pytest.raises(LakeError, match="Authentication failed"):
            StreamedLayer(KnownOffsets(known)).build(at, CLICK_STREAM)
