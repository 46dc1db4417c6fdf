"""Mastodon to Kafka to Spark to PostgreSQL to sentiment to charts, as one Dagster asset graph."""
