"""Mastodon to Kafka: a supervisor, one worker per source, recovery of what a stream missed."""
