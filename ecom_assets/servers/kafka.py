"""The embedded Kafka: one broker that is its own controller.

What belongs here: its configuration, and how one sees that it works. Topics and records belong to the room ``kafka``.
"""

from __future__ import annotations

import base64
import logging
import subprocess
import uuid
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from ecom_assets.core.addresses import split
from ecom_assets.core.errors import ServiceError
from ecom_assets.java import jars
from ecom_assets.servers.files import properties
from ecom_assets.servers.process import connects, inherited, tail
from ecom_assets.servers.server import Server


class Kafka(Server):
    """A broker that is its own controller (KRaft)."""

    name = "kafka"
    usual: ClassVar = {"broker": 9092, "controller": 9093}
    level = "warn"
    elsewhere: ClassVar = "kafka"
    serves: ClassVar = "kafka"

    @property
    @override
    def half_written(self) -> Path | None:
        return self._formatting if self._formatting.exists() else None

    @override
    def prepare(self, ports: dict[str, int]) -> None:
        if not self.data.exists():
            # Formatted aside and moved: a data folder that is there is a complete one.
            self._write_properties(ports, self._formatting)
            tool = [
                *self._tool(),
                "kafka.tools.StorageTool",
                "format",
                "-t",
                self._cluster_id(),
                "-c",
                self._properties,
            ]
            done = subprocess.run(tool, capture_output=True, text=True, check=False, env=inherited())
            if done.returncode:
                raise ServiceError(
                    f"kafka: cannot format {self._formatting}: {(done.stderr or done.stdout)[-2000:]}\n"
                    f"{tail(self.log)}",
                    "fix the cause above (usually disk space or permissions) and retry",
                )
            self._formatting.rename(self.data)
        self._write_properties(ports, self.data)

    @override
    def command(self, ports: dict[str, int]) -> list[str]:
        return [*self._tool(), "kafka.Kafka", self._properties]

    @override
    def answers(self, address: str) -> bool:
        if not any(connects(*split(a)) for a in address.split(",")):
            return False
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        quiet = logging.getLogger("ecom_assets.servers.kafka_probe")
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
        config: dict[str, str | float] = {"bootstrap.servers": address, "socket.timeout.ms": 3000}
        config.update(self.settings.kafka_config)
        try:
            return bool(AdminClient(config, logger=quiet).list_topics(timeout=3).brokers)
        except KafkaException:
            return False

    @property
    def _formatting(self) -> Path:
        return self.folder / "formatting"

    @property
    def _properties(self) -> str:
        return str(self.conf / "server.properties")

    def _tool(self) -> list[str]:
        return self.java(self.memory, jars.classpath("kafka"))

    def _cluster_id(self) -> str:
        """A cluster id as Kafka writes it: base64 of a UUID; one that begins with a dash would look like an option."""
        while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
            pass
        return text

    def _write_properties(self, ports: dict[str, int], data: Path) -> None:
        (self.conf / "server.properties").write_text(properties(self.properties(ports, data)), encoding="ascii")

    def properties(self, ports: dict[str, int], data: Path) -> dict[str, object]:
        """The content of its ``server.properties``."""
        host = self.settings.host
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            # The static form: unlike a formatted quorum it lets the controller's port change.
            "controller.quorum.voters": f"1@{host}:{ports['controller']}",
            "listeners": f"PLAINTEXT://{host}:{ports['broker']},CONTROLLER://{host}:{ports['controller']}",
            "advertised.listeners": f"PLAINTEXT://{host}:{ports['broker']}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": data,
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 8,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 8,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            # A topic is a layer of a table here: it must not expire.
            "log.retention.ms": -1,
            "log.retention.bytes": -1,
            "offsets.retention.minutes": 2147483647,
            "message.max.bytes": 8 * 1024 * 1024,
            "replica.fetch.max.bytes": 8 * 1024 * 1024,
            # After a kill, the broker is let in again only when its last session is over (default 9 s).
            "broker.session.timeout.ms": 5000,
            "broker.heartbeat.interval.ms": 1000,
        }
