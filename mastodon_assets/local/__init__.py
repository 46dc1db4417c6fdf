"""The embedded stack: a Kafka broker, a PostgreSQL server and Java, for one machine, on loopback."""
