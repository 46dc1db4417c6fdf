"""The embedded stack: Kafka broker and PostgreSQL for one machine, on loopback."""
