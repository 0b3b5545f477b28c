"""Kafka: clients, the ledger, the transactional producer, readers and the simulator; the layer topic."""
