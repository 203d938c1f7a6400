"""The same load on Apache Kafka and on us, from the same client, side by side."""
