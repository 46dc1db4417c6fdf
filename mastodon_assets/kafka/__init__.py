"""Kafka clients, topics and the publisher that several stages share."""
