"""Dagster resources: Spark, Kafka, PostgreSQL, model store."""
