"""Spark's Kafka source: how a topic is read as a stream.

What belongs here: the options of the source and the translation of Kafka's security settings for the Java client.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ecom_assets.core.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

RECORDS_PER_BATCH = 4_000_000
"""Offsets of one micro-batch; memory does not depend on it, and a commit costs about a second."""


def read(spark: SparkSession, topic: str, settings: Settings, kafka: str, start: str) -> DataFrame:
    """The records of a topic as a stream.

    Args:
        spark: A Spark Connect session.
        topic: Name of the topic.
        settings: For Kafka's security settings.
        kafka: Bootstrap servers, as Spark reaches them.
        start: Where to begin, as Spark's ``startingOffsets``.
    """
    options = {
        **{f"kafka.{k}": v for k, v in java_kafka_config(settings.kafka_config).items()},
        "kafka.bootstrap.servers": kafka,
        "kafka.isolation.level": "read_committed",
        "kafka.max.poll.records": "10000",
        # Behind the last record of a partition comes the marker of its transaction: Kafka would delay the response by
        # its default of half a second to wait for more.
        "kafka.fetch.max.wait.ms": "10",
        # After half a minute of silence a broker counts as gone; the defaults wait for two minutes, several times.
        "kafka.request.timeout.ms": "15000",
        "kafka.default.api.timeout.ms": "30000",
        "kafkaConsumer.pollTimeoutMs": "30000",
        "subscribe": topic,
        "startingOffsets": start,
        "failOnDataLoss": "true",
        "maxOffsetsPerTrigger": str(RECORDS_PER_BATCH),
    }
    return spark.readStream.format("kafka").options(**options).load()


def java_kafka_config(config: Mapping[str, str]) -> dict[str, str]:
    """Translate librdkafka's security settings into the Java client's.

    Args:
        config: Settings by librdkafka's names; those that are not about security are left out.

    Returns:
        Settings by the Java client's names, without a prefix.

    Raises:
        OSError: A certificate or key file cannot be read.
    """
    java = {k: v for k, v in config.items() if k.startswith(("security.", "sasl.", "ssl."))}
    if mechanism := java.pop("sasl.mechanisms", None):
        java["sasl.mechanism"] = mechanism
    user, password = java.pop("sasl.username", None), java.pop("sasl.password", None)
    if user is not None:
        kind = "scram.Scram" if java.get("sasl.mechanism", "").startswith("SCRAM") else "plain.Plain"
        quoted = [json.dumps(text or "") for text in (user, password)]
        java["sasl.jaas.config"] = (
            f"org.apache.kafka.common.security.{kind}LoginModule required username={quoted[0]} password={quoted[1]};"
        )
    # The Java client reads PEM only as text, or as one file with both key and certificate.
    for ours, theirs, store in (
        ("ssl.ca", "ssl.truststore.certificates", "ssl.truststore.type"),
        ("ssl.certificate", "ssl.keystore.certificate.chain", "ssl.keystore.type"),
        ("ssl.key", "ssl.keystore.key", "ssl.keystore.type"),
    ):
        file, text = java.pop(f"{ours}.location", None), java.pop(f"{ours}.pem", None)
        if file or text:
            java |= {theirs: text or Path(str(file)).read_text(encoding="ascii"), store: "PEM"}
    if java.get("ssl.endpoint.identification.algorithm") == "none":
        java["ssl.endpoint.identification.algorithm"] = ""
    return java
