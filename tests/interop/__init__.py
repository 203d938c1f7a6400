"""Kafka's own clients, unmodified, against real brokers; what they did is judged by the log."""
