"""Bytes to values and back: Kafka messages, record batches, streams between brokers."""
