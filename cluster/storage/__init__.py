"""The log on disk in Kafka's format, over an injected Disk."""
