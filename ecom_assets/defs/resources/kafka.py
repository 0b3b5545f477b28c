"""Kafka as a Dagster resource: an address, from which the pipeline's one place builds clients.

How a client is configured is defined in ``kafka.clients.Clients``, not here.
"""

from __future__ import annotations

import dagster as dg
from pydantic import Field

from ecom_assets.core.settings import load
from ecom_assets.kafka.clients import Clients
from ecom_assets.servers.stack import Stack


class KafkaResource(dg.ConfigurableResource):
    """The brokers; what is left empty means the settings' or the home's own.

    Dagster shows a resource's configuration to anyone who opens its UI, so passwords belong in
    ``ECOM_KAFKA_CONFIG``.
    """

    bootstrap: str = Field("", description="Bootstrap servers, host:port[,host:port]")
    config: dict[str, str] = Field(
        default_factory=dict, description="Further librdkafka settings, in place of ECOM_KAFKA_CONFIG"
    )

    def clients(self) -> Clients:
        """What builds producers, consumers and admin clients.

        Raises:
            ServiceError: No address is given, and the home's own servers do not run.
        """
        own = load()
        bootstrap = self.bootstrap or own.kafka or Stack(own).addresses().kafka
        return Clients(bootstrap, self.config or own.kafka_config)
