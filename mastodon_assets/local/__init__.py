"""The embedded stack: Kafka broker, PostgreSQL and Java for one machine, on loopback."""
