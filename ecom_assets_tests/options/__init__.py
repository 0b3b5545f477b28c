"""What the default leaves switched off, on real servers: a lake in HDFS, a Kafka that asks for a password."""
