"""Kafka's brokers in a cluster.

What belongs here: what differs from the embedded broker.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from ecom_assets.servers.kafka import Kafka
from ecom_assets.servers.nodes.node import Node


class Broker(Node, Kafka):
    """A broker and controller among others of its kind."""

    name = "kafka"
    heap = "512m"
    needs = ("controllers",)
    health = ("kafka", "broker")
    # The last of a cluster waits for a leave that nobody can give any more.
    grace = 15
    elsewhere: ClassVar = "kafka"
    serves: ClassVar = "kafka"

    @override
    def properties(self, ports: dict[str, int], data: Path) -> dict[str, object]:
        listen, voters = self.settings.host, self.peers.controllers
        brokers = len(voters.split(","))
        copies = min(3, brokers)
        listeners = {"PLAINTEXT": "broker", "CONTROLLER": "controller"}
        return super().properties(ports, data) | {
            "node.id": self.number,
            "controller.quorum.voters": voters,
            "listeners": ",".join(f"{name}://{listen}:{ports[to]}" for name, to in listeners.items()),
            "advertised.listeners": ",".join(f"{n}://{self.advertised}:{ports[to]}" for n, to in listeners.items()),
            "default.replication.factor": copies,
            # A write counts when all copies but one have it: one broker may be away, and no acknowledged row with it.
            "min.insync.replicas": max(1, copies - 1),
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": max(1, copies - 1),
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": max(1, copies - 1),
            # A copy that lags so long is left out, and waited for no more (default 30 s).
            "replica.lag.time.max.ms": 10000,
        }

    @override
    def _cluster_id(self) -> str:
        # All brokers must be formatted with the same one, and none of them is the first.
        digest = hashlib.sha256(self.settings.cluster.encode()).digest()[:15]
        return base64.urlsafe_b64encode(b"\0" + digest).decode().rstrip("=")
